import type { PeerAddress } from "../peertls-core/connection.ts";
import type { HttpsClient, HttpsResponse } from "../peertls-core/https-client.ts";
import type { Certificate, Fingerprint } from "../pki/certificate.ts";
import { parseCertificate, peerCertificate } from "../pki/certificate.ts";
import { type Identity, identityDomain, parseIdentity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { asSuiteError, SuiteError, type SuiteErrorCode } from "../pki/suite-error.ts";
import { makeAddresses, makeIdentity, makePresence, type OwnIdentity } from "./announce.ts";
import { ask, failureOf, parseReply, readReply } from "./ask.ts";
import { leadsTo, MAX_GAP } from "./chain.ts";
import type { DeviceAddress, Directory, PeerRecord } from "./directory.ts";
import { type LookupKey, parseLookupKey } from "./lookup-key.ts";
import type { Continuity, Pin, PinStore, RecordEvent } from "./pins.ts";
import { answers, claimed, continuityOf, type ReadRecord, readRecord, recordOf } from "./reading.ts";
import {
  type AddressesBody,
  type ChainReply,
  chainReply,
  type DomainsReply,
  domainsReply,
  type IdentityBody,
  type KnownDomainReply,
  knownDomainReply,
  MAX_ADDRESSES_BYTES,
  MAX_IDENTITY_BYTES,
  type PresenceBody,
  type RecordReply,
  recordReply,
  refusedDevices,
  type WatchBody,
  type WatchedReply,
  watchedReply,
} from "./records.ts";
import { checkSignature, type RecordSigner, readSigned, rejected } from "./signed.ts";
import { type VerifiedIdentity, verifyIdentity } from "./verify.ts";

export interface DirectoryClientOptions {
  /** Kept connections to the own domain's server; it asks the others. */
  http: HttpsClient;
  uuid: string;
  signer: () => RecordSigner;
  /** Anchors accepted for the identities of one domain. */
  anchorsFor: (domain: string) => readonly TrustAnchor[];
  /** The own server told of a domain that nothing was known of. */
  onDomain: (domain: KnownDomain) => void;
  pins: PinStore;
  clock: () => Date;
  log: Log;
  onEvent: (event: RecordEvent) => void;
}

/** A domain that the own server knows. `at`: its server, for what is asked there directly; else the DNS tells. */
export interface KnownDomain {
  domain: string;
  anchors: readonly Certificate[];
  at?: PeerAddress;
}

interface Cached {
  record: PeerRecord;
  until: number;
}

const MAX_CACHED = 10_000;

/** A node's view of the directory: what it tells is verified here, and held against what it told before. */
export class DirectoryClient implements Directory {
  readonly #o: DirectoryClientOptions;
  readonly #cache = new Map<Identity, Cached>();
  #addressSeq = 0;
  #presenceSeq = 0;

  constructor(options: DirectoryClientOptions) {
    this.#o = options;
  }

  /** @throws SuiteError unknown-recipient, directory-unavailable, record-rejected, record-rollback, record-fork */
  async lookup(identity: Identity, options: { fresh?: boolean }, signal: AbortSignal): Promise<PeerRecord> {
    const now = this.#o.clock().getTime();
    const cached = this.#cache.get(identity);
    if (cached !== undefined && cached.until > now && options.fresh !== true) return cached.record;
    const before = this.#o.pins.find(identity);
    let response: HttpsResponse;
    try {
      response = await this.#watched(identity, this.#ask("GET", recordPath(identity), undefined, signal));
    } catch (error) {
      if (!(error instanceof SuiteError) || error.code !== "directory-unavailable") throw error;
      const known = await this.lastKnown(identity); // says that it is old
      if (known === undefined) throw error;
      return known;
    }
    const reply = await this.#watched(identity, readReply<RecordReply>(recordReply, response));
    await this.#watched(identity, this.learnDomain(identityDomain(identity), signal));
    return this.#watched(identity, this.#accept(identity, reply, before, signal));
  }

  /**
   * Looks somebody up by e-mail address, phone number, uuid or a device's fingerprint: whose record comes is who it says,
   * and has what was asked for.
   * @throws SuiteError syntax; as `lookup`
   */
  async find(text: string, signal: AbortSignal): Promise<PeerRecord> {
    const key = parseLookupKey(text);
    const response = await this.#ask("GET", `/v1/records/${encodeURIComponent(text)}`, undefined, signal);
    const reply = await readReply<RecordReply>(recordReply, response);
    const identity = claimed(reply, key, this.#o.signer());
    const before = this.#o.pins.find(identity);
    await this.#watched(identity, this.learnDomain(identityDomain(identity), signal));
    return this.#watched(identity, this.#accept(identity, reply, before, signal, key));
  }

  /** What to say to a server from whom one wants to hear what is newer than this. */
  known(identity: Identity): WatchBody["know"][string] {
    const pin = this.#o.pins.find(identity);
    return pin === undefined
      ? { identity: 0, devices: {} }
      : {
          ...{ identity: pin.seq, devices: { ...pin.addressSeqs } },
          ...(pin.presenceSeqs === undefined ? {} : { presence: { ...pin.presenceSeqs } }),
        };
  }

  /**
   * Takes what a watched server tells of somebody, as if it had been asked for.
   * @param data of an event `record` @throws SuiteError as `lookup`
   */
  async takeNews(data: string, signal: AbortSignal): Promise<PeerRecord> {
    const told = parseReply<WatchedReply>(watchedReply, data);
    const identity = parseIdentity(told.of);
    const before = this.#o.pins.find(identity);
    await this.#watched(identity, this.learnDomain(identityDomain(identity), signal));
    return this.#watched(identity, this.#accept(identity, told, before, signal));
  }

  /** Announces where this device is. Behind what the directory has of it already (our clock went back), it goes on from there. */
  async publishAddresses(addresses: readonly DeviceAddress[], signal: AbortSignal): Promise<void> {
    const signer = this.#o.signer();
    for (let attempt = 0; attempt < PUBLISH_ATTEMPTS; attempt++) {
      const now = this.#o.clock();
      this.#addressSeq = Math.max(this.#addressSeq + 1, now.getTime());
      const jws = await makeAddresses(this.#o.uuid, addresses, this.#addressSeq, signer, now);
      const path = `/v1/devices/${signer.certificate.fingerprint}/addresses`;
      const response = await this.#ask("PUT", path, jws, signal, [409]);
      if (response.status !== 409) {
        for (const [identity, { record }] of this.#cache)
          if (record.uuid === this.#o.uuid) this.#cache.delete(identity);
        return;
      }
      this.#addressSeq = Math.max(this.#addressSeq, await this.#publishedSeq(signer, signal));
    }
    throw keepsChanging();
  }

  /** Tells how this device's owner is. As `publishAddresses`. */
  async publishPresence(presence: Pick<PresenceBody, "state" | "note">, signal: AbortSignal): Promise<void> {
    const signer = this.#o.signer();
    const now = this.#o.clock();
    this.#presenceSeq = Math.max(this.#presenceSeq + 1, now.getTime());
    const jws = await makePresence(this.#o.uuid, presence, this.#presenceSeq, signer, now);
    await this.#ask("PUT", `/v1/devices/${signer.certificate.fingerprint}/presence`, jws, signal);
  }

  /** The sequence under which the directory has this device's addresses: told by our own signature, 0 if there are none. */
  async #publishedSeq(signer: RecordSigner, signal: AbortSignal): Promise<number> {
    const own = peerCertificate(signer.certificate).identities[0]?.identity;
    if (own === undefined) return 0;
    const reply = await readReply<RecordReply>(recordReply, await this.#ask("GET", recordPath(own), undefined, signal));
    const jws = reply.devices[signer.certificate.fingerprint]?.addresses;
    if (jws === undefined) return 0;
    const signed = readSigned(jws, "sixid-addresses", MAX_ADDRESSES_BYTES);
    await checkSignature(signed, signer.certificate);
    return (signed.body as AddressesBody).seq;
  }

  /**
   * Publishes the durable part of the own record; a lost race is tried again upon the current object.
   * @param beside what becomes of `own` beside the current object, if there is one, from which the revoked devices are gone
   * @throws SuiteError forbidden with `held` if no device that the directory knows signed it
   */
  async publishIdentity(
    own: OwnIdentity,
    signal: AbortSignal,
    beside: (current: IdentityBody) => OwnIdentity = () => own,
  ): Promise<void> {
    for (let attempt = 0, revoked: readonly string[] = []; attempt < PUBLISH_ATTEMPTS; attempt++) {
      const current = await this.#currentOf(own.identity, signal);
      const left = current?.body.devices.filter(({ id }) => !revoked.includes(id)) ?? [];
      const next = current === undefined ? own : beside({ ...current.body, devices: left });
      const previous = current === undefined ? undefined : { seq: current.body.seq, hash: current.hash };
      const jws = await makeIdentity(next, previous, this.#o.signer(), this.#o.clock());
      const response = await this.#ask("PUT", "/v1/identity", jws, signal, [409, 422]);
      if (response.status === 422) {
        const gone = revokedIn(response);
        if (!gone.some((id) => left.some((device) => device.id === id))) throw failureOf(response);
        revoked = gone;
        continue;
      }
      if (response.status === 202) throw held();
      if (response.status !== 409) {
        this.#cache.delete(own.identity);
        return;
      }
    }
    throw keepsChanging();
  }

  /** The domains that the own server knows, with their anchors. */
  async domains(signal: AbortSignal): Promise<KnownDomain[]> {
    const reply = await readReply<DomainsReply>(domainsReply, await this.#ask("GET", "/v1/domains", undefined, signal));
    return reply.domains.map(knownDomain);
  }

  /** One domain, which the own server looks for if need be. @throws SuiteError unknown-recipient, directory-unavailable, record-rejected */
  async otherDomain(domain: string, signal: AbortSignal): Promise<KnownDomain> {
    const response = await this.#ask("GET", `/v1/domains/${encodeURIComponent(domain)}`, undefined, signal);
    const told = knownDomain(await readReply<KnownDomainReply>(knownDomainReply, response));
    if (told.domain !== domain) throw rejected("domain asked for", undefined, { domain });
    return told;
  }

  /** Has a domain known whose anchors are not known yet. @throws as `otherDomain` */
  async learnDomain(domain: string, signal: AbortSignal): Promise<void> {
    if (this.#o.anchorsFor(domain).length === 0) this.#o.onDomain(await this.otherDomain(domain, signal));
  }

  /** What time it is at the own server, to a second. @throws SuiteError directory-unavailable */
  async time(signal: AbortSignal): Promise<Date> {
    const { headers } = await this.#ask("GET", "/v1/domains", undefined, signal);
    return new Date(headers["date"] ?? Number.NaN);
  }

  /** Agrees to a record whose keys have all changed. */
  agree(identity: Identity): void {
    const pin = this.#o.pins.find(identity);
    if (pin !== undefined) this.#o.pins.put(identity, { ...pin, changed: false });
    this.#cache.delete(identity);
  }

  /** The last verified record of somebody, without asking anybody; undefined if there is none that still holds. */
  async lastKnown(identity: Identity): Promise<PeerRecord | undefined> {
    const pin = this.#o.pins.find(identity);
    if (pin === undefined) return undefined;
    try {
      const read = await this.#read(identity, pin.reply);
      return recordOf(read, { stale: true, trust: pin.changed ? "changed" : "pinned" });
    } catch (error) {
      this.#o.log.debug({ identity, error: asSuiteError(error) }, "the last known record does not serve any more");
      return undefined;
    }
  }

  async #currentOf(identity: Identity, signal: AbortSignal): Promise<VerifiedIdentity | undefined> {
    const response = await this.#ask("GET", recordPath(identity), undefined, signal, [404]);
    if (response.status === 404) return undefined;
    const current = (async () => {
      const reply = await readReply<RecordReply>(recordReply, response);
      // As it was when it was issued: one that has lapsed since is followed too, or nobody whose certificate ended came back.
      const signed = readSigned(reply.identity, "sixid-identity", MAX_IDENTITY_BYTES);
      const { issued } = signed.body as { issued?: unknown };
      const now = typeof issued === "number" ? new Date(issued * 1000) : this.#o.clock();
      return verifyIdentity(reply.identity, identity, { anchors: this.#anchors(identity), now });
    })();
    return this.#watched(identity, current);
  }

  /**
   * A record of the directory: verified, held against the pin, pinned.
   * @param before the pin when it was asked for: what is older than a newer word that came meanwhile is no rollback
   */
  async #accept(
    identity: Identity,
    reply: RecordReply,
    before: Pin | undefined,
    signal: AbortSignal,
    key?: LookupKey,
  ): Promise<PeerRecord> {
    const read = await this.#read(identity, reply);
    if (key !== undefined) answers(read, key);
    const proven = await this.#isProven(before, read, signal);
    // No await from here on: of two answers that come at once, the second is held against the first one's pin.
    const pin = this.#o.pins.find(identity);
    let continuity: Continuity;
    try {
      continuity = continuityOf(pin, read, proven && pin?.hash === before?.hash);
    } catch (error) {
      const overtaken = pin !== undefined && JSON.stringify(pin) !== JSON.stringify(before);
      if (!overtaken || !(error instanceof SuiteError) || error.code !== "record-rollback") throw error;
      continuityOf(before, read, proven);
      return recordOf(await this.#read(identity, pin.reply), {
        stale: false,
        trust: pin.changed ? "changed" : "pinned",
      });
    }
    const addressSeqs: Record<string, number> = { ...pin?.addressSeqs };
    const presenceSeqs: Record<string, number> = { ...pin?.presenceSeqs };
    for (const { addresses, presence } of read.devices) {
      if (addresses !== undefined) addressSeqs[addresses.body.device] = addresses.body.seq;
      if (presence !== undefined) presenceSeqs[presence.body.device] = presence.body.seq;
    }
    this.#pin(read.verified, reply, { addressSeqs, presenceSeqs }, continuity.trust === "changed");
    for (const event of continuity.events) this.#o.onEvent(event);
    const record = recordOf(read, { stale: false, trust: continuity.trust });
    this.#cache.delete(identity);
    this.#cache.set(identity, { record, until: this.#o.clock().getTime() + reply.maxAge * 1000 });
    const oldest = this.#cache.keys().next();
    if (this.#cache.size > MAX_CACHED && !oldest.done) this.#cache.delete(oldest.value);
    return record;
  }

  #read(identity: Identity, reply: RecordReply): Promise<ReadRecord> {
    return readRecord(identity, reply, { anchors: this.#anchors(identity), now: this.#o.clock() });
  }

  /** Whether a record that none of the pinned devices signed follows from one that they did. */
  async #isProven(pin: Pin | undefined, { verified }: ReadRecord, signal: AbortSignal): Promise<boolean> {
    const { body, identity } = verified;
    if (pin === undefined || pin.uuid !== body.id || body.seq <= pin.seq + 1) return false;
    if (body.seq - pin.seq > MAX_GAP || pin.devices.includes(body.signer as Fingerprint)) return false;
    const between: ChainReply["chain"] = [];
    try {
      for (let next = pin.seq + 1; next < body.seq; next = pin.seq + 1 + between.length) {
        const path = `/v1/identity/${body.id}/chain?from=${next}&of=${encodeURIComponent(identity)}`;
        const { chain } = await readReply<ChainReply>(chainReply, await this.#ask("GET", path, undefined, signal));
        if (chain.length === 0) return false;
        between.push(...chain.slice(0, body.seq - next));
      }
    } catch (error) {
      signal.throwIfAborted();
      this.#o.log.info({ identity, error: asSuiteError(error) }, "what came between is not told");
      return false;
    }
    return leadsTo(pin, verified, between);
  }

  /** Tells log and owner when what the directory says about a person is refused. */
  async #watched<T>(identity: Identity, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      if (error instanceof SuiteError && REFUSALS.has(error.code)) {
        const { code, details } = error;
        const step = typeof details["step"] === "string" ? { step: details["step"] } : {};
        this.#o.log.warn({ ...details, identity, code }, "a record of the directory was refused");
        this.#o.onEvent({ type: "rejected", identity, code, ...step });
      }
      throw error;
    }
  }

  #pin(
    verified: VerifiedIdentity,
    reply: RecordReply,
    seqs: Required<Pick<Pin, "addressSeqs" | "presenceSeqs">>,
    changed: boolean,
  ): void {
    this.#o.pins.put(verified.identity, {
      uuid: verified.body.id,
      seq: verified.body.seq,
      hash: verified.hash,
      devices: verified.body.devices.map((device) => device.id as Fingerprint),
      encryption: verified.encryption.map((one) => one.fingerprint),
      ...seqs,
      changed,
      reply,
      verifiedAt: this.#o.clock().getTime(),
    });
  }

  #anchors(identity: Identity): readonly TrustAnchor[] {
    const anchors = this.#o.anchorsFor(identityDomain(identity));
    if (anchors.length === 0)
      throw rejected("no anchor for the domain", undefined, { domain: identityDomain(identity) });
    return anchors;
  }

  #ask(
    method: string,
    path: string,
    body: string | undefined,
    signal: AbortSignal,
    accepted: readonly number[] = [],
  ): Promise<HttpsResponse> {
    return ask(this.#o.http, { method, path, accepted, ...(body === undefined ? {} : { body }) }, signal);
  }
}

const PUBLISH_ATTEMPTS = 5;
const REFUSALS: ReadonlySet<SuiteErrorCode> = new Set(["record-rejected", "record-rollback", "record-fork"]);

/** The devices that a refused identity object lists although they were revoked. */
function revokedIn({ body }: HttpsResponse): readonly string[] {
  try {
    return refusedDevices.parse(JSON.parse(body.toString("utf8"))).revoked;
  } catch {
    return [];
  }
}

/** None of the devices that the directory knows signed it. It has it, though. */
function held(): SuiteError {
  return new SuiteError("forbidden", "the directory holds the own record until another device agrees, or for a day", {
    fault: "local",
    details: { held: true },
  });
}

function keepsChanging(): SuiteError {
  return new SuiteError("busy", "the own record keeps changing in the directory", {
    fault: "service",
    temporary: true,
  });
}

function knownDomain({ domain, anchors, at }: KnownDomainReply): KnownDomain {
  return {
    domain,
    anchors: anchors.map((der) => parseCertificate(Buffer.from(der, "base64"))),
    ...(at === undefined ? {} : { at }),
  };
}

function recordPath(identity: Identity): string {
  return `/v1/records/${encodeURIComponent(identity)}`;
}
