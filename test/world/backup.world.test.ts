import { spawn } from "node:child_process";
import { type KeyObject, randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { LAUNCHER } from "../../src/cli/self.ts";
import { IrpClient } from "../../src/irp/client.ts";
import { AppPasswords } from "../../src/node/app-passwords.ts";
import { loadConfig } from "../../src/node/config.ts";
import { approved } from "../../src/node/enrol.ts";
import { type Home, homeAt } from "../../src/node/home.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { PeerNode } from "../../src/node/node.ts";
import { State } from "../../src/node/state.ts";
import { type Certificate, parseCertificate, peerCertificate } from "../../src/pki/certificate.ts";
import { makeCsr } from "../../src/pki/csr.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import { pemToDer } from "../../src/pki/pem.ts";
import { readPkcs12 } from "../../src/smime/pkcs12-read.ts";
import { seal } from "../../src/smime/seal.ts";
import { openssl } from "../support/openssl.ts";
import { enrolPerson, type RunningDomain, renewAll, startDomain, startNode } from "../support/people.ts";
import { bytesOf, Pieces } from "../support/smime.ts";
import { temporaryFolder } from "../support/tmp.ts";

async function sixtalk(home: Home, args: readonly string[], input = "") {
  const child = spawn(process.execPath, [LAUNCHER, "--home", home.directory, ...args]);
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => {
    out += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk.toString();
  });
  child.stdin.on("error", () => undefined);
  child.stdin.end(input);
  const [code] = (await once(child, "close")) as [number | null];
  return { out, err, code };
}

const GENERATED = /^ {2}((?:[0-9A-Z]{4}-){5}[0-9A-Z]{4})$/m;

/** Has the node renew its certificates, so that there is a former one. */
async function renewed(home: Home, domain: RunningDomain): Promise<void> {
  renewAll(domain);
  const file = join(home.keys, "enrolment.json");
  const told = JSON.parse(readFileSync(file, "utf8")) as object;
  writeFileSync(file, JSON.stringify({ ...told, renewAfter: { auth: 1, encryption: 1 } }));
  const node = await startNode(home, readFileSync(home.config, "utf8"));
  try {
    await expect.poll(() => node.keys.encryption.length, { timeout: 20_000 }).toBe(2);
  } finally {
    await node.stop();
  }
}

/** What `openssl cms` seals to that certificate, as a mail. */
async function sealedTo(folder: string, certificate: string): Promise<string> {
  const plain = join(folder, "plain");
  const sealed = join(folder, "sealed.p7m");
  writeFileSync(plain, "Content-Type: text/plain\r\n\r\nfrom long ago\r\n");
  const args = ["-encrypt", "-binary", "-aes-256-cbc", "-in", plain, "-outform", "DER", "-out", sealed, certificate];
  expect((await openssl(["cms", ...args])).code).toBe(0);
  return sealed;
}

test("wiped and restored, a node is the same person: keys, contacts, passwords; it opens what was sealed to a former certificate", async () => {
  await using folder = await temporaryFolder();
  const domain: RunningDomain = await startDomain(folder.path, "alpha.test");
  try {
    const home = await enrolPerson(folder.path, domain, "alice");
    const first = pemToDer(readFileSync(join(home.keys, "encryption-1.pem"), "utf8"), "CERTIFICATE");
    const former = parseCertificate(first[0] ?? new Uint8Array());
    const sealed = await sealedTo(folder.path, join(home.keys, "encryption-1.pem"));
    await renewed(home, domain);
    const bob = parseIdentity("bob@alpha.test");
    const state = new State(home.state);
    state.addContact(bob, "Bob", new Date());
    state.close();
    // An anchor that lies elsewhere comes along; what is named absolutely becomes relative to the new home.
    const elsewhere = join(folder.path, "elsewhere.pem");
    writeFileSync(elsewhere, readFileSync(join(home.anchors, "alpha.test.pem")));
    const config = parse(readFileSync(home.config, "utf8")) as object;
    writeFileSync(
      home.config,
      stringify({ ...config, trust: { anchors: [{ name: "other", file: elsewhere, domains: ["other.test"] }] } }),
    );
    const before = new KeyFiles(home).load();

    const file = join(folder.path, "alice.p12");
    const made = await sixtalk(home, ["backup", file]);
    expect(made).toMatchObject({ code: 0, err: "" });
    expect(made.out).toContain("alice@alpha.test, 2 keys, 3 certificates");
    const [, passphrase = ""] = GENERATED.exec(made.out) ?? [];
    expect(statSync(file).mode & 0o077).toBe(0);
    expect((await sixtalk(home, ["backup", file])).err).toContain("there is such a file already");
    expect(readdirSync(home.directory).filter((name) => name.startsWith("backup-"))).toEqual([]);
    // Any program that reads PKCS#12 gets at the keys.
    const read = await openssl(["pkcs12", "-in", file, "-nodes", "-passin", `pass:${passphrase}`]);
    expect(read.output.match(/BEGIN PRIVATE KEY/g), read.output).toHaveLength(2);

    // A home in use is left alone; a wrong passphrase writes nothing.
    const inUse = await sixtalk(home, ["restore", file], `${passphrase}\n`);
    expect(inUse).toMatchObject({ code: 1, err: expect.stringContaining("this home is in use") as unknown });
    renameSync(home.directory, join(folder.path, "gone"));
    rmSync(elsewhere);
    const wrong = await sixtalk(home, ["restore", file], "0000-0000-0000-0000-0000-0000\n");
    expect(wrong.code).toBe(1);
    expect(wrong.err).toMatch(/^sixtalk: the passphrase is not the right one, or the file is damaged\n$/);
    expect(readdirSync(folder.path).filter((name) => name.startsWith("alice"))).toEqual(["alice.p12"]);

    // What a restore that was killed left behind is removed; typed as from paper, into an empty folder.
    mkdirSync(join(folder.path, "alice.restoring-abc/keys"), { recursive: true });
    mkdirSync(home.directory);
    const back = await sixtalk(home, ["restore", file], `${passphrase.toLowerCase().replaceAll("-", " ")}\n`);
    expect(back).toMatchObject({ code: 0, err: "" });
    expect(back.out).toContain("You are alice@alpha.test, with 2 keys.");
    expect(readdirSync(folder.path).filter((name) => name.startsWith("alice"))).toEqual(["alice", "alice.p12"]);
    for (const name of readdirSync(home.keys).filter((one) => one.endsWith(".key")))
      expect(statSync(join(home.keys, name)).mode & 0o077, name).toBe(0);
    expect(statSync(home.directory).mode & 0o077).toBe(0);

    const opened = join(folder.path, "opened");
    const recipient = ["-recip", join(home.keys, "encryption-1.pem"), "-inkey", join(home.keys, "encryption-1.key")];
    const cms = ["cms", "-decrypt", "-binary", "-inform", "DER", "-in", sealed, "-out", opened];
    expect((await openssl([...cms, ...recipient])).code).toBe(0);
    const said = await sixtalk(home, ["open", sealed, "--unsigned", "--out", join(folder.path, "by-us")]);
    expect(said).toMatchObject({ code: 0, err: "" });
    expect(readFileSync(join(folder.path, "by-us"), "utf8")).toContain("from long ago");

    renewAll(domain);
    const clock = () => new Date();
    const node = await PeerNode.start({
      ...{ home, config: loadConfig(home.config), log: silentLog, clock },
      cut: () => undefined,
    });
    try {
      expect(node.keys.auth.certificate.fingerprint).toBe(before.auth.certificate.fingerprint);
      expect(node.keys.encryption.map(({ certificate }) => certificate.sha256)).toContain(former.sha256);
      expect(node.state.contacts().map(({ identity }) => identity)).toEqual([bob]);
      expect(node.keys.uuid).toBe(before.uuid);
      // It asks for fresh certificates, and the directory has it as it is.
      await expect.poll(() => node.keys.encryption.length, { timeout: 20_000 }).toBe(3);
      const newest = () => node.keys.encryption[0]?.certificate as Certificate;
      const published = async () => {
        const record = await node.directory.lookup(node.identity, { fresh: true }, AbortSignal.timeout(5_000));
        return record.encryption[0]?.sha256;
      };
      await expect.poll(published, { timeout: 20_000 }).toBe(newest().sha256);
    } finally {
      await node.stop();
    }
  } finally {
    await domain.server.stop();
  }
});

test("the mail program's file has all keys, the old form the current one; neither is a backup", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  try {
    const home = await enrolPerson(folder.path, domain, "alice");
    const { auth, encryption } = new KeyFiles(home).load();
    const exported = async (name: string, ...more: string[]) => {
      const file = join(folder.path, name);
      const { out, err, code } = await sixtalk(home, ["export-p12", file, ...more]);
      expect({ err, code }).toEqual({ err: "", code: 0 });
      const [, passphrase = ""] = GENERATED.exec(out) ?? [];
      return { file, passphrase, p12: await readPkcs12(readFileSync(file), passphrase) };
    };
    const whole = await exported("whole.p12");
    expect(whole.p12.keys.map(({ certificates }) => certificates.map(({ sha256 }) => sha256))).toEqual([
      [encryption[0]?.certificate.sha256],
      [auth.certificate.sha256],
    ]);
    expect(whole.p12.certificates.map(({ sha256 }) => sha256)).toContain(domain.root.sha256);
    const old = await exported("old.p12", "--legacy");
    expect(old.p12.keys).toHaveLength(1);
    const shown = await openssl([
      "pkcs12",
      "-in",
      old.file,
      "-info",
      "-noout",
      "-legacy",
      "-passin",
      `pass:${old.passphrase}`,
    ]);
    expect(shown.output).toContain("pbeWithSHA1And3-KeyTripleDES-CBC");

    const own = join(folder.path, "own");
    writeFileSync(own, "correct horse battery\nnot this line\n");
    const byOwn = join(folder.path, "own.p12");
    expect(await sixtalk(home, ["export-p12", byOwn, "--passphrase-file", own])).toMatchObject({ code: 0, err: "" });
    expect((await readPkcs12(readFileSync(byOwn), "correct horse battery")).keys).toHaveLength(2);
    const legacy = await sixtalk(home, ["export-p12", `${byOwn}2`, "--legacy", "--passphrase-file", own]);
    expect(legacy).toMatchObject({ code: 1, err: expect.stringContaining("a generated passphrase") as unknown });
    writeFileSync(own, "short\n");
    const short = await sixtalk(home, ["backup", `${byOwn}2`, "--passphrase-file", own]);
    expect(short).toMatchObject({ code: 1, err: expect.stringContaining("14 characters") as unknown });
    expect(existsSync(`${byOwn}2`)).toBe(false);

    const other = homeAt(join(folder.path, "other"), {});
    const none = await sixtalk(other, ["restore", whole.file], `${whole.passphrase}\n`);
    expect(none).toMatchObject({ code: 1, err: expect.stringContaining("no backup of a home") as unknown });
    expect(existsSync(other.directory)).toBe(false);
  } finally {
    await domain.server.stop();
  }
});

test("a node that runs is backed up as it is at that moment", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const home = await enrolPerson(folder.path, domain, "alice");
  const node = await startNode(home, readFileSync(home.config, "utf8"));
  try {
    const bob = parseIdentity("bob@alpha.test");
    await node.addContact(bob, "Bob"); // which lies in the write-ahead log
    const { password } = node.access.create("mail", new Date(), randomBytes);
    const file = join(folder.path, "alice.p12");
    const { out, err } = await sixtalk(home, ["backup", file]);
    expect(err).toBe("");
    await node.addContact(parseIdentity("carol@alpha.test"), "Carol"); // too late
    mkdirSync(join(folder.path, "disk"));
    symlinkSync(join(folder.path, "disk"), join(folder.path, "copy"));
    const copy = homeAt(join(folder.path, "copy"), {});
    const [, passphrase = ""] = GENERATED.exec(out) ?? [];
    expect(await sixtalk(copy, ["restore", file], `${passphrase}\n`)).toMatchObject({ code: 0, err: "" });
    const state = new State(copy.state);
    try {
      expect(state.contacts().map(({ identity }) => identity)).toEqual([bob]);
      expect(new AppPasswords(state, node.identity).verify("alice", password)).toBeDefined();
    } finally {
      state.close();
    }
    // Programs that trust the local CA need not be told again.
    for (const name of ["anchors/local-ca.pem", "keys/local-ca.key"])
      expect(readFileSync(join(copy.directory, name))).toEqual(readFileSync(join(home.directory, name)));
  } finally {
    await node.stop();
    await domain.server.stop();
  }
});

/** A request that the CA has not seen: for the same one it gives, for a day, the certificate that it gave before. */
async function renewedForReal(files: KeyFiles, domain: RunningDomain): Promise<void> {
  const { auth, encryption } = files.load();
  const privateKey = encryption[0]?.privateKey as KeyObject;
  const signal = AbortSignal.timeout(10_000);
  const trust = { anchors: [{ name: domain.name, certificate: domain.root }] };
  const at = { address: domain.server.ports.irp, domain: domain.name, credentials: auth, clock: () => new Date() };
  const client = await IrpClient.connect({ ...at, trust }, signal);
  try {
    await client.authenticateByCertificate();
    const csr = makeCsr({ privateKey, commonName: "renewed" });
    const { certificates, renewAfter } = await approved(await client.renew("encryption", "same", csr), client, signal);
    files.storeRenewed("encryption", privateKey, certificates, renewAfter);
  } finally {
    client.close();
  }
}

test("mail that was sealed to a certificate newer than the backup opens in the restored home", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const home = await enrolPerson(folder.path, domain, "alice");
  const bob = new KeyFiles(await enrolPerson(folder.path, domain, "bob")).load().auth;
  try {
    const file = join(folder.path, "alice.p12");
    const { out } = await sixtalk(home, ["backup", file]);
    const [, passphrase = ""] = GENERATED.exec(out) ?? [];
    const files = new KeyFiles(home);
    await renewedForReal(files, domain);
    const [renewal] = files.load().encryption;
    const recipient = peerCertificate(renewal?.certificate as Certificate);
    // The node of before published it; by then nobody has it but the directory and those who sealed to it.
    const running = await startNode(home, readFileSync(home.config, "utf8"));
    try {
      const published = async () => {
        const record = await running.directory.lookup(running.identity, { fresh: true }, AbortSignal.timeout(5_000));
        return record.encryption[0]?.sha256;
      };
      await expect.poll(published, { timeout: 20_000 }).toBe(recipient.sha256);
    } finally {
      await running.stop();
    }
    rmSync(home.directory, { recursive: true });
    expect(await sixtalk(home, ["restore", file], `${passphrase}\n`)).toMatchObject({ code: 0, err: "" });
    expect(new KeyFiles(home).load().encryption.map(({ certificate }) => certificate.sha256)).not.toContain(
      recipient.sha256,
    );

    const sealed = async (messageId: string) => {
      const head = `From: bob@alpha.test\r\nTo: alice@alpha.test\r\nMessage-ID: <${messageId}>\r\n`;
      const entity = `${head}Content-Type: text/plain\r\n\r\nto the renewed one\r\n`;
      const o = { signer: bob, now: new Date(), recipients: [recipient], profile: "peer", shape: "detached" } as const;
      return bytesOf(seal(new Pieces(Buffer.from(entity)), o));
    };
    const peer = {
      identity: parseIdentity("bob@alpha.test"),
      fingerprint: bob.certificate.fingerprint,
      certificate: peerCertificate(bob.certificate),
    };
    const started = { home, config: loadConfig(home.config), log: silentLog, clock: () => new Date() };
    renewAll(domain);
    const node = await PeerNode.start({ ...started, cut: () => undefined });
    try {
      // As soon as anybody can come in.
      const receive = async (id: string) => {
        const source = new Pieces(await sealed(id));
        return node.inbox.receiveSealed({ kind: "mail", peer, source, maxBytes: 1e6 }, AbortSignal.timeout(5_000));
      };
      expect(await receive("1@alpha.test")).toMatchObject({ duplicate: false });
      await expect.poll(() => node.keys.encryption.length, { timeout: 20_000 }).toBe(3); // by its own renewal
      expect(await receive("2@alpha.test")).toMatchObject({ duplicate: false });
    } finally {
      await node.stop();
    }
    expect(new KeyFiles(home).load().encryption.map(({ certificate }) => certificate.sha256)).toContain(
      recipient.sha256,
    );
    writeFileSync(join(folder.path, "sealed.p7m"), await sealed("3@alpha.test"));
    const opened = await sixtalk(home, ["open", join(folder.path, "sealed.p7m"), "--out", join(folder.path, "opened")]);
    expect(opened).toMatchObject({ code: 0, err: "" });
    expect(readFileSync(join(folder.path, "opened"), "utf8")).toContain("to the renewed one");
  } finally {
    await domain.server.stop();
  }
});
