import { Readable } from "node:stream";
import Smtp from "nodemailer/lib/smtp-connection";
import { firstDevice, wayTo } from "../delivery/devices.ts";
import type { Outgoing } from "../delivery/endpoint.ts";
import { laneOf } from "../delivery/lanes.ts";
import type { PeerConnection } from "../peertls-core/connection.ts";
import { Heartbeat, type HeartbeatTimes, mustAnswer } from "../peertls-core/heartbeat.ts";
import type { PeerTls } from "../peertls-core/peertls.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import type { PeerDevice, PeerRecord } from "../sixid/directory.ts";
import { encodeBase64 } from "../smime/base64.ts";
import { isAuthenticated } from "../smime/peek.ts";
import { parseReply } from "./grammar.ts";
import { failureOf } from "./reply.ts";

export interface MailClientOptions {
  peerTls: Pick<PeerTls, "dial">;
  /** What we call ourselves in EHLO. */
  name: string;
  /** A connection on which nothing was sent for so long is closed. */
  idleMs?: number;
  heartbeat?: HeartbeatTimes;
  /** So long a connection that was kept may take for its first reply. */
  answerMs?: number;
}

const IDLE_MS = 120_000;
const ANSWER_MS = 10_000;
const GREETING_MS = 30_000;
/** The final reply: the peer opens the seal and syncs its disk before it. */
const REPLY_MS = 600_000;

/** One SMTP session with a peer, ready for the next mail. */
interface Session {
  connection: PeerConnection;
  smtp: Smtp;
  closed: Promise<void>;
  /** The answer to the last beat: nothing else is asked before it. */
  beat?: Promise<void>;
}

interface Kept {
  session: Session;
  idle: NodeJS.Timeout;
  heart: Heartbeat;
}

/** Brings mail to peers. A connection is kept for each device and lane, so that the next mail needs no handshake. */
export class MailClient {
  readonly #o: MailClientOptions;
  readonly #kept = new Map<string, Kept>();
  #stopped = false;

  constructor(o: MailClientOptions) {
    this.#o = o;
  }

  /**
   * Hands one mail to the first device that takes it.
   * @throws SuiteError as `PeerTls.dial`, and what the peer's reply means
   */
  async deliver(item: Outgoing, to: PeerRecord, signal: AbortSignal): Promise<void> {
    await firstDevice(to, signal, (device) => this.#deliverTo(device, item, to, signal));
  }

  /** Ends what is kept; what is being sent goes on, and nothing is kept after it. */
  stop(): void {
    this.#stopped = true;
    for (const key of [...this.#kept.keys()]) this.#forget(key)?.smtp.quit();
  }

  async #deliverTo(device: PeerDevice, item: Outgoing, to: PeerRecord, signal: AbortSignal): Promise<void> {
    const key = `${device.fingerprint} ${to.identity} ${laneOf(item.envelope.kind, item.envelope.entity.size)}`;
    const kept = this.#forget(key);
    if (kept !== undefined) {
      const sending = new Sending(kept, item, to);
      const stop = mustAnswer(kept.connection, this.#o.answerMs ?? ANSWER_MS);
      try {
        await sending.run(signal);
        this.#keep(key, kept);
        return;
      } catch (error) {
        kept.connection.destroy();
        // Whether it was still good shows only now. Not replaced: an answer, and what may have been stored already.
        if (signal.aborted || sending.answered || sending.complete) throw error;
      } finally {
        stop();
      }
    }
    const session = await this.#connect(device, to, signal);
    session.smtp.once("end", () => {
      if (this.#kept.get(key)?.session === session) this.#forget(key);
    });
    try {
      await new Sending(session, item, to).run(signal);
      this.#keep(key, session);
    } catch (error) {
      session.connection.destroy();
      throw error;
    }
  }

  async #connect(device: PeerDevice, to: PeerRecord, signal: AbortSignal): Promise<Session> {
    const { expected, routes } = wayTo(device, to);
    const connection = await this.#o.peerTls.dial(expected, "smtp", routes, signal);
    const abort = () => connection.destroy();
    signal.addEventListener("abort", abort, { once: true });
    try {
      if (signal.aborted) abort();
      await connection.confirmed; // tells a refusal by the peer's gate from a connection that broke
      const { promise: closed, resolve } = Promise.withResolvers<void>();
      connection.stream.once("close", resolve);
      return { connection, smtp: await greeted(connection, this.#o.name), closed };
    } catch (error) {
      connection.destroy();
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  #keep(key: string, session: Session): void {
    if (this.#stopped) return session.smtp.quit();
    this.#forget(key)?.smtp.quit();
    const idle = setTimeout(() => {
      this.#forget(key);
      session.smtp.quit();
    }, this.#o.idleMs ?? IDLE_MS);
    // The library offers no NOOP; between mails RSET is one.
    const beat = () => {
      session.beat = new Promise((answered) => session.smtp.reset(() => answered()));
    };
    this.#kept.set(key, { session, idle, heart: new Heartbeat(session.connection, beat, this.#o.heartbeat) });
  }

  #forget(key: string): Session | undefined {
    const kept = this.#kept.get(key);
    this.#kept.delete(key);
    clearTimeout(kept?.idle);
    kept?.heart.stop();
    return kept?.session;
  }
}

/** Waits for the greeting and says EHLO. */
function greeted(connection: PeerConnection, name: string): Promise<Smtp> {
  const smtp = new Smtp({
    connection: connection.stream as NonNullable<ConstructorParameters<typeof Smtp>[0]>["connection"],
    secure: true,
    secured: true,
    name,
    greetingTimeout: GREETING_MS,
    socketTimeout: REPLY_MS,
    maxResponseSize: 65_536,
    logger: false,
  });
  return new Promise((resolve, reject) => {
    smtp.on("error", (error: Error) => reject(failed(error)));
    smtp.connect((error?: Error) => (error === undefined ? resolve(smtp) : reject(failed(error))));
  });
}

/** One mail on one session. */
class Sending {
  readonly #session: Session;
  readonly #item: Outgoing;
  readonly #to: PeerRecord;
  /** The sealed bytes could not be read. Kept: the library writes its own code over that of the error. */
  #broken: { thrown: unknown } | undefined;
  /** The peer answered: what failed is the mail, not the connection. */
  answered = false;
  /** All bytes were given away: the mail may be stored although no answer came. */
  complete = false;

  constructor(session: Session, item: Outgoing, to: PeerRecord) {
    this.#session = session;
    this.#item = item;
    this.#to = to;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { connection, smtp } = this.#session;
    const item = this.#item;
    const abort = () => connection.destroy();
    signal.addEventListener("abort", abort, { once: true });
    const source = Readable.from(this.#bytes(), { objectMode: false });
    try {
      if (signal.aborted) abort();
      if (this.#session.beat !== undefined) await Promise.race([this.#session.beat, this.#session.closed]);
      item.progress(0);
      await new Promise<void>((resolve, reject) => {
        const envelope = {
          from: item.envelope.from,
          to: [this.#to.identity],
          size: Buffer.byteLength(item.envelope.outerHeader) + 2 + base64Size(item.size),
          use8BitMime: /[^\x00-\x7f]/.test(item.envelope.outerHeader),
        };
        smtp.send(envelope, source, (error) => (error === null ? resolve() : reject(error)));
      });
    } catch (error) {
      const failure = this.#broken === undefined ? failed(error) : asSuiteError(this.#broken.thrown);
      this.answered = failure.code !== "unreachable" && failure.details["reply"] !== 421; // 421 is about the connection
      throw failure;
    } finally {
      signal.removeEventListener("abort", abort);
      source.destroy();
    }
  }

  async *#bytes(): AsyncGenerator<Buffer> {
    try {
      const sealed = this.#sealed();
      const { value: first = new Uint8Array() } = await sealed.next();
      yield Buffer.from(`${outerHeaderFor(this.#item.envelope.outerHeader, first)}\r\n`);
      yield* encodeBase64(followed(first, sealed));
    } catch (thrown) {
      this.#broken = { thrown };
      throw new Error("the sealed bytes could not be read", { cause: thrown });
    }
    this.complete = true;
  }

  async *#sealed(): AsyncGenerator<Uint8Array> {
    let sent = 0;
    for await (const chunk of this.#item.open()) {
      yield chunk as Buffer;
      sent += (chunk as Buffer).length;
      this.#item.progress(sent);
    }
  }
}

/** The header was written when the mail was accepted; by which envelope it goes was decided when it was sealed. */
function outerHeaderFor(header: string, sealed: Uint8Array): string {
  return isAuthenticated(sealed)
    ? header
    : header.replace("smime-type=authEnveloped-data", "smime-type=enveloped-data");
}

async function* followed(first: Uint8Array, rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first;
  yield* rest;
}

/** Size of base64 in lines of 76 columns with their CRLF. */
function base64Size(bytes: number): number {
  const rest = bytes % 57;
  return ((bytes - rest) / 57) * 78 + (rest === 0 ? 0 : Math.ceil(rest / 3) * 4 + 2);
}

/** The library's error as ours: by the peer's reply if there is one, else the connection broke. */
function failed(error: unknown): SuiteError {
  if (error instanceof SuiteError) return error;
  const { code, response } = error as { code?: unknown; response?: unknown };
  const reply = typeof response === "string" ? parseReply(response) : undefined;
  if (reply !== undefined && reply.code >= 400) return failureOf(reply);
  // Without a reply: the library compares with the SIZE that the peer said.
  if (code === "EMESSAGE") {
    return new SuiteError("limit-exceeded", "the mail is too large for the peer's node", { fault: "peer" });
  }
  return new SuiteError("unreachable", "the connection to the peer's node broke", {
    fault: "peer",
    temporary: true,
    cause: error,
  });
}
