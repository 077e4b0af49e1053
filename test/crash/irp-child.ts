import { randomBytes } from "node:crypto";
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { CertificateAuthority } from "../../src/irp/ca.ts";
import { openCa } from "../../src/irp/ca-keys.ts";
import type { IrpCutPoint } from "../../src/irp/register-database.ts";
import { pemToDer } from "../../src/pki/pem.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { wantedBy } from "../support/ca.ts";

/**
 * A CA that issues for the requests in DIRECTORY/requests.pem, one person each, and revokes every third certificate; it writes
 * down what it answered, and kills itself at the N-th pass of the cut point: `irp-child.ts DIRECTORY CUTPOINT:N`.
 */
const [directory = "", spec = ""] = process.argv.slice(2);
const [point, count = "1"] = spec.split(":");
let left = Number(count);
const now = new Date();
const keys = openCa({ directory: join(directory, "ca"), domain: "alpha.test", now, random: randomBytes });
const ca = new CertificateAuthority({
  ...{ keys, register: join(directory, "ca.db"), clock: () => new Date(), random: randomBytes },
  cut: (passed: IrpCutPoint) => {
    if (passed === point && --left === 0) process.kill(process.pid, "SIGKILL");
  },
});
const log = openSync(join(directory, "answered"), "a");
const answer = (text: string) => {
  writeSync(log, `${text}\n`);
  fsyncSync(log);
};
for (const [n, csr] of pemToDer(readFileSync(join(directory, "requests.pem"), "utf8")).entries()) {
  let serial: string;
  try {
    ({ serial } = ca.issueNow(wantedBy(`p${n}`, csr)).registered);
  } catch (error) {
    // A run before this one had revoked it: then the key is nobody's any more.
    if (error instanceof SuiteError && error.code === "conflict") continue;
    throw error;
  }
  answer(`issued ${n} ${serial}`);
  if (n % 3 !== 2) continue;
  ca.revoke(serial, "superseded");
  answer(`revoked ${serial}`);
}
ca.close();
closeSync(log);
