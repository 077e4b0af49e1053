import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parseRevocationList } from "../../src/pki/crl.ts";
import { makeCsr } from "../../src/pki/csr.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { makeTestCa } from "../support/ca.ts";
import { makeEcKey } from "../support/pki.ts";

const CHILD = fileURLToPath(new URL("./irp-child.ts", import.meta.url));
const REQUESTS = 9;

async function run(folder: string, cut: string): Promise<string | null> {
  const child = spawn(process.execPath, [CHILD, folder, cut], { stdio: ["ignore", "ignore", "inherit"] });
  const [, signal] = (await once(child, "close")) as [number | null, string | null];
  return signal;
}

test.each(["register.written", "register.committed"])(
  "killed at %s, one time after another: nothing is issued twice for one request, and what was answered is on record",
  async (point) => {
    using it = makeTestCa();
    it.ca.close();
    const requests = Array.from({ length: REQUESTS }, () => makeCsr({ privateKey: makeEcKey(), commonName: "x" }));
    const pem = requests.map((der) => derToPem(der, "CERTIFICATE REQUEST")).join("");
    writeFileSync(join(it.folder, "requests.pem"), pem);
    let killed = 0;
    // Each run gets further by one pass, as the repeated requests before are no commits with anything new.
    for (let pass = 1; pass <= 3 * REQUESTS; pass += 1) {
      if ((await run(it.folder, `${point}:${pass}`)) === null) break;
      killed += 1;
    }
    expect(killed).toBeGreaterThan(5);
    expect(await run(it.folder, "")).toBeNull();

    const answered = join(it.folder, "answered");
    const lines = existsSync(answered) ? readFileSync(answered, "utf8").trim().split("\n") : [];
    const ca = it.reopen();
    expect(ca.register.audit()).toMatchObject({ holds: true });
    const all = ca.register.list({ limit: 1_000 });
    expect(new Set(all.map(({ fingerprint }) => fingerprint)).size).toBe(all.length);
    const list = parseRevocationList(ca.crl()?.der ?? new Uint8Array());
    for (const line of lines) {
      const [what, ...rest] = line.split(" ");
      const serial = rest.at(-1) ?? "";
      expect(ca.register.find(serial), line).toBeDefined();
      if (what === "revoked") expect(list.find(Buffer.from(serial, "hex"), ca.issuing.subject), line).toBeDefined();
    }
    expect(list.size).toBe(all.filter(({ revoked }) => revoked !== undefined).length);
  },
);
