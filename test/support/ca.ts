import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CaOptions, CertificateAuthority } from "../../src/irp/ca.ts";
import { type CaKeys, createCa } from "../../src/irp/ca-keys.ts";
import type { CertificateKind } from "../../src/irp/messages.ts";
import type { IssueRequest } from "../../src/irp/rules.ts";
import { makeCsr, parseCsr } from "../../src/pki/csr.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { makeEcKey } from "./pki.ts";

/** A CA on disk, with a clock that a test turns. */
export interface TestCa extends Disposable {
  folder: string;
  directory: string;
  register: string;
  keys: CaKeys;
  ca: CertificateAuthority;
  now: Date;
  /** Opens the register again, as after a crash. */
  reopen(change?: Partial<CaOptions>): CertificateAuthority;
}

export function makeTestCa(o: { domain?: string; now?: Date; statusUrl?: string } = {}): TestCa {
  const folder = mkdtempSync(join(tmpdir(), "sixtalk-test-"));
  const { domain = "alpha.test", now = new Date(), ...rest } = o;
  const directory = join(folder, "ca");
  const keys = createCa({ directory, domain, now, random: randomBytes });
  const register = join(folder, "ca.db");
  const made: TestCa = {
    ...{ folder, directory, register, keys, now },
    ca: undefined as unknown as CertificateAuthority,
    reopen(change = {}) {
      this.ca?.close();
      this.ca = new CertificateAuthority({
        ...{ keys, register, clock: () => this.now, random: randomBytes },
        ...rest,
        ...change,
      });
      return this.ca;
    },
    [Symbol.dispose]() {
      this.ca.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  made.reopen();
  return made;
}

/** A request for a certificate, as the service core makes it. */
export function wanted(user: string, kind: CertificateKind = "auth", key = makeEcKey()): IssueRequest {
  const csr = parseCsr(makeCsr({ privateKey: key, commonName: user }));
  const identity = parseIdentity(user.includes("@") ? user : `${user}@alpha.test`);
  const csrHash = createHash("sha256").update(csr.der).digest("hex");
  return { identity, name: "A Person", kind, csr, csrHash, by: "password" };
}

/** As `wanted`, for a request that is there. */
export function wantedBy(user: string, der: Uint8Array): IssueRequest {
  const csr = parseCsr(der);
  const csrHash = createHash("sha256").update(csr.der).digest("hex");
  return {
    ...{ identity: parseIdentity(`${user}@alpha.test`), name: "A Person" },
    kind: "auth",
    csr,
    csrHash,
    by: "password",
  };
}
