import { createPrivateKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { createDurably, writeDurably } from "../irp/key-file.ts";
import { type Certificate, fingerprintOf, parseCertificate, peerCertificate } from "../pki/certificate.ts";
import { makeCsr } from "../pki/csr.ts";
import type { Identity } from "../pki/identity.ts";
import { derToPem, pemToDer } from "../pki/pem.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Signer } from "../smime/signed-write.ts";
import type { PeerConfig } from "./config.ts";
import type { Home } from "./home.ts";

/** A private key and its certificate, issuer and root behind it. */
export interface OwnKey {
  privateKey: KeyObject;
  certificate: Certificate;
  /** Issuer first, without the root. */
  chain: readonly Certificate[];
  renewAfter: Date;
}

export interface OwnKeys {
  auth: OwnKey;
  /** Newest first; old ones stay for ever, since old mail is sealed to them. */
  encryption: readonly OwnKey[];
  uuid: string;
}

/** Who signs what is sealed, and how. */
export function sealSigner({ auth }: OwnKeys, { smime }: PeerConfig): Signer {
  const { privateKey, certificate, chain } = auth;
  return { privateKey, certificate, chain, rsaSignature: smime.rsaSignature };
}

const ENROLMENT = z.object({ uuid: z.string(), renewAfter: z.object({ auth: z.number(), encryption: z.number() }) });
type Enrolment = z.infer<typeof ENROLMENT>;

/**
 * Keys of a node, as files in `keys/`: auth.key, auth.pem, encryption-<n>.key, encryption-<n>.pem, enrolment.json. A key is durable
 * before its certificate is asked for, so that an enrolment that is cut off goes on with the same keys.
 */
export class KeyFiles {
  readonly #home: Home;

  constructor(home: Home) {
    this.#home = home;
  }

  /** The key for a CSR: the one that is there, or a new one, durable when this returns. */
  keyFor(kind: "auth" | "encryption"): KeyObject {
    const file = this.#file(this.#stem(kind), "key");
    if (existsSync(file)) return createPrivateKey(readFileSync(file, "utf8"));
    const { privateKey } =
      kind === "auth"
        ? generateKeyPairSync("ec", { namedCurve: "prime256v1" })
        : generateKeyPairSync("rsa", { modulusLength: 3072 });
    const made = createDurably(file, privateKey.export({ type: "pkcs8", format: "pem" }) as string);
    return made ? privateKey : createPrivateKey(readFileSync(file, "utf8"));
  }

  /** The CSR for a key: made once and kept, since asking again with the same one is safe. */
  csrFor(kind: "auth" | "encryption", privateKey: KeyObject, identity: Identity): Buffer {
    const file = join(this.#home.keys, `${this.#stem(kind)}.csr`);
    if (!existsSync(file)) createDurably(file, makeCsr({ privateKey, commonName: identity, identity }));
    return readFileSync(file);
  }

  /** Another key in place of one that no certificate of ours is for. */
  newKeyFor(kind: "auth" | "encryption"): KeyObject {
    const stem = this.#stem(kind);
    for (const file of [join(this.#home.keys, `${stem}.csr`), this.#file(stem, "key")]) rmSync(file, { force: true });
    return this.keyFor(kind);
  }

  /** @param certificates leaf first */
  storeCertificate(kind: "auth" | "encryption", certificates: readonly Certificate[]): void {
    writeDurably(this.#file(this.#stem(kind), "pem"), pemOf(certificates), 0o644);
  }

  /** Whether that encryption certificate is here. */
  holds([leaf]: readonly Certificate[]): boolean {
    return this.load().encryption.some(({ certificate }) => certificate.sha256 === leaf?.sha256);
  }

  /**
   * A new certificate for a key that is there. Former encryption certificates stay, since what was sealed to them names them:
   * the new one gets the next number, and a copy of the key, written last, puts it in force.
   * @param certificates leaf first
   */
  storeRenewed(
    kind: "auth" | "encryption",
    privateKey: KeyObject,
    certificates: readonly Certificate[],
    renewAfter: Date,
  ): void {
    // Asked again within a day, the CA gives the same one.
    if (kind === "encryption" && !this.holds(certificates)) this.#add(privateKey, certificates);
    if (kind === "auth") writeDurably(this.#file("auth", "pem"), pemOf(certificates), 0o644);
    const enrolment = this.#enrolment();
    this.#writeEnrolment({
      ...enrolment,
      renewAfter: { ...enrolment.renewAfter, [kind]: renewAfter.getTime() },
    });
  }

  /**
   * Keeps published certificates for keys that are here, where the files have others: of renewals since the backup that this home
   * was made of. What is sealed to them names them.
   * @param published newest first
   * @param chain CA certificates that were published with them
   * @returns how many were not known
   */
  learn(published: readonly Certificate[], chain: readonly Certificate[]): number {
    const { encryption } = this.load();
    const unknown = published.flatMap((certificate) => {
      if (encryption.some((one) => one.certificate.sha256 === certificate.sha256)) return [];
      const own = encryption.find((one) => one.certificate.fingerprint === certificate.fingerprint);
      return own === undefined ? [] : [{ certificate, own }];
    });
    for (const { certificate, own } of unknown.toReversed()) {
      this.#add(own.privateKey, [certificate, ...(sameIssuer(certificate, own.certificate) ? own.chain : chain)]);
    }
    return unknown.length;
  }

  /**
   * The key that is to take the place of the AUTH key, with its request and, once it is certified, its certificate: made once,
   * durable, so that a change that is cut off goes on with it.
   */
  nextAuth(identity: Identity): { privateKey: KeyObject; csr: Buffer; certificates: readonly Certificate[] } {
    const file = this.#file("auth-next", "key");
    if (!existsSync(file)) {
      const made = generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
      createDurably(file, made.export({ type: "pkcs8", format: "pem" }) as string);
    }
    const privateKey = createPrivateKey(readFileSync(file, "utf8"));
    const csr = join(this.#home.keys, "auth-next.csr");
    if (!existsSync(csr)) createDurably(csr, makeCsr({ privateKey, commonName: identity, identity }));
    const pem = this.#file("auth-next", "pem");
    const certificates = existsSync(pem) ? certificatesIn(pem) : [];
    return { privateKey, csr: readFileSync(csr), certificates };
  }

  /** @param certificates leaf first */
  storeNextAuth(certificates: readonly Certificate[]): void {
    writeDurably(this.#file("auth-next", "pem"), pemOf(certificates), 0o644);
  }

  /** Puts that key in force; the certificate in whose stead it comes is kept until `forgetReplaced`. */
  switchAuth(renewAfter: Date, place: "instead" | "beside"): void {
    if (place === "instead")
      writeDurably(this.#file("auth-replaced", "pem"), readFileSync(this.#file("auth", "pem")), 0o644);
    writeDurably(join(this.#home.keys, "auth-next.ready"), ""); // with it the change is decided
    this.#finishSwitch();
    const enrolment = this.#enrolment();
    this.#writeEnrolment({ ...enrolment, renewAfter: { ...enrolment.renewAfter, auth: renewAfter.getTime() } });
  }

  /** The certificate whose key was replaced, as long as that is not told everybody. */
  get replacedAuth(): Certificate | undefined {
    const file = this.#file("auth-replaced", "pem");
    return existsSync(file) ? certificatesIn(file)[0] : undefined;
  }

  forgetReplaced(): void {
    rmSync(this.#file("auth-replaced", "pem"), { force: true });
  }

  storeEnrolment(enrolment: { uuid: string; renewAfter: { auth: Date; encryption: Date } }): void {
    const { uuid, renewAfter } = enrolment;
    this.#writeEnrolment({
      uuid,
      renewAfter: { auth: renewAfter.auth.getTime(), encryption: renewAfter.encryption.getTime() },
    });
  }

  get enrolled(): boolean {
    return existsSync(join(this.#home.keys, "enrolment.json"));
  }

  /**
   * @param owner whom the certificate has to name
   * @throws SuiteError config-invalid when something is missing or does not fit
   */
  load(owner?: Identity): OwnKeys {
    if (!this.enrolled)
      throw new SuiteError("config-invalid", "this home is not enrolled yet", {
        fault: "local",
        details: { home: this.#home.directory },
      });
    this.#finishSwitch();
    const enrolment = this.#enrolment();
    const numbers = this.#encryptionNumbers().sort((a, b) => b - a);
    const auth = this.#read("auth", new Date(enrolment.renewAfter.auth));
    if (owner !== undefined && !peerCertificate(auth.certificate).identities.some(({ identity }) => identity === owner))
      throw new SuiteError("config-invalid", "the certificate in this home is not that person's", {
        fault: "local",
        details: { identity: owner, file: this.#file("auth", "pem") },
      });
    return {
      uuid: enrolment.uuid,
      auth,
      // By age, not by number: one that was learned may be older than one that was asked for before.
      encryption: numbers
        .map((n) => this.#read(`encryption-${n}`, new Date(enrolment.renewAfter.encryption)))
        .sort((a, b) => b.certificate.validity.notBefore.getTime() - a.certificate.validity.notBefore.getTime()),
    };
  }

  /** Certificates for an encryption key under the next number. */
  #add(privateKey: KeyObject, certificates: readonly Certificate[]): void {
    const stem = `encryption-${Math.max(0, ...this.#encryptionNumbers()) + 1}`;
    writeDurably(this.#file(stem, "pem"), pemOf(certificates), 0o644);
    writeDurably(this.#file(stem, "key"), privateKey.export({ type: "pkcs8", format: "pem" }) as string);
  }

  /** Key and certificate are two files: cut off between them, the next look puts both in place. */
  #finishSwitch(): void {
    const ready = join(this.#home.keys, "auth-next.ready");
    if (!existsSync(ready)) return;
    const next = (kind: "key" | "pem") => this.#file("auth-next", kind);
    if (existsSync(next("key"))) writeDurably(this.#file("auth", "key"), readFileSync(next("key")));
    if (existsSync(next("pem"))) writeDurably(this.#file("auth", "pem"), readFileSync(next("pem")), 0o644);
    rmSync(ready);
    for (const file of [
      next("key"),
      next("pem"),
      join(this.#home.keys, "auth-next.csr"),
      join(this.#home.keys, "auth.csr"),
    ])
      rmSync(file, { force: true });
  }

  #enrolment(): Enrolment {
    const file = join(this.#home.keys, "enrolment.json");
    try {
      return ENROLMENT.parse(JSON.parse(readFileSync(file, "utf8")));
    } catch (cause) {
      throw new SuiteError("config-invalid", "a key file cannot be used", { fault: "local", cause, details: { file } });
    }
  }

  #writeEnrolment(value: Enrolment): void {
    writeDurably(join(this.#home.keys, "enrolment.json"), `${JSON.stringify(value, undefined, 2)}\n`);
  }

  #read(stem: string, renewAfter: Date): OwnKey {
    try {
      const privateKey = createPrivateKey(readFileSync(this.#file(stem, "key"), "utf8"));
      const [certificate, ...chain] = certificatesIn(this.#file(stem, "pem"));
      if (certificate === undefined || certificate.fingerprint !== fingerprintOf(privateKey))
        throw new Error("key and certificate do not belong together");
      return { privateKey, certificate, chain, renewAfter };
    } catch (cause) {
      throw new SuiteError("config-invalid", "a key file cannot be used", {
        fault: "local",
        cause,
        details: { file: this.#file(stem, "pem") },
      });
    }
  }

  #stem(kind: "auth" | "encryption"): string {
    return kind === "auth" ? "auth" : `encryption-${Math.max(1, ...this.#encryptionNumbers())}`;
  }

  #encryptionNumbers(): number[] {
    return readdirSync(this.#home.keys).flatMap((name) => {
      const number = /^encryption-(\d+)\.key$/.exec(name)?.[1];
      return number === undefined ? [] : [Number(number)];
    });
  }

  #file(stem: string, kind: "key" | "pem"): string {
    return join(this.#home.keys, `${stem}.${kind}`);
  }
}

/** By the CA's key too: a CA that is succeeded keeps its name. */
function sameIssuer(one: Certificate, other: Certificate): boolean {
  const issuer = ({ issuerDer, authorityKeyId }: Certificate) =>
    Buffer.concat([issuerDer, authorityKeyId ?? new Uint8Array()]);
  return issuer(one).equals(issuer(other));
}

function certificatesIn(file: string): Certificate[] {
  return pemToDer(readFileSync(file, "utf8"), "CERTIFICATE").map((der) => parseCertificate(der));
}

function pemOf(certificates: readonly Certificate[]): string {
  return certificates.map((one) => derToPem(one.der, "CERTIFICATE")).join("");
}
