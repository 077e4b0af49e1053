import type { Socket } from "node:net";
import { Duplex } from "node:stream";

const HEADER = 5;
const ALERT = 21;
const APPLICATION_DATA = 23;
/** The size of a record that holds an alert in TLS 1.3: two bytes, content type byte, tag. */
const TLS13_ALERT_BYTES = 19;

/**
 * Sits below a TLSSocket and walks the record headers (RFC 8446 §5.1), because Node reports a bare FIN and a
 * close_notify alike as `end`. In TLS 1.3 a close_notify is a record of 19 bytes which gave no plaintext; in TLS 1.2
 * its type is told in clear. What came before a reset is passed on: a client that closes with our tickets unread resets
 * behind its close_notify.
 */
export class RecordTap extends Duplex {
  readonly #socket: Socket;
  readonly #header = Buffer.alloc(HEADER);
  #have = 0;
  #left = 0;
  /** `start`: where it begins in the chunk at hand; 0 if it began before. */
  #last = { type: 0, length: 0, complete: false, start: 0 };
  #over = false;
  #pushed = 0;
  #consumed = 0;
  /** Number of the pushed chunk that is the end of a record which may be a close_notify, and nothing else. */
  #candidate = 0;
  #plaintext = 0;
  #plaintextBefore = 0;
  #candidateGave = 0;

  constructor(socket: Socket) {
    super({ allowHalfOpen: true });
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      if (!this.#take(chunk)) socket.pause();
    });
    socket.once("end", () => this.#finish());
    socket.on("error", (error) => this.#finish(error));
    socket.once("close", () => this.#finish(new Error("the connection was closed")));
    socket.resume();
  }

  get remoteAddress(): string | undefined {
    return this.#socket.remoteAddress;
  }

  /** To be asked after the secured stream's `end`. */
  get endedCleanly(): boolean {
    return this.#mayBeAlert && this.#candidateGave === 0;
  }

  /**
   * Counts what the TLS above makes of each record: data of two bytes come in a record of 19 bytes, too. Called before
   * anything was read; the TLS socket takes each chunk, and gives what it holds, in the call that hands it over.
   */
  watch(secured: Duplex): void {
    const push = secured.push;
    secured.push = (chunk: Buffer | null, encoding?: BufferEncoding) => {
      if (chunk !== null) this.#plaintext += chunk.length;
      return push.call(secured, chunk, encoding);
    };
    this.on("data", () => {
      this.#consumed += 1;
      if (this.#consumed === this.#candidate) this.#candidateGave = this.#plaintext - this.#plaintextBefore;
      this.#plaintextBefore = this.#plaintext;
    });
  }

  /** Whether the last record, by what is seen of it in clear, may be a close_notify. */
  get #mayBeAlert(): boolean {
    if (!this.#last.complete || this.#have > 0 || this.#left > 0) return false;
    if (this.#last.type === ALERT) return true;
    return this.#last.type === APPLICATION_DATA && this.#last.length === TLS13_ALERT_BYTES;
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(() => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  #take(chunk: Buffer): boolean {
    this.#last.start = 0;
    this.#walk(chunk);
    const { start } = this.#last;
    if (!this.#mayBeAlert) return this.#hand(chunk);
    if (start > 0) this.#hand(chunk.subarray(0, start));
    this.#candidate = this.#pushed + 1;
    return this.#hand(chunk.subarray(start));
  }

  #hand(chunk: Buffer): boolean {
    this.#pushed += 1;
    return this.push(chunk);
  }

  /** The end of what comes in. Destroying would lose what nobody has read yet: only a cut stream may be. */
  #finish(error?: Error): void {
    if (this.#over || this.destroyed) return;
    this.#over = true;
    for (let rest: Buffer | null = this.#socket.read(); rest !== null; rest = this.#socket.read()) this.#take(rest);
    if (error === undefined || this.endedCleanly) this.push(null);
    else this.destroy(error);
  }

  #walk(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const step = Math.min(this.#left, chunk.length - at);
        this.#left -= step;
        at += step;
        this.#last.complete = this.#left === 0;
        continue;
      }
      const step = Math.min(HEADER - this.#have, chunk.length - at);
      chunk.copy(this.#header, this.#have, at, at + step);
      this.#have += step;
      at += step;
      if (this.#have < HEADER) return;
      this.#have = 0;
      this.#left = this.#header.readUInt16BE(3);
      const start = Math.max(0, at - HEADER);
      this.#last = { type: this.#header[0] ?? 0, length: this.#left, complete: this.#left === 0, start };
    }
  }
}

/** How the incoming half of a secured stream ended, asked after its `end`; `untracked` if no tap lies below it. */
export function endOf(secured: object): "close-notify" | "cut" | "untracked" {
  const tap = TAPS.get(secured);
  if (tap === undefined) return "untracked";
  return tap.endedCleanly ? "close-notify" : "cut";
}

/** Notes that `tap` lies below `secured`. */
export function trackEnd(secured: Duplex, tap: RecordTap): void {
  tap.watch(secured);
  TAPS.set(secured, tap);
}

const TAPS = new WeakMap<object, RecordTap>();
