import { createHash } from "node:crypto";
import type { Certificate } from "../pki/certificate.ts";
import { type ParsedCsr, parseCsr } from "../pki/csr.ts";
import type { CrlReason } from "../pki/distribution-point.ts";
import type { Log } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Approvals } from "./approvals.ts";
import type { Authority } from "./authority.ts";
import type { Accounts, EnrolAccount } from "./directory.ts";
import type { CertificateKind } from "./messages.ts";
import type { Registered } from "./register.ts";
import { type IssueRequest, policy } from "./rules.ts";

export type { Accounts, EnrolAccount } from "./directory.ts";

/** Who asks for a certificate, and how he proved it. */
export interface Applicant {
  account: EnrolAccount;
  by:
    | { method: "certificate"; certificate: Certificate }
    | { method: "password" }
    | { method: "code"; code: string }
    /** Another server, which vouches for the person. */
    | { method: "registrar"; registrar: string; certificate: Certificate };
}

/** A certificate, or where to ask for it again when a person has approved it. */
export type Enrolled =
  | { state: "issued"; registered: Registered }
  | { state: "pending"; ref: string; retrySeconds: number };

export type Approval = "none" | "first" | "always";

export interface RegistrationOptions {
  authority: Authority;
  accounts: Accounts;
  log: Log;
  /** Whether a person approves requests. `first`: of new devices, asked for by password or code; `always`: all. */
  approval?: { mode: Approval; approvals: Approvals; retrySeconds?: number };
  clock: () => Date;
  /** A certificate was revoked, durably: for the directory's watchers, and to drop the device's addresses. */
  onRevoked?: (registered: Registered) => void;
}

const RETRY_SECONDS = 60;

/** The service core behind every face of enrolment: who may have which certificate. Of a CSR only the key counts. */
export class Registration {
  readonly #o: RegistrationOptions;

  constructor(options: RegistrationOptions) {
    this.#o = options;
  }

  get authority(): Authority {
    return this.#o.authority;
  }

  /** Issuing CAs and root. */
  get chain(): readonly Certificate[] {
    return this.#o.authority.chain;
  }

  /**
   * Issues a certificate for the applicant's own identity; register and audit are durable before it resolves. The same
   * CSR within 24 h gets the same certificate.
   * @throws SuiteError syntax (`bad-csr`, `weak-key`), limit-exceeded (`policy`), forbidden, conflict (`key-in-use`), store-failed
   */
  async enrol(
    applicant: Applicant,
    kind: CertificateKind,
    csrDer: Uint8Array,
    label: string | undefined,
    signal: AbortSignal,
  ): Promise<Enrolled> {
    const csr = readCsr(csrDer);
    await this.admit(applicant);
    const { by } = applicant;
    if (by.method === "code" && kind !== "auth")
      throw new SuiteError("forbidden", "a code is for the first certificate of a device", { fault: "peer" });
    return this.#issue(applicant, requestOf(applicant, kind, csr, label), signal);
  }

  /** Whether what waited was decided about. @throws SuiteError not-found for what is not the applicant's; as enrol */
  async pending(applicant: Applicant, ref: string, signal: AbortSignal): Promise<Enrolled> {
    await this.admit(applicant);
    const waiting = this.#o.approval?.approvals.find(ref);
    if (waiting === undefined || waiting.identity !== applicant.account.identity)
      throw new SuiteError("not-found", "nothing of that name waits", { fault: "peer" });
    const request = requestOf(applicant, waiting.kind, readCsr(waiting.der), waiting.label);
    return this.#issue(applicant, request, signal);
  }

  /**
   * A new certificate in place of one that is about to end. `same`: for the key that the caller's certificate (auth) or a
   * registered one (encryption) has; `new`: for another key.
   * @throws SuiteError forbidden unless the caller came with his certificate; else as `enrol`
   */
  async renew(
    applicant: Applicant,
    kind: CertificateKind,
    mode: "same" | "new",
    csrDer: Uint8Array,
    signal: AbortSignal,
  ): Promise<Enrolled> {
    const { account, by } = applicant;
    if (by.method !== "certificate")
      throw new SuiteError("forbidden", "a renewal needs the certificate that it renews", { fault: "peer" });
    await this.admit(applicant);
    const csr = readCsr(csrDer);
    const [known] = this.#o.authority.register.usesOf(csr.fingerprint);
    const own = known !== undefined && known.identity === account.identity && known.kind === kind;
    if (mode === "same" && (!own || (kind === "auth" && csr.fingerprint !== by.certificate.fingerprint)))
      throw new SuiteError("forbidden", "the key is not the one of the certificate to be renewed", { fault: "peer" });
    return this.#issue(applicant, requestOf(applicant, kind, csr, undefined), signal);
  }

  /**
   * Takes back a certificate: one's own, by certificate or password; anybody's for an administrator who came by certificate.
   * @throws SuiteError not-found for what is not there and what is another's; forbidden
   */
  async revoke(applicant: Applicant, serial: string, reason: CrlReason): Promise<void> {
    await this.admit(applicant);
    const { account, by } = applicant;
    if (by.method === "code" || by.method === "registrar")
      throw new SuiteError("forbidden", "a code revokes nothing", { fault: "peer" });
    const registered = this.#o.authority.register.find(serial);
    if (registered === undefined || (registered.identity !== account.identity && !isAdministrator(applicant)))
      throw new SuiteError("not-found", "there is no such certificate of yours", { fault: "peer" });
    this.revokeAs(serial, reason, `${by.method} ${account.identity}`);
    if (!this.#o.authority.revokesUpstream)
      throw new SuiteError(
        "unreachable",
        "the key is blocked here; the CA that issued it has to be told by its own way",
        {
          fault: "service",
          details: { code: "upstream" },
        },
      );
  }

  /** As the domain's owner. @throws SuiteError not-found, store-failed */
  revokeAs(serial: string, reason: CrlReason, by: string): void {
    const { authority, log, onRevoked } = this.#o;
    if (!authority.revoke(serial, reason, by)) return;
    const registered = authority.register.find(serial);
    if (registered === undefined) return;
    log.info({ identity: registered.identity, serial, reason, by }, "certificate revoked");
    onRevoked?.(registered);
  }

  /**
   * Whether the applicant still may ask for anything: his account is there, his certificate is not revoked, though its path
   * is still good. @throws SuiteError forbidden
   */
  async admit({ account, by }: Applicant): Promise<void> {
    const { accounts, authority } = this.#o;
    if (by.method === "certificate" || by.method === "registrar") {
      if (this.isRevoked(by.certificate))
        throw new SuiteError("forbidden", "the certificate is revoked", { fault: "peer" });
      if (authority.register.usesOf(by.certificate.fingerprint).some((use) => use.revoked))
        throw new SuiteError("forbidden", "the key of the certificate is revoked", { fault: "peer" });
    }
    if (by.method !== "registrar" && (await accounts.find(account.identity)) === undefined)
      throw new SuiteError("forbidden", "the account is not active", { fault: "peer" });
  }

  isRevoked(certificate: Certificate): boolean {
    return this.#o.authority.register.isRevoked(certificate);
  }

  async #issue({ by }: Applicant, request: IssueRequest, signal: AbortSignal): Promise<Enrolled> {
    const { authority, accounts, log, approval, clock } = this.#o;
    authority.check(request);
    if (approval !== undefined && needsApproval(approval.mode, by, this.#known(request))) {
      const waiting = approval.approvals.ask(request, clock());
      if (waiting.state === "refused") throw policy("the domain's owner refused it");
      if (waiting.state === "waiting") {
        log.info({ identity: request.identity, kind: request.kind, ref: waiting.ref }, "a request waits for approval");
        return { state: "pending", ref: waiting.ref, retrySeconds: approval.retrySeconds ?? RETRY_SECONDS };
      }
    }
    // Spent before anything is issued: a code that was used for another key spoils neither a serial number nor a key.
    if (by.method === "code" && !(await accounts.redeem(request.identity, by.code, request.csrHash)))
      throw new SuiteError("auth-failed", "wrong user, password or code", { fault: "peer" });
    const { registered, repeated } = await authority.issue(request, signal);
    const { identity, kind, serial } = registered;
    log.info({ identity, kind, serial, by: by.method, repeated }, "certificate issued");
    return { state: "issued", registered };
  }

  /** Whether the key is one of the person's already. */
  #known({ csr }: IssueRequest): boolean {
    return this.#o.authority.register.usesOf(csr.fingerprint).length > 0;
  }
}

/** Roles count by certificate alone. */
export function isAdministrator({ account, by }: Applicant): boolean {
  return by.method === "certificate" && (account.roles ?? []).includes("admin");
}

function needsApproval(mode: Approval, by: Applicant["by"], known: boolean): boolean {
  if (mode === "none") return false;
  return mode === "always" || (by.method !== "certificate" && !known);
}

function requestOf(
  { account, by }: Applicant,
  kind: CertificateKind,
  csr: ParsedCsr,
  label: string | undefined,
): IssueRequest {
  return {
    ...{ identity: account.identity, name: account.name, kind, csr, by: by.method },
    csrHash: createHash("sha256").update(csr.der).digest("hex"),
    ...(label === undefined ? {} : { label }),
  };
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
