import { type Identity, identityDomain, parseIdentity } from "../../pki/identity.ts";
import type { Log } from "../../pki/log.ts";
import type { TrustAnchor } from "../../pki/path.ts";
import { SuiteError } from "../../pki/suite-error.ts";
import {
  type DomainReply,
  type DomainsReply,
  type IdentityBody,
  type KnownDomainReply,
  MAX_IDENTITY_BYTES,
  type RecordReply,
} from "../records.ts";
import { readSigned } from "../signed.ts";
import type { DirectoryStore, StoredRecord } from "../store/store.ts";
import { verifyAddresses, verifyIdentity } from "../verify.ts";
import type { Accounts } from "./accounts.ts";
import type { Caller } from "./caller.ts";
import type { Federation, OtherDomain } from "./federation.ts";
import { Feed } from "./feed.ts";
import { MAX_HOPS, type Recursion, type RecursiveQuestion } from "./recursion.ts";
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
  clock: () => Date;
  log: Log;
}

const MAX_AGE_SECONDS = 60;

/** The directory of one domain: the core behind every face of it. */
export class DirectoryService {
  readonly requests: RequestBoxes;
  readonly feed: Feed;
  readonly #o: DirectoryServiceOptions;

  constructor(options: DirectoryServiceOptions) {
    this.#o = options;
    const { domain, store, accounts, anchors, federation, clock, log } = options;
    const anchorsFor = async (asked: string) =>
      asked === domain ? anchors() : federation.anchorsOf(asked, "stranger");
    this.requests = new RequestBoxes({ domain, store, accounts, anchorsFor, clock, log });
    this.feed = new Feed({ domain, store, visible: async (_caller, record) => replyOf(record), clock, log });
  }

  /**
   * One record, of this domain or another. Unknown and not visible answer alike.
   * @throws SuiteError unknown-recipient, directory-unavailable, record-rejected
   */
  async lookup(caller: Caller, key: string, signal: AbortSignal): Promise<RecordReply> {
    const identity = identityKey(key);
    if (caller.kind === "anonymous") throw unknown();
    if (identityDomain(identity) === this.#o.domain) return this.#own(identity);
    // Only for its own people does a server ask around.
    if (caller.kind !== "person" || identityDomain(caller.identity) !== this.#o.domain) throw unknown();
    return this.#o.recursion.ask(identity, caller.identity, signal);
  }

  /** @throws SuiteError forbidden unless a domain asks on behalf of one of its own; limit-exceeded on a loop; unknown-recipient */
  async recursive(caller: Caller, question: RecursiveQuestion): Promise<RecordReply> {
    if (caller.kind !== "domain" || identityDomain(question.onBehalfOf) !== caller.domain) {
      throw new SuiteError("forbidden", "a domain asks on behalf of its own people", { fault: "peer" });
    }
    if (question.hops > MAX_HOPS || question.trail.includes(this.#o.domain)) {
      throw new SuiteError("limit-exceeded", "the question goes in circles", { fault: "service" });
    }
    const identity = identityKey(question.key);
    if (identityDomain(identity) !== this.#o.domain) throw unknown();
    return this.#own(identity);
  }

  /**
   * Stores the next durable part of the caller's own record, durably before it returns.
   * @throws SuiteError forbidden, record-rejected; conflict when `seq` or `prev` do not follow the current object
   */
  async putIdentity(caller: Caller, jws: string): Promise<{ seq: number }> {
    const account = await this.#account(caller);
    const now = this.#o.clock();
    const verified = await verifyIdentity(jws, account.identity, { anchors: this.#o.anchors(), now });
    if (verified.body.id !== account.uuid)
      throw new SuiteError("record-rejected", "another person's uuid", { fault: "peer", details: { step: "uuid" } });
    const current = await this.#o.store.record(account.uuid);
    if (current?.hash === verified.hash) return { seq: current.seq }; // the same again: only the answer was lost
    this.#mayFollow(caller, verified.body.signer, current?.identity);
    const devices = verified.body.devices.map((device) => device.id);
    const outcome = await this.#o.store.putIdentity(
      account.uuid,
      { seq: verified.body.seq, hash: verified.hash, jws, devices },
      verified.body.prev,
    );
    if (outcome === "stale")
      throw new SuiteError("conflict", "the object does not follow the current one", { fault: "peer" });
    this.#o.log.info(
      { identity: account.identity, seq: verified.body.seq, devices: devices.length },
      "identity published",
    );
    return { seq: verified.body.seq };
  }

  /**
   * Stores where the calling device is.
   * @throws SuiteError forbidden, record-rejected; conflict when `seq` does not rise
   */
  async putAddresses(caller: Caller, device: string, jws: string): Promise<{ seq: number; reannounceAfter: number }> {
    const account = await this.#account(caller);
    if (caller.kind !== "person" || caller.by !== "sca" || caller.fingerprint !== device) {
      throw new SuiteError("forbidden", "each device announces itself", { fault: "peer" });
    }
    const now = this.#o.clock();
    const current = await this.#o.store.record(account.uuid);
    if (current === undefined) throw new SuiteError("conflict", "there is no identity record yet", { fault: "peer" });
    const record = await verifyIdentity(current.identity, account.identity, { anchors: this.#o.anchors(), now });
    const verified = await verifyAddresses(jws, record, now);
    if (verified.body.device !== device)
      throw new SuiteError("forbidden", "each device announces itself", { fault: "peer" });
    if (verified.body.seq > now.getTime() + MAX_SEQ_AHEAD_MS) {
      throw new SuiteError("record-rejected", "the sequence number lies in the future", {
        fault: "peer",
        details: { step: "seq" },
      });
    }
    const seen = Math.floor(now.getTime() / 1000);
    const outcome = await this.#o.store.putAddresses(account.uuid, device, { seq: verified.body.seq, jws, seen });
    if (outcome === "stale") throw new SuiteError("conflict", "newer addresses are stored already", { fault: "peer" });
    return { seq: verified.body.seq, reannounceAfter: REANNOUNCE_SECONDS };
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
    await this.#account(caller);
    const anchors = await this.#o.federation.anchorsOf(domain, "own");
    const known = this.#o.federation.known().find((one) => one.domain === domain);
    return encoded({ ...known, domain, anchors });
  }

  async setPassword(caller: Caller, password: string): Promise<void> {
    const account = await this.#account(caller);
    await this.#o.accounts.setPassword(account.uuid, password);
  }

  async #own(identity: Identity): Promise<RecordReply> {
    const account = await this.#o.accounts.find(identity);
    const record = account === undefined ? undefined : await this.#o.store.record(account.uuid);
    if (record === undefined) throw unknown();
    return replyOf(record);
  }

  async #account(caller: Caller) {
    const account = caller.kind === "person" ? await this.#o.accounts.find(caller.identity) : undefined;
    if (account === undefined)
      throw new SuiteError("forbidden", "only people of this domain may do this", { fault: "peer" });
    return account;
  }

  /**
   * A step is signed by the calling device, and by a device that the current object lists: whoever merely got a new
   * certificate from the CA cannot replace the devices of somebody who still has his. The first object may come by password.
   */
  #mayFollow(caller: Caller, signer: string, current: string | undefined): void {
    if (current === undefined) return;
    const listed = (
      readSigned(current, "sixid-identity", MAX_IDENTITY_BYTES).body as unknown as IdentityBody
    ).devices.map((device) => device.id);
    const calling = caller.kind === "person" && caller.by === "sca" && caller.fingerprint === signer;
    if (!calling || !listed.includes(signer))
      throw new SuiteError("forbidden", "a listed device signs the next object", { fault: "peer" });
  }
}

function replyOf(record: StoredRecord): RecordReply {
  const devices: RecordReply["devices"] = {};
  for (const { fingerprint, addresses, seen } of record.devices) {
    devices[fingerprint] = {
      ...(addresses === undefined ? {} : { addresses }),
      ...(seen === undefined ? {} : { seen }),
    };
  }
  return { identity: record.identity, devices, maxAge: MAX_AGE_SECONDS };
}

function encoded({ domain, anchors, at }: OtherDomain): KnownDomainReply {
  return {
    domain,
    anchors: anchors.map(({ certificate }) => Buffer.from(certificate.der).toString("base64")),
    ...(at === undefined ? {} : { at }),
  };
}

const REANNOUNCE_SECONDS = 3_300;
const MAX_SEQ_AHEAD_MS = 300_000;

function identityKey(key: string): Identity {
  try {
    return parseIdentity(key);
  } catch {
    throw unknown(); // other kinds of keys come later; they are as unknown as any other
  }
}

function unknown(): SuiteError {
  return new SuiteError("unknown-recipient", "unknown or not visible", { fault: "peer" });
}
