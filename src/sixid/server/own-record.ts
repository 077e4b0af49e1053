import { type Identity, parseIdentity } from "../../pki/identity.ts";
import type { Log } from "../../pki/log.ts";
import type { TrustAnchor } from "../../pki/path.ts";
import { SuiteError } from "../../pki/suite-error.ts";
import { aliasDigest, parseAlias } from "../lookup-key.ts";
import type { AliasesBody } from "../records.ts";
import type { DirectoryStore, Visibility } from "../store/store.ts";
import { type VerifiedIdentity, verifyAddresses, verifyIdentity, verifyPresence } from "../verify.ts";
import type { Account, Accounts } from "./accounts.ts";
import type { Caller } from "./caller.ts";
import { type HeldRoot, Roots } from "./roots.ts";

export interface OwnRecordsOptions {
  store: DirectoryStore;
  accounts: Accounts;
  /** Anchors of the own domain. */
  anchors: () => readonly TrustAnchor[];
  /** A device was revoked by its owner or an administrator: its certificate ends, too. */
  onRevoked: (identity: Identity, fingerprint: string) => Promise<void>;
  clock: () => Date;
  log: Log;
}

const REANNOUNCE_SECONDS = 3_300;
const MAX_SEQ_AHEAD_MS = 300_000;

/** What people tell of themselves: each of himself alone, each device of itself alone. */
export class OwnRecords {
  readonly #o: OwnRecordsOptions;
  readonly #roots: Roots;

  constructor(options: OwnRecordsOptions) {
    this.#o = options;
    this.#roots = new Roots(options);
  }

  /**
   * Stores the next durable part of the caller's own record, durably before it returns; one that replaces all devices is
   * held, and `held` says until when.
   * @throws SuiteError forbidden, record-rejected; conflict when `seq` or `prev` do not follow the current object
   */
  async putIdentity(caller: Caller, jws: string): Promise<{ seq: number; held?: number }> {
    const { store, anchors, clock, log } = this.#o;
    const account = await this.#account(caller);
    const verified = await verifyIdentity(jws, account.identity, { anchors: anchors(), now: clock() });
    if (verified.body.id !== account.uuid) throw rejected("another person's uuid", "uuid");
    const current = await store.record(account.uuid);
    if (current?.hash === verified.hash) return { seq: current.seq }; // the same again: only the answer was lost
    const revoked = await store.revokedDevices(account.uuid);
    const lists = verified.body.devices.filter(({ id }) => revoked.includes(id)).map(({ id }) => id);
    if (lists.length > 0)
      throw new SuiteError("record-rejected", "a device that was revoked", {
        fault: "peer",
        details: { step: "revoked device", revoked: lists.join(" ") },
      });
    const { signer } = verified.body;
    // Whoever merely got a new certificate from the CA cannot at once replace the devices of somebody who still has his.
    if (current !== undefined && caller.kind === "person" && caller.by === "sca" && caller.fingerprint !== signer)
      throw forbidden("a device signs what it publishes");
    if (current !== undefined && !this.#roots.follows(verified, current.identity))
      return { seq: verified.body.seq, held: await this.#roots.hold(account, verified, current) };
    if (current !== undefined && (caller.kind !== "person" || caller.by !== "sca"))
      throw forbidden("a listed device signs the next object");
    if ((await this.#roots.store(account.uuid, verified)) === "stale")
      throw new SuiteError("conflict", "the object does not follow the current one", { fault: "peer" });
    log.info(
      { identity: account.identity, seq: verified.body.seq, devices: verified.devices.length },
      "identity published",
    );
    return { seq: verified.body.seq };
  }

  /**
   * Stores where the calling device is.
   * @throws SuiteError forbidden, record-rejected; conflict when `seq` does not rise
   */
  async putAddresses(caller: Caller, device: string, jws: string): Promise<{ seq: number; reannounceAfter: number }> {
    const { uuid, record, now, seen } = await this.#announcing(caller, device);
    const { body } = await verifyAddresses(jws, record, now);
    this.#mayTell(body, device, now);
    const outcome = await this.#o.store.putAddresses(uuid, device, { seq: body.seq, jws, seen });
    if (outcome === "stale") throw new SuiteError("conflict", "newer addresses are stored already", { fault: "peer" });
    return { seq: body.seq, reannounceAfter: REANNOUNCE_SECONDS };
  }

  /** Stores how the owner of the calling device is. @throws as `putAddresses` */
  async putPresence(caller: Caller, device: string, jws: string): Promise<{ seq: number; reannounceAfter: number }> {
    const { uuid, record, now, seen } = await this.#announcing(caller, device);
    const { body } = await verifyPresence(jws, record, now);
    this.#mayTell(body, device, now);
    const outcome = await this.#o.store.putPresence(uuid, device, { seq: body.seq, jws, seen });
    if (outcome === "stale") throw new SuiteError("conflict", "newer presence is stored already", { fault: "peer" });
    return { seq: body.seq, reannounceAfter: REANNOUNCE_SECONDS };
  }

  /**
   * Revokes a device of the caller's own; an administrator, anybody's. What it announced is gone at once.
   * @throws SuiteError forbidden
   */
  async dropDevice(caller: Caller, fingerprint: string): Promise<void> {
    const { store, onRevoked, log } = this.#o;
    const account = await this.#certified(caller);
    const found = await this.#ownerOf(fingerprint, account);
    if (found === undefined || (found.uuid !== account.uuid && !account.roles.includes("admin")))
      throw forbidden("no device of the caller's");
    await store.dropDevice(found.uuid, fingerprint);
    log.warn({ identity: found.identity, fingerprint, by: account.identity }, "a device was revoked");
    await onRevoked(found.identity, fingerprint);
  }

  /** Replaces what the caller is found by beside his identity; his identity object lists the digests already. @throws SuiteError */
  async putAliases(caller: Caller, { aliases }: AliasesBody): Promise<void> {
    const account = await this.#certified(caller);
    const record = await this.#current(account, this.#o.clock());
    const names = record.devices.flatMap(({ certificate }) => certificate.identities.map(({ identity }) => identity));
    const next = aliases.map(([salt, kind, text]) => {
      const value = parseAlias(kind, text);
      const digest = aliasDigest({ kind, value, salt });
      if (!record.body.aliasDigests.includes(digest)) throw rejected("an alias that the record does not list", "alias");
      return { kind, value, salt, digest, certified: kind === "email" && (names as string[]).includes(value) };
    });
    if (new Set(next.map(({ kind, value }) => `${kind} ${value}`)).size < next.length)
      throw rejected("an alias twice", "alias");
    await this.#o.store.putAliases(account.uuid, next);
  }

  /** @throws SuiteError forbidden, as all below */
  async visibility(caller: Caller): Promise<Visibility> {
    const { uuid } = await this.#account(caller);
    const visibility = await this.#o.store.visibility(uuid);
    if (visibility === undefined) throw forbidden("only people of this domain may do this");
    return visibility;
  }

  async setVisibility(caller: Caller, visibility: Visibility): Promise<void> {
    await this.#o.store.setVisibility((await this.#account(caller)).uuid, visibility);
  }

  async contacts(caller: Caller): Promise<{ contacts: Identity[] }> {
    return { contacts: await this.#o.store.contacts((await this.#account(caller)).uuid) };
  }

  async setContacts(caller: Caller, contacts: readonly string[]): Promise<void> {
    const { uuid } = await this.#account(caller);
    await this.#o.store.setContacts(uuid, contacts.map(parseIdentity));
  }

  /** The caller's own identity objects that are held. */
  async roots(caller: Caller): Promise<{ roots: HeldRoot[] }> {
    return { roots: await this.#roots.of((await this.#account(caller)).uuid) };
  }

  /** A listed device of the same person, or an administrator, agrees to a held root at once. @throws SuiteError forbidden, conflict */
  async approveRoot(caller: Caller, id: string): Promise<{ seq: number }> {
    const account = await this.#certified(caller);
    return this.#roots.approve(account, caller, id);
  }

  /** A listed device of the same person, or an administrator, does not. */
  async refuseRoot(caller: Caller, id: string): Promise<void> {
    const account = await this.#certified(caller);
    await this.#roots.refuse(account, caller, id);
  }

  /** What has been held long enough comes into force. */
  async takeDueRoots(): Promise<void> {
    await this.#roots.takeDue();
  }

  async account(caller: Caller): Promise<Account> {
    return this.#account(caller);
  }

  async #announcing(caller: Caller, device: string) {
    const account = await this.#account(caller);
    if (caller.kind !== "person" || caller.by !== "sca" || caller.fingerprint !== device)
      throw forbidden("each device announces itself");
    const now = this.#o.clock();
    const record = await this.#current(account, now);
    return { uuid: account.uuid, record, now, seen: Math.floor(now.getTime() / 1000) };
  }

  #mayTell(body: { device: string; seq: number }, device: string, now: Date): void {
    if (body.device !== device) throw forbidden("each device announces itself");
    if (body.seq > now.getTime() + MAX_SEQ_AHEAD_MS) throw rejected("the sequence number lies in the future", "seq");
  }

  async #current(account: Account, now: Date): Promise<VerifiedIdentity> {
    const current = await this.#o.store.record(account.uuid);
    if (current === undefined) throw new SuiteError("conflict", "there is no identity record yet", { fault: "peer" });
    return verifyIdentity(current.identity, account.identity, { anchors: this.#o.anchors(), now });
  }

  async #ownerOf(fingerprint: string, account: Account): Promise<{ uuid: string; identity: Identity } | undefined> {
    const own = await this.#o.store.record(account.uuid);
    if (own !== undefined && this.#roots.lists(own.identity, fingerprint)) return account;
    return this.#o.store.find({ kind: "fingerprint", value: fingerprint });
  }

  /** By certificate, of a device that is not revoked. */
  async #certified(caller: Caller): Promise<Account> {
    const account = await this.#account(caller);
    if (caller.kind !== "person" || caller.by !== "sca")
      throw forbidden("who does this proves who he is by certificate");
    return account;
  }

  async #account(caller: Caller): Promise<Account> {
    const account = caller.kind === "person" ? await this.#o.accounts.find(caller.identity) : undefined;
    if (account === undefined || caller.kind !== "person") throw forbidden("only people of this domain may do this");
    if (caller.by === "sca" && (await this.#o.store.revokedDevices(account.uuid)).includes(caller.fingerprint))
      throw forbidden("this device was revoked");
    return account;
  }
}

function forbidden(message: string): SuiteError {
  return new SuiteError("forbidden", message, { fault: "peer" });
}

function rejected(message: string, step: string): SuiteError {
  return new SuiteError("record-rejected", message, { fault: "peer", details: { step } });
}
