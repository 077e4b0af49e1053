import type { Certificate } from "../pki/certificate.ts";
import type { Log } from "../pki/log.ts";
import type { TrustAnchor } from "../pki/path.ts";
import type { RevocationStatus } from "../pki/revocation.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import type { RevocationSource } from "./judging.ts";
import { type KeptAnswer, OcspAnswers } from "./ocsp-answers.ts";
import { KeptFiles, Refreshed } from "./refreshed.ts";
import { type Above, type Fetching, namesList } from "./revocation-fetching.ts";
import { type KeptList, type ListTold, RevocationLists } from "./revocation-lists.ts";
import type { RevocationState } from "./verdict.ts";

export interface RevocationsOptions {
  /** Where lists and answers are kept between runs; made if it is not there. */
  directory: string;
  ofAnchor: (anchor: string) => AnchorRevocation;
  /** Whether lists that certificates name may come from private networks. */
  privateTargets: boolean;
  clock: () => Date;
  /** 0 … 1, for the spread of refreshes. */
  chance: () => number;
  random: (length: number) => Buffer;
  log: Log;
}

/** What the owner configured for an anchor. */
export interface AnchorRevocation {
  /** Hours that what its CAs say counts past its nextUpdate. */
  graceHours: number;
  /** URLs of lists for certificates that name none. */
  lists: readonly string[];
}

const HOUR = 3_600_000;

/**
 * What CAs say of revocation: their lists, and, where a certificate names none, their responder's answer (it tells the CA
 * who talks to whom). Fetched in the background and kept on disk; the gate reads memory alone. URLs are learned from the
 * certificates of good paths, or configured.
 */
export class Revocations implements RevocationSource {
  readonly #o: RevocationsOptions;
  readonly #lists: RevocationLists;
  readonly #answers: OcspAnswers;
  readonly #listeners = new Set<() => void>();
  readonly #stop = new AbortController();

  /** Reads what earlier runs fetched, so that the first peer already meets it. */
  static async open(options: RevocationsOptions): Promise<Revocations> {
    const files = await KeptFiles.open(options.directory);
    const made = new Revocations(options, files);
    await files.load(
      (bytes, about) => made.#takeKept(bytes, about as KeptList | KeptAnswer),
      (name, error) => options.log.warn({ name, error: asSuiteError(error) }, "what was kept cannot be used"),
    );
    return made;
  }

  private constructor(options: RevocationsOptions, files: KeptFiles) {
    this.#o = options;
    const { clock, privateTargets, chance, random } = options;
    const fetching: Fetching = {
      ...{ files, clock, privateTargets, chance, random, signal: this.#stop.signal },
      refreshed: (url, fetch) => this.#refreshed(url, fetch),
      changed: () => {
        for (const listener of this.#listeners) listener();
      },
    };
    this.#lists = new RevocationLists(fetching);
    this.#answers = new OcspAnswers(fetching);
  }

  /** For whoever wants to tell how old the lists are. */
  get sources(): readonly ListTold[] {
    return this.#lists.told;
  }

  stateOf(path: readonly Certificate[], anchor: TrustAnchor, time: Date): RevocationState {
    let worst: RevocationState = path.length < 2 ? { status: "unchecked" } : { status: "good" };
    for (let at = path.length - 2; at >= 0; at--) {
      const [certificate, issuer] = [path[at], path[at + 1]];
      if (certificate === undefined || issuer === undefined) continue;
      const told = this.#told(certificate, { issuer, anchor, path }, time);
      if (typeof told === "object") return { status: "revoked", at, since: told.since };
      if (SEVERITY[told] > SEVERITY[worst.status]) worst = { status: told };
    }
    return worst;
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Fetches everything now. Resolves when each has come or failed. */
  async refresh(): Promise<void> {
    await Promise.all(this.#refreshes.map((one) => one.anew()));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    for (const one of this.#refreshes) await one.stop();
  }

  get #refreshes(): readonly Refreshed[] {
    return [...this.#lists.refreshed, ...this.#answers.refreshed];
  }

  /**
   * Nothing has come that speaks of the certificate: unchecked, as if its list could not be fetched, since whoever can change
   * what comes can also keep it away. A responder that says itself not to know the certificate: nobody knows.
   */
  #told(
    certificate: Certificate,
    above: Above,
    time: Date,
  ): "good" | "unchecked" | "unknown" | (RevocationStatus & { status: "revoked" }) {
    const { graceHours, lists: configured } = this.#o.ofAnchor(above.anchor.name);
    const when = { time, graceMs: graceHours * HOUR, configured };
    if (namesList(certificate) || configured.length > 0) {
      const listed = this.#lists.statusOf(certificate, above, when);
      if (listed === undefined || listed.status === "unknown") return "unchecked";
      return listed.status === "revoked" ? listed : listed.status === "stale" ? "unknown" : "good";
    }
    const answered = this.#answers.statusOf(certificate, above, when);
    if (answered === undefined) return "unchecked";
    const { status, delegate } = answered;
    if (status.status === "revoked") return status;
    if (status.status !== "good") return "unknown";
    // A delegate whose key was stolen says "good" of everybody. Only its issuer's lists are asked: not again itself.
    const signer = delegate === undefined ? undefined : this.#lists.statusOf(delegate, above, when);
    return signer?.status === "revoked" || signer?.status === "stale" ? "unknown" : "good";
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

  async #takeKept(bytes: Buffer, about: KeptList | KeptAnswer): Promise<void> {
    if (about.kind === "list") await this.#lists.takeKept(bytes, about);
    else this.#answers.takeKept(bytes, about);
  }
}

const SEVERITY = { good: 0, unchecked: 1, unknown: 2, revoked: 3 } as const;
