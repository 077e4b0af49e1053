import { randomBytes } from "node:crypto";
import type { Registry } from "prom-client";
import type { CutPoint } from "../delivery/cut-point.ts";
import type { Endpoint, EndpointPort } from "../delivery/endpoint.ts";
import type { NodeEvent } from "../delivery/event-types.ts";
import { type Inbox, makeInbox } from "../delivery/inbox.ts";
import type { PartSizes } from "../delivery/objects.ts";
import { makeOutbox, type Outbox } from "../delivery/outbox.ts";
import { smimeOpener, smimeSealer } from "../delivery/sealing.ts";
import { openStore, type Store } from "../delivery/store.ts";
import { systemTime } from "../delivery/time.ts";
import { FtpsEndpoint } from "../ftps/endpoint.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import type { Denial } from "../peertls-core/door.ts";
import { type Interfaces, LocalAddresses } from "../peertls-core/interfaces.ts";
import type { PeerTls } from "../peertls-core/peertls.ts";
import type { Revocations } from "../peertls-core/revocation.ts";
import type { Trust } from "../peertls-core/trust.ts";
import type { Certificate } from "../pki/certificate.ts";
import { type Identity, identityDomain, parseIdentity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { type TrustAnchor, validatePath } from "../pki/path.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { SipEndpoint } from "../sip/endpoint.ts";
import type { DirectoryClient } from "../sixid/client.ts";
import type { RecordEvent } from "../sixid/pins.ts";
import { Threads } from "../smime/threads.ts";
import { SmtpEndpoint } from "../smtp/endpoint.ts";
import { anchorsOf } from "./anchors-of.ts";
import type { Announcer } from "./announcer.ts";
import { AppPasswords } from "./app-passwords.ts";
import type { Box } from "./box.ts";
import { type ClassicPorts, openClassic } from "./classic.ts";
import { type Config, dialRanges, type PeerConfig } from "./config.ts";
import { type Core, openCore } from "./core.ts";
import type { Difference, PeerHistory } from "./history.ts";
import type { Home } from "./home.ts";
import { KeyFiles, type OwnKeys, sealSigner } from "./keys.ts";
import { localTls } from "./local-tls.ts";
import type { OwnDevices } from "./own-devices.ts";
import { OwnDirectory } from "./own-directory.ts";
import { ownServers } from "./own-servers.ts";
import { Renewal } from "./renewal.ts";
import { Requests } from "./requests.ts";
import { State } from "./state.ts";
import { TrustKeeper } from "./trust-keeper.ts";
import { readCertificates } from "./trust-rules.ts";

export interface NodeOptions {
  home: Home;
  config: Config;
  log: Log;
  clock: () => Date;
  cut: (point: CutPoint) => void;
  /** Which files go in parts, for tests: above 1 GiB, of 512 MiB. */
  parts?: PartSizes;
  /** This machine's; asked each second. */
  interfaces?: () => Interfaces;
}

/** After these there may be others to be watched. */
const WATCHES: ReadonlySet<NodeEvent["type"]> = new Set(["contact.added", "contact.removed", "item.accepted"]);

/** The peer role: one person's node, put together and running. */
export class PeerNode {
  readonly identity: Identity;
  readonly config: PeerConfig;
  readonly state: State;
  readonly access: AppPasswords;
  readonly trust: Trust;
  readonly peerTls: PeerTls;
  readonly requests: Requests;
  readonly sip: SipEndpoint;
  readonly smtp: SmtpEndpoint;
  readonly ftps: FtpsEndpoint;
  readonly revocations: Revocations;
  readonly registry: Registry;
  readonly history: PeerHistory;
  readonly startedAt: Date;
  readonly store: Store;
  readonly inbox: Inbox;
  readonly renewal: Renewal;
  /** Made by `start`. */
  outbox!: Outbox;
  /** As the key files have them; after a renewal others. */
  keys: OwnKeys;
  readonly #o: NodeOptions;
  /** The last reload found something wrong; what was in force before still is. */
  reloadFailed = false;
  readonly #core: Core;
  readonly #stopping = new AbortController();
  readonly #files: KeyFiles;
  readonly #rules: TrustKeeper;
  readonly #addresses: LocalAddresses;
  readonly #threads = new Threads();
  readonly #directory: OwnDirectory;
  #classic: ClassicPorts = {};

  static async start(o: NodeOptions): Promise<PeerNode> {
    const { config } = o;
    if (config.peer === undefined)
      throw new SuiteError("config-invalid", "the configuration has no peer part", { fault: "local" });
    const files = new KeyFiles(o.home);
    const keys = files.load(parseIdentity(config.peer.identity));
    const state = new State(o.home.state);
    const anchor = readCertificates(config.peer.directory.anchor);
    let node: PeerNode | undefined;
    const core = await openCore({
      home: o.home,
      trust: config.trust,
      keys,
      clock: o.clock,
      log: o.log,
      onDenied: (denial) => node?.noteDenial(denial),
      dialRanges: dialRanges(config.peer),
      ...(config.trust.requests.port
        ? { requestSink: (request, from) => (node as PeerNode).requests.take(request, from) }
        : {}),
    });
    const store = await openStore({
      directory: o.home.delivery,
      time: systemTime(o.clock),
      random: randomBytes,
      log: o.log,
      cut: o.cut,
    });
    node = new PeerNode(o, config.peer, files, keys, state, core, anchor, store);
    await node.#run();
    return node;
  }

  private constructor(
    o: NodeOptions,
    config: PeerConfig,
    files: KeyFiles,
    keys: OwnKeys,
    state: State,
    core: Core,
    anchor: readonly Certificate[],
    store: Store,
  ) {
    this.#o = o;
    this.config = config;
    this.identity = parseIdentity(config.identity);
    this.#files = files;
    this.keys = keys;
    this.state = state;
    this.#core = core;
    this.trust = core.trust;
    this.#rules = new TrustKeeper({
      owner: this.identity,
      state,
      trust: core.trust,
      own: anchor,
      config: o.config.trust,
    });
    this.peerTls = core.peerTls;
    this.revocations = core.revocations;
    this.registry = core.registry;
    this.history = core.history;
    this.startedAt = o.clock();
    this.access = new AppPasswords(state, this.identity);
    this.#addresses = new LocalAddresses(o.interfaces === undefined ? {} : { interfaces: o.interfaces });
    const ownAnchors = anchorsOf(identityDomain(this.identity), anchor);
    const whole = { ...o.config, peer: config };
    const servers = ownServers(config, o.config.dns.servers, o.clock);
    this.#directory = new OwnDirectory({
      node: this,
      config: whole,
      servers,
      files,
      rules: this.#rules,
      anchors: ownAnchors,
      local: this.#addresses,
      clock: o.clock,
      log: o.log,
    });
    this.applyTrust();
    this.store = store;
    this.inbox = makeInbox({
      store,
      open: smimeOpener({
        keys: () => this.keys.encryption,
        anchorsFor: (signer) => this.anchorsFor(identityDomain(signer)),
        addressees: [this.identity],
        clock: o.clock,
        known: this.state,
      }),
    });
    this.requests = new Requests({ node: this, log: o.log, clock: o.clock });
    this.renewal = new Renewal({
      files,
      identity: this.identity,
      servers: () => servers.irp(),
      anchors: ownAnchors,
      clock: o.clock,
      own: () => this.keys.auth.certificate,
      onRenewed: () => this.reloadKeys(),
      log: o.log,
    });
    const tls = localTls(o.home, o.clock());
    const { host, sipPort, sipsPort, smtpsPort, submissionPort, ftpPort } = config.local;
    const owned = { owner: this.identity, access: this.access, directory: this.directory, random: randomBytes };
    this.sip = new SipEndpoint({ ...owned, local: { host, sipPort, sipsPort, tls } });
    this.smtp = new SmtpEndpoint({ ...owned, name: config.name, local: { host, smtpsPort, submissionPort, tls } });
    this.ftps = new FtpsEndpoint({ ...owned, local: { host, ftpPort, tls } });
  }

  /** Puts the present rules in force: the file's, the owner's, the directory's anchors. Open connections are judged again. */
  applyTrust(): void {
    this.#rules.apply();
    this.met(this.keys.auth.certificate, this.keys.auth.chain);
  }

  /** A contact may come in and is written to without asking. @returns whether it is new */
  async addContact(identity: Identity, name: string): Promise<boolean> {
    const added = this.state.addContact(identity, name, this.#o.clock());
    if (added) {
      this.applyTrust();
      this.#directory.learnDomainOf(identity);
      await this.store.appendEvent({ type: "contact.added", identity, name });
    }
    return added;
  }

  /** @returns whether it was one */
  async removeContact(identity: Identity): Promise<boolean> {
    const removed = this.state.removeContact(identity);
    if (removed) {
      this.applyTrust();
      await this.store.appendEvent({ type: "contact.removed", identity });
    }
    return removed;
  }

  noteDenial(denial: Denial): void {
    const { reason, alert, direction, address, certificate } = denial;
    const claims = certificate?.identities.map((one) => one.identity) ?? [];
    this.#append({
      type: "peer.denied",
      reason,
      alert,
      direction,
      address: `${address.host} ${address.port}`,
      claims,
      fingerprint: certificate?.fingerprint ?? "",
    });
  }

  noteRecordEvent(event: RecordEvent): void {
    const { type, identity } = event;
    if (type === "rejected") {
      this.#o.log.warn({ ...event }, "what the directory told was refused");
      this.#append({ type: "record.rejected", identity, code: event.code });
    } else {
      this.#o.log.warn({ ...event }, "a person's record changed its keys");
      this.#append({ type: "record.changed", identity, change: type });
    }
  }

  get directory(): DirectoryClient {
    return this.#directory.client;
  }

  get devices(): OwnDevices {
    return this.#directory.devices;
  }

  get announcer(): Announcer {
    return this.#directory.announcer;
  }

  get box(): Box {
    return this.#directory.box;
  }

  get home(): Home {
    return this.#o.home;
  }

  /** Where the path of a person's certificate may end, by his domain. */
  anchorsFor(domain: string): readonly TrustAnchor[] {
    return this.#rules.anchorsFor(domain);
  }

  /** Puts another configuration's trust rules and the key files' certificates in force. @throws SuiteError config-invalid */
  reload(config: Config): void {
    this.reloadFailed = true;
    this.#rules.reload(config.trust, () => this.reloadKeys());
    this.reloadFailed = false;
    this.#o.log.info({}, "configuration and certificates read again");
  }

  /** How those who came to the gate lately would fare under another configuration's rules. */
  tryTrust(config: Config): Difference[] {
    return this.history.tryRules(this.#rules.rulesOf(config.trust), this.revocations, this.#o.clock());
  }

  /** Puts the key files' certificates in force: for new connections, seals and records. */
  reloadKeys(): void {
    const keys = this.#files.load(this.identity);
    const { certificate: leaf, chain: candidates } = keys.auth;
    const anchors = this.anchorsFor(identityDomain(this.identity));
    const path = validatePath({ leaf, candidates, anchors, time: this.#o.clock(), purpose: "peer" });
    if (!path.ok)
      throw new SuiteError("certificate-invalid", "the own certificate would be refused everywhere", {
        fault: "local",
        details: { reason: path.reason },
      });
    this.keys = keys;
    this.peerTls.useCredentials(this.keys.auth);
    this.announcer.recordChanged();
  }

  /** The bound ports, as the ready line and the status tell them. */
  get ports(): Record<"peer" | "sip" | "sips" | "smtps" | "submission" | "ftp", PeerAddress> & ClassicPorts {
    const none = { host: "", port: 0 };
    return {
      peer: this.peerTls.address ?? none,
      ...this.#classic,
      ...(this.smtp.addresses ?? { smtps: none, submission: none }),
      ...(this.ftps.addresses ?? { ftp: none }),
      ...(this.sip.addresses ?? { sip: none, sips: none }),
    };
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#directory.stop();
    this.#addresses.close();
    for (const endpoint of this.#endpoints) await endpoint.stop();
    await this.outbox.stop();
    await this.#threads[Symbol.asyncDispose]();
    await this.#core.close();
    await this.store.close();
    this.state.close();
  }

  async #run(): Promise<void> {
    const { peerTls, store, inbox, config } = this;
    this.outbox = await makeOutbox({
      store,
      directory: {
        lookup: (identity, options, signal) => this.#directory.lookup(identity, options, signal),
        publishAddresses: (addresses, signal) => this.directory.publishAddresses(addresses, signal),
      },
      seal: smimeSealer({
        signer: () => sealSigner(this.keys, config),
        clock: this.#o.clock,
        contentEncryption: config.smime.contentEncryption,
        known: this.state,
        threads: this.#threads,
      }),
      endpointOf: (kind) => ({ message: this.sip, mail: this.smtp, file: this.ftps })[kind],
      schedule: config.outbox.retrySeconds,
      lifetimeSeconds: config.outbox.lifetimeSeconds,
      ...(this.#o.parts === undefined ? {} : { parts: this.#o.parts }),
    });
    const port: EndpointPort = {
      peerTls,
      inbox,
      outbox: this.outbox,
      store,
      log: this.#o.log,
      clock: this.#o.clock,
      onPeer: (protocol, accept) => peerTls.onPeer(protocol, accept),
    };
    for (const endpoint of this.#endpoints) await endpoint.start(port);
    peerTls.onConnected(({ identity, direction, protocol }) => {
      // Who comes for messages may be elsewhere than he is thought to be, and is reached over this now.
      if (direction === "in" && protocol === "sip") this.outbox.moved(identity);
      this.outbox.wake(identity);
    });
    store.events.onEvent((event) => {
      this.requests.noticed(event);
      const { body } = event;
      // Who took one thing admits us: what was held because he did not may go as well.
      if (body.type === "receipt.changed" && body.state === "delivered") this.outbox.wake(parseIdentity(body.to));
      if (WATCHES.has(body.type)) this.#directory.peopleChanged();
    });
    await this.#directory.catchUp();
    await peerTls.listen(config.listen);
    this.#classic = await openClassic(peerTls, config);
    this.#addresses.onChange((lost) => this.#directory.addressesChanged(lost)); // before what ran over them is ended
    peerTls.follow(this.#addresses);
    this.outbox.start();
    this.#directory.start();
    void this.renewal.run(this.#stopping.signal);
  }

  /** If it was not the owner himself, somebody has his recovery code; what he has then is of no use without the passphrase. */
  noteBackupFetched(): void {
    this.#o.log.warn({}, "a backup of yours was fetched from the directory");
    this.#append({ type: "backup.fetched" });
  }

  noteDirectory(state: "available" | "unavailable", error?: unknown): void {
    if (state === "unavailable") this.#o.log.warn({ error: asSuiteError(error) }, "the directory is away");
    this.#append({ type: "directory.state", state });
    if (state === "available") this.outbox.directoryBack();
  }

  /** Good paths are remembered, and the CAs in them: not every program shows more than its own certificate when it comes. */
  met(leaf: Certificate, chain: readonly Certificate[]): void {
    this.trust.paths.find(leaf, chain, this.#o.clock());
  }

  #append(event: NodeEvent): void {
    this.store
      .appendEvent(event)
      .catch((error: unknown) => this.#o.log.error({ error: asSuiteError(error) }, "an event could not be kept"));
  }

  get #endpoints(): readonly Endpoint[] {
    return [this.sip, this.smtp, this.ftps];
  }
}
