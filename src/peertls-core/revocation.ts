import type { Certificate } from "../pki/certificate.ts";
import { parseCertificate } from "../pki/certificate.ts";
import { parseRevocationList, type RevocationList } from "../pki/crl.ts";
import type { Log } from "../pki/log.ts";
import { type OcspResponse, ocspStatus, parseOcspResponse } from "../pki/ocsp.ts";
import { makeOcspRequest } from "../pki/ocsp-request.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { type RevocationStatus, revocationOf } from "../pki/revocation.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { type DownloadLimits, download } from "./download.ts";
import type { RevocationSource } from "./judging.ts";
import { KeptFiles, Refreshed } from "./refreshed.ts";
import type { RevocationState } from "./verdict.ts";

export interface RevocationsOptions {
  /** Where lists and answers are kept between runs; made if it is not there. */
  directory: string;
  /** Hours that what an anchor's CAs say counts past its nextUpdate. */
  graceHours: (anchor: string) => number;
  /** Whether lists may come from private networks. */
  privateTargets: boolean;
  clock: () => Date;
  /** 0 … 1, for the spread of refreshes. */
  chance: () => number;
  random: (length: number) => Buffer;
  log: Log;
}

/** The certificate above the one in question, and where its path ends. */
interface Above {
  readonly issuer: Certificate;
  readonly anchor: TrustAnchor;
}

/** A list's place, and what is known of it. */
interface ListSource {
  readonly kind: "list";
  readonly url: string;
  /** The CAs of the paths that led here: a list counts only if one of these signed it. */
  readonly issuers: Map<string, Above>;
  /** By kind, see `kindOf`: plain HTTP brings whatever somebody on the way wants, if only a CA has signed it. */
  readonly lists: Map<string, RevocationList>;
  readonly refreshed: Refreshed;
}

/** What a responder says of one certificate. */
interface AnswerSource {
  readonly kind: "answer";
  readonly url: string;
  readonly certificate: Certificate;
  readonly above: Above;
  response: OcspResponse | undefined;
  readonly refreshed: Refreshed;
}

const LIST_LIMITS = { maxBytes: 64 * 1024 * 1024, seconds: 60, redirects: 3 };
const ANSWER_LIMITS = { maxBytes: 64 * 1024, seconds: 15, redirects: 3 };
const MAX_LISTS = 1_000;
const MAX_ANSWERS = 10_000;
const MAX_KINDS = 8;
const MAX_ISSUERS = 64;
const MAX_URL = 2_048;
const HOUR = 3_600_000;
const MINUTE = 60_000;
const NONCE_BYTES = 32;

/**
 * What CAs say of revocation: their lists, and, where a certificate names none, their responder's answer (it tells the CA
 * who talks to whom). Fetched in the background and kept on disk; the gate reads memory alone. URLs are learned from the
 * certificates of good paths.
 */
export class Revocations implements RevocationSource {
  readonly #o: RevocationsOptions;
  readonly #files: KeptFiles;
  readonly #lists = new Map<string, ListSource>();
  readonly #answers = new Map<string, AnswerSource>();
  readonly #listeners = new Set<() => void>();
  readonly #stop = new AbortController();

  /** Reads what earlier runs fetched, so that the first peer already meets it. */
  static async open(options: RevocationsOptions): Promise<Revocations> {
    const made = new Revocations(options, await KeptFiles.open(options.directory));
    await made.#files.load(
      (bytes, about) => made.#takeKept(bytes, about as Kept),
      (name, error) => options.log.warn({ name, error: asSuiteError(error) }, "what was kept cannot be used"),
    );
    return made;
  }

  private constructor(options: RevocationsOptions, files: KeptFiles) {
    this.#o = options;
    this.#files = files;
  }

  /** For whoever wants to tell how old the lists are. */
  get sources(): readonly { url: string; thisUpdate?: Date; nextUpdate?: Date; entries: number; failures: number }[] {
    return [...this.#lists.values()].flatMap(({ url, lists, refreshed: { failures } }) =>
      (lists.size === 0 ? [undefined] : [...lists.values()]).map((list) => ({
        url,
        failures,
        entries: list?.size ?? 0,
        ...(list === undefined ? {} : { thisUpdate: list.thisUpdate }),
        ...(list?.nextUpdate === undefined ? {} : { nextUpdate: list.nextUpdate }),
      })),
    );
  }

  stateOf(path: readonly Certificate[], anchor: TrustAnchor, time: Date): RevocationState {
    let worst: RevocationState = path.length < 2 ? { status: "unchecked" } : { status: "good" };
    for (let at = path.length - 2; at >= 0; at--) {
      const [certificate, issuer] = [path[at], path[at + 1]];
      if (certificate === undefined || issuer === undefined) continue;
      const told = this.#told(certificate, { issuer, anchor }, time, path);
      if (told?.status === "revoked") return { status: "revoked", at, since: told.since };
      const status = told === undefined || told.status === "unknown" ? "unchecked" : SAID[told.status];
      if (SEVERITY[status] > SEVERITY[worst.status]) worst = { status };
    }
    return worst;
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Fetches everything now. Resolves when each has come or failed. */
  async refresh(): Promise<void> {
    const all = [...this.#lists.values(), ...this.#answers.values()];
    await Promise.all(all.map(({ refreshed }) => refreshed.anew()));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    for (const { refreshed } of [...this.#lists.values(), ...this.#answers.values()]) await refreshed.stop();
  }

  /** Undefined: nothing has come yet, or there is nothing to ask. */
  #told(
    certificate: Certificate,
    above: Above,
    time: Date,
    path: readonly Certificate[],
  ): RevocationStatus | undefined {
    const { issuer, anchor } = above;
    const graceMs = this.#o.graceHours(anchor.name) * HOUR;
    if (certificate.crlUrls.length > 0) {
      const lists = certificate.crlUrls.flatMap((url) => [...(this.#list(url, path, anchor)?.lists.values() ?? [])]);
      if (lists.length === 0) return undefined;
      return revocationOf(certificate, issuer, anchor, { lists, signers: path, time, graceMs });
    }
    const [url] = certificate.ocspUrls;
    const response = url === undefined ? undefined : this.#answer(url, certificate, above)?.response;
    return response === undefined ? undefined : ocspStatus(response, { certificate, issuer, anchor, time, graceMs });
  }

  /** The source of a list; a new one is fetched at once. Undefined for what is not fetched. */
  #list(url: string, path: readonly Certificate[], anchor: TrustAnchor): ListSource | undefined {
    const known = this.#lists.get(url);
    if (known === undefined && (!isFetchable(url) || this.#lists.size >= MAX_LISTS)) return undefined;
    const source = known ?? this.#newList(url);
    const before = source.issuers.size;
    for (const issuer of path.slice(1)) {
      if (source.issuers.size >= MAX_ISSUERS) break;
      if (!source.issuers.has(issuer.sha256)) source.issuers.set(issuer.sha256, { issuer, anchor });
    }
    // What nobody vouched for yet may count now.
    if (source.issuers.size > before && source.lists.size === 0) void source.refreshed.anew();
    return source;
  }

  #newList(url: string): ListSource {
    const source: ListSource = {
      kind: "list",
      url,
      issuers: new Map(),
      lists: new Map(),
      refreshed: this.#refreshed(url, () => this.#fetchList(source)),
    };
    this.#lists.set(url, source);
    return source;
  }

  async #fetchList(source: ListSource): Promise<Date | undefined> {
    const list = parseRevocationList(derOf(await this.#download(source.url, LIST_LIMITS)));
    checkList(source, list, this.#o.clock());
    const { url, issuers, lists } = source;
    const kind = kindOf(list);
    if (Buffer.compare(lists.get(kind)?.der ?? new Uint8Array(), list.der) !== 0) {
      const about = { kind: "list", url, issuers: [...issuers.values()].map(kept) };
      await this.#files.write(`${url} ${kind}`, list.der, about);
      lists.set(kind, list);
      this.#changed();
    }
    return list.nextUpdate;
  }

  #answer(url: string, certificate: Certificate, above: Above): AnswerSource | undefined {
    const known = this.#answers.get(certificate.sha256);
    if (known !== undefined) return known;
    if (!isFetchable(url) || this.#answers.size >= MAX_ANSWERS) return undefined;
    const source = this.#newAnswer(url, certificate, above);
    void source.refreshed.now();
    return source;
  }

  #newAnswer(url: string, certificate: Certificate, above: Above): AnswerSource {
    const source: AnswerSource = {
      kind: "answer",
      url,
      certificate,
      above,
      response: undefined,
      refreshed: this.#refreshed(url, () => this.#fetchAnswer(source)),
    };
    this.#answers.set(certificate.sha256, source);
    return source;
  }

  async #fetchAnswer(source: AnswerSource): Promise<Date | undefined | "over"> {
    const { url, certificate, above } = source;
    const key = `${url} ${certificate.sha256}`;
    if (certificate.validity.notAfter < this.#o.clock()) {
      this.#answers.delete(certificate.sha256);
      await this.#files.remove(key);
      return "over";
    }
    const nonce = this.#o.random(NONCE_BYTES);
    const bytes = makeOcspRequest({ certificate, issuer: above.issuer, nonce });
    const body = { type: "application/ocsp-request", bytes };
    const response = parseOcspResponse(await this.#download(url, ANSWER_LIMITS, body));
    this.#checkAnswer(source, response, nonce);
    const about = { kind: "answer", url, certificate: base64(certificate), issuers: [kept(above)] };
    await this.#files.write(key, response.der, about);
    source.response = response;
    this.#changed();
    return response.basic?.answers[0]?.nextUpdate;
  }

  /** @throws SuiteError certificate-invalid for an answer that says nothing about the certificate */
  #checkAnswer({ certificate, above, response: last }: AnswerSource, response: OcspResponse, nonce?: Buffer): void {
    const time = this.#o.clock();
    const graceMs = this.#o.graceHours(above.anchor.name) * HOUR;
    const question = { certificate, ...above, time, graceMs, ...(nonce === undefined ? {} : { nonce }) };
    if (ocspStatus(response, question).status === "unknown") throw doesNotCount("the responder does not tell");
    if (last !== undefined && toldAt(response) < toldAt(last)) throw doesNotCount("older than the last");
  }

  #download(url: string, limits: Omit<DownloadLimits, "privateTargets">, body?: { type: string; bytes: Buffer }) {
    return download(url, { ...limits, privateTargets: this.#o.privateTargets }, this.#stop.signal, body);
  }

  #refreshed(url: string, fetch: () => Promise<Date | undefined | "over">): Refreshed {
    const { clock, chance, log } = this.#o;
    return new Refreshed(fetch, {
      clock,
      chance,
      signal: this.#stop.signal,
      onFailure: (error) =>
        log.warn({ url, error: asSuiteError(error) }, "revocation could not be asked for; the last word ages"),
      onRecovered: () => log.info({ url }, "revocation can be asked for again"),
    });
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }

  /** What an earlier run kept is checked as if it came now. */
  #takeKept(bytes: Buffer, about: Kept): void {
    const above = about.issuers.map(readAbove);
    const [first] = above;
    if (about.kind === "list") {
      const list = parseRevocationList(bytes);
      const source = this.#lists.get(about.url) ?? this.#newList(about.url);
      for (const one of above) source.issuers.set(one.issuer.sha256, one);
      source.refreshed.later(this.#o.chance() * MINUTE);
      checkList(source, list, this.#o.clock());
      source.lists.set(kindOf(list), list);
    } else if (first !== undefined) {
      const response = parseOcspResponse(bytes);
      const source = this.#newAnswer(about.url, readCertificate(about.certificate), first);
      source.refreshed.later(this.#o.chance() * MINUTE);
      this.#checkAnswer(source, response);
      source.response = response;
    }
  }
}

const SAID = { good: "good", stale: "unknown" } as const;
const SEVERITY = { good: 0, unchecked: 1, unknown: 2, revoked: 3 } as const;

/** @throws SuiteError certificate-invalid for a list by somebody else, or older than the one of its kind that is kept */
function checkList({ lists, issuers }: ListSource, list: RevocationList, time: Date): void {
  if (list.criticalUnknown.length > 0) throw doesNotCount("critical extension");
  if (![...issuers.values()].some(({ issuer }) => list.signedBy(issuer))) throw doesNotCount("signature");
  const last = lists.get(kindOf(list));
  if (last !== undefined && list.thisUpdate < last.thisUpdate) throw doesNotCount("older than the last");
  if (last !== undefined || lists.size < MAX_KINDS) return;
  const [ended] = [...lists].find(([, { nextUpdate = time }]) => nextUpdate <= time) ?? [];
  if (ended === undefined) throw doesNotCount("too many kinds of lists");
  lists.delete(ended);
}

/**
 * What a list tells of: it takes the place of an earlier one of the same kind only. Else whoever can change what comes
 * over HTTP would bring the CA's list of other certificates, or of what is new, and nobody would be revoked any more.
 */
function kindOf({ issuer, deltaBase, scope }: RevocationList): string {
  return JSON.stringify([issuer.key, deltaBase !== undefined, scope]);
}

function doesNotCount(what: string): SuiteError {
  return new SuiteError("certificate-invalid", "what came about revocation does not count", {
    fault: "service",
    details: { what },
  });
}

function isFetchable(url: string): boolean {
  return /^https?:\/\//i.test(url) && url.length <= MAX_URL;
}

/** An answer without our nonce may be one of yesterday, when the certificate was still good. */
function toldAt({ basic }: OcspResponse): number {
  return Math.max(0, ...(basic?.answers ?? []).map(({ thisUpdate }) => thisUpdate.getTime()));
}

interface KeptAbove {
  issuer: string;
  anchor: { name: string; certificate: string };
}

type Kept = { url: string; issuers: KeptAbove[] } & ({ kind: "list" } | { kind: "answer"; certificate: string });

function kept({ issuer, anchor }: Above): KeptAbove {
  return { issuer: base64(issuer), anchor: { name: anchor.name, certificate: base64(anchor.certificate) } };
}

function readAbove({ issuer, anchor }: KeptAbove): Above {
  return {
    issuer: readCertificate(issuer),
    anchor: { name: anchor.name, certificate: readCertificate(anchor.certificate) },
  };
}

function base64({ der }: Certificate): string {
  return Buffer.from(der).toString("base64");
}

function readCertificate(text: string): Certificate {
  return parseCertificate(Buffer.from(text, "base64"));
}

/** Lists come as DER (RFC 5280 §8); some servers send PEM. */
function derOf(bytes: Buffer): Buffer {
  if (bytes[0] !== 0x2d) return bytes;
  const [, body = ""] = /-----BEGIN X509 CRL-----([^-]+)-----END X509 CRL-----/.exec(bytes.toString("latin1")) ?? [];
  return Buffer.from(body, "base64");
}
