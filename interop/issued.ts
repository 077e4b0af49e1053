import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Actor, Stage } from "../src/cli/demo-stage.ts";
import { type CaKeys, openCa } from "../src/irp/ca-keys.ts";
import { parseCertificate } from "../src/pki/certificate.ts";
import { issueRevocationList } from "../src/pki/crl-issue.ts";
import { parseIdentity } from "../src/pki/identity.ts";
import { derToPem, pemToDer } from "../src/pki/pem.ts";
import { issueAuth, issueEncryption, type PersonOptions } from "../src/pki/profile.ts";

const DAY_MS = 86_400_000;

/** A domain's CA, a person whom it enrolled over the wire, and PEM files of what it issued to them and to others. */
export interface Issued extends AsyncDisposable {
  readonly stage: Stage;
  readonly folder: string;
  /** Where that certificate lies: `root`, `ca`, `auth`, `encryption`, `server`, or what was made. */
  file(name: string): string;
  /** Certifies a person by the CA's key and profile, whether or not the CA would, and writes NAME.pem and NAME.key. */
  certify(name: string, identity: string, change?: Change): string;
  /** Writes NAME.pem and NAME.der: the issuing CA's list with these on it. */
  list(name: string, revoked: readonly string[]): string;
}

export interface Change {
  fullName?: string;
  /** The key of an ENCRYPTION certificate; absent, it is an AUTH certificate of a new key. */
  seal?: KeyObject;
  /** From so many days ahead. */
  from?: number;
}

export async function startIssued(): Promise<Issued> {
  const stage = await Stage.build();
  try {
    const [domain] = (await stage.domains(["alpha.test"])) as [Actor];
    const alice = await stage.person(domain, "alice", "Alice Example");
    return written(stage, domain, alice);
  } catch (error) {
    await stage.strike();
    throw error;
  }
}

function written(stage: Stage, domain: Actor, alice: Actor): Issued {
  const now = new Date();
  const directory = join(domain.home.domain, "ca");
  const ca: CaKeys = openCa({ directory, domain: "alpha.test", now, random: randomBytes });
  const folder = join(stage.folder, "issued");
  mkdirSync(folder);
  const file = (name: string) => join(folder, `${name}.pem`);
  const first = (name: string, from: string) => {
    const [der] = pemToDer(readFileSync(from, "utf8"), "CERTIFICATE");
    writeFileSync(file(name), derToPem(der as Uint8Array, "CERTIFICATE"));
  };
  first("root", join(directory, "root.pem"));
  first("ca", join(directory, "issuing.pem"));
  first("server", join(directory, "server.pem"));
  first("auth", join(alice.home.keys, "auth.pem"));
  first("encryption", join(alice.home.keys, "encryption-1.pem"));
  const serialOf = (name: string) =>
    pemToDer(readFileSync(file(name), "utf8"), "CERTIFICATE").map((der) => parseCertificate(der).serial)[0];
  return {
    stage,
    folder,
    file,
    certify(name, identity, { fullName = "Somebody Else", seal, from = 0 } = {}) {
      const key = seal ?? generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
      const options: PersonOptions = {
        ...{ issuer: ca.issuing, identity: parseIdentity(identity), name: fullName, serial: randomBytes(16) },
        spki: createPublicKey(key).export({ type: "spki", format: "der" }),
        now: new Date(now.getTime() + from * DAY_MS),
      };
      const der = seal === undefined ? issueAuth(options) : issueEncryption(options);
      writeFileSync(file(name), derToPem(der, "CERTIFICATE"));
      writeFileSync(join(folder, `${name}.key`), key.export({ type: "pkcs8", format: "pem" }));
      return file(name);
    },
    list(name, revoked) {
      const der = issueRevocationList({
        ...{ issuer: ca.issuing, number: 1, thisUpdate: now, nextUpdate: new Date(now.getTime() + DAY_MS) },
        entries: revoked.map((one) => ({ serial: serialOf(one) as Uint8Array, since: now })),
      });
      writeFileSync(file(name), derToPem(der, "X509 CRL"));
      writeFileSync(join(folder, `${name}.der`), der);
      return file(name);
    },
    [Symbol.asyncDispose]: () => stage.strike(),
  };
}
