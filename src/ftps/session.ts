import type { Duplex } from "node:stream";
import type { Log } from "../pki/log.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { commandOf } from "./commands.ts";
import type { DataChannel, DataConnection } from "./data-channel.ts";
import { type Command, LineReader, parseCommand } from "./grammar.ts";
import { FACTS, TREE_FACTS } from "./listing.ts";
import { ROOT, type VirtualPath } from "./path.ts";
import { formatReply, REPLIES, type Reply, reply, replyOf } from "./reply.ts";
import { closeData, STALL_MS, type TransferOptions } from "./transfer.ts";
import type { Tree } from "./tree.ts";

/** What differs between the doors (ftps.md §2.2). */
export interface Door {
  readonly kind: "peer" | "local";
  readonly greeting: string;
  /** Lines of FEAT that this door has beside those of all. */
  readonly features: readonly string[];
  readonly maxFileBytes: number;
  /** @returns the reply; logs the session in where no password is needed */
  user(session: Session, name: string): Reply;
  pass(session: Session, password: string): Reply;
  /** AUTH TLS: replies and upgrades by itself. Absent where TLS is there from the first byte. */
  secure?(session: Session): Promise<undefined>;
  /** The address that the control connection came to. */
  readonly localAddress: string;
  announce(kind: "EPSV" | "PASV", session: Session): Promise<DataChannel>;
}

/** What commands change. */
export interface SessionState {
  secured: boolean;
  /** Named by USER, not logged in yet. */
  named: string | undefined;
  /** Logged in: what is seen. */
  tree: Tree | undefined;
  cwd: VirtualPath;
  type: "A" | "I";
  bufferSizeSet: boolean;
  protection: "C" | "P";
  restart: number;
  epsvOnly: boolean;
  facts: ReadonlySet<string>;
  failures: number;
}

export interface SessionLimits {
  /** Until the login, from the start or from TLS. */
  loginMs: number;
  clearMs: number;
  idleMs: number;
  stallMs: number;
}

export const LIMITS: SessionLimits = { loginMs: 30_000, clearMs: 10_000, idleMs: 600_000, stallMs: STALL_MS };

/** Lines that wait behind a running command; then reading pauses. */
const MAX_QUEUED = 32;
/** Commands before TLS (ftps.md §2.3). */
const MAX_CLEAR = 8;
/** How long the other side may take to close after us. */
const CLOSING_MS = 5_000;

/** One control connection: commands one after the other, some at once beside a transfer (ftps.md §2.3). */
export class Session {
  readonly door: Door;
  readonly log: Log;
  readonly clock: () => Date;
  readonly state: SessionState;
  /** Resolves when the control connection is closed and no transfer runs. */
  readonly ended: Promise<void>;
  readonly #limits: SessionLimits;
  readonly #closed = new AbortController();
  readonly #end = Promise.withResolvers<void>();
  readonly #queue: (Command | "not-utf8")[] = [];
  #reader = new LineReader();
  #control: Duplex;
  #running = false;
  #quitting = false;
  #hungUp = false;
  /** TLS is being put on the connection: it is not ours to read. */
  #detached = false;
  #clearCommands = 0;
  #transfer: Transfer | undefined;
  #channel: DataChannel | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    control: Duplex,
    o: { door: Door; secured: boolean; log: Log; clock: () => Date; limits?: Partial<SessionLimits> },
  ) {
    this.door = o.door;
    this.log = o.log;
    this.clock = o.clock;
    this.#limits = { ...LIMITS, ...o.limits };
    this.#control = control;
    this.ended = this.#end.promise;
    this.state = {
      secured: o.secured,
      named: undefined,
      tree: undefined,
      cwd: ROOT,
      type: "A",
      bufferSizeSet: o.secured,
      protection: o.secured ? "P" : "C",
      restart: 0,
      epsvOnly: false,
      facts: new Set([...FACTS, ...TREE_FACTS]),
      failures: 0,
    };
    this.#attach(control);
    this.#arm(o.secured ? this.#limits.loginMs : this.#limits.clearMs);
    this.reply(reply(220, o.door.greeting));
  }

  get control(): Duplex {
    return this.#control;
  }

  /** The tree of a session that is logged in: commands that need one are not run before. */
  get tree(): Tree {
    const { tree } = this.state;
    if (tree === undefined) throw new SuiteError("auth-failed", "nobody is logged in", { fault: "peer" });
    return tree;
  }

  /** Aborted when the control connection is gone. */
  get signal(): AbortSignal {
    return this.#closed.signal;
  }

  get transferring(): { command: string; bytes: number } | undefined {
    return this.#transfer;
  }

  reply(what: Reply): void {
    if (!this.#control.destroyed && !this.#control.writableEnded) this.#control.write(formatReply(what));
  }

  /** The next transfer's data connection; an earlier announcement is void. */
  announce(channel: DataChannel): void {
    this.#channel?.close();
    if (this.#closed.signal.aborted) return channel.close();
    this.#channel = channel;
    this.reply(channel.announced);
  }

  /**
   * 150, the data connection, `run`, its reply. A failure of any kind is told, and closes the data connection.
   * @param command for STAT
   */
  async transfer(
    command: string,
    run: (data: DataConnection, o: TransferOptions, signal: AbortSignal) => Promise<Reply>,
  ): Promise<Reply | undefined> {
    const channel = this.#channel;
    this.#channel = undefined;
    if (channel === undefined) return REPLIES.noDataPort;
    const abort = new AbortController();
    const done = Promise.withResolvers<void>();
    const transfer: Transfer = { command, bytes: 0, abort, done: done.promise };
    this.#transfer = transfer;
    const signal = AbortSignal.any([abort.signal, this.#closed.signal]);
    const options: TransferOptions = {
      type: this.state.type,
      stallMs: this.#limits.stallMs,
      onBytes: (count) => {
        transfer.bytes += count;
      },
    };
    let data: DataConnection | undefined;
    try {
      this.reply(REPLIES.fileStatus);
      data = await channel.open(signal);
      data.stream.on("error", () => undefined);
      const answer = await run(data, options, signal);
      closeData(data);
      this.reply(answer);
    } catch (error) {
      const failure = asSuiteError(error);
      this.#note(failure, command);
      const opening = data === undefined && !abort.signal.aborted;
      this.reply(opening ? REPLIES.dataFailed : replyOf(failure.code));
      // Behind the reply: it says why, which a program that is still sending would not learn from the closed connection.
      if (data !== undefined) setImmediate((stream) => stream.destroy(), data.stream);
    } finally {
      this.#transfer = undefined;
      done.resolve();
    }
    return undefined;
  }

  /** ABOR (RFC 959 §4.1.3). */
  async abort(): Promise<Reply> {
    const transfer = this.#transfer;
    if (transfer === undefined) {
      this.#channel?.close();
      this.#channel = undefined;
      return REPLIES.abortNothing;
    }
    transfer.abort.abort();
    await transfer.done;
    return REPLIES.abortDone;
  }

  /** After QUIT: a running transfer comes to its end first. */
  quit(): void {
    this.#quitting = true;
    if (!this.#running) this.#hangUp();
  }

  /** Resolves when no transfer runs; what follows one is not run any more. */
  async drained(): Promise<void> {
    const transfer = this.#transfer;
    if (transfer === undefined) return;
    this.#quitting = true;
    await transfer.done;
  }

  /** Tells why and closes at once. */
  close(why: Reply): void {
    this.reply(why);
    this.#hangUp();
  }

  loggedIn(tree: Tree): void {
    this.state.tree = tree;
    this.state.named = undefined;
    this.state.cwd = ROOT;
    this.#arm(this.#limits.idleMs);
  }

  loggedOut(): void {
    this.state.tree = undefined;
    this.#arm(this.#limits.loginMs);
  }

  /** A wrong password or name. The third closes. */
  refuseLogin(): Reply {
    this.state.failures += 1;
    this.state.named = undefined;
    if (this.state.failures >= 3) setImmediate(() => this.#hangUp());
    return REPLIES.notAuthenticated;
  }

  /** Whether anything was said behind the command that is being run: none of it may be taken for said inside TLS. */
  get pipelined(): boolean {
    return this.#queue.length > 0 || this.#reader.pending > 0 || this.#control.readableLength > 0;
  }

  /** Takes the connection from the session, which hears nothing until `secured`. */
  detach(): Duplex {
    this.#detached = true;
    this.#control.removeAllListeners("data");
    this.#control.off("end", this.#gone);
    return this.#control;
  }

  secured(control: Duplex): void {
    this.#control = control;
    this.#detached = false;
    this.#reader = new LineReader();
    this.state.secured = true;
    this.#attach(control);
    this.#arm(this.#limits.loginMs);
  }

  readonly #gone = () => {
    clearTimeout(this.#timer);
    this.#closed.abort();
    this.#channel?.close();
    this.#control.destroy();
    void (this.#transfer?.done ?? Promise.resolve()).then(() => this.#end.resolve());
  };

  #attach(control: Duplex): void {
    control.on("data", (chunk: Buffer) => {
      if (this.#hungUp) return; // read over, so that its end is seen
      this.#reader.push(chunk);
      this.#read();
    });
    control.on("drain", () => this.#next());
    control.on("error", () => undefined);
    control.once("end", this.#gone);
    control.once("close", this.#gone);
  }

  /** Takes lines as far as there is room for them, and for their replies. */
  #read(): void {
    while (!this.#isFull && !this.#quitting && !this.#hungUp && !this.#control.destroyed) {
      const line = this.#reader.next();
      if (line === undefined) break;
      if (line.kind === "too-long") return this.close(REPLIES.lineTooLong);
      const command = line.kind === "line" ? parseCommand(line.text) : "not-utf8";
      if (command !== "not-utf8" && this.#transfer !== undefined && commandOf(command.verb)?.atOnce === true) {
        void this.#run(command);
      } else {
        this.#queue.push(command);
        if (!this.#running) this.#next();
      }
    }
    if (this.#detached) return;
    if (this.#isFull) this.#control.pause();
    else this.#control.resume();
  }

  /** Whoever does not read replies is not read from. */
  get #isFull(): boolean {
    return this.#queue.length >= MAX_QUEUED || this.#control.writableNeedDrain;
  }

  #next(): void {
    if (this.#running || this.#quitting || this.#closed.signal.aborted || this.#control.writableNeedDrain) return;
    const command = this.#queue.shift();
    if (command === undefined) return this.#read();
    this.#running = true;
    void this.#run(command).finally(() => {
      this.#running = false;
      if (this.#quitting) return this.#hangUp();
      if (this.state.secured) this.#arm(this.state.tree === undefined ? this.#limits.loginMs : this.#limits.idleMs);
      this.#next();
    });
  }

  async #run(command: Command | "not-utf8"): Promise<void> {
    if (!this.state.secured && ++this.#clearCommands > MAX_CLEAR) return this.close(REPLIES.stopping);
    if (command === "not-utf8") return this.reply(REPLIES.notUtf8);
    const { verb, argument } = command;
    try {
      const answer = await this.#answer(verb, argument);
      if (answer !== undefined) this.reply(answer);
    } catch (error) {
      const failure = asSuiteError(error);
      this.#note(failure, verb);
      this.reply(replyOf(failure.code));
    }
  }

  #answer(verb: string, argument: string | undefined): Promise<Reply | undefined> | Reply | undefined {
    const command = commandOf(verb);
    if (command === undefined) {
      if (this.state.tree === undefined) return REPLIES.loginFirst;
      return reply(500, `Command "${verb.slice(0, 64)}" not understood.`);
    }
    if (this.state.tree === undefined && !(command.beforeLogin === true || (verb === "STAT" && argument === undefined)))
      return REPLIES.loginFirst;
    if (command.argument === "needed" && argument === undefined) return REPLIES.needsArgument;
    if (command.argument === "none" && argument !== undefined) return REPLIES.needsNoArgument;
    return command.run(this, argument ?? "");
  }

  #note(failure: SuiteError, verb: string): void {
    const fields = { command: verb, error: failure.code, ...failure.details };
    if (failure.fault === "local") this.log.error({ ...fields, cause: failure.cause }, "a command failed");
    else this.log.info(fields, "a command was refused");
  }

  #arm(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#transfer === undefined) this.close(REPLIES.idle);
      else this.#arm(milliseconds);
    }, milliseconds);
  }

  #hangUp(): void {
    const control = this.#control;
    if (control.destroyed || this.#hungUp) return;
    this.#hungUp = true;
    control.end();
    const timer = setTimeout(() => control.destroy(), CLOSING_MS);
    control.once("close", () => clearTimeout(timer));
    control.resume();
  }
}

interface Transfer {
  command: string;
  bytes: number;
  abort: AbortController;
  done: Promise<void>;
}
