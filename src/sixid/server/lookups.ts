import { type Identity, identityDomain } from "../../pki/identity.ts";
import { asSuiteError, SuiteError } from "../../pki/suite-error.ts";
import { type LookupKey, parseLookupKey } from "../lookup-key.ts";
import { type ChainReply, MAX_CHAIN, type RecordReply, type RecordsReply } from "../records.ts";
import type { DirectoryStore, Found, StoredRecord } from "../store/store.ts";
import type { Caller } from "./caller.ts";
import type { Federation } from "./federation.ts";
import { network } from "./network.ts";
import { ANONYMOUS, LISTED_DOMAIN, type Limits, OTHER_DOMAIN, PERSON, type Quotas } from "./quota.ts";
import { MAX_HOPS, type Recursion, type RecursiveQuestion } from "./recursion.ts";
import { type Standing, standingOf, visibleReply } from "./visibility.ts";

export interface LookupsOptions {
  domain: string;
  store: DirectoryStore;
  recursion: Recursion;
  federation: Pick<Federation, "known">;
  /** Undefined: nothing is counted, as where load is measured. */
  quotas: Quotas | undefined;
  clock: () => Date;
}

/** Who is told something, and at whose expense. */
interface Asker {
  identity: Identity | undefined;
  /** A domain that asks in nobody's name is somebody, too. */
  isDomain: boolean;
  payers: readonly { who: string; limits: Limits }[];
}

/** How many keys of one question are looked up in other domains at once. */
const AT_ONCE = 8;

/** Finds people for those who ask. Unknown and not to be seen answer alike, and finding out which names exist is dear. */
export class Lookups {
  readonly #o: LookupsOptions;

  constructor(options: LookupsOptions) {
    this.#o = options;
  }

  /** @throws SuiteError unknown-recipient, directory-unavailable, record-rejected; busy with `retrySeconds` */
  async one(caller: Caller, text: string, signal: AbortSignal): Promise<RecordReply> {
    const asker = this.#asker(caller);
    const key = keyOf(text);
    if (key?.kind === "email" && isOfAnother(key, this.#o.domain)) {
      // His own domain may know somebody by an address of another, and is asked first.
      const here = this.#isOwn(caller) ? await this.#find(asker, key) : undefined;
      return here === undefined ? this.#elsewhere(caller, asker, key, signal) : this.#own(asker, text, key);
    }
    if (key !== undefined && isOfAnother(key, this.#o.domain)) return this.#elsewhere(caller, asker, key, signal);
    return this.#own(asker, text, key);
  }

  /** Several at once; those that there is nothing of, or that cannot be had now, take nothing from the others. */
  async several(caller: Caller, keys: readonly string[], signal: AbortSignal): Promise<RecordsReply> {
    const records: RecordsReply["records"] = keys.map((key) => ({ key }));
    const waiting = records[Symbol.iterator]();
    const work = async () => {
      for (const entry of waiting) {
        try {
          entry.record = await this.one(caller, entry.key, signal);
        } catch (error) {
          const { code } = asSuiteError(error);
          if (code !== "unknown-recipient") entry.code = code;
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    return { records };
  }

  /** @throws SuiteError forbidden unless a domain asks on behalf of one of its own; limit-exceeded on a loop; as `one` */
  async recursive(caller: Caller, question: RecursiveQuestion): Promise<RecordReply> {
    const { onBehalfOf, hops, trail } = question;
    if (caller.kind !== "domain" || identityDomain(onBehalfOf) !== caller.domain)
      throw new SuiteError("forbidden", "a domain asks on behalf of its own people", { fault: "peer" });
    if (hops > MAX_HOPS || trail.includes(this.#o.domain))
      throw new SuiteError("limit-exceeded", "the question goes in circles", { fault: "service" });
    const key = keyOf(question.key);
    const asker = { ...this.#asker(caller), identity: onBehalfOf };
    const another = key?.kind === "identity" && isOfAnother(key, this.#o.domain);
    return this.#own(asker, question.key, another ? undefined : key);
  }

  /**
   * A person's history from `from` on, a piece at a time.
   * @param of whose it is, if he is of another domain
   * @throws as `one`
   */
  async chain(
    caller: Caller,
    uuid: string,
    from: number,
    of: Identity | undefined,
    signal: AbortSignal,
  ): Promise<ChainReply> {
    const asker = this.#asker(caller);
    if (of !== undefined && identityDomain(of) !== this.#o.domain) {
      if (!this.#isOwn(caller)) throw unknown();
      this.#pay(asker, of);
      return this.#o.recursion.chain(of, uuid, from, signal);
    }
    await this.#own(asker, uuid, keyOf(uuid));
    return { chain: await this.#o.store.chain(uuid, from, MAX_CHAIN) };
  }

  /** What a watcher may see of one of this domain now; it was paid for when he began. */
  async seen(caller: Caller, of: Identity): Promise<{ record: StoredRecord; reply: RecordReply } | undefined> {
    const asker = this.#asker(caller);
    const found = await this.#o.store.find({ kind: "identity", value: of }, asker.identity);
    const reply = found && visibleReply(found, standing(asker, found));
    return found === undefined || reply === undefined ? undefined : { record: found.record, reply };
  }

  /** Whom of these a watcher may hear of: he pays for each as if he asked for it. */
  async watchable(caller: Caller, people: readonly Identity[]): Promise<Set<Identity>> {
    const asker = this.#asker(caller);
    const now = this.#o.clock().getTime();
    const admitted = new Set<Identity>();
    for (const of of people) {
      if (identityDomain(of) !== this.#o.domain) continue;
      try {
        if (of !== asker.identity)
          for (const { who, limits } of asker.payers) this.#o.quotas?.mayAsk(who, limits, of, now);
      } catch (error) {
        if (error instanceof SuiteError && error.code === "busy") continue; // as for one who does not exist
        throw error;
      }
      const seen = await this.seen(caller, of);
      this.#note(asker, of, of, seen !== undefined);
      admitted.add(of);
    }
    return admitted;
  }

  /** Of this domain. @param text what it is counted under */
  async #own(asker: Asker, text: string, key: LookupKey | undefined): Promise<RecordReply> {
    const name = key?.value ?? text;
    if (name !== asker.identity) this.#pay(asker, name);
    const found = key === undefined ? undefined : await this.#find(asker, key);
    const reply = found && visibleReply(found, standing(asker, found), key);
    const retrySeconds = this.#note(asker, name, found?.identity, reply !== undefined);
    if (reply === undefined) throw unknown(retrySeconds);
    return reply;
  }

  async #find({ identity }: Asker, key: LookupKey): Promise<Found | undefined> {
    const { store } = this.#o;
    if (key.kind === "phone" && !(await this.#hasPhone(identity))) return undefined;
    return store.find(key, identity);
  }

  /** Numbers are few and in order: who has none of his own here is not told of others'. */
  async #hasPhone(asker: Identity | undefined): Promise<boolean> {
    if (asker === undefined || identityDomain(asker) !== this.#o.domain) return false;
    const user = await this.#o.store.user(asker);
    const aliases = user === undefined ? [] : await this.#o.store.aliases(user.uuid);
    return aliases.some(({ kind, verified }) => kind === "phone" && verified !== "none");
  }

  async #elsewhere(caller: Caller, asker: Asker, key: LookupKey, signal: AbortSignal): Promise<RecordReply> {
    // Only for its own people does a server ask around.
    if (!this.#isOwn(caller) || asker.identity === undefined) throw unknown();
    const identity = key.value as Identity;
    this.#pay(asker, identity);
    try {
      const reply = await this.#o.recursion.ask(key, asker.identity, signal);
      this.#note(asker, identity, identity, true);
      return reply;
    } catch (error) {
      if (!(error instanceof SuiteError) || error.code !== "unknown-recipient") throw error;
      throw unknown(this.#note(asker, identity, undefined, false));
    }
  }

  #isOwn(caller: Caller): boolean {
    return caller.kind === "person" && identityDomain(caller.identity) === this.#o.domain;
  }

  #pay({ payers }: Asker, name: string): void {
    const now = this.#o.clock().getTime();
    for (const { who, limits } of payers) this.#o.quotas?.ask(who, limits, name, now);
  }

  /** @returns what is to be waited before others are asked for; nobody waits for himself */
  #note({ payers, identity }: Asker, name: string, found: Identity | undefined, visible: boolean): number | undefined {
    if (name === identity || (found !== undefined && found === identity)) return undefined;
    const now = this.#o.clock().getTime();
    const waits = payers.map(({ who, limits }) => this.#o.quotas?.told(who, limits, name, visible, now) ?? 0);
    const longest = Math.max(0, ...waits);
    return longest === 0 ? undefined : longest;
  }

  /** A foreign person costs his domain, too: it makes as many as it likes. */
  #asker(caller: Caller): Asker {
    if (caller.kind === "anonymous")
      return {
        ...{ identity: undefined, isDomain: false },
        payers: [{ who: `at ${network(caller.from)}`, limits: ANONYMOUS }],
      };
    if (caller.kind === "domain")
      return { identity: undefined, isDomain: true, payers: [this.#domainPays(caller.domain)] };
    const { identity } = caller;
    const own = { who: identity, limits: PERSON };
    const domain = identityDomain(identity);
    const payers = domain === this.#o.domain ? [own] : [own, this.#domainPays(domain)];
    return { identity, isDomain: false, payers };
  }

  #domainPays(domain: string): Asker["payers"][number] {
    const listed = this.#o.federation.known().some((one) => one.domain === domain && one.at !== undefined);
    return { who: `of ${domain}`, limits: listed ? LISTED_DOMAIN : OTHER_DOMAIN };
  }
}

function standing({ identity, isDomain }: Asker, found: Found): Standing {
  return isDomain && identity === undefined ? "authenticated" : standingOf(identity, found);
}

/** Undefined for what is no key: as unknown as any other. */
function keyOf(text: string): LookupKey | undefined {
  try {
    return parseLookupKey(text);
  } catch {
    return undefined;
  }
}

function isOfAnother(key: LookupKey, domain: string): boolean {
  return (key.kind === "identity" || key.kind === "email") && identityDomain(key.value as Identity) !== domain;
}

function unknown(retrySeconds?: number): SuiteError {
  return new SuiteError("unknown-recipient", "unknown or not visible", {
    fault: "peer",
    ...(retrySeconds === undefined ? {} : { details: { retrySeconds } }),
  });
}
