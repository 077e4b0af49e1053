import { type Identity, parseIdentity } from "../../pki/identity.ts";
import type { Log } from "../../pki/log.ts";
import type { TrustAnchor } from "../../pki/path.ts";
import { asSuiteError, SuiteError } from "../../pki/suite-error.ts";
import type { DomainReply, DomainsReply, KnownDomainReply, RecordReply, WatchBody } from "../records.ts";
import type { DirectoryStore } from "../store/store.ts";
import type { Accounts } from "./accounts.ts";
import { Backups } from "./backups.ts";
import type { Caller } from "./caller.ts";
import type { Federation, OtherDomain } from "./federation.ts";
import { Feed, type FeedStream } from "./feed.ts";
import { Lookups } from "./lookups.ts";
import { OwnRecords } from "./own-record.ts";
import { Quotas } from "./quota.ts";
import type { Recursion, RecursiveQuestion } from "./recursion.ts";
import { RequestBoxes } from "./requests.ts";

export interface DirectoryServiceOptions {
  domain: string;
  store: DirectoryStore;
  accounts: Accounts;
  recursion: Recursion;
  federation: Federation;
  /** Anchors of the own domain. */
  anchors: () => readonly TrustAnchor[];
  /** What the own domain says of itself, signed. */
  document: () => Promise<string>;
  /** A device was revoked by its owner or an administrator; absent: nobody else has to know. */
  onRevoked?: (identity: Identity, fingerprint: string) => Promise<void>;
  /** Whether it is counted who asks for how many; absent: it is. */
  quotas?: boolean;
  clock: () => Date;
  log: Log;
}

/** How often it is looked whether a held root is due. */
const ROOTS_MS = 60_000;

/** The directory of one domain: the core behind every face of it. */
export class DirectoryService {
  readonly backups: Backups;
  readonly requests: RequestBoxes;
  readonly feed: Feed;
  readonly lookups: Lookups;
  readonly own: OwnRecords;
  readonly #o: DirectoryServiceOptions;
  readonly #timer: NodeJS.Timeout;

  constructor(options: DirectoryServiceOptions) {
    this.#o = options;
    const { domain, store, accounts, anchors, federation, recursion, clock, log } = options;
    const { onRevoked = async () => undefined, quotas = true } = options;
    const anchorsFor = async (asked: string) =>
      asked === domain ? anchors() : federation.anchorsOf(asked, "stranger");
    this.backups = new Backups({ store, accounts, clock, log });
    this.requests = new RequestBoxes({ domain, store, accounts, anchorsFor, clock, log });
    this.lookups = new Lookups({
      ...{ domain, store, recursion, federation, clock },
      quotas: quotas ? new Quotas() : undefined,
    });
    this.own = new OwnRecords({ store, accounts, anchors, onRevoked, clock, log });
    this.feed = new Feed({ domain, store, seen: (caller, of) => this.lookups.seen(caller, of), clock, log });
    this.#timer = setInterval(() => {
      this.own
        .takeDueRoots()
        .catch((error: unknown) => log.error({ error: asSuiteError(error) }, "held roots cannot be looked at"));
    }, ROOTS_MS);
    this.#timer.unref();
  }

  /** One record, of this domain or another, by any key. @throws as `Lookups.one` */
  lookup(caller: Caller, key: string, signal: AbortSignal): Promise<RecordReply> {
    return this.lookups.one(caller, key, signal);
  }

  /** @throws as `Lookups.recursive` */
  recursive(caller: Caller, question: RecursiveQuestion): Promise<RecordReply> {
    return this.lookups.recursive(caller, question);
  }

  /** @throws as `OwnRecords.putIdentity` */
  putIdentity(caller: Caller, jws: string): Promise<{ seq: number; held?: number }> {
    return this.own.putIdentity(caller, jws);
  }

  /** @throws as `OwnRecords.putAddresses` */
  putAddresses(caller: Caller, device: string, jws: string): Promise<{ seq: number; reannounceAfter: number }> {
    return this.own.putAddresses(caller, device, jws);
  }

  /** Begins to tell a person by certificate of others; those he may not hear of are as if they did not exist. @throws as `Feed.watch` */
  async watch(caller: Caller, { know }: WatchBody, to: FeedStream): Promise<() => void> {
    if (caller.kind !== "person" || caller.by !== "sca") return this.feed.watch(caller, { know }, to); // which refuses it
    const admitted = await this.lookups.watchable(caller, Object.keys(know).flatMap(identityOf));
    const known = Object.entries(know).filter(([identity]) => admitted.has(identity as Identity));
    return this.feed.watch(caller, { know: Object.fromEntries(known) }, to);
  }

  close(): void {
    clearInterval(this.#timer);
    this.feed.close();
  }

  /** What this domain says of itself, to anybody. */
  async domain(): Promise<DomainReply> {
    return { domain: await this.#o.document() };
  }

  /** The domains this server knows, its own included, with their anchors. */
  domains(caller: Caller): DomainsReply {
    if (caller.kind === "anonymous") throw unknown();
    const own = { domain: this.#o.domain, anchors: this.#o.anchors() };
    return { domains: [own, ...this.#o.federation.known()].map(encoded) };
  }

  /**
   * One domain, which is looked for if it is not known yet.
   * @throws SuiteError unknown-recipient, directory-unavailable, record-rejected
   */
  async otherDomain(caller: Caller, domain: string): Promise<KnownDomainReply> {
    await this.own.account(caller);
    const anchors = await this.#o.federation.anchorsOf(domain, "own");
    const known = this.#o.federation.known().find((one) => one.domain === domain);
    return encoded({ ...known, domain, anchors });
  }

  async setPassword(caller: Caller, password: string): Promise<void> {
    const account = await this.own.account(caller);
    await this.#o.accounts.setPassword(account.uuid, password);
  }
}

function encoded({ domain, anchors, at }: OtherDomain): KnownDomainReply {
  return {
    domain,
    anchors: anchors.map(({ certificate }) => Buffer.from(certificate.der).toString("base64")),
    ...(at === undefined ? {} : { at }),
  };
}

function identityOf(text: string): Identity[] {
  try {
    return [parseIdentity(text)];
  } catch {
    return [];
  }
}

function unknown(): SuiteError {
  return new SuiteError("unknown-recipient", "unknown or not visible", { fault: "peer" });
}
