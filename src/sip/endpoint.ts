import { firstDevice, wayTo } from "../delivery/devices.ts";
import type { Endpoint, EndpointPort, Outgoing } from "../delivery/endpoint.ts";
import type { ItemId } from "../delivery/envelope.ts";
import type { OwnerAccess } from "../delivery/owner-access.ts";
import type { PeerConnection } from "../peertls-core/connection.ts";
import type { HeartbeatTimes } from "../peertls-core/heartbeat.ts";
import { type LocalListener, type LocalTls, type LocalUdp, listenLocal, listenUdp } from "../peertls-core/loopback.ts";
import type { Identity } from "../pki/identity.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import type { PeerRecord } from "../sixid/directory.ts";
import { sendMessage } from "./client.ts";
import type { SipRequest } from "./grammar.ts";
import { instantMessage, storedText } from "./instant.ts";
import { LocalSip } from "./local.ts";
import { PeerFlow } from "./peer-flow.ts";
import { servePeer } from "./server.ts";

export interface SipSettings {
  owner: Identity;
  access: OwnerAccess;
  /** Where the owner's SIP programs connect; port 0 lets the system choose. */
  local: { host: string; sipPort: number; sipsPort: number; tls: LocalTls };
  random: (length: number) => Buffer;
  heartbeat?: HeartbeatTimes;
  /** How long a flow that was open already has to show that the peer is still there. */
  stillThereMs?: number;
}

/** How long an answer to the owner's program waits for the peer's. */
const ANSWER_MS = 1_500;

/** Instant messages over SIP (RFC 3428): from node to node, and for the owner's own SIP programs. */
export class SipEndpoint implements Endpoint {
  readonly protocol = "sip";
  readonly #settings: SipSettings;
  readonly #flows = new Set<PeerFlow>();
  readonly #stopping = new AbortController();
  readonly #listeners: LocalListener[] = [];
  #port: EndpointPort | undefined;
  #local: LocalSip | undefined;
  /** The last pass of each app password's programs. */
  readonly #showing = new Map<string, Promise<void>>();

  constructor(settings: SipSettings) {
    this.#settings = settings;
  }

  /** The bound local ports. */
  get addresses(): { sip: LocalListener["address"]; sips: LocalListener["address"] } | undefined {
    const [tcp, tls] = this.#listeners;
    return tcp === undefined || tls === undefined ? undefined : { sip: tcp.address, sips: tls.address };
  }

  async start(port: EndpointPort): Promise<void> {
    this.#port = port;
    port.onPeer("sip", (connection) => this.#adopt(connection));
    const { access, local, random } = this.#settings;
    this.#local = new LocalSip({
      access,
      clock: port.clock,
      random,
      log: port.log,
      submit: (to, text) => this.#submit(to, text),
      onRegistered: () => this.#showMissed(),
    });
    const sip = this.#local;
    const tcp = await listenLocal({ host: local.host, port: local.sipPort }, (socket) =>
      sip.acceptStream(socket, "TCP"),
    );
    this.#listeners.push(tcp);
    this.#listeners.push(
      await listenLocal({ host: local.host, port: local.sipsPort, tls: local.tls }, (socket) =>
        sip.acceptStream(socket, "TLS"),
      ),
    );
    const udp: LocalUdp = await listenUdp({ host: local.host, port: tcp.address.port }, (bytes, from) =>
      sip.acceptDatagram(udp, bytes, from),
    );
    this.#listeners.push(udp);
    port.store.onReceived("message", () => this.#showMissed());
  }

  /** Makes a text durable and sends it on its way. */
  async send(to: readonly Identity[], text: string): Promise<ItemId> {
    const port = this.#started();
    const { owner, random } = this.#settings;
    const messageId = random(12).toString("hex");
    const first = to[0] ?? owner;
    const message = instantMessage({ from: owner, to: first, text, id: messageId, now: port.clock() });
    return port.outbox.accept({
      kind: "message",
      from: owner,
      to,
      messageId,
      entity: message.bytes,
      seal: "none",
      title: message.title,
    });
  }

  deliver(item: Outgoing, to: PeerRecord, signal: AbortSignal): Promise<void> {
    const port = this.#started();
    const { stillThereMs } = this.#settings;
    return sendMessage(
      item,
      to,
      {
        peerTls: port.peerTls,
        flowTo: (fingerprint) => this.#flowTo(fingerprint),
        adopt: (connection) => this.#adopt(connection),
        token: () => this.#settings.random(12).toString("hex"),
        ...(stillThereMs === undefined ? {} : { stillThereMs }),
      },
      signal,
    );
  }

  /**
   * Opens flows to a person's devices that have none: over them that person's node reaches this one wherever it is now, also
   * while no directory tells. @throws SuiteError as `PeerTls.dial`, when none can be reached
   */
  async reach(to: PeerRecord, signal: AbortSignal): Promise<void> {
    await firstDevice(to, signal, async (device) => {
      if (this.#flowTo(device.fingerprint) !== undefined) return;
      const { expected, routes } = wayTo(device, to);
      const connection = await this.#started().peerTls.dial(expected, "sip", routes, signal);
      this.#adopt(connection).ping();
      await connection.confirmed;
    });
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#local?.stop();
    for (const listener of this.#listeners.splice(0)) await listener.close();
    for (const flow of this.#flows) flow.connection.stream.end();
    await Promise.all(this.#showing.values());
  }

  #flowTo(fingerprint: string): PeerFlow | undefined {
    return [...this.#flows].findLast((flow) => flow.alive && flow.connection.fingerprint === fingerprint);
  }

  #adopt(connection: PeerConnection): PeerFlow {
    const port = this.#started();
    const options = {
      owner: this.#settings.owner,
      inbox: port.inbox,
      tag: () => this.#settings.random(8).toString("hex"),
      signal: this.#stopping.signal,
    };
    const { heartbeat } = this.#settings;
    const serve = (request: SipRequest, from: PeerFlow) => servePeer(request, from, options);
    const flow = new PeerFlow(connection, serve, port.log, heartbeat);
    this.#flows.add(flow);
    connection.stream.once("close", () => this.#flows.delete(flow));
    return flow;
  }

  async #submit(to: Identity, text: string): Promise<"delivered" | "accepted"> {
    const port = this.#started();
    const item = await this.send([to], text);
    return (await port.outbox.settled(item, AbortSignal.timeout(ANSWER_MS))) === "delivered" ? "delivered" : "accepted";
  }

  /**
   * Shows the programs of each app password what they have not seen, oldest first, one pass of an app at a time: one that
   * does not answer holds up nobody else's.
   */
  #showMissed(): void {
    for (const app of new Set(this.#local?.bindings.map((binding) => binding.app))) {
      const pass = (this.#showing.get(app) ?? Promise.resolve())
        .then(() => this.#show(app))
        .catch((error: unknown) => {
          this.#port?.log.error({ error: asSuiteError(error), app }, "showing messages to a local program failed");
        });
      this.#showing.set(app, pass);
    }
  }

  /** All programs of one app password share its mark: each is sent every message, and the first that takes it moves the mark. */
  async #show(app: string): Promise<void> {
    const { store } = this.#started();
    const local = this.#local;
    const { signal } = this.#stopping;
    if (local === undefined || signal.aborted) return;
    const mark = `sip.shown.${app}`;
    for (const item of await store.receivedAfter("message", await store.mark(mark), MAX_MISSED)) {
      const text = storedText(await store.bytes(item.content));
      const bindings = local.bindings.filter((binding) => binding.app === app);
      if (!(await anyOf(bindings.map((binding) => local.show(binding, item.from, text, signal))))) return;
      await store.setMark(mark, item.seq);
    }
  }

  #started(): EndpointPort {
    if (this.#port === undefined) throw new Error("the endpoint is not started");
    return this.#port;
  }
}

const MAX_MISSED = 500;

/** Whether one of them comes true; as soon as one does. */
function anyOf(answers: readonly Promise<boolean>[]): Promise<boolean> {
  return Promise.any(
    answers.map((answer) => answer.then((yes) => yes || Promise.reject(new Error("not this one")))),
  ).catch(() => false);
}
