import type { HttpsClient } from "../peertls-core/https-client.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import type { DirectoryClient, KnownDomain } from "../sixid/client.ts";
import type { PeerRecord } from "../sixid/directory.ts";
import { watch } from "../sixid/watch.ts";
import { pause } from "./pause.ts";

export interface WatcherOptions {
  owner: Identity;
  directory: DirectoryClient;
  /** Kept connections to the own domain's server. */
  http: HttpsClient;
  httpTo: (domain: KnownDomain) => HttpsClient;
  /** Whose news count, the owner left out. */
  people: () => Promise<readonly Identity[]>;
  onNews: (record: PeerRecord) => void;
  /** Somebody asks to be admitted. */
  onRequest: () => void;
  /** Somebody fetched a backup of the owner's. */
  onBackup: () => void;
  /** From 0 to 1. */
  chance: () => number;
  log: Log;
}

const MAX_PEOPLE = 500;
const SETTLE_MS = 1_000;
const AGAIN_MS = 1_000;
const MOST_MS = 60_000;

/** Watches people in the directories of their domains, so that whoever moves is known at once: a stream to each domain's server. */
export class Watcher {
  readonly #o: WatcherOptions;
  #changed = new AbortController();
  /** The streams that run, by domain; `of`: whom they are about. */
  readonly #running = new Map<string, { of: string; stop: AbortController }>();

  constructor(options: WatcherOptions) {
    this.#o = options;
  }

  /** There are others to be watched than before. */
  peopleChanged(): void {
    this.#changed.abort();
  }

  /** The own addresses changed: streams that ran over one that is gone would fall silent. */
  restart(): void {
    for (const { stop } of this.#running.values()) stop.abort();
    this.#running.clear();
    this.#changed.abort();
  }

  /** Runs until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#changed = new AbortController();
      const next = AbortSignal.any([signal, this.#changed.signal]);
      try {
        this.#arrange(await this.#o.people(), signal);
      } catch (error) {
        this.#o.log.error({ error: asSuiteError(error) }, "whom to watch is not known");
      }
      await pause(SETTLE_MS, signal); // however often they change
      await pause(MOST_MS, next);
    }
  }

  #arrange(people: readonly Identity[], signal: AbortSignal): void {
    const { owner } = this.#o;
    const wanted = new Map<string, Identity[]>([[identityDomain(owner), [owner]]]);
    for (const identity of new Set(people)) {
      const domain = identityDomain(identity);
      const alike = wanted.get(domain) ?? [];
      wanted.set(domain, alike);
      if (identity !== owner && alike.length < MAX_PEOPLE) alike.push(identity);
    }
    for (const [domain, { of, stop }] of this.#running) {
      if (wanted.get(domain)?.toSorted().join() === of) continue;
      stop.abort();
      this.#running.delete(domain);
    }
    for (const [domain, of] of wanted) {
      if (this.#running.has(domain)) continue;
      const stop = new AbortController();
      this.#running.set(domain, { of: of.toSorted().join(), stop });
      void this.#keep(domain, of, AbortSignal.any([signal, stop.signal]));
    }
  }

  /** Keeps a stream open, with growing pauses while it cannot be. */
  async #keep(domain: string, people: readonly Identity[], signal: AbortSignal): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      const began = performance.now();
      try {
        await this.#stream(domain, people, signal);
      } catch (error) {
        if (!signal.aborted) this.#o.log.debug({ domain, error: asSuiteError(error).code }, "a watch has ended");
      }
      failures = performance.now() - began > MOST_MS ? 0 : failures + 1;
      await pause(Math.min(MOST_MS, AGAIN_MS * 2 ** (failures - 1)) * (0.5 + this.#o.chance()), signal);
    }
  }

  async #stream(domain: string, people: readonly Identity[], signal: AbortSignal): Promise<void> {
    const { directory, owner, http, httpTo, onNews, onRequest, onBackup, log } = this.#o;
    const own = domain === identityDomain(owner);
    const client = own ? http : httpTo(await directory.otherDomain(domain, signal));
    try {
      const know = new Map(people.map((identity) => [identity, directory.known(identity)]));
      for await (const { type, data } of watch(client, know, signal)) {
        if (type === "request") onRequest();
        if (type === "backup") onBackup();
        if (type !== "record") continue;
        try {
          onNews(await directory.takeNews(data, signal));
        } catch (error) {
          // Told already, and no reason to hear nothing of the others.
          log.info({ domain, error: asSuiteError(error).code }, "news of a watched person were refused");
        }
      }
    } finally {
      if (!own) client.close();
    }
  }
}
