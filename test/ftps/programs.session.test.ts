import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../support/openssl.ts";
import { type FileNode, FileWorld, PASSWORD, pieces, startFileNode } from "./file-node.ts";

const folder = temporaryFolder();
const world = new FileWorld();
const ca = join(folder.path, "ca.pem");
let alice: FileNode;
let bob: FileNode;

beforeAll(async () => {
  alice = await startFileNode(world, world.person("alice"), folder.path);
  bob = await startFileNode(world, world.person("bob"), folder.path);
  writeFileSync(ca, world.localCa);
});
afterAll(async () => {
  await alice[Symbol.asyncDispose]();
  await bob[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

function run(program: string, args: readonly string[]): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, HOME: folder.path },
    });
    let output = "";
    const take = (chunk: Buffer) => {
      output += chunk.toString("utf8");
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code, output });
    });
  });
}

const curl = (node: FileNode, ...args: string[]) =>
  run("curl", ["-sS", "-v", "--cacert", ca, "--ssl-reqd", "-u", `${node.person.identity}:${PASSWORD}`, ...args]);

const lftp = (node: FileNode, commands: string, settings = "") =>
  run("lftp", [
    "-c",
    `set ssl:ca-file ${ca}; set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set net:max-retries 1; set net:timeout 8;
     ${settings} open -u ${node.person.identity.split("@")[0]},${PASSWORD} ftp://localhost:${node.port}; ${commands}`,
  ]);

const url = (node: FileNode, path: string) => `ftp://localhost:${node.port}${path}`;

async function delivered(node: FileNode, name: string): Promise<string> {
  const [item] = (await node.store.items({ box: "sent", kind: "file" })).filter(({ fileName }) => fileName === name);
  if (item === undefined) throw new Error(`${name} was not accepted`);
  return node.outbox.settled(item.id, AbortSignal.timeout(10_000));
}

function newFile(name: string, bytes: Buffer): string {
  const path = join(folder.path, name);
  writeFileSync(path, bytes);
  return path;
}

test("curl puts a file into a peer's folder, and the peer's curl gets it out of the inbox, equal", async () => {
  const bytes = randomBytes(3_000_001);
  const file = newFile("c.bin", bytes);
  const put = await curl(alice, "-T", file, url(alice, "/peers/bob@alpha.test/"));
  expect(put.code, put.output).toBe(0);
  expect(await delivered(alice, "c.bin")).toBe("delivered");
  const got = join(folder.path, "c.got");
  const get = await curl(bob, "-o", got, url(bob, "/inbox/alice@alpha.test/c.bin"));
  expect(get.code, get.output).toBe(0);
  expect(readFileSync(got).equals(bytes)).toBe(true);
});

test.each([
  ["TLS 1.2", ["--tls-max", "1.2"]],
  ["PASV", ["--disable-epsv"]],
  ["data in clear", ["--ftp-ssl-control"]],
])("curl works by %s, both ways", async (name, how) => {
  const bytes = randomBytes(1_000_001);
  const file = newFile(`curl ${name}.bin`, bytes);
  const put = await curl(alice, ...how, "-T", file, url(alice, "/peers/bob@alpha.test/"));
  expect(put.code, put.output).toBe(0);
  expect(await delivered(alice, `curl ${name}.bin`)).toBe("delivered");
  const got = join(folder.path, `${name}.got`);
  const from = url(bob, `/inbox/alice@alpha.test/curl%20${encodeURIComponent(name)}.bin`);
  const get = await curl(bob, ...how, "-o", got, from);
  expect(get.code, get.output).toBe(0);
  expect(readFileSync(got).equals(bytes)).toBe(true);
});

test("curl goes on with a download in the middle", async () => {
  const bytes = randomBytes(200_000);
  const item = await alice.ftps.send({ to: [bob.person.identity], name: "part.bin", source: pieces(bytes) });
  await alice.outbox.settled(item, AbortSignal.timeout(10_000));
  const got = newFile("part.got", bytes.subarray(0, 70_001));
  const get = await curl(bob, "-C", "-", "-o", got, url(bob, "/inbox/alice@alpha.test/part.bin"));
  expect(get.code, get.output).toBe(0);
  expect(readFileSync(got).equals(bytes)).toBe(true);
});

test("lftp puts a file with data in TLS, lists it, and the peer's lftp gets it, equal", async () => {
  const bytes = randomBytes(2_000_003);
  const file = newFile("l.bin", bytes);
  const put = await lftp(alice, `cd /peers/bob@alpha.test; put ${file}; cls -l`);
  expect(put.code, put.output).toBe(0);
  expect(put.output).toMatch(/2000003 .*l\.bin/);
  expect(await delivered(alice, "l.bin")).toBe("delivered");
  const got = join(folder.path, "l.got");
  const get = await lftp(bob, `cd /inbox/alice@alpha.test; get l.bin -o ${got}`);
  expect(get.code, get.output).toBe(0);
  expect(readFileSync(got).equals(bytes)).toBe(true);
});

test.each([
  ["PASV", "set ftp:prefer-epsv no;"],
  ["data in clear", "set ftp:ssl-protect-data no;"],
])("lftp works by %s", async (name, settings) => {
  const bytes = randomBytes(100_001);
  const file = newFile(`${name.replaceAll(" ", "-")}.bin`, bytes);
  const put = await lftp(alice, `cd /peers/bob@alpha.test; put ${file}`, settings);
  expect(put.code, put.output).toBe(0);
  expect(await delivered(alice, `${name.replaceAll(" ", "-")}.bin`)).toBe("delivered");
});

test("lftp mirrors the whole inbox with four connections", async () => {
  const target = join(folder.path, "mirror");
  const mirrored = await lftp(bob, `mirror -P4 /inbox ${target}`);
  expect(mirrored.code, mirrored.output).toBe(0);
  for (const { fileName = "", size } of await bob.store.items({ box: "inbox", kind: "file" })) {
    expect(readFileSync(join(target, "alice@alpha.test", fileName)).length).toBe(size);
  }
});

test("Python's ftplib, which resumes no TLS session, puts and gets a file", async () => {
  const file = newFile("p.bin", randomBytes(300_001));
  const script = `
import ftplib, ssl, sys
c = ssl.create_default_context(cafile=${JSON.stringify(ca)})
f = ftplib.FTP_TLS(context=c)
f.connect('localhost', ${alice.port}); f.auth(); f.login('alice', ${JSON.stringify(PASSWORD)}); f.prot_p()
f.cwd('/peers/bob@alpha.test')
print(f.storbinary('STOR p.bin', open(${JSON.stringify(file)}, 'rb')))
names = [n for n, _ in f.mlsd()]; f.voidcmd('TYPE I')
print(names, f.size('p.bin'), f.nlst())
f.quit()`;
  const ran = await run("python3", ["-c", script]);
  expect(ran.code, ran.output).toBe(0);
  expect(ran.output).toContain("226 Accepted");
  expect(ran.output).toMatch(/'p\.bin'.* 300001 /);
  expect(await delivered(alice, "p.bin")).toBe("delivered");
});

test("a file for somebody whom the directory does not know is refused before a byte of it is sent", async () => {
  const file = newFile("n.bin", randomBytes(10));
  const put = await curl(alice, "-T", file, url(alice, "/peers/nobody@alpha.test/"));
  expect(put.code, put.output).toBe(9);
  expect(put.output).toContain("< 550 No such file or directory.");
});
