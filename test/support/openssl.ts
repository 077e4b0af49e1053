import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { derToPem } from "../../src/pki/pem.ts";
import type { TestCredentials } from "./pki.ts";

/** A folder of its own for a test; disposing removes it. */
export function temporaryFolder(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "sixtalk-test-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** Writes NAME.pem (leaf and chain) and NAME.key, as openssl takes them. */
export function pemFiles(
  folder: string,
  name: string,
  of: TestCredentials,
): { certificate: string; chain: string; key: string } {
  const files = {
    certificate: join(folder, `${name}.pem`),
    chain: join(folder, `${name}.chain.pem`),
    key: join(folder, `${name}.key`),
  };
  writeFileSync(files.certificate, derToPem(of.certificate.der, "CERTIFICATE"));
  writeFileSync(files.chain, of.chain.map((one) => derToPem(one.der, "CERTIFICATE")).join(""));
  writeFileSync(files.key, of.privateKey.export({ type: "pkcs8", format: "pem" }));
  chmodSync(files.key, 0o600);
  return files;
}

/** Runs openssl; `output` is both streams as they came. `until`: its standard input stays open until the output shows this, or it ends by itself. */
export function openssl(
  args: readonly string[],
  o: { input?: string; until?: RegExp; timeoutMs?: number } = {},
): Promise<{ output: string; stdout: string; code: number | null }> {
  return new Promise((resolve, reject) => {
    const child = spawn("openssl", args, { stdio: ["pipe", "pipe", "pipe"] });
    let output = "";
    let stdout = "";
    const timer = setTimeout(() => child.kill("SIGKILL"), o.timeoutMs ?? 10_000);
    const take = (chunk: Buffer) => {
      output += chunk.toString("latin1");
      if (o.until?.test(output)) child.kill();
    };
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString("latin1");
      take(chunk);
    });
    child.stderr.on("data", take);
    child.stdin.on("error", () => undefined);
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ output, stdout, code });
    });
    if (o.input !== undefined) child.stdin.write(o.input);
    if (o.until === undefined) child.stdin.end();
  });
}
