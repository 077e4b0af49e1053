import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { LAUNCHER } from "../../src/cli/self.ts";
import { homeAt, makeHome } from "../../src/node/home.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { passphraseOctets } from "../../src/smime/passphrase.ts";
import { pemFiles, temporaryFolder } from "../support/openssl.ts";
import { endless } from "../support/pkcs12.ts";
import { makeTestDomain } from "../support/pki.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());
const path = (name: string) => join(folder.path, name);
const domain = makeTestDomain({ domain: "alpha.test" });
const alice = domain.person({ identity: "alice@alpha.test", encryptionKey: "ec" });
const home = homeAt(path("alice"), {});
makeHome(home);
for (const [name, of] of [
  ["auth", alice.auth],
  ["encryption-1", alice.encryption],
] as const) {
  const { certificate, chain } = pemFiles(home.keys, name, of);
  writeFileSync(certificate, readFileSync(certificate, "utf8") + readFileSync(chain, "utf8"));
}
writeFileSync(join(home.keys, "enrolment.json"), '{"uuid": "-", "renewAfter": {"auth": 0, "encryption": 0}}');
writeFileSync(path("root.pem"), derToPem(domain.root.certificate.der, "CERTIFICATE"));
const directory = { host: "::1", anchor: path("root.pem") };
writeFileSync(home.config, stringify({ peer: { identity: alice.identity, name: "Alice", directory } }));

/** Ends the command when its thread derives a key, or when `begun` says so. */
async function interrupted(signal: "SIGINT" | "SIGTERM", at: string, ...args: string[]) {
  return interruptedWhen(undefined, signal, at, ...args);
}

async function interruptedWhen(
  begun: (() => boolean) | undefined,
  signal: "SIGINT" | "SIGTERM",
  at: string,
  ...args: string[]
) {
  const child = spawn(process.execPath, [LAUNCHER, "--home", at, ...args]);
  const text = { out: "", err: "" };
  child.stdout.on("data", (chunk: Buffer) => void (text.out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => void (text.err += chunk.toString()));
  const closed = once(child, "close") as Promise<[number | null]>;
  const threads = () => {
    const tasks = `/proc/${child.pid}/task`;
    try {
      return readdirSync(tasks).map((id) => readFileSync(`${tasks}/${id}/comm`, "utf8").trim());
    } catch {
      return []; // one of them has ended just now
    }
  };
  const patience = { timeout: 20_000, interval: 5 };
  if (begun === undefined) await expect.poll(threads, patience).toContain("WorkerThread");
  else await expect.poll(begun, patience).toBe(true);
  child.kill(signal);
  const began = performance.now();
  const [code] = await closed;
  return { ...text, code, promptly: performance.now() - began < 5_000 };
}

const gone = { code: 130, out: "", err: "sixtalk: interrupted; nothing was written\n", promptly: true };

test("Ctrl-C ends a backup and an export, and leaves no file", async () => {
  const before = readdirSync(folder.path);
  expect(await interrupted("SIGINT", home.directory, "backup", path("a.p12"))).toEqual(gone);
  expect(await interrupted("SIGINT", home.directory, "export-p12", path("b.p12"))).toEqual(gone);
  expect(await interrupted("SIGTERM", home.directory, "backup", path("a.p12"))).toEqual({ ...gone, code: 143 });
  expect(readdirSync(folder.path)).toEqual(before);
  expect(readdirSync(home.directory).filter((name) => name.startsWith("backup-"))).toEqual([]);
});

test("Ctrl-C ends a restore that takes long, and leaves no home", async () => {
  writeFileSync(path("passphrase"), "correct horse battery\n");
  writeFileSync(path("endless.p12"), endless("mac", passphraseOctets("correct horse battery")));
  const restore = ["restore", path("endless.p12"), "--passphrase-file", path("passphrase")];
  expect(await interrupted("SIGINT", path("other"), ...restore)).toEqual(gone);
  expect(existsSync(path("other"))).toBe(false);
  expect(readdirSync(folder.path).filter((name) => name.includes("restoring"))).toEqual([]);
});

test("Ctrl-C ends seal, open and verify in the middle of a large file, and leaves nothing of it", async () => {
  const large = path("large");
  writeFileSync(large, "");
  truncateSync(large, 400_000_000);
  const encryption = ["--cert", join(home.keys, "encryption-1.pem"), "--key", join(home.keys, "encryption-1.key")];
  const to = ["--to", join(home.keys, "encryption-1.pem"), "--gcm"];
  const seal = spawn(process.execPath, [LAUNCHER, "--home", home.directory, "seal", large, ...to]);
  expect(await once(seal, "close")).toEqual([0, null]);
  const before = readdirSync(folder.path);
  const parts = () =>
    (readdirSync(folder.path, { recursive: true }) as string[]).some((name) => name.endsWith(".part"));
  const end = (...args: string[]) => interruptedWhen(parts, "SIGINT", home.directory, ...args);
  expect(await end("seal", large, ...to, "--out", path("again.p7m"))).toEqual(gone);
  expect(await end("open", `${large}.p7m`, ...encryption, "--out", path("opened"))).toEqual(gone);
  expect(await end("verify", `${large}.p7m`)).toEqual(gone);
  expect(readdirSync(folder.path)).toEqual(before);
});
