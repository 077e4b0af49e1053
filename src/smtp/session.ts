import type { Duplex } from "node:stream";
import { SMTPServer, type SMTPServerDataStream, type SMTPServerSession } from "smtp-server";
import { SMTPConnection } from "smtp-server/lib/smtp-connection.js";
import type { LocalTls } from "../peertls-core/loopback.ts";
import type { Identity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { forwardPath, type ReversePath, reversePath } from "./grammar.ts";
import { type DataLimits, Incoming } from "./incoming.ts";
import { Refusal, type Reply, replyOfThrown } from "./reply.ts";
import type { Passage } from "./trace.ts";

/** What one SMTP connection does; no type of the library crosses this line. What they throw becomes a reply. */
export interface SmtpHandlers {
  /** Judges a sender. @throws Refusal, SuiteError */
  mail(path: ReversePath): Promise<void>;
  /** Judges a recipient. @throws Refusal, SuiteError */
  rcpt(to: Identity): Promise<void>;
  /** Takes a mail; the answer is the text of the 250, given at the end of the bytes. `signal`: the client is gone. */
  data(mail: Transaction, bytes: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<string>;
  /** Present where a password is asked for before MAIL. */
  auth?: (user: string, password: string) => boolean;
}

export interface Transaction {
  readonly from: Identity | undefined;
  readonly to: readonly Identity[];
  readonly passage: Passage;
}

export interface SmtpServiceOptions {
  /** What the greeting says. */
  name: string;
  /** `tls`: the sockets are secured already; `starttls`: they are plain, and nothing but STARTTLS leads on. */
  security: { mode: "tls" } | { mode: "starttls"; tls: LocalTls };
  auth: boolean;
  limits: SessionLimits;
  log: Log;
}

export interface SessionLimits extends DataLimits {
  commandBytes: number;
  recipients: number;
  /** Until EHLO. */
  helloMs: number;
  /** Between commands. */
  idleMs: number;
  /** Commands without a mail. */
  commands: number;
  failedAuth: number;
  /** How long DATA under way may go on when the service stops. */
  drainMs: number;
}

/** Limits of smtp.md §2, but for those that differ between peers and the owner's programs. */
export const SESSION_LIMITS: Omit<SessionLimits, "maxBytes" | "commandBytes"> = {
  recipients: 100,
  helloMs: 30_000,
  idleMs: 300_000,
  silenceMs: 60_000,
  wholeMs: 600_000,
  bytesPerSecond: 8_192,
  commands: 50,
  failedAuth: 3,
  drainMs: 10_000,
};

/** What a refused client may still send before its connection is cut. */
const LINGER_BYTES = 1_048_576;

/** Speaks SMTP on connections that others accepted. The only part that knows the server library. */
export class SmtpService {
  readonly #server: Server;
  readonly #limits: SessionLimits;
  readonly #open = new Set<Connection>();
  #stopping = false;

  constructor(o: SmtpServiceOptions) {
    this.#limits = o.limits;
    this.#server = new Server(o, this.#open);
  }

  /** `id` names the connection in the log and in Received. */
  accept(stream: Duplex, id: string, handlers: SmtpHandlers): void {
    if (this.#stopping) return refuse(stream, "4.3.2 stopping");
    this.#server.serve(stream, id, handlers);
  }

  /** Tells every client 421; a mail that is just arriving gets some seconds more. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all([...this.#open].map((connection) => connection.stop(this.#limits.drainMs)));
  }
}

/** Turns a connection away before any session. */
export function refuse(stream: Duplex, text: string): void {
  stream.on("error", () => undefined);
  stream.end(`421 ${text}\r\n`);
  stream.resume();
  stream.once("finish", () => stream.destroy());
}

type Socket = Parameters<SMTPServer["connect"]>[0];
type Done = (error?: Error | null) => void;

class Server extends SMTPServer {
  readonly #o: SmtpServiceOptions;
  readonly #open: Set<Connection>;
  readonly #sessions = new WeakMap<SMTPServerSession, Connection>();
  readonly #handlers = new WeakMap<Socket, SmtpHandlers>();

  constructor(o: SmtpServiceOptions, open: Set<Connection>) {
    const { security, limits, auth } = o;
    super({
      name: o.name,
      banner: "SixTalk",
      heloResponse: "%s",
      ...(security.mode === "tls"
        ? { secure: true, secured: true }
        : {
            key: security.tls.keyPem,
            cert: security.tls.certificatePem,
            minVersion: "TLSv1.2",
            sessionIdContext: "sixtalk-submission",
          }),
      authMethods: ["PLAIN", "LOGIN"],
      disabledCommands: ["WIZ", "SHELL", "KILL", "XCLIENT", "XFORWARD", ...(auth ? [] : ["AUTH", "STARTTLS"])],
      disableReverseLookup: true,
      hideENHANCEDSTATUSCODES: false,
      hideDSN: true,
      hideREQUIRETLS: true,
      maxAllowedUnauthenticatedCommands: limits.commands,
      maxCommandLength: limits.commandBytes,
      maxRecipients: limits.recipients,
      size: limits.maxBytes,
      socketTimeout: limits.idleMs,
      logger: false,
    });
    this.#o = o;
    this.#open = open;
    this.on("error", (error: Error) => o.log.debug({ error: error.message }, "an SMTP connection failed"));
  }

  serve(stream: Duplex, id: string, handlers: SmtpHandlers): void {
    const socket = stream as Socket; // the library uses what every socket of the core has
    this.#handlers.set(socket, handlers);
    this.connect(socket, { id });
  }

  /** The library's own, but for the class of the connection. */
  override connect(socket: Socket, options?: Parameters<SMTPServer["connect"]>[1]): void {
    const handlers = this.#handlers.get(socket);
    if (handlers === undefined) return void socket.destroy();
    const connection = new Connection(this, socket, options ?? null, handlers, this.#o);
    this.#sessions.set(connection.session, connection);
    this.connections.add(connection);
    this.#open.add(connection);
    socket.once("close", () => this.#open.delete(connection));
    connection.on("error", (error: Error) => this._onError(error));
    connection.init();
  }

  override onConnect(_session: SMTPServerSession, callback: Done): void {
    callback();
  }

  override onSecure(_socket: Socket, _session: SMTPServerSession, callback: Done): void {
    callback();
  }

  override onClose(session: SMTPServerSession): void {
    this.#of(session).gone.abort();
  }

  override onAuth(...[auth, session, callback]: Parameters<SMTPServer["onAuth"]>): void {
    const { method, username = "", password, authzid } = auth;
    const known = (method === "PLAIN" || method === "LOGIN") && (!authzid || authzid === username);
    const right = known && this.#of(session).authenticate(username, password ?? "");
    if (right) callback(null, { user: username });
    else callback(this.#of(session).wrongPassword());
  }

  override onMailFrom(...[path, session, callback]: Parameters<SMTPServer["onMailFrom"]>): void {
    this.#judge(callback, async () => {
      await this.#of(session).handlers.mail(reversePath(path.address, path.args || {}));
    });
  }

  override onRcptTo(...[path, session, callback]: Parameters<SMTPServer["onRcptTo"]>): void {
    const connection = this.#of(session);
    connection.judgesRecipient = true;
    this.#judge(
      (error) => {
        callback(error);
        connection.judgesRecipient = false;
      },
      () => connection.handlers.rcpt(forwardPath(path.address, path.args || {}, session.envelope.smtpUtf8 ?? false)),
    );
  }

  override onData(...[stream, session, callback]: Parameters<SMTPServer["onData"]>): void {
    void this.#of(session).receive(stream, callback);
  }

  #judge(callback: Done, judgement: () => Promise<void>): void {
    const run = async () => judgement();
    run().then(
      () => callback(),
      (thrown: unknown) => callback(errorOf(replyOfThrown(thrown, "command"))),
    );
  }

  #of(session: SMTPServerSession): Connection {
    const connection = this.#sessions.get(session);
    if (connection === undefined) throw new Error("a session without a connection");
    return connection;
  }
}

class Connection extends SMTPConnection {
  readonly handlers: SmtpHandlers;
  /** Aborted when the connection has ended. */
  readonly gone = new AbortController();
  readonly #o: SmtpServiceOptions;
  /** The reply that comes is a recipient's: a hundred of them are no flood. */
  judgesRecipient = false;
  #commands = 0;
  #failedAuth = 0;
  #receiving: Promise<void> | undefined;
  #stopping = false;

  constructor(
    server: Server,
    socket: Socket,
    options: Parameters<SMTPServer["connect"]>[1],
    handlers: SmtpHandlers,
    o: SmtpServiceOptions,
  ) {
    super(server, socket, options ?? null);
    this.handlers = handlers;
    this.#o = o;
  }

  /** Greets at once: the library would wait 100 ms for clients that talk too early. */
  override init(): void {
    const hello = setTimeout(() => {
      if (this.hostNameAppearsAs === false) this.send(421, "4.4.2 No EHLO came");
    }, this.#o.limits.helloMs);
    this._socket.once("close", () => clearTimeout(hello));
    this._setListeners(() => this.connectionReady());
  }

  /** One enhanced code: ours where the text begins with one, else the library's; and no AUTH offered before TLS. */
  override send(code: number, data?: string | string[] | null, context?: string | false): void {
    if (context === "DATA_OK") this.#commands = 0;
    else if (context !== "RCPT_TO_OK" && !this.judgesRecipient) this.#commands += 1;
    if (this.#commands > this.#o.limits.commands && code !== 421) {
      return super.send(421, "4.7.0 Too many commands without a mail", false);
    }
    if (Array.isArray(data)) {
      return super.send(code, this.secure ? data : data.filter((line) => !line.startsWith("AUTH ")), context);
    }
    if (code === 538) return super.send(538, "5.7.11 Must issue a STARTTLS command first", false);
    if (typeof data === "string" && /^[245]\.\d{1,3}\.\d{1,3} /.test(data)) return super.send(code, data, false);
    // For these the library takes the name of the command, whatever it is, for the name of a context.
    return super.send(code, data, code === 421 || code === 500 ? undefined : context);
  }

  /** STARTTLS: the library drops all listeners of the plain socket, also of those who count open connections. */
  override upgrade(callback: () => void, secureCallback?: () => void): void {
    const plain = this._socket;
    const closing = plain.listeners("close") as (() => void)[];
    super.upgrade(callback, secureCallback);
    for (const listener of closing) plain.once("close", listener);
  }

  authenticate(user: string, password: string): boolean {
    return this.handlers.auth?.(user, password) ?? false;
  }

  wrongPassword(): Error {
    this.#failedAuth += 1;
    if (this.#failedAuth < this.#o.limits.failedAuth) return errorOf(replyOfThrown(authFailed, "command"));
    return errorOf({ code: 421, enhanced: "4.7.0", text: "Too many wrong passwords" });
  }

  /** Takes one DATA: answers behind its end, unless it is too large or too slow, which ends the connection. */
  async receive(stream: SMTPServerDataStream, callback: (error: Error | null, text?: string) => void): Promise<void> {
    const incoming = new Incoming(stream, this.#o.limits);
    const done = Promise.withResolvers<void>();
    this.#receiving = done.promise;
    let text = "";
    let refused: { thrown: unknown } | undefined;
    try {
      text = await this.handlers.data(this.#transaction(), incoming.bytes(), this.gone.signal);
    } catch (thrown) {
      refused = { thrown };
    }
    await incoming.drain().catch(() => undefined);
    if (incoming.failure !== undefined) this.#cut(incoming.failure.code === "limit-exceeded");
    else if (refused === undefined) callback(null, text);
    else callback(errorOf(replyOfThrown(refused.thrown, "data")));
    this.#receiving = undefined;
    done.resolve();
  }

  /** Says 421 as soon as no mail is arriving, at the latest after `patienceMs`. */
  async stop(patienceMs: number): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    let timer: NodeJS.Timeout | undefined;
    const enough = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, patienceMs);
    });
    await Promise.race([this.#receiving ?? Promise.resolve(), enough]);
    clearTimeout(timer);
    this.send(421, "4.3.2 Stopping");
    this._socket.destroySoon();
  }

  /** The rest of an over-size mail is not waited for. */
  #cut(tooLarge: boolean): void {
    if (tooLarge) {
      this.send(552, "5.3.4 Too large");
      this.close();
    } else this.send(421, "4.4.2 The mail does not come");
    let discarded = 0;
    this._socket.on("data", (chunk: Buffer) => {
      discarded += chunk.length;
      if (discarded > LINGER_BYTES) this._socket.destroy();
    });
  }

  #transaction(): Transaction {
    const { envelope } = this.session;
    const from = envelope.mailFrom === false ? undefined : envelope.mailFrom;
    const utf8 = envelope.smtpUtf8 ?? false;
    const cipher = this.tlsOptions;
    return {
      from: from === undefined ? undefined : reversePath(from.address, from.args || {}).mailbox,
      to: envelope.rcptTo.map((one) => forwardPath(one.address, one.args || {}, utf8)),
      passage: {
        helo: this.hostNameAppearsAs === false ? "" : this.hostNameAppearsAs,
        from: { host: this.remoteAddress, port: this.remotePort },
        id: this.id,
        ...(cipher === false ? {} : { tls: { version: cipher.version, cipher: cipher.standardName } }),
      },
    };
  }
}

const authFailed = new Refusal(535, "5.7.8", "User or password wrong");

/** A reply as the library takes it. */
function errorOf({ code, enhanced, text }: Reply): Error {
  return Object.assign(new Error(`${enhanced} ${text}`), { responseCode: code });
}
