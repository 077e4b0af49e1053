import type { Certificate } from "../pki/certificate.ts";
import { type OcspFinding, type OcspResponse, ocspStatusAt, parseOcspResponse, verifyOcsp } from "../pki/ocsp.ts";
import { makeOcspRequest } from "../pki/ocsp-request.ts";
import type { TrustAnchor } from "../pki/path.ts";
import type { RevocationStatus } from "../pki/revocation.ts";
import { download } from "./download.ts";
import type { Refreshed } from "./refreshed.ts";
import {
  type Above,
  certificateText,
  doesNotCount,
  type Fetching,
  isFetchable,
  KEPT_REFRESH_MS,
  readCertificate,
  type When,
} from "./revocation-fetching.ts";
import { type Source, Sources } from "./sources.ts";
import { Turns } from "./turns.ts";

/** What a responder says of one certificate. */
interface AnswerSource extends Source {
  readonly url: string;
  readonly certificate: Certificate;
  readonly issuer: Certificate;
  readonly trustAnchor: TrustAnchor;
  finding: OcspFinding | undefined;
}

/** What is kept on disk beside an answer: certificates in base64. */
export interface KeptAnswer {
  kind: "answer";
  url: string;
  certificate: string;
  issuer: string;
  anchor: { name: string; certificate: string };
}

/** A responder's answer, and what may be said against who signed it. */
export interface Answered {
  readonly status: RevocationStatus;
  /** Set if the issuer's delegate signed it, and has to be asked about itself. */
  readonly delegate: Certificate | undefined;
}

const LIMITS = { maxBytes: 64 * 1024, seconds: 15, redirects: 3 };
const MAX_SOURCES = { anchor: 2_000, total: 10_000 };
/** So many responders of one anchor's CAs are asked at once: each costs a file descriptor, and may be silent. */
const AT_ONCE = 16;
const NONCE_BYTES = 32;

/** OCSP answers for certificates that name no list. */
export class OcspAnswers {
  readonly #o: Fetching;
  readonly #sources = new Sources<AnswerSource>(MAX_SOURCES, (source) => void this.#removeFile(source));
  readonly #turns = new Turns(AT_ONCE);

  constructor(options: Fetching) {
    this.#o = options;
  }

  get refreshed(): readonly Refreshed[] {
    return [...this.#sources].map(({ refreshed }) => refreshed);
  }

  /** What the responder said last; one that was never asked is asked at once. Undefined: nothing has come yet. */
  statusOf(certificate: Certificate, above: Above, when: When): Answered | undefined {
    const [url] = certificate.ocspUrls;
    if (url === undefined) return undefined;
    const finding = this.#at(url, certificate, above)?.finding;
    if (finding === undefined) return undefined;
    const { delegate } = finding;
    return { status: ocspStatusAt(finding, when), delegate: delegate?.ocspNoCheck === true ? undefined : delegate };
  }

  #at(url: string, certificate: Certificate, { issuer, anchor }: Above): AnswerSource | undefined {
    const known = this.#sources.get(anchor.name, certificate.sha256);
    if (known !== undefined) return known;
    const source = this.#add(url, certificate, issuer, anchor);
    void source?.refreshed.now();
    return source;
  }

  #add(url: string, certificate: Certificate, issuer: Certificate, anchor: TrustAnchor): AnswerSource | undefined {
    if (!isFetchable(url)) return undefined;
    const source: AnswerSource = {
      anchor: anchor.name,
      url,
      certificate,
      issuer,
      trustAnchor: anchor,
      finding: undefined,
      refreshed: this.#o.refreshed(url, () => this.#turns.run(anchor.name, () => this.#fetch(source))),
    };
    return this.#sources.add(certificate.sha256, source) ? source : undefined;
  }

  async #fetch(source: AnswerSource): Promise<Date | undefined | "over"> {
    const { anchor, url, certificate, issuer } = source;
    const { clock, files, privateTargets, random, signal } = this.#o;
    if (!this.#sources.has(certificate.sha256, source)) return "over"; // another took its room while it waited
    if (certificate.validity.notAfter < clock()) {
      this.#sources.delete(anchor, certificate.sha256);
      await this.#removeFile(source);
      return "over";
    }
    const nonce = random(NONCE_BYTES);
    const body = { type: "application/ocsp-request", bytes: makeOcspRequest({ certificate, issuer, nonce }) };
    const response = parseOcspResponse(await download(url, { ...LIMITS, privateTargets }, signal, body));
    const finding = this.#verified(source, response, clock(), nonce);
    if (!this.#sources.has(certificate.sha256, source)) return "over";
    source.finding = finding; // before it is written: who is revoked is so on a full disk, too
    this.#o.changed();
    await files.write(fileOf(source), response.der, kept(source));
    if (!this.#sources.has(certificate.sha256, source)) await this.#removeFile(source);
    // It may be so new that the responder has not heard of it: then it is asked again soon.
    if (ocspStatusAt(finding, { time: clock(), graceMs: 0 }).status === "unknown")
      throw doesNotCount("the responder does not know the certificate");
    return finding.answers[0]?.nextUpdate;
  }

  /** What an earlier run kept is checked as if it came now. */
  takeKept(bytes: Buffer, about: KeptAnswer): void {
    const anchor = { name: about.anchor.name, certificate: readCertificate(about.anchor.certificate) };
    const certificate = readCertificate(about.certificate);
    const source = this.#add(about.url, certificate, readCertificate(about.issuer), anchor);
    if (source === undefined) return;
    source.refreshed.later(this.#o.chance() * KEPT_REFRESH_MS);
    // Its signer's certificate may have ended since: what it said when it came, it said.
    const response = parseOcspResponse(bytes);
    source.finding = this.#verified(source, response, response.basic?.producedAt ?? this.#o.clock());
  }

  /** @throws SuiteError certificate-invalid for an answer that does not count, or that is older than the last */
  #verified(source: AnswerSource, response: OcspResponse, time: Date, nonce?: Buffer): OcspFinding {
    const { certificate, issuer, trustAnchor: anchor, finding: last } = source;
    const question = { certificate, issuer, anchor, time, graceMs: 0, ...(nonce === undefined ? {} : { nonce }) };
    const finding = verifyOcsp(response, question);
    if (finding === undefined) throw doesNotCount("nothing about the certificate that its issuer stands for");
    // An answer without our nonce may be one of yesterday, when the certificate was still good.
    if (last !== undefined && toldAt(finding) < toldAt(last)) throw doesNotCount("older than the last");
    return finding;
  }

  async #removeFile(source: AnswerSource): Promise<void> {
    await this.#o.files.remove(fileOf(source)).catch(() => undefined);
  }
}

function fileOf({ anchor, certificate }: AnswerSource): string {
  return JSON.stringify([anchor, certificate.sha256]);
}

function kept({ url, certificate, issuer, trustAnchor }: AnswerSource): KeptAnswer {
  return {
    kind: "answer",
    url,
    certificate: certificateText(certificate),
    issuer: certificateText(issuer),
    anchor: { name: trustAnchor.name, certificate: certificateText(trustAnchor.certificate) },
  };
}

function toldAt({ answers }: OcspFinding): number {
  return Math.max(0, ...answers.map(({ thisUpdate }) => thisUpdate.getTime()));
}
