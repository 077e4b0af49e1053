import { type HttpsClient, httpsClient } from "../peertls-core/https-client.ts";
import { type LocalAddresses, plainAddress } from "../peertls-core/interfaces.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { DirectoryClient, type KnownDomain } from "../sixid/client.ts";
import type { PeerRecord } from "../sixid/directory.ts";
import { pinnedName } from "../sixid/locate.ts";
import { OwnSettings } from "../sixid/own-settings.ts";
import { ownAddresses } from "./addresses.ts";
import { Announcer } from "./announcer.ts";
import { Box } from "./box.ts";
import type { Config, PeerConfig } from "./config.ts";
import type { KeyFiles } from "./keys.ts";
import type { PeerNode } from "./node.ts";
import { otherDirectories } from "./other-directories.ts";
import { OwnCertificates } from "./own-certificates.ts";
import { OwnDevices } from "./own-devices.ts";
import { deviceLabel, ownRecord } from "./own-record.ts";
import type { OwnServers } from "./own-servers.ts";
import { pause } from "./pause.ts";
import type { TrustKeeper } from "./trust-keeper.ts";
import { endMoved, watchedPeople } from "./watched.ts";
import { Watcher } from "./watcher.ts";

export interface OwnDirectoryOptions {
  node: PeerNode;
  config: Config & { peer: PeerConfig };
  servers: OwnServers;
  files: KeyFiles;
  rules: TrustKeeper;
  /** Roots of the own domain. */
  anchors: readonly TrustAnchor[];
  local: LocalAddresses;
  clock: () => Date;
  log: Log;
}

/** Another domain that does not answer in this time is asked for again with the next announcement. */
const LEARN_MS = 20_000;
/** Addresses that change together are one change. */
const SETTLE_MS = 250;
const REACH_MS = 10_000;

/** A node's dealings with directories: what it tells its own, what it asks, whom it watches, who asks to be admitted. */
export class OwnDirectory {
  readonly client: DirectoryClient;
  readonly announcer: Announcer;
  readonly box: Box;
  readonly devices: OwnDevices;
  readonly #o: OwnDirectoryOptions;
  readonly #http: HttpsClient;
  readonly #watcher: Watcher;
  readonly #certificates: OwnCertificates;
  readonly #stopping = new AbortController();
  /** Where watched people were last told to be. */
  readonly #addresses = new Map<Identity, ReadonlySet<string>>();

  constructor(o: OwnDirectoryOptions) {
    this.#o = o;
    const { node, config, servers, files, rules, anchors, clock, log } = o;
    const { identity } = node;
    const { peer } = config;
    const domain = identityDomain(identity);
    this.#http = httpsClient({
      addresses: () => servers.sixid(),
      serverName: domain,
      indicatedName: pinnedName(domain),
      anchors: () => anchors,
      credentials: () => node.keys.auth,
      clock,
    });
    this.client = new DirectoryClient({
      http: this.#http,
      uuid: node.keys.uuid,
      signer: () => node.keys.auth,
      anchorsFor: (asked) => (asked === domain ? anchors : rules.directoryAnchors(asked)),
      pins: node.state,
      onEvent: (event) => node.noteRecordEvent(event),
      onDomain: (found) => rules.learnOne(found),
      ...{ clock, log },
    });
    const httpTo = otherDirectories({ locator: servers.locator, credentials: () => node.keys.auth, clock });
    const called = { directory: this.client, http: this.#http, httpTo, log };
    this.box = new Box({ ...called, node, wanted: () => rules.config.requests.box, clock });
    const onLearned = () => node.reloadKeys();
    this.#certificates = new OwnCertificates({ files, identity, directory: this.client, onLearned, log });
    const self = {
      ...{ identity, directory: this.client },
      own: () => ownRecord(identity, peer.name, deviceLabel(), node.keys, clock()),
      signer: () => node.keys.auth.certificate.fingerprint,
    };
    this.devices = new OwnDevices({ ...self, settings: new OwnSettings(this.#http) });
    this.announcer = new Announcer({
      ...self,
      onOwnRecord: (told) => this.#certificates.learn(told),
      addresses: () => ownAddresses(peer, node.ports.peer.port, o.local.interfaces, o.local.passing),
      onDomains: (domains) => this.#learnDomains(domains),
      onState: (state, error) => node.noteDirectory(state, error),
      log,
    });
    this.#watcher = new Watcher({
      ...called,
      owner: identity,
      people: () => watchedPeople(node),
      onNews: (record) => this.#hear(record),
      onRequest: () => this.box.lookSoon(),
      onBackup: () => node.noteBackupFetched(),
      chance: Math.random,
    });
  }

  /** As the client's; good paths are remembered, and whether the directory is away. */
  async lookup(identity: Identity, options: { fresh?: boolean }, signal: AbortSignal): Promise<PeerRecord> {
    try {
      const record = await this.client.lookup(identity, options, signal);
      for (const { certificate } of record.devices) this.#o.node.met(certificate.certificate, record.chain);
      return record;
    } catch (error) {
      // With a status it was our own server that answered: another domain's is away, and asking ours again tells nothing.
      const away = error instanceof SuiteError && error.code === "directory-unavailable";
      if (away && error.details["status"] === undefined) this.announcer.missed(error);
      throw error;
    }
  }

  /** What has to be known before anybody comes in. */
  catchUp(): Promise<void> {
    return this.#certificates.catchUp(this.#stopping.signal);
  }

  start(): void {
    const { signal } = this.#stopping;
    void this.announcer.run(signal);
    void this.box.run(signal);
    void this.#watcher.run(signal);
  }

  stop(): void {
    this.#stopping.abort();
    this.#http.close();
  }

  /** This machine has other addresses. @param lost what ran over them may have ended there */
  addressesChanged(lost: ReadonlySet<string>): void {
    this.announcer.addressesChanged();
    if (lost.size === 0) return;
    this.#http.close(); // it opens other connections
    this.#watcher.restart();
    const { connections } = this.#o.node.peerTls;
    const cutOff = connections.filter(({ localAddress }) => lost.has(plainAddress(localAddress.host)));
    void this.#reachAgain(new Set(cutOff.map(({ identity }) => identity)));
  }

  /** Those with whom we spoke are told ourselves where we are: a directory may be away, and they would wait for it. */
  async #reachAgain(people: ReadonlySet<Identity>): Promise<void> {
    const { node, log } = this.#o;
    const { signal } = this.#stopping;
    await pause(SETTLE_MS, signal);
    for (const identity of people) {
      const reaching = async () => {
        const record = await this.client.lastKnown(identity);
        if (record !== undefined)
          await node.sip.reach(record, AbortSignal.any([signal, AbortSignal.timeout(REACH_MS)]));
      };
      reaching().catch((error: unknown) =>
        log.debug({ identity, error: asSuiteError(error).code }, "a peer could not be told where we are"),
      );
    }
  }

  /** There may be others to be watched. */
  peopleChanged(): void {
    this.#watcher.peopleChanged();
  }

  /** The gate has to know who vouches for a contact before he comes. */
  learnDomainOf(identity: Identity): void {
    this.client
      .learnDomain(identityDomain(identity), AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(LEARN_MS)]))
      .catch((error: unknown) =>
        this.#o.log.info({ identity, error: asSuiteError(error) }, "a contact's domain is not known yet"),
      );
  }

  #learnDomains(known: readonly KnownDomain[]): void {
    const { node, rules, log } = this.#o;
    rules.learn(known);
    for (const { identity } of node.state.contacts()) this.learnDomainOf(identity);
    this.box.lookSoon(); // with these anchors
    node.requests.tryHeld().catch((error: unknown) => log.error({ error: asSuiteError(error) }, "not tried"));
  }

  /** A watched person's record, as it is now: what waits for him goes there. */
  #hear(record: PeerRecord): void {
    const { node } = this.#o;
    endMoved(node.peerTls.connections, record);
    if (record.identity === node.identity) {
      this.#certificates.learn(record); // another device renewed them
      return;
    }
    const now = new Set(
      record.devices.flatMap(({ addresses }) => addresses.map(({ host, port }) => `${host} ${port}`)),
    );
    const before = this.#addresses.get(record.identity) ?? now;
    this.#addresses.set(record.identity, now);
    if (!before.isSubsetOf(now)) node.outbox.moved(record.identity);
    node.outbox.wake(record.identity);
  }
}
