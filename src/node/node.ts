import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { CutPoint } from "../delivery/cut-point.ts";
import { type Delivery, openDelivery } from "../delivery/delivery.ts";
import type { EndpointPort } from "../delivery/endpoint.ts";
import { FtpsEndpoint } from "../ftps/endpoint.ts";
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
import { SmtpEndpoint } from "../smtp/endpoint.ts";
import { ownAddresses } from "./addresses.ts";
import { AppPasswords } from "./app-passwords.ts";
import type { Config, PeerConfig } from "./config.ts";
import type { Home } from "./home.ts";
import { KeyFiles, type OwnKeys } from "./keys.ts";
import { localTls } from "./local-tls.ts";
import { Renewal } from "./renewal.ts";
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
  readonly delivery: Delivery;
  readonly requests: Requests;
  readonly sip: SipEndpoint;
  readonly smtp: SmtpEndpoint;
  readonly ftps: FtpsEndpoint;
  readonly startedAt: Date;
  readonly #o: NodeOptions;
  readonly #http: HttpsClient;
  readonly #stopping = new AbortController();
  readonly #renewal: Renewal;
  #announced = "";
  #announcedAt = 0;
  #directoryState: "available" | "unavailable" | "unknown" = "unknown";

  static async start(o: NodeOptions): Promise<PeerNode> {
    const { config } = o;
    if (config.peer === undefined)
      throw new SuiteError("config-invalid", "the configuration has no peer part", { fault: "local" });
    const files = new KeyFiles(o.home);
    const keys = files.load();
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
    node = new PeerNode(o, config.peer, files, keys, state, trust, peerTls, anchor);
    await node.#run();
    return node;
  }

  private constructor(
    o: NodeOptions,
    config: PeerConfig,
    files: KeyFiles,
    keys: OwnKeys,
    state: State,
    trust: Trust,
    peerTls: PeerTls,
    anchor: readonly Certificate[],
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
    this.delivery = openDelivery({
      directory: o.home.delivery,
      owner: this.identity,
      signer: () => ({
        certificate: this.keys.auth.certificate,
        chain: this.keys.auth.chain,
        privateKey: this.keys.auth.privateKey,
      }),
      decryption: () => this.keys.encryption.map(({ certificate, privateKey }) => ({ certificate, privateKey })),
      anchors: () => this.trust.policy.anchors,
      lookup: this.directory,
      clock: o.clock,
      random: randomBytes,
      log: o.log,
      cut: o.cut,
      retrySeconds: config.outbox.retrySeconds,
      lifetimeSeconds: config.outbox.lifetimeSeconds,
    });
    this.requests = new Requests({ node: this, log: o.log, clock: o.clock });
    const tls = localTls(o.home, o.clock());
    const { local } = config;
    const common = { owner: this.identity, access: this.access, random: randomBytes };
    this.sip = new SipEndpoint({
      ...common,
      local: { host: local.host, sipPort: local.sipPort, sipsPort: local.sipsPort, tls },
    });
    this.smtp = new SmtpEndpoint({
      ...common,
      local: { host: local.host, smtpsPort: local.smtpsPort, submissionPort: local.submissionPort, tls },
    });
    this.ftps = new FtpsEndpoint({
      ...common,
      directory: join(o.home.delivery, "ftps"),
      local: { host: local.host, port: local.ftpPort, tls },
    });
    this.#renewal = new Renewal({ node: this, files, home: o.home, log: o.log, clock: o.clock });
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
      await this.delivery.store.appendEvent({ type: "contact.added", identity, name });
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
  get ports(): {
    peer: PeerAddress;
    smtps: PeerAddress;
    submission: PeerAddress;
    ftp: PeerAddress;
    sip: PeerAddress;
    sips: PeerAddress;
  } {
    const none = { host: "", port: 0 };
    return {
      peer: this.peerTls.address ?? none,
      smtps: this.smtp.addresses?.smtps ?? none,
      submission: this.smtp.addresses?.submission ?? none,
      ftp: this.ftps.address ?? none,
      sip: this.sip.addresses?.sip ?? none,
      sips: this.sip.addresses?.sips ?? none,
    };
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#renewal.stop();
    for (const endpoint of [this.sip, this.smtp, this.ftps]) await endpoint.stop();
    await this.delivery.stop();
    await this.peerTls.close();
    this.#http.close();
    this.state.close();
  }

  async #run(): Promise<void> {
    const { delivery, peerTls } = this;
    await delivery.open([this.sip, this.smtp, this.ftps]);
    const port: EndpointPort = {
      peerTls,
      inbox: delivery.inbox,
      outbox: delivery.outbox,
      store: delivery.store,
      log: this.#o.log,
      clock: this.#o.clock,
      onPeer: (protocol, accept) => peerTls.onPeer(protocol, accept),
    };
    for (const endpoint of [this.sip, this.smtp, this.ftps]) await endpoint.start(port);
    peerTls.onConnected((connection) => delivery.outbox.wake(connection.identity));
    delivery.onEvent((event) => this.requests.noticed(event));
    await peerTls.listen(this.config.listen);
    delivery.outbox.start();
    this.#renewal.start();
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
    if (state === "available") this.delivery.outbox.directoryBack();
  }

  #append(event: Parameters<Delivery["store"]["appendEvent"]>[0]): void {
    this.delivery.store
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
