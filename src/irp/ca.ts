import { type Certificate, type Fingerprint, parseCertificate } from "../pki/certificate.ts";
import type { CrlReason } from "../pki/distribution-point.ts";
import type { Identity } from "../pki/identity.ts";
import type { Issuer } from "../pki/issue.ts";
import { issueAuth, issueEncryption } from "../pki/profile.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Authority, OcspReply } from "./authority.ts";
import type { OpenedCa } from "./ca-keys.ts";
import type { CertificateKind } from "./messages.ts";
import { Register, type Registered } from "./register.ts";
import type { IrpCutPoint } from "./register-database.ts";
import { checkRequest, type IssueRequest, policy } from "./rules.ts";
import { StatusService } from "./status.ts";

export interface CaOptions {
  keys: OpenedCa;
  /** Path of the register, a SQLite database. */
  register: string;
  clock: () => Date;
  random: (length: number) => Buffer;
  /** Where lists and OCSP answers are got, as `http://ca.alpha.test:8604`; absent: certificates name no place. */
  statusUrl?: string;
  cut?: (point: IrpCutPoint) => void;
}

/** The issuing CA of one domain and its register. Nothing leaves it that is not on record. */
export class CertificateAuthority implements Authority {
  readonly register: Register;
  readonly revokesUpstream = true;
  readonly #o: CaOptions;
  #keys: OpenedCa;
  #status: StatusService;

  /** @throws SuiteError store-failed */
  constructor(options: CaOptions) {
    this.#o = options;
    this.#keys = options.keys;
    this.register = new Register(options.register, options.keys.issuing.certificate.fingerprint, options.cut);
    this.#status = this.#statusService();
  }

  get root(): Certificate {
    return this.#keys.root;
  }

  get issuing(): Certificate {
    return this.#keys.issuing.certificate;
  }

  get chain(): readonly Certificate[] {
    return [this.issuing, ...this.#keys.former.map(({ certificate }) => certificate), this.root];
  }

  get fault(): string | undefined {
    const { notAfter, notBefore } = this.issuing.validity;
    const now = this.#o.clock();
    if ("locked" in this.#keys) return this.#keys.locked;
    if (now < notBefore || now > notAfter) return "the issuing CA is not valid now";
    const last = this.register.lastIssued();
    return last !== undefined && now.getTime() < last.getTime() - 300_000
      ? "the clock says an earlier time than the last certificate"
      : undefined;
  }

  /** Another issuing CA is in force: what the former one signed stays, and is looked after. */
  succeed(keys: OpenedCa): void {
    this.#keys = keys;
    this.#status = this.#statusService();
  }

  check(request: IssueRequest): void {
    this.#signer();
    checkRequest(this.register, request, this.issuing, this.#o.clock());
  }

  async issue(request: IssueRequest, _signal?: AbortSignal): Promise<{ registered: Registered; repeated: boolean }> {
    return this.issueNow(request);
  }

  /** As `issue`: signs, and puts on record together with the audit, in one durable transaction. */
  issueNow(request: IssueRequest): { registered: Registered; repeated: boolean } {
    const { csr, kind, identity, name } = request;
    const issuer = this.#signer();
    const now = this.#o.clock();
    return this.register.database.transaction(() => {
      const same = checkRequest(this.register, request, issuer.certificate, now);
      if (same !== undefined) return { registered: same, repeated: true };
      const common = { issuer, spki: csr.spki, identity, name, now, serial: this.#o.random(16), ...this.#urls(issuer) };
      const certificate = parseCertificate(kind === "auth" ? issueAuth(common) : issueEncryption(common));
      const registered = this.register.insert({
        ...{ kind, identity, certificate, label: request.label ?? "", csr: request.csrHash, at: now, by: request.by },
        ...{ chain: [issuer.certificate], issuer: issuer.certificate.fingerprint },
      });
      return { registered, repeated: false };
    });
  }

  revoke(serial: string, reason: CrlReason = "unspecified", by = "operator"): boolean {
    const now = this.#o.clock();
    return this.register.database.transaction(() => {
      const issuer = this.register.issuerOf(serial);
      if (issuer === undefined)
        throw new SuiteError("not-found", "there is no such certificate", { fault: "peer", details: { serial } });
      const changed = this.register.revoke(serial, reason, now, by);
      if (changed) this.#status.revoked(issuer);
      return changed;
    });
  }

  revoked(certificate: Certificate): boolean {
    return this.register.isRevoked(certificate);
  }

  /** Whose key it is, by the newest certificate for it. */
  keyOwner(fingerprint: Fingerprint): { identity: Identity; kind: CertificateKind } | undefined {
    return this.register.usesOf(fingerprint)[0];
  }

  crl(issuer?: Fingerprint): { der: Uint8Array; number: number; nextUpdate: Date } | undefined {
    return this.#status.crl(issuer ?? this.issuing.fingerprint);
  }

  ocsp(request: Uint8Array): OcspReply {
    return this.#status.ocsp(request);
  }

  signLists(): void {
    this.#status.signDue();
  }

  /** Whether every audit entry still hangs on the one before it, and register and audit tell the same. */
  auditHolds(): boolean {
    return this.register.audit().holds;
  }

  close(): void {
    this.register.close();
  }

  #signer(): Issuer {
    if ("locked" in this.#keys) throw policy(this.#keys.locked);
    return this.#keys.issuing;
  }

  #urls({ certificate }: Issuer): { crlUrl?: string; ocspUrl?: string } {
    const { statusUrl } = this.#o;
    if (statusUrl === undefined) return {};
    return { crlUrl: `${statusUrl}${crlPath(certificate)}`, ocspUrl: `${statusUrl}/ocsp` };
  }

  #statusService(): StatusService {
    const { clock } = this.#o;
    const issuers = "locked" in this.#keys ? [] : [this.#keys.issuing, ...this.#keys.former];
    return new StatusService({ register: this.register, issuers, clock });
  }
}

/** Where an issuer's list lies below the status address. */
export function crlPath(issuer: Certificate): string {
  return `/crl/${issuer.fingerprint.slice(0, 16)}.crl`;
}
