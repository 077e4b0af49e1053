import type { PeerConnection } from "../peertls-core/connection.ts";
import { HEARTBEAT, Heartbeat, mustAnswer } from "../peertls-core/heartbeat.ts";
import type { Log } from "../pki/log.ts";
import { type Framed, type SipHeader, type SipRequest, type SipResponse, StreamFramer, value } from "./grammar.ts";
import { hostPort, messageTimer } from "./local-flow.ts";
import { responseTo, serialise } from "./message.ts";
import { ClientTransactions, responseKey, transactionKey } from "./transactions.ts";

const PING = Buffer.from("\r\n\r\n");
const PONG = Buffer.from("\r\n");
/** Of the peer's requests so many are served at once: more are not read. */
const MAX_SERVED = 64;
/** Who asks, but reads so much of the answers not, is gone. */
const MAX_UNREAD = 4 * 1024 * 1024;
/** Lines of the log a minute about what a peer sends: it fills no disk. */
const MAX_LINES = 20;

/**
 * One admitted connection that speaks SIP, whoever dialled it: requests and responses in both directions. Who dialled it
 * keeps it alive (RFC 5626 §4.4.1).
 */
export class PeerFlow {
  readonly connection: PeerConnection;
  readonly #transactions = new ClientTransactions();
  readonly #framer = new StreamFramer();
  readonly #onRequest: (request: SipRequest, flow: PeerFlow) => Promise<void>;
  readonly #log: Log;
  readonly #heart: Heartbeat | undefined;
  #partial: NodeJS.Timeout | undefined;
  #served = 0;
  #lines = { since: performance.now(), told: 0 };

  /** @param onRequest resolves when it is answered; never rejects */
  constructor(
    connection: PeerConnection,
    onRequest: (request: SipRequest, flow: PeerFlow) => Promise<void>,
    log: Log,
    times = HEARTBEAT,
  ) {
    this.connection = connection;
    this.#onRequest = onRequest;
    this.#log = log;
    connection.stream.on("error", () => undefined);
    connection.stream.once("close", () => {
      clearTimeout(this.#partial);
      this.#heart?.stop();
      this.#transactions.stop();
    });
    connection.stream.on("data", (chunk: Buffer) => this.#take(chunk));
    if (connection.direction === "out") this.#heart = new Heartbeat(connection, () => this.ping(), times);
  }

  get alive(): boolean {
    return !this.connection.stream.destroyed && this.connection.stream.writable;
  }

  get sentBy(): string {
    return hostPort(this.connection.localAddress);
  }

  send(bytes: Buffer): void {
    this.connection.stream.write(bytes);
  }

  /** The CRLF that answers it proves that the peer's gate admitted us (RFC 5626 §3.5.1). */
  ping(): void {
    this.send(PING);
  }

  /**
   * For a flow that was open already, with a request: it is destroyed unless the peer shows in time that it is there. One
   * that does not answer soon may be slow, and is asked.
   * @param there told at the first sign of life
   * @returns ends the watch
   */
  probe(withinMs: number, there: () => void): () => void {
    const asking = setTimeout(() => this.ping(), withinMs / 5);
    asking.unref();
    const stop = mustAnswer(this.connection, withinMs, () => {
      clearTimeout(asking);
      there();
    });
    return () => {
      clearTimeout(asking);
      stop();
    };
  }

  /** @returns the final response; undefined when the flow ended or 32 s passed */
  request(request: SipRequest, signal: AbortSignal): Promise<SipResponse | undefined> {
    this.#heart?.used();
    return this.#transactions.send(
      transactionKey(request, request.method),
      serialise(request),
      (bytes) => this.send(bytes),
      false,
      signal,
    );
  }

  respond(
    request: Pick<SipRequest, "headers">,
    status: number,
    reason: string,
    toTag: string,
    extra: readonly SipHeader[] = [],
  ): void {
    const { stream } = this.connection;
    if (stream.writableLength > MAX_UNREAD) this.connection.destroy();
    else this.send(serialise(responseTo(request, status, reason, toTag, extra)));
  }

  /** Warns of what the peer did, unless there was much of that within the minute. */
  tell(what: object, message: string): void {
    const now = performance.now();
    if (now - this.#lines.since >= 60_000) this.#lines = { since: now, told: 0 };
    this.#lines.told += 1;
    const { id: conn, identity: peer } = this.connection;
    if (this.#lines.told <= MAX_LINES) this.#log.warn({ conn, peer, ...what }, message);
    else if (this.#lines.told === MAX_LINES + 1)
      this.#log.warn({ conn, peer }, "more of what a peer sent was refused than is told one by one");
  }

  #take(chunk: Buffer): void {
    const all = this.#framer.push(chunk);
    for (const framed of all) this.#framed(framed);
    if (all.length > 0) this.#partial = void clearTimeout(this.#partial);
    this.#awaitRest();
  }

  /** Of a message that has begun; not while we ourselves do not read on. */
  #awaitRest(): void {
    if (this.connection.stream.isPaused()) this.#partial = void clearTimeout(this.#partial);
    else this.#partial = messageTimer(this.#framer, this.#partial, () => this.connection.destroy());
  }

  #framed(framed: Framed): void {
    if (framed.kind === "ping") {
      // What waits to be read shows as well that we are there.
      if (!this.connection.stream.writableNeedDrain) this.send(PONG);
    } else if (framed.kind === "refused") {
      this.tell({ status: framed.status, reason: framed.reason }, "a peer sent a malformed message");
      if (value(framed.headers, "via") !== undefined) this.respond(framed, framed.status, framed.reason, "refused");
      if (framed.fatal) this.connection.stream.end();
    } else if (framed.message.kind === "request") {
      this.#heart?.used();
      void this.#serve(framed.message);
    } else if (!this.#transactions.receive(responseKey(framed.message), framed.message))
      this.#log.debug({ conn: this.connection.id, status: framed.message.status }, "stray response dropped");
  }

  async #serve(request: SipRequest): Promise<void> {
    const { stream } = this.connection;
    this.#served += 1;
    if (this.#served === MAX_SERVED) stream.pause();
    await this.#onRequest(request, this);
    this.#served -= 1;
    if (this.#served !== MAX_SERVED - 1 || stream.destroyed) return;
    stream.resume();
    this.#awaitRest();
  }
}
