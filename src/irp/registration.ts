import { createHash } from "node:crypto";
import type { Certificate } from "../pki/certificate.ts";
import { type ParsedCsr, parseCsr } from "../pki/csr.ts";
import type { Identity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { CertificateAuthority } from "./ca.ts";
import type { CertificateKind } from "./messages.ts";

/** The people of the domain, as enrolment needs them; the directory has them. */
export interface Accounts {
  find(identity: Identity): Promise<EnrolAccount | undefined>;
  authenticateCode(user: string, code: string): Promise<EnrolAccount>;
  authenticatePassword(user: string, password: string): Promise<EnrolAccount>;
  redeem(identity: Identity, code: string, use: string): Promise<boolean>;
}

export interface EnrolAccount {
  uuid: string;
  identity: Identity;
  name: string;
}

/** Who asks for a certificate, and how he proved it. */
export interface Applicant {
  account: EnrolAccount;
  by: { method: "certificate"; certificate: Certificate } | { method: "password" } | { method: "code"; code: string };
}

export interface Issued {
  kind: CertificateKind;
  /** Leaf first, then the issuing CA; without the root. */
  certificates: readonly Certificate[];
  serial: string;
  renewAfter: Date;
}

export interface RegistrationOptions {
  ca: CertificateAuthority;
  accounts: Accounts;
  log: Log;
}

/** The service core behind every face of enrolment: who may have which certificate. Of a CSR only the key counts. */
export class Registration {
  readonly #o: RegistrationOptions;

  constructor(options: RegistrationOptions) {
    this.#o = options;
  }

  /** Root and issuing CA. */
  get chain(): readonly Certificate[] {
    return [this.#o.ca.issuing, this.#o.ca.root];
  }

  /**
   * Issues a certificate for the applicant's own identity; register and audit are durable before it returns. The same
   * CSR within 24 h gets the same certificate.
   * @throws SuiteError syntax (`bad-csr`), limit-exceeded (`weak-key`, `policy`), forbidden, conflict (`key-in-use`), store-failed
   */
  async enrol(
    applicant: Applicant,
    kind: CertificateKind,
    csrDer: Uint8Array,
    label: string | undefined,
  ): Promise<Issued> {
    const csr = readCsr(csrDer);
    const { account, by } = applicant;
    this.#notRevoked(by);
    if (by.method === "code" && kind !== "auth")
      throw new SuiteError("forbidden", "a code is for the first certificate of a device", { fault: "peer" });
    const wanted = {
      identity: account.identity,
      name: account.name,
      kind,
      csr,
      ...(label === undefined ? {} : { label }),
    };
    // Spent before anything is issued: a code that was used for another key spoils neither a serial number nor a key.
    this.#o.ca.check(wanted);
    if (by.method === "code" && !(await this.#o.accounts.redeem(account.identity, by.code, csrHash(csrDer))))
      throw new SuiteError("auth-failed", "wrong user, password or code", { fault: "peer" });
    const { issued, repeated } = this.#o.ca.issue(wanted);
    this.#o.log.info(
      { identity: account.identity, kind, serial: issued.serial, by: by.method, repeated },
      "certificate issued",
    );
    return issued;
  }

  /**
   * A new certificate in place of one that is about to end. `same`: for the key that the caller's certificate (auth) or a
   * registered one (encryption) has; `new`: for another key.
   * @throws SuiteError forbidden unless the caller came with his certificate; else as `enrol`
   */
  async renew(applicant: Applicant, kind: CertificateKind, mode: "same" | "new", csrDer: Uint8Array): Promise<Issued> {
    const { account, by } = applicant;
    if (by.method !== "certificate")
      throw new SuiteError("forbidden", "a renewal needs the certificate that it renews", { fault: "peer" });
    this.#notRevoked(by);
    const csr = readCsr(csrDer);
    const known = this.#o.ca.keyOwner(csr.fingerprint);
    const own = known !== undefined && known.identity === account.identity && known.kind === kind;
    if (mode === "same" && (!own || (kind === "auth" && csr.fingerprint !== by.certificate.fingerprint))) {
      throw new SuiteError("forbidden", "the key is not the one of the certificate to be renewed", { fault: "peer" });
    }
    const { issued } = this.#o.ca.issue({ identity: account.identity, name: account.name, kind, csr });
    this.#o.log.info({ identity: account.identity, kind, serial: issued.serial, mode }, "certificate renewed");
    return issued;
  }

  /** A revoked certificate opens nothing, though its path is still good. */
  #notRevoked(by: Applicant["by"]): void {
    if (by.method === "certificate" && this.#o.ca.revoked(by.certificate))
      throw new SuiteError("forbidden", "the certificate is revoked", { fault: "peer" });
  }
}

function readCsr(der: Uint8Array): ParsedCsr {
  try {
    return parseCsr(der);
  } catch (cause) {
    throw new SuiteError("syntax", "the certificate request cannot be used", {
      fault: "peer",
      cause,
      details: { code: "bad-csr" },
    });
  }
}

function csrHash(der: Uint8Array): string {
  return createHash("sha256").update(der).digest("hex");
}
