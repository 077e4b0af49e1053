import { Duplex, type Readable } from "node:stream";
import { Client, type FTPContext, FTPError } from "basic-ftp";
import type { PeerConnection } from "../peertls-core/connection.ts";
import type { PeerTls } from "../peertls-core/peertls.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { parseDataToken, parseHash, parseObjectState } from "./grammar.ts";
import { failureOf } from "./reply.ts";

/** A control connection to a peer's node: basic-ftp on a connection that the gate admitted (ftps.md §2.7). */
export class FtpClient {
  readonly connection: PeerConnection;
  readonly #client: Client;
  readonly #ready: Promise<void>;
  #beat: Promise<void> | undefined;
  #signal: AbortSignal = AbortSignal.abort();
  /** Where the next upload begins. */
  #restart = 0;

  /** @param connection fresh from the dial, in the same tick: the greeting must not pass unheard */
  constructor(connection: PeerConnection, peerTls: Pick<PeerTls, "dialData">) {
    this.connection = connection;
    this.#client = new Client(0); // delivery watches the progress, and knows better how long opening a seal may take
    const { ftp } = this.#client;
    ftp.socket = handed(connection);
    this.#ready = ftp.handle(undefined, (response, task) => {
      if (response instanceof Error) task.reject(response);
      else task.resolve(undefined);
    });
    this.#ready.catch(() => undefined);
    this.#client.prepareTransfer = async (context) => {
      const response = await context.request("EPSV");
      const data = await peerTls.dialData(connection, parseDataToken(response.message), this.#signal);
      context.dataSocket = handed(data, REPLY_MS);
      return this.#restart === 0 ? response : context.request(`REST ${this.#restart}`);
    };
  }

  get alive(): boolean {
    return !this.#client.closed;
  }

  /** Resolves when the peer's gate let us in and we are logged in. @throws SuiteError refused-by-peer, handshake-failed … */
  async login(name: string, signal: AbortSignal): Promise<void> {
    await this.#with(signal, async () => {
      await this.connection.confirmed; // says better than a closed connection why we are not let in
      await this.#ready;
      await this.#client.login(name, "");
      await this.#client.send("TYPE I");
    });
  }

  /**
   * What became of an object that was sent before.
   * @returns its digest, if it was opened; else the bytes of it that are there, if any, and their SHA-256
   */
  sent(
    path: string,
    signal: AbortSignal,
  ): Promise<{ opened: string } | { opened: undefined; size: number; sha256: string } | undefined> {
    return this.#with(signal, async () => {
      const object = await this.#asked(`MLST ${path}`);
      const state = object === undefined ? undefined : parseObjectState(object);
      if (state === undefined) return undefined;
      if (state.state === "opened") return { opened: state.digest };
      const prefix = parseHash((await this.#asked(`HASH ${path}`)) ?? "");
      return prefix === undefined ? undefined : { opened: undefined, ...prefix };
    });
  }

  /** A reply, unless the peer does not have it, or does not understand. */
  async #asked(command: string): Promise<string | undefined> {
    try {
      return (await this.#client.send(command)).message;
    } catch (error) {
      if (error instanceof FTPError && error.code >= 500) return undefined;
      throw error;
    }
  }

  /**
   * Announces the size, then uploads.
   * @param from how much of it is there already and stands before `bytes`
   * @returns the text of the 226
   * @throws SuiteError what the peer's reply means; unreachable if the connection ended
   */
  upload(path: string, size: number, bytes: Readable, from: number, signal: AbortSignal): Promise<string> {
    return this.#with(signal, async () => {
      try {
        this.#restart = from;
        await this.#client.send(`ALLO ${size}`);
        const { message } = await this.#client.uploadFrom(bytes, path);
        return message.replace(/^226 /, "");
      } finally {
        bytes.destroy(); // a refusal takes basic-ftp's hands off it without an end
      }
    });
  }

  /** Says something that the peer has to answer. Only between uploads. */
  beat(): void {
    const over = () => {
      this.#beat = undefined;
    };
    this.#beat ??= this.#client.send("NOOP").then(over, over);
  }

  close(): void {
    this.#client.close();
  }

  async #with<T>(signal: AbortSignal, run: () => Promise<T>): Promise<T> {
    this.#signal = signal;
    const abort = () => this.close();
    signal.addEventListener("abort", abort, { once: true });
    try {
      signal.throwIfAborted();
      await this.#beat;
      return await run();
    } catch (error) {
      throw failure(error, signal);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }
}

function failure(error: unknown, signal: AbortSignal): SuiteError {
  if (error instanceof SuiteError) return error;
  if (signal.aborted)
    return new SuiteError("cancelled", "the transfer was given up", { fault: "local", temporary: true });
  if (error instanceof FTPError) return failureOf(error.code);
  return new SuiteError("unreachable", "the connection to the peer's node ended", {
    fault: "peer",
    temporary: true,
    cause: error,
  });
}

/**
 * basic-ftp takes every listener off a socket that it lets go of, also those by which the gate knows what is open: it gets
 * a face of the stream, not the stream.
 */
function handed(connection: PeerConnection, failAfterMs = 0): FTPContext["socket"] {
  return new Handed(connection, failAfterMs) as unknown as FTPContext["socket"];
}

/** A peer that refuses in the middle cuts the data and says why on the control connection: so long that reply is waited for. */
const REPLY_MS = 2_000;

class Handed extends Duplex {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly #stream: Duplex;
  readonly #failAfterMs: number;
  #failing: NodeJS.Timeout | undefined;
  bytesRead = 0;
  bytesWritten = 0;

  /** @param failAfterMs how long an end that nobody expected is kept back */
  constructor({ stream, address }: PeerConnection, failAfterMs: number) {
    super({ allowHalfOpen: true });
    this.#failAfterMs = failAfterMs;
    this.remoteAddress = address.host;
    this.remotePort = address.port;
    this.#stream = stream;
    stream.on("data", (chunk: Buffer) => {
      this.bytesRead += chunk.length;
      if (!this.push(chunk)) stream.pause();
    });
    stream.once("end", () => this.push(null));
    stream.once("error", (error) => this.#fail(error));
    stream.once("close", () => this.#fail());
  }

  setTimeout(): this {
    return this; // ours are the deadlines of delivery
  }

  setKeepAlive(): this {
    return this;
  }

  override _read(): void {
    this.#stream.resume();
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#stream.write(chunk, encoding, (error) => {
      this.bytesWritten += chunk.length;
      if (error) this.#fail(error);
      else done();
    });
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#stream.end(() => done());
  }

  /** The first cause counts. */
  #fail(error?: Error): void {
    if (this.#failAfterMs === 0 || this.writableFinished) this.destroy(error);
    else this.#failing ??= setTimeout(() => this.destroy(error), this.#failAfterMs);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearTimeout(this.#failing);
    this.#stream.destroy();
    done(error);
  }
}
