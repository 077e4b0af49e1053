import { createHash } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import type { Certificate } from "../pki/certificate.ts";
import { parseCertificate } from "../pki/certificate.ts";
import { parseRevocationList, type RevocationList } from "../pki/crl.ts";
import type { Log } from "../pki/log.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { type RevocationLists, revocationOf } from "../pki/revocation.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { type DownloadLimits, download } from "./download.ts";
import type { RevocationSource } from "./judging.ts";
import type { RevocationState } from "./verdict.ts";

export interface RevocationsOptions {
  /** Where lists are kept between runs; made if it is not there. */
  directory: string;
  /** Hours that a list of an anchor counts past its nextUpdate. */
  graceHours: (anchor: string) => number;
  /** Whether lists may come from private networks. */
  privateTargets: boolean;
  clock: () => Date;
  /** 0 … 1, for the spread of refreshes. */
  chance: () => number;
  log: Log;
}

/** A list's place, and what is known of it. */
interface Source {
  readonly url: string;
  /** Whoever it speaks for: a list counts only if one of these, or somebody in their name, signed it. */
  readonly issuers: Map<string, { issuer: Certificate; anchor: TrustAnchor }>;
  list: RevocationList | undefined;
  timer: NodeJS.Timeout | undefined;
  fetching: Promise<void> | undefined;
  failures: number;
}

const LIMITS: Omit<DownloadLimits, "privateTargets"> = { maxBytes: 64 * 1024 * 1024, seconds: 60, redirects: 3 };
const MAX_SOURCES = 1_000;
const MINUTE = 60_000;
const FIRST_RETRY_MS = MINUTE;
const LAST_RETRY_MS = 60 * MINUTE;
const SOONEST_MS = 5 * MINUTE;
const LATEST_MS = 24 * 60 * MINUTE;

/**
 * Revocation lists, fetched in the background and kept on disk; the gate reads memory alone. URLs are learned from the
 * certificates of good paths.
 */
export class Revocations implements RevocationSource {
  readonly #o: RevocationsOptions;
  readonly #sources = new Map<string, Source>();
  readonly #listeners = new Set<() => void>();
  readonly #stop = new AbortController();

  /** Reads what earlier runs fetched, so that the first peer already meets it. */
  static async open(options: RevocationsOptions): Promise<Revocations> {
    const made = new Revocations(options);
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    await made.#load();
    return made;
  }

  private constructor(options: RevocationsOptions) {
    this.#o = options;
  }

  /** For whoever wants to tell how old the lists are. */
  get sources(): readonly { url: string; thisUpdate?: Date; nextUpdate?: Date; entries: number; failures: number }[] {
    return [...this.#sources.values()].map(({ url, list, failures }) => ({
      url,
      failures,
      entries: list?.size ?? 0,
      ...(list === undefined ? {} : { thisUpdate: list.thisUpdate }),
      ...(list?.nextUpdate === undefined ? {} : { nextUpdate: list.nextUpdate }),
    }));
  }

  stateOf(path: readonly Certificate[], anchor: TrustAnchor, time: Date): RevocationState {
    let worst: RevocationState = { status: "good" };
    for (let at = path.length - 2; at >= 0; at--) {
      const [certificate, issuer] = [path[at], path[at + 1]];
      if (certificate === undefined || issuer === undefined) continue;
      const state = this.#stateOfOne(certificate, issuer, anchor, time, path);
      if (state.status === "revoked") return { ...state, at };
      if (SEVERITY[state.status] > SEVERITY[worst.status]) worst = state;
    }
    return path.length < 2 ? { status: "unchecked" } : worst;
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Fetches all lists now. Resolves when each has come or failed. */
  async refresh(): Promise<void> {
    await Promise.all([...this.#sources.values()].map((source) => this.#fetch(source)));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    for (const { timer, fetching } of this.#sources.values()) {
      clearTimeout(timer);
      await fetching;
    }
  }

  #stateOfOne(
    certificate: Certificate,
    issuer: Certificate,
    anchor: TrustAnchor,
    time: Date,
    path: readonly Certificate[],
  ): Exclude<RevocationState, { status: "revoked" }> | { status: "revoked"; at: number; since: Date } {
    const sources = certificate.crlUrls.flatMap((url) => this.#source(url, issuer, anchor) ?? []);
    const lists = sources.flatMap(({ list }) => list ?? []);
    if (lists.length === 0) return { status: "unchecked" };
    const told = revocationOf(certificate, issuer, anchor, this.#question(lists, path, time, anchor));
    if (told.status === "revoked") return { status: "revoked", at: 0, since: told.since };
    if (told.status === "good") return told;
    return { status: told.status === "stale" ? "unknown" : "unchecked" };
  }

  #question(
    lists: readonly RevocationList[],
    signers: readonly Certificate[],
    time: Date,
    anchor: TrustAnchor,
  ): RevocationLists {
    return { lists, signers, time, graceMs: this.#o.graceHours(anchor.name) * 60 * MINUTE };
  }

  /** The source of a URL; a new one is fetched at once. Undefined for what is not fetched. */
  #source(url: string, issuer: Certificate, anchor: TrustAnchor): Source | undefined {
    const known = this.#sources.get(url);
    if (known !== undefined) {
      if (!known.issuers.has(issuer.sha256)) known.issuers.set(issuer.sha256, { issuer, anchor });
      return known;
    }
    if (!/^https?:\/\//i.test(url) || url.length > 2_048 || this.#sources.size >= MAX_SOURCES) return undefined;
    const issuers = new Map([[issuer.sha256, { issuer, anchor }]]);
    const source: Source = { url, issuers, list: undefined, timer: undefined, fetching: undefined, failures: 0 };
    this.#sources.set(url, source);
    void this.#fetch(source);
    return source;
  }

  /** One fetch at a time. */
  #fetch(source: Source): Promise<void> {
    source.fetching ??= this.#fetchOnce(source).finally(() => {
      source.fetching = undefined;
    });
    return source.fetching;
  }

  async #fetchOnce(source: Source): Promise<void> {
    const { log, privateTargets } = this.#o;
    clearTimeout(source.timer);
    try {
      const bytes = await download(source.url, { ...LIMITS, privateTargets }, this.#stop.signal);
      const list = parseRevocationList(derOf(bytes));
      this.#check(source, list);
      const news = source.list === undefined || Buffer.compare(source.list.der, list.der) !== 0;
      if (news) {
        await this.#keep(source, list);
        source.list = list;
      }
      if (source.failures > 0) log.info({ url: source.url }, "a revocation list comes again");
      source.failures = 0;
      this.#again(source, this.#halfLife(list));
      if (news) for (const listener of this.#listeners) listener();
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      source.failures += 1;
      const fields = { url: source.url, error: asSuiteError(error) };
      if (source.failures === 1) log.warn(fields, "a revocation list could not be renewed; the last one ages");
      this.#again(source, Math.min(FIRST_RETRY_MS * 2 ** (source.failures - 1), LAST_RETRY_MS));
    }
  }

  /** @throws SuiteError certificate-invalid for a list by somebody else, or older than the one that is kept */
  #check(source: Source, list: RevocationList): void {
    const refuse = (what: string) =>
      new SuiteError("certificate-invalid", "the revocation list does not count", {
        fault: "service",
        details: { what },
      });
    if (list.criticalUnknown.length > 0) throw refuse("critical extension");
    if (source.list !== undefined && list.thisUpdate < source.list.thisUpdate) throw refuse("older than the last");
    const signed = [...source.issuers.values()].some(({ issuer }) => list.signedBy(issuer));
    // A list by another signer is judged where it is used, with its path; but a direct one must be its issuer's.
    if (!signed && !list.scope.indirect && source.issuers.size > 0) throw refuse("signature");
  }

  #halfLife({ thisUpdate, nextUpdate }: RevocationList): number {
    const life = (nextUpdate?.getTime() ?? thisUpdate.getTime()) - thisUpdate.getTime();
    return Math.min(Math.max(life / 2, SOONEST_MS), LATEST_MS);
  }

  #again(source: Source, milliseconds: number): void {
    if (this.#stop.signal.aborted) return;
    const spread = 0.9 + 0.2 * this.#o.chance();
    source.timer = setTimeout(() => void this.#fetch(source), milliseconds * spread);
    source.timer.unref();
  }

  /** Temporary name → synced → renamed: what is there under its name is whole. */
  async #keep(source: Source, list: RevocationList): Promise<void> {
    const stem = join(this.#o.directory, createHash("sha256").update(source.url).digest("hex"));
    const about = {
      url: source.url,
      issuers: [...source.issuers.values()].map(({ issuer, anchor }) => ({
        issuer: Buffer.from(issuer.der).toString("base64"),
        anchor: { name: anchor.name, certificate: Buffer.from(anchor.certificate.der).toString("base64") },
      })),
    };
    await write(`${stem}.crl`, list.der);
    await write(`${stem}.json`, Buffer.from(JSON.stringify(about)));
  }

  async #load(): Promise<void> {
    const { directory, log } = this.#o;
    for (const name of await readdir(directory)) {
      if (name.endsWith(".new")) await unlink(join(directory, name)).catch(() => undefined);
      if (!name.endsWith(".json") || this.#sources.size >= MAX_SOURCES) continue;
      try {
        const { url, issuers } = JSON.parse(await readFile(join(directory, name), "utf8")) as Kept;
        const source: Source = {
          url,
          issuers: new Map(issuers.map(readIssuer).map((one) => [one.issuer.sha256, one])),
          list: undefined,
          timer: undefined,
          fetching: undefined,
          failures: 0,
        };
        const list = parseRevocationList(await readFile(join(directory, name.replace(/json$/, "crl"))));
        this.#check(source, list);
        source.list = list;
        this.#sources.set(url, source);
        this.#again(source, this.#o.chance() * MINUTE);
      } catch (error) {
        log.warn({ name, error: asSuiteError(error) }, "a kept revocation list cannot be used");
      }
    }
  }
}

const SEVERITY = { good: 0, unchecked: 1, unknown: 2 } as const;

interface Kept {
  url: string;
  issuers: { issuer: string; anchor: { name: string; certificate: string } }[];
}

function readIssuer({ issuer, anchor }: Kept["issuers"][number]): { issuer: Certificate; anchor: TrustAnchor } {
  return {
    issuer: parseCertificate(Buffer.from(issuer, "base64")),
    anchor: { name: anchor.name, certificate: parseCertificate(Buffer.from(anchor.certificate, "base64")) },
  };
}

/** Lists come as DER (RFC 5280 §8); some servers send PEM. */
function derOf(bytes: Buffer): Buffer {
  if (bytes[0] !== 0x2d) return bytes;
  const [, body = ""] = /-----BEGIN X509 CRL-----([^-]+)-----END X509 CRL-----/.exec(bytes.toString("latin1")) ?? [];
  return Buffer.from(body, "base64");
}

async function write(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(bytes);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}
