import { randomBytes } from "node:crypto";
import type { CutPoint } from "../delivery/cut-point.ts";
import type { EndpointPort } from "../delivery/endpoint.ts";
import type { NodeEvent } from "../delivery/event-types.ts";
import { type Inbox, makeInbox } from "../delivery/inbox.ts";
import { makeOutbox, type Outbox } from "../delivery/outbox.ts";
import { openStore, type Store } from "../delivery/store.ts";
import { systemTime } from "../delivery/time.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import type { Denial } from "../peertls-core/door.ts";
import { makePeerTls, type PeerTls } from "../peertls-core/peertls.ts";
import { type HttpsClient, httpsClient } from "../peertls-core/service.ts";
import { Trust } from "../peertls-core/trust.ts";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import { type Identity, identityDomain, parseIdentity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { SipEndpoint } from "../sip/endpoint.ts";
import { DirectoryClient } from "../sixid/client.ts";
import type { RecordEvent } from "../sixid/pins.ts";
import { ownAddresses } from "./addresses.ts";
import { AppPasswords } from "./app-passwords.ts";
import type { Config, PeerConfig } from "./config.ts";
import type { Home } from "./home.ts";
import { KeyFiles, type OwnKeys } from "./keys.ts";
import { localTls } from "./local-tls.ts";
import { Requests } from "./requests.ts";
import { State } from "./state.ts";
import { domainAnchor, readCertificates, readFileAnchors, trustRules } from "./trust-rules.ts";

export interface NodeOptions {
  home: Home;
  config: Config;
  log: Log;
  clock: () => Date;
  cut: (point: CutPoint) => void;
}

const ADDRESS_POLL_MS = 5_000;
const REANNOUNCE_MS = 3_300_000;
const DIRECTORY_RETRY_MS = 5_000;

/** The peer role: one person's node, put together and running. */
export class PeerNode {
  readonly identity: Identity;
  readonly config: PeerConfig;
  readonly state: State;
  readonly access: AppPasswords;
  readonly keys: OwnKeys;
  readonly trust: Trust;
  readonly peerTls: PeerTls;
  readonly directory: DirectoryClient;
  readonly requests: Requests;
  readonly sip: SipEndpoint;
  readonly startedAt: Date;
  readonly store: Store;
  readonly inbox: Inbox;
  /** Made by `start`. */
  outbox!: Outbox;
  readonly #o: NodeOptions;
  readonly #http: HttpsClient;
  readonly #stopping = new AbortController();
  #announced = "";
  #announcedAt = 0;
  #directoryState: "available" | "unavailable" | "unknown" = "unknown";

  static async start(o: NodeOptions): Promise<PeerNode> {
    const { config } = o;
    if (config.peer === undefined)
      throw new SuiteError("config-invalid", "the configuration has no peer part", { fault: "local" });
    const keys = new KeyFiles(o.home).load();
    const state = new State(o.home.state);
    const anchor = readCertificates(config.peer.directory.anchor);
    const trust = new Trust({
      anchors: [],
      block: [],
      allow: [],
      rules: [],
      otherwise: "deny",
      contacts: [],
      requestsOnPort: false,
    });
    let node: PeerNode | undefined;
    const peerTls = await makePeerTls({
      credentials: keys.auth,
      trust,
      clock: o.clock,
      random: randomBytes,
      log: o.log,
      onDenied: (denial) => node?.noteDenial(denial),
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
    node = new PeerNode(o, config.peer, keys, state, trust, peerTls, anchor, store);
    await node.#run();
    return node;
  }

  private constructor(
    o: NodeOptions,
    config: PeerConfig,
    keys: OwnKeys,
    state: State,
    trust: Trust,
    peerTls: PeerTls,
    anchor: readonly Certificate[],
    store: Store,
  ) {
    this.#o = o;
    this.config = config;
    this.identity = parseIdentity(config.identity);
    this.keys = keys;
    this.state = state;
    this.trust = trust;
    this.peerTls = peerTls;
    this.startedAt = o.clock();
    this.access = new AppPasswords(state, this.identity);
    const domain = identityDomain(this.identity);
    const ownAnchors: TrustAnchor[] = anchor.map((certificate) => ({ name: domain, certificate }));
    this.#http = httpsClient({
      address: () => ({ host: config.directory.host, port: config.directory.port }),
      serverName: domain,
      anchors: () => ownAnchors,
      credentials: () => this.keys.auth,
      clock: o.clock,
    });
    this.directory = new DirectoryClient({
      http: this.#http,
      uuid: keys.uuid,
      signer: () => this.keys.auth,
      anchorsFor: (asked) =>
        asked === domain ? ownAnchors : this.#domainAnchors().filter((one) => one.domains.includes(asked)),
      pins: state,
      clock: o.clock,
      log: o.log,
      onEvent: (event) => this.noteRecordEvent(event),
    });
    this.#ownAnchors = anchor;
    this.applyTrust();
    this.store = store;
    this.inbox = makeInbox({ store, open: notYetSealed });
    this.requests = new Requests({ node: this, log: o.log, clock: o.clock });
    const tls = localTls(o.home, o.clock());
    const { local } = config;
    this.sip = new SipEndpoint({
      owner: this.identity,
      access: this.access,
      random: randomBytes,
      local: { host: local.host, sipPort: local.sipPort, sipsPort: local.sipsPort, tls },
    });
  }

  readonly #ownAnchors: readonly Certificate[];

  /** Puts the present rules in force: the file's, the owner's, the directory's anchors. Open connections are judged again. */
  applyTrust(): void {
    const { config } = this.#o;
    this.trust.replace(trustRules(config.trust, this.state, readFileAnchors(config.trust), this.#domainAnchors()));
  }

  /** A contact may come in and is written to without asking. @returns whether it is new */
  async addContact(identity: Identity, name: string): Promise<boolean> {
    const added = this.state.addContact(identity, name, this.#o.clock());
    if (added) {
      this.applyTrust();
      await this.store.appendEvent({ type: "contact.added", identity, name });
    }
    return added;
  }

  /** @param item bytes that `stream` yields are this node's owner's */
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
    this.#o.log.warn({ ...event }, "a person's record changed its keys");
    this.#append({ type: "record.changed", identity: event.identity, change: event.type });
  }

  get directoryState(): "available" | "unavailable" | "unknown" {
    return this.#directoryState;
  }

  /** The bound ports, as the ready line and the status tell them. */
  get ports(): { peer: PeerAddress; sip: PeerAddress; sips: PeerAddress } {
    const none = { host: "", port: 0 };
    return {
      peer: this.peerTls.address ?? none,
      sip: this.sip.addresses?.sip ?? none,
      sips: this.sip.addresses?.sips ?? none,
    };
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.sip.stop();
    await this.outbox.stop();
    await this.peerTls.close();
    await this.store.close();
    this.#http.close();
    this.state.close();
  }

  async #run(): Promise<void> {
    const { peerTls, store, inbox, config } = this;
    this.outbox = await makeOutbox({
      store,
      directory: this.directory,
      seal: notYetSealed,
      endpointOf: (kind) => (kind === "message" ? this.sip : noEndpoint(kind)),
      schedule: config.outbox.retrySeconds,
      lifetimeSeconds: config.outbox.lifetimeSeconds,
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
    await this.sip.start(port);
    peerTls.onConnected((connection) => this.outbox.wake(connection.identity));
    store.events.onEvent((event) => this.requests.noticed(event));
    await peerTls.listen(config.listen);
    this.outbox.start();
    void this.#follow();
  }

  /** Keeps the directory told and asked: own addresses at once and again before they lapse, the other domains' anchors. */
  async #follow(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        await this.#announce(signal);
        await pause(ADDRESS_POLL_MS, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#directoryIs("unavailable", error);
        await pause(DIRECTORY_RETRY_MS, signal);
      }
    }
  }

  async #announce(signal: AbortSignal): Promise<void> {
    const addresses = ownAddresses(this.config, this.ports.peer.port);
    const text = JSON.stringify(addresses);
    const now = performance.now();
    const due =
      this.#announcedAt === 0 || now - this.#announcedAt > REANNOUNCE_MS || this.#directoryState === "unavailable";
    if (text === this.#announced && !due) return;
    await this.directory.publishAddresses(addresses, signal);
    if (due) await this.#learnDomains(signal);
    this.#announced = text;
    this.#announcedAt = now;
    this.#o.log.info({ addresses: addresses.map(({ host, port }) => `${host} ${port}`) }, "own addresses announced");
    this.#directoryIs("available");
  }

  async #learnDomains(signal: AbortSignal): Promise<void> {
    const known = await this.directory.domains(signal);
    const own = identityDomain(this.identity);
    this.state.setDomainAnchors(
      known
        .filter(({ domain }) => domain !== own)
        .flatMap(({ domain, anchors }) => anchors.map((anchor) => ({ domain, der: anchor.der }))),
    );
    this.applyTrust();
  }

  #directoryIs(state: "available" | "unavailable", error?: unknown): void {
    if (this.#directoryState === state) return;
    this.#directoryState = state;
    if (state === "unavailable") this.#o.log.warn({ error: asSuiteError(error) }, "the directory is away");
    this.#append({ type: "directory.state", state });
    if (state === "available") this.outbox.directoryBack();
  }

  #append(event: NodeEvent): void {
    this.store
      .appendEvent(event)
      .catch((error: unknown) => this.#o.log.error({ error: asSuiteError(error) }, "an event could not be kept"));
  }

  #domainAnchors() {
    const own = identityDomain(this.identity);
    return [
      ...this.#ownAnchors.map((certificate) => domainAnchor(own, certificate)),
      ...this.state.domainAnchors().map(({ domain, der }) => domainAnchor(domain, parseCertificate(der))),
    ];
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(done, milliseconds);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done, { once: true });
  });
}

/** Mail and files come with their endpoints; nothing accepts one before. */
function notYetSealed(): never {
  throw new SuiteError("unsupported", "this node takes and sends messages only", { fault: "local" });
}

function noEndpoint(kind: string): never {
  throw new SuiteError("unsupported", "this node takes and sends messages only", { fault: "local", details: { kind } });
}
