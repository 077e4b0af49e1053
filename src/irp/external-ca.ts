import { type Certificate, type Fingerprint, peerCertificate } from "../pki/certificate.ts";
import type { CrlReason } from "../pki/distribution-point.ts";
import { issueOcspError } from "../pki/ocsp-issue.ts";
import { type TrustAnchor, validatePath } from "../pki/path.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Authority, OcspReply } from "./authority.ts";
import { namesExactly } from "./csr-names.ts";
import { type EstClient, upstream } from "./est-client.ts";
import type { CertificateKind } from "./messages.ts";
import { Register, type Registered } from "./register.ts";
import { checkRequest, type IssueRequest } from "./rules.ts";

export interface ExternalCaOptions {
  est: EstClient;
  /** The CA's labels for each kind (RFC 7030 §3.2.2); absent: none. */
  labels?: Partial<Record<CertificateKind, string>>;
  /** What its certificates have to lead to. */
  anchors: readonly TrustAnchor[];
  /** Path of the register. */
  register: string;
  clock: () => Date;
}

const ISSUE_MS = 30_000;

/**
 * Another CA issues, by EST; this server is its registration authority (irp.md §2.5). That CA copies names: so the request has to
 * name exactly whom it is for, and of its answer key, names, usages and path are checked. What it gave out wrongly is not given on.
 */
export class ExternalAuthority implements Authority {
  readonly register: Register;
  readonly revokesUpstream = false;
  readonly #o: ExternalCaOptions;
  readonly #running = new Map<string, Promise<{ registered: Registered; repeated: boolean }>>();
  #intermediates: readonly Certificate[] = [];
  #fault: string | undefined = "the CA has not been asked yet";

  /** @throws SuiteError store-failed */
  constructor(options: ExternalCaOptions) {
    this.#o = options;
    const first = options.anchors[0]?.certificate.fingerprint ?? ("" as Fingerprint);
    this.register = new Register(options.register, first);
  }

  get chain(): readonly Certificate[] {
    return [...this.#intermediates, ...this.#o.anchors.map(({ certificate }) => certificate)];
  }

  get fault(): string | undefined {
    return this.#fault;
  }

  /** Fetches the CA's certificates. @throws SuiteError unreachable (`upstream`); what was there stays */
  async refresh(signal: AbortSignal): Promise<void> {
    try {
      const found = await this.#o.est.cacerts(this.#o.labels?.auth, signal);
      const anchors = this.#o.anchors.map(({ certificate }) => certificate.sha256);
      this.#intermediates = found.filter(({ sha256 }) => !anchors.includes(sha256));
      this.#fault = undefined;
    } catch (error) {
      this.#fault = "the CA that issues for this domain is not reached";
      throw error;
    }
  }

  check(request: IssueRequest): void {
    if (checkRequest(this.register, request, undefined, this.#o.clock()) === undefined) checkNames(request);
  }

  /** Whoever hangs up meanwhile finds the certificate when he asks again: it is fetched and put on record all the same. */
  issue(request: IssueRequest): Promise<{ registered: Registered; repeated: boolean }> {
    const key = `${request.identity} ${request.kind} ${request.csrHash}`;
    const running = this.#running.get(key) ?? this.#issue(request).finally(() => this.#running.delete(key));
    this.#running.set(key, running);
    return running;
  }

  revoke(serial: string, reason: CrlReason, by: string): boolean {
    if (this.register.issuerOf(serial) === undefined)
      throw new SuiteError("not-found", "there is no such certificate", { fault: "peer", details: { serial } });
    return this.register.revoke(serial, reason, this.#o.clock(), by);
  }

  crl(): undefined {
    return undefined; // its own CA's to tell
  }

  ocsp(): OcspReply {
    return { der: issueOcspError("unauthorized") };
  }

  signLists(): void {
    // the other CA does
  }

  close(): void {
    this.register.close();
  }

  async #issue(request: IssueRequest): Promise<{ registered: Registered; repeated: boolean }> {
    const { est, labels, clock } = this.#o;
    const { csr, csrHash, kind, identity, by } = request;
    const same = checkRequest(this.register, request, undefined, clock());
    if (same !== undefined) return { registered: same, repeated: true };
    checkNames(request);
    const answer = await est.enrol(labels?.[kind], csr.der, AbortSignal.timeout(ISSUE_MS));
    const { certificate, chain } = this.#checked(answer, request);
    const registered = this.register.insert({
      ...{ kind, identity, certificate, chain, csr: csrHash, by, at: clock(), label: request.label ?? "" },
      issuer: chain[0]?.fingerprint ?? this.#o.anchors[0]?.certificate.fingerprint ?? ("" as Fingerprint),
    });
    return { registered, repeated: false };
  }

  /** @throws SuiteError unreachable (`upstream`) unless the answer is what was asked for, and nothing more */
  #checked(
    answer: readonly Certificate[],
    { csr, kind, identity }: IssueRequest,
  ): { certificate: Certificate; chain: readonly Certificate[] } {
    const leaf = answer.find(({ fingerprint }) => fingerprint === csr.fingerprint);
    if (leaf === undefined) throw upstream("the certificate is for another key");
    const { identities, uses } = peerCertificate(leaf);
    const others = leaf.subjectAltNames.some(({ type }) => !PERSONAL.has(type));
    if (identities.length !== 1 || identities[0]?.identity !== identity || others)
      throw upstream("the certificate names somebody else");
    const usable = kind === "auth" ? uses.peer && uses.sign : uses.seal && !uses.peer;
    if (!usable || leaf.basicConstraints?.ca === true) throw upstream("the certificate is for another use");
    const path = validatePath({
      ...{ leaf, candidates: [...answer, ...this.#intermediates], anchors: this.#o.anchors, time: this.#o.clock() },
      purpose: kind === "auth" ? "peer" : "seal",
    });
    if (!path.ok) throw upstream("the certificate leads to no anchor of that CA", undefined, { reason: path.reason });
    return {
      certificate: leaf,
      chain: path.path.slice(1).filter(({ sha256 }) => sha256 !== path.anchor.certificate.sha256),
    };
  }
}

const PERSONAL = new Set<string>(["rfc822Name", "smtpUtf8Mailbox", "uri"]);

/** @throws SuiteError syntax (`bad-csr`) */
function checkNames({ csr, identity }: IssueRequest): void {
  if (!namesExactly(csr, identity))
    throw new SuiteError("syntax", "the request has to name whom it is for, and nobody else", {
      fault: "peer",
      details: { code: "bad-csr" },
    });
}
