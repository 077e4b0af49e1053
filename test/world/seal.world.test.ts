import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { serveControl } from "../../src/node/control.ts";
import { homeAt, makeHome } from "../../src/node/home.ts";
import { controlMethods } from "../../src/node/methods.ts";
import type { PeerNode } from "../../src/node/node.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { openssl, pemFiles, temporaryFolder } from "../support/openssl.ts";
import { enrolPerson, type RunningDomain, startDomain, startNode } from "../support/people.ts";
import { makeTestDomain } from "../support/pki.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const folder = temporaryFolder();
const path = (name: string) => join(folder.path, name);
const outside = makeTestDomain({ domain: "outside.test" });
const carol = outside.person({ identity: "carol@outside.test" });
const files = {
  auth: pemFiles(folder.path, "carol", carol.auth),
  encryption: pemFiles(folder.path, "carol-e", carol.encryption),
};
let alpha: RunningDomain;
let alice: PeerNode;
let bob: PeerNode;
let control: { close(): Promise<void> };

beforeAll(async () => {
  alpha = await startDomain(folder.path, "alpha.test");
  for (const name of ["alice", "bob"]) await enrolPerson(folder.path, alpha, name);
  const start = (name: string) => {
    const home = path(name);
    return startNode(homeAt(home, {}), readFileSync(join(home, "sixtalk.yaml"), "utf8"));
  };
  alice = await start("alice");
  control = await serveControl(homeAt(path("alice"), {}).control, controlMethods(alice), silentLog);
  bob = await start("bob");
  writeFileSync(path("root.pem"), derToPem(alpha.root.der, "CERTIFICATE"));
  writeFileSync(path("outside.pem"), derToPem(outside.root.certificate.der, "CERTIFICATE"));
  writeFileSync(
    path("carol.both.pem"),
    readFileSync(files.auth.certificate, "utf8") + readFileSync(files.auth.chain, "utf8"),
  );
}, 60_000);

afterAll(async () => {
  await control.close();
  await alice.stop();
  await bob.stop();
  await alpha.server.stop();
  folder[Symbol.dispose]();
});

async function sixtalk(home: string, ...args: string[]): Promise<{ out: string; err: string; code: number | null }> {
  const child = spawn(process.execPath, [join(root, "bin/sixtalk.js"), "--home", path(home), ...args], {
    cwd: folder.path,
  });
  const text = { out: "", err: "" };
  child.stdout.on("data", (chunk: Buffer) => void (text.out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => void (text.err += chunk.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  return { ...text, code };
}

test("a file for somebody whom the node looks up is opened by him, and says who signed it", async () => {
  const content = randomBytes(2_000_000);
  writeFileSync(path("report"), content);
  const sealed = await sixtalk("alice", "seal", "report", "--to", "bob@alpha.test");
  expect(sealed).toMatchObject({
    code: 0,
    err: "",
    out: expect.stringMatching(/report\.p7m: aes-256-gcm, for bob@alpha\.test\n$/),
  });
  expect(await sixtalk("alice", "seal", "report", "--to", "bob@alpha.test")).toMatchObject({
    code: 1,
    err: expect.stringContaining("there is a file of that name already"),
  });
  const opened = await sixtalk("bob", "open", "report.p7m", "--out", "opened");
  expect(opened).toMatchObject({ code: 0, err: "" });
  expect(opened.out).toMatch(/opened: sealed \(aes-256-gcm\)\nsigned by alice@alpha\.test at .*: trusted\n$/);
  expect(readFileSync(path("opened")).equals(content)).toBe(true);
  expect(await sixtalk("alice", "open", "report.p7m", "--out", "not-mine")).toMatchObject({
    code: 1,
    err: expect.stringContaining("no key of ours opens the seal"),
  });
  const bytes = readFileSync(path("report.p7m"));
  bytes[1_000_000] = (bytes[1_000_000] ?? 0) ^ 1;
  writeFileSync(path("tampered.p7m"), bytes);
  expect(await sixtalk("bob", "open", "tampered.p7m", "--out", "tampered", "--unsigned")).toMatchObject({
    code: 1,
    err: "sixtalk: the seal cannot be opened\n",
  });
  expect(existsSync(path("tampered"))).toBe(false);
  expect(readdirSync(folder.path).filter((name) => name.startsWith(".sixtalk-"))).toEqual([]);
}, 60_000);

test("openssl opens and verifies what is sealed to a certificate; what openssl wrote is opened, if somebody trusted signed it", async () => {
  writeFileSync(path("note"), "a note\n");
  const keys = ["--cert", files.encryption.certificate, "--key", files.encryption.key];
  expect(await sixtalk("alice", "seal", "note", "--to", files.encryption.certificate)).toMatchObject({
    code: 0,
    out: expect.stringContaining("aes-256-cbc"),
  });
  const decrypt = ["cms", "-decrypt", "-binary", "-inform", "DER", "-in", path("note.p7m"), "-out", path("note.p7s")];
  expect(
    await openssl([...decrypt, "-recip", files.encryption.certificate, "-inkey", files.encryption.key]),
  ).toMatchObject({ code: 0 });
  const verify = ["cms", "-verify", "-binary", "-inform", "DER", "-in", path("note.p7s"), "-CAfile", path("root.pem")];
  expect(await openssl([...verify, "-out", path("note.out")])).toMatchObject({ code: 0 });
  expect(readFileSync(path("note.out"), "utf8")).toBe("a note\n");

  const sign = ["cms", "-sign", "-binary", "-nodetach", "-in", path("note"), "-signer", files.auth.certificate];
  await openssl([
    ...sign,
    "-inkey",
    files.auth.key,
    "-certfile",
    files.auth.chain,
    "-outform",
    "DER",
    "-out",
    path("theirs.p7s"),
  ]);
  const encrypt = [
    "cms",
    "-encrypt",
    "-binary",
    "-aes-256-gcm",
    "-in",
    path("theirs.p7s"),
    "-outform",
    "DER",
    "-out",
    path("theirs.p7m"),
  ];
  expect(await openssl([...encrypt, files.encryption.certificate])).toMatchObject({ code: 0 });
  const stranger = await sixtalk("alice", "open", "theirs.p7m", ...keys, "--out", "theirs");
  expect(stranger).toMatchObject({
    code: 1,
    err: "sixtalk: who signed it is not trusted (by: carol@outside.test: issuer-unknown)\n",
  });
  expect(existsSync(path("theirs"))).toBe(false);
  const known = await sixtalk("alice", "open", "theirs.p7m", ...keys, "--anchor", "outside.pem", "--out", "theirs");
  expect(known).toMatchObject({ code: 0, out: expect.stringContaining("signed by carol@outside.test") });
  expect(readFileSync(path("theirs"), "utf8")).toBe("a note\n");

  // A signature around somebody's ciphertext says nothing of who wrote what is in it.
  await openssl([...encrypt.slice(0, 5), path("note"), ...encrypt.slice(6), files.encryption.certificate]);
  const around = ["cms", "-sign", "-binary", "-nodetach", "-in", path("theirs.p7m"), "-signer", files.auth.certificate];
  await openssl([
    ...[...around, "-inkey", files.auth.key, "-certfile", files.auth.chain],
    ...["-outform", "DER", "-out", path("around.p7s")],
  ]);
  const taken = ["open", "around.p7s", ...keys, "--anchor", "outside.pem", "--out", "taken"];
  expect(await sixtalk("alice", ...taken)).toMatchObject({ code: 1, err: "sixtalk: nobody signed it\n" });
  expect(await sixtalk("alice", ...taken, "--unsigned")).toMatchObject({
    code: 0,
    out: expect.stringContaining("encrypted (aes-256-gcm)"),
  });
  expect(readFileSync(path("taken"), "utf8")).toBe("a note\n");
}, 60_000);

test("what cannot be read, or written to, is told by name, and a pipe is sealed whole", async () => {
  const keys = ["--cert", files.encryption.certificate, "--key", files.encryption.key];
  const socket = createServer().listen(path("socket"));
  await once(socket, "listening");
  const to = ["--to", files.encryption.certificate];
  const said = async (...args: string[]) => (await sixtalk("alice", ...args)).err;
  expect(await said("seal", "socket", ...to)).toBe("sixtalk: the file cannot be read (file: socket)\n");
  expect(await said("open", "socket", ...keys, "--out", "x")).toBe("sixtalk: the file cannot be read (file: socket)\n");
  expect(await said("verify", ".")).toBe("sixtalk: this is a folder, not a file (file: .)\n");
  socket.close();
  writeFileSync(path("note"), "a note\n");
  await sixtalk("alice", "seal", "note", ...to, "--out", "missing.p7m");
  const elsewhere = join("missing", "folder", "x");
  expect(await said("open", "missing.p7m", ...keys, "--out", elsewhere)).toMatch(
    /^sixtalk: nothing can be written.*\n$/,
  );
  const pipe = spawn(
    "sh",
    [
      "-c",
      'head -c 3000000 /dev/zero | "$@"',
      "sh",
      process.execPath,
      join(root, "bin/sixtalk.js"),
      "--home",
      path("alice"),
      "seal",
      "/dev/stdin",
      ...to,
      "--out",
      "piped.p7m",
    ],
    { cwd: folder.path },
  );
  expect(await once(pipe, "close")).toEqual([0, null]);
  expect(await sixtalk("alice", "open", "piped.p7m", ...keys, "--anchor", "root.pem", "--out", "piped")).toMatchObject({
    code: 0,
  });
  expect(readFileSync(path("piped")).equals(Buffer.alloc(3_000_000))).toBe(true);
}, 60_000);

test("verify tells whose a signature is; detached from its content, and of content that was changed", async () => {
  writeFileSync(path("contract"), "the contract\n");
  const sign = [
    "cms",
    "-sign",
    "-binary",
    "-in",
    path("contract"),
    "-signer",
    files.auth.certificate,
    "-inkey",
    files.auth.key,
  ];
  await openssl([...sign, "-certfile", files.auth.chain, "-outform", "DER", "-out", path("contract.p7s")]);
  const verify = (content: string) =>
    sixtalk("nobody", "verify", "contract.p7s", "--content", content, "--anchor", "outside.pem", "--json");
  const good = await verify("contract");
  expect(JSON.parse(good.out)).toMatchObject({
    protection: "signed",
    signers: [{ name: "carol@outside.test", trusted: true }],
  });
  writeFileSync(path("other"), "the contract!\n");
  expect(await verify("other")).toMatchObject({
    code: 1,
    out: "",
    err: expect.stringContaining("a signature does not hold"),
  });
  expect(await verify("missing")).toMatchObject({ code: 1, err: expect.stringContaining("there is no such file") });
  expect(await sixtalk("nobody", "verify", "contract", "--anchor", "outside.pem")).toMatchObject({
    code: 1,
    err: expect.stringContaining("not a well-formed seal (what: neither signed nor encrypted)"),
  });
  const signed = await sixtalk(
    "nobody",
    "seal",
    "contract",
    "--to",
    files.encryption.certificate,
    "--cert",
    "carol.both.pem",
    "--key",
    files.auth.key,
    "--gcm",
  );
  expect(signed).toMatchObject({ code: 0, out: expect.stringContaining("aes-256-gcm, for carol@outside.test") });
}, 60_000);

test("files of some MiB that openssl signed without signed attributes are verified and opened, changed ones are not", async () => {
  const content = randomBytes(3_000_000);
  writeFileSync(path("scan"), content);
  const by = ["-signer", files.auth.certificate, "-inkey", files.auth.key, "-certfile", files.auth.chain];
  const sign = ["cms", "-sign", "-binary", "-noattr", "-in", path("scan"), ...by, "-outform", "DER"];
  expect(await openssl([...sign, "-out", path("scan.p7s")])).toMatchObject({ code: 0 });
  expect(await openssl([...sign, "-nodetach", "-stream", "-out", path("scan.p7m")])).toMatchObject({ code: 0 });
  const verify = (...more: string[]) => sixtalk("nobody", "verify", ...more, "--anchor", "outside.pem");
  const holds = { code: 0, err: "", out: expect.stringContaining("signed by carol@outside.test") as unknown };
  const fails = { code: 1, out: "", err: expect.stringContaining("a signature does not hold") as unknown };
  expect(await verify("scan.p7s", "--content", "scan")).toMatchObject(holds);
  expect(await verify("scan.p7m")).toMatchObject(holds);
  const open = (file: string) => sixtalk("alice", "open", file, "--anchor", "outside.pem", "--out", "scan.out");
  for (const [file, changed] of [
    ["scan", "scan.other"],
    ["scan.p7m", "scan.other.p7m"],
  ] as const) {
    const bytes = readFileSync(path(file));
    bytes.writeUInt8(bytes.readUInt8(2_000_000) ^ 1, 2_000_000);
    writeFileSync(path(changed), bytes);
  }
  expect(await verify("scan.p7s", "--content", "scan.other")).toMatchObject(fails);
  expect(await verify("scan.other.p7m")).toMatchObject(fails);
  expect(await open("scan.other.p7m")).toMatchObject(fails);
  expect(existsSync(path("scan.out"))).toBe(false);
  expect(await open("scan.p7m")).toMatchObject(holds);
  expect(readFileSync(path("scan.out")).equals(content)).toBe(true);
}, 60_000);

test("who has an RSA key signs by RSA-PSS if the setting or the command says so, else by PKCS #1", async () => {
  const rosa = outside.bad("rsa", "rosa@outside.test");
  const home = homeAt(path("rosa"), {});
  makeHome(home);
  const { certificate, chain, key } = pemFiles(home.keys, "auth", rosa);
  writeFileSync(certificate, readFileSync(certificate, "utf8") + readFileSync(chain, "utf8"));
  writeFileSync(join(home.keys, "enrolment.json"), '{"uuid": "-", "renewAfter": {"auth": 0, "encryption": 0}}');
  const configured = (smime: object) => {
    const directory = { host: "::1", anchor: path("outside.pem") };
    writeFileSync(home.config, stringify({ peer: { identity: "rosa@outside.test", name: "Rosa", directory, smime } }));
  };
  writeFileSync(path("letter"), "a letter\n");
  const given = ["--cert", certificate, "--key", key];
  for (const [n, [settings, more, algorithm]] of (
    [
      [{}, [], "sha256WithRSAEncryption"],
      [{ rsaSignature: "pkcs1" }, [], "sha256WithRSAEncryption"],
      [{ rsaSignature: "pss" }, [], "rsassaPss"],
      [{ rsaSignature: "pkcs1" }, ["--pss"], "rsassaPss"],
      [{ rsaSignature: "pss" }, given, "sha256WithRSAEncryption"],
      [{}, [...given, "--pss"], "rsassaPss"],
    ] as const
  ).entries()) {
    configured(settings);
    const to = ["--to", files.encryption.certificate, "--out", `letter-${n}.p7m`];
    expect(await sixtalk("rosa", "seal", "letter", ...to, ...more)).toMatchObject({ code: 0, err: "" });
    const io = ["-inform", "DER", "-in", path(`letter-${n}.p7m`), "-out", path("letter.p7s")];
    const recipient = ["-recip", files.encryption.certificate, "-inkey", files.encryption.key];
    expect(await openssl(["cms", "-decrypt", "-binary", ...io, ...recipient])).toMatchObject({ code: 0 });
    const shown = await openssl(["cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in", path("letter.p7s")]);
    const [, signature = ""] =
      /signatureAlgorithm:\s+algorithm: (\w+)/.exec(shown.output.slice(shown.output.indexOf("signerInfos:"))) ?? [];
    expect([n, signature]).toEqual([n, algorithm]);
    const verify = ["cms", "-verify", "-binary", "-inform", "DER", "-in", path("letter.p7s"), "-CAfile"];
    expect(await openssl([...verify, path("outside.pem"), "-out", path("letter.out")])).toMatchObject({ code: 0 });
    expect(readFileSync(path("letter.out"), "utf8")).toBe("a letter\n");
  }
}, 60_000);
