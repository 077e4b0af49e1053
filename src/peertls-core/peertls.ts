import { createServer, type Server, type Socket } from "node:net";
import { type Certificate, peerCertificate } from "../pki/certificate.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerAddress, PeerConnection, Protocol } from "./connection.ts";
import type { Credentials } from "./credentials.ts";
import { race } from "./dial.ts";
import type { Denial, Door, Expected, Purpose } from "./door.ts";
import { Gate, type GateOptions } from "./gate.ts";
import { type LocalAddresses, plainAddress } from "./interfaces.ts";
import { DEFAULT_LIMITS, type LimitOptions, prefixOf } from "./limits.ts";
import { boundTo, listening, watchDescriptors } from "./listening.ts";
import type { TracedVerdict } from "./policy.ts";
import { endOf } from "./record-tap.ts";
import { handRequest, REQUEST_ALPN, RequestIntake, type RequestSink, type Stranger } from "./request-intake.ts";
import { RequestQuota } from "./request-quota.ts";
import type { Route } from "./routes.ts";
import { type SelfTest, selfTest } from "./selftest.ts";

const ALPN: Readonly<Record<Protocol, string>> = { sip: "sip/2", smtp: "smtp", ftps: "ftp" };
const DATA_ALPN = "ftp-data";
const DATA_SUFFIX = ".data";
const TOKEN_SECONDS = 20;
const TOKEN_TRIES = 3;
const KEPT_DENIALS = 1_000;
const KEEP_ALIVE_MS = 90_000;

export interface PeerTlsOptions extends Omit<GateOptions, "limits" | "onDenied"> {
  limits?: Partial<LimitOptions>;
  /** Where requests of strangers go; without one `peertls-request/1` is not offered. */
  requestSink?: RequestSink;
  onDenied?: (denial: Denial) => void;
  /** Whether an address that a record names may be dialled; absent: any. */
  mayDial?: (host: string) => boolean;
}

/** A data channel that the peer of a control connection is about to open. */
export interface ExpectedData {
  /** Rejects `cancelled` after 20 s, on `cancel()` and when the control connection ends. */
  connection: Promise<PeerConnection>;
  cancel(): void;
}

/** Starts the core: proves its own gate on loopback first. Nothing listens yet. */
export async function makePeerTls(options: PeerTlsOptions): Promise<PeerTls> {
  const proof = await selfTest(options.log);
  return new PeerTls(options, proof);
}

/** What the rest of the program is handed: the only way to peers and from peers. */
export class PeerTls {
  readonly selfTest: SelfTest;
  readonly #gate: Gate;
  readonly #options: PeerTlsOptions;
  readonly #accept = new Map<Protocol, (connection: PeerConnection) => void>();
  readonly #data = new Map<string, Announced>();
  readonly #connected = new Set<(connection: PeerConnection) => void>();
  readonly #denials: Denial[] = [];
  readonly #accepted = new Set<Socket>();
  readonly #quota = new RequestQuota();
  #unfollow: () => void = () => undefined;
  #unwatch: (() => void) | undefined;
  readonly #intake = new RequestIntake();
  readonly #servers = new Set<Server>();
  /** That of the peer port. */
  #server: Server | undefined;

  constructor(options: PeerTlsOptions, proof: SelfTest) {
    this.selfTest = proof;
    this.#options = options;
    this.#gate = new Gate({
      ...options,
      limits: { ...DEFAULT_LIMITS, ...options.limits },
      onDenied: (denial) => {
        this.#denials.push(denial);
        if (this.#denials.length > KEPT_DENIALS) this.#denials.shift();
        options.onDenied?.(denial);
      },
    });
    this.#gate.alerts = proof.denial === "alert";
  }

  /** The bound peer port; undefined before `listen`. */
  get address(): PeerAddress | undefined {
    return this.#server?.listening === true ? boundTo(this.#server) : undefined;
  }

  get connections(): readonly PeerConnection[] {
    return this.#gate.connections;
  }

  /** The last 1,000, oldest first. */
  get denials(): readonly Denial[] {
    return this.#denials;
  }

  /** Who takes admitted peers of a protocol; a protocol without one is refused with alert 120. */
  onPeer(protocol: Protocol, accept: (connection: PeerConnection) => void): void {
    this.#accept.set(protocol, accept);
  }

  /** Told of every admitted control connection that a peer opened. */
  onConnected(listener: (connection: PeerConnection) => void): void {
    this.#connected.add(listener);
  }

  /** Ends what runs over an address of ours as soon as that is gone: TCP does not notice (after 18 s not yet, measured). */
  follow(addresses: LocalAddresses): void {
    this.#unfollow();
    this.#unfollow = addresses.onChange((lost) => {
      for (const connection of this.connections) {
        if (!lost.has(plainAddress(connection.localAddress.host))) continue;
        this.#options.log.info(
          { conn: connection.id, peer: connection.identity },
          "connection ended: our address is gone",
        );
        connection.destroy();
      }
    });
  }

  /** Opens the peer port. @throws SuiteError internal when the self-test failed; config-invalid when the port is taken */
  async listen(at: PeerAddress): Promise<PeerAddress> {
    this.#server = await this.#open(at, this.#door);
    const bound = boundTo(this.#server);
    this.#options.log.info({ address: bound }, "peer port open");
    return bound;
  }

  /**
   * Opens a port of one protocol's own (SIP 5061, SMTP 465) with the same gate behind it: who names no protocol by ALPN means
   * that one, and who names others only is refused with alert 120. @throws as `listen`
   */
  async listenClassic(at: PeerAddress, protocol: Protocol): Promise<PeerAddress> {
    const door = doorOf(protocol, (connection, purpose) => this.#door.admitted(connection, purpose));
    const bound = boundTo(await this.#open(at, door));
    this.#options.log.info({ address: bound, protocol }, "classic port open");
    return bound;
  }

  /**
   * Resolves when *our* gate admits the peer; `confirmed` of the connection tells that the peer's gate admits us.
   * @throws SuiteError identity-mismatch, certificate-invalid, refused-by-policy, handshake-failed, unreachable, cancelled
   */
  async dial(
    expected: Expected,
    protocol: Protocol,
    routes: readonly Route[],
    signal: AbortSignal,
  ): Promise<PeerConnection> {
    const how = { alpn: ALPN[protocol], purpose: { kind: "protocol", protocol } as const };
    return this.#dial(expected, this.#allowed(routes), how, signal);
  }

  /**
   * The gate over a connection that is open already, as the server: AUTH TLS, STARTTLS, a hole that was punched. Call it in
   * the tick in which the go-ahead was written. Whatever came in clear is nothing that was said inside TLS.
   * @throws SuiteError syntax for a byte behind the command, refused-by-policy, handshake-failed
   */
  upgrade(raw: Socket, protocol: Protocol): Promise<PeerConnection> {
    return new Promise((resolve, reject) => {
      raw.removeAllListeners("data");
      const failed = new SuiteError("handshake-failed", "the peer was not admitted", { fault: "peer" });
      if (raw.readableLength > 0 || raw.destroyed) {
        raw.destroy();
        reject(new SuiteError("syntax", "something was sent behind the command", { fault: "peer" }));
        return;
      }
      raw.once("close", () => reject(failed)); // without effect once admitted
      this.#gate.accept(raw, doorOf(protocol, resolve));
    });
  }

  /** As `dial`, over a connection that is open already. @throws as `dial`, but for unreachable */
  async enter(expected: Expected, protocol: Protocol, raw: Socket, signal: AbortSignal): Promise<PeerConnection> {
    const how = { expected, alpn: ALPN[protocol], purpose: { kind: "protocol", protocol } as const };
    return (await this.#gate.connect(raw, how, signal)).connection as PeerConnection;
  }

  /** Opens the data channel that the peer of `control` announced, on the route of `control` and to the same key. */
  dialData(control: PeerConnection, token: string, signal: AbortSignal): Promise<PeerConnection> {
    const expected = { identity: control.identity, fingerprints: [control.fingerprint] };
    const route: Route = { kind: "direct", address: control.address };
    const how = { alpn: DATA_ALPN, purpose: { kind: "data", control } as const, serverName: token + DATA_SUFFIX };
    return this.#dial(expected, [route], how, signal);
  }

  /** Announces a data channel: the token routes it, the key of `control` admits it. Good for 20 s and one use. */
  expectData(o: { control: PeerConnection; token: string }): ExpectedData {
    const { promise, resolve, reject } = Promise.withResolvers<PeerConnection>();
    promise.catch(() => undefined);
    const end = () => {
      clearTimeout(timer);
      this.#data.delete(o.token);
      o.control.stream.off("close", end);
      reject(new SuiteError("cancelled", "the data channel was not opened", { fault: "peer", temporary: true }));
    };
    const timer = setTimeout(end, TOKEN_SECONDS * 1000);
    o.control.stream.once("close", end);
    this.#data.set(o.token, {
      control: o.control,
      tries: 0,
      arrived: (connection) => {
        resolve(connection);
        end();
      },
      void: end,
    });
    return { connection: promise, cancel: end };
  }

  /**
   * Whether the peer ended its half of an accepted data channel by close_notify, asked after the stream's `end`: after a
   * bare FIN or a reset something may be missing.
   */
  endedCleanly(data: PeerConnection): boolean {
    return endOf(data.stream) === "close-notify";
  }

  /** Asks a peer who refused us to be admitted. @throws as `dial`; refused-by-peer if it takes no requests */
  async sendRequest(
    expected: Expected,
    routes: readonly Route[],
    request: string,
    signal: AbortSignal,
  ): Promise<"kept" | "later"> {
    const stream = await race(
      this.#allowed(routes),
      (raw, _route, until) =>
        this.#gate
          .connect(raw, { expected, alpn: REQUEST_ALPN, purpose: { kind: "request" } }, until)
          .then((one) => one.stream),
      (late) => late.destroy(),
      signal,
    );
    return handRequest(stream, request);
  }

  /** What the policy would say of a certificate, step by step, without a connection. */
  explain(leaf: Certificate, sent: readonly Certificate[], protocol: Protocol): TracedVerdict {
    const time = this.#options.clock();
    const { trust } = this.#options;
    const path = trust.paths.find(leaf, sent, time);
    const { revocations } = this.#options;
    return trust.policy.explain({
      direction: "in",
      protocol,
      certificate: peerCertificate(leaf),
      path,
      revocation:
        path.ok && revocations !== undefined
          ? revocations.stateOf(path.path, path.anchor, time)
          : { status: "unchecked" },
      address: { host: "::", port: 0 },
      time,
      resumed: false,
    });
  }

  useCredentials(credentials: Credentials): void {
    this.#gate.useCredentials(credentials);
  }

  /** Stops accepting and ends what is open. Endpoints have drained theirs before. */
  async close(): Promise<void> {
    this.#unfollow();
    this.#unwatch?.();
    for (const announced of [...this.#data.values()]) announced.void();
    this.#server = undefined;
    const closed = [...this.#servers].map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const connection of this.#gate.connections) connection.destroy();
    for (const raw of this.#accepted) raw.destroy(); // those whose handshake is not over
    await Promise.all(closed);
  }

  async #open(at: PeerAddress, door: Door): Promise<Server> {
    if (!this.selfTest.mayListen) {
      throw new SuiteError("internal", "the gate's self-test failed: the peer port stays closed", {
        fault: "local",
        details: { failed: this.selfTest.failed.join(", ") },
      });
    }
    // Who dialled asks each minute whether we are there; whether it is, the kernel asks, and ends what is dead after 100 s.
    const alive = { keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS };
    const server = createServer({ pauseOnConnect: false, noDelay: true, ...alive }, (raw) => {
      this.#accepted.add(raw);
      raw.once("close", () => this.#accepted.delete(raw));
      this.#gate.accept(raw, door);
    });
    await listening(server, at);
    this.#unwatch ??= watchDescriptors(this.#options.log);
    this.#servers.add(server);
    return server;
  }

  /** @throws SuiteError unreachable if none may be dialled */
  #allowed(routes: readonly Route[]): readonly Route[] {
    const { mayDial = () => true } = this.#options;
    const allowed = routes.filter(({ address }) => mayDial(address.host));
    if (allowed.length > 0 || routes.length === 0) return allowed;
    throw new SuiteError("unreachable", "the peer's addresses are of private networks, which are not dialled", {
      fault: "peer",
      temporary: true,
      details: { hosts: routes.map(({ address }) => address.host).join(" ") },
    });
  }

  #dial(
    expected: Expected,
    routes: readonly Route[],
    how: { alpn: string; purpose: Purpose; serverName?: string },
    signal: AbortSignal,
  ) {
    return race(
      routes,
      async (raw: Socket, _route, until) =>
        (await this.#gate.connect(raw, { expected, ...how }, until)).connection as PeerConnection,
      (late) => late.destroy(),
      signal,
    );
  }

  /** Hands a request on unless there were too many; the asker is told to come later. */
  async #counted(sink: RequestSink, request: string, from: Stranger): Promise<"kept" | "later"> {
    const { trust, clock } = this.#options;
    const path = trust.paths.find(from.certificate.certificate, [], clock());
    const asker = {
      key: from.certificate.fingerprint,
      prefix: prefixOf(from.address.host),
      issuer: path.ok ? path.anchor.name : "",
    };
    const { metrics } = this.#gate;
    try {
      const answer = this.#quota.admit(asker, performance.now()) ? await sink(request, from) : "later";
      metrics.request(answer);
      return answer;
    } catch (error) {
      metrics.request("refused");
      throw error;
    }
  }

  readonly #door: Door = {
    awaitsData: () => (this.#data.size > 0 ? DATA_ALPN : undefined),
    choose: (offered, serverName) => {
      if (offered.includes(DATA_ALPN)) {
        const token = serverName?.endsWith(DATA_SUFFIX) ? serverName.slice(0, -DATA_SUFFIX.length) : undefined;
        const announced = token === undefined ? undefined : this.#data.get(token);
        if (announced === undefined) return undefined;
        announced.tries += 1;
        if (announced.tries > TOKEN_TRIES) return void announced.void();
        return { alpn: DATA_ALPN, purpose: { kind: "data", control: announced.control, token: token as string } };
      }
      for (const alpn of offered) {
        if (alpn === REQUEST_ALPN && this.#options.requestSink !== undefined)
          return { alpn, purpose: { kind: "request" } };
        for (const [protocol, name] of Object.entries(ALPN) as [Protocol, string][]) {
          if (name === alpn && this.#accept.has(protocol)) return { alpn, purpose: { kind: "protocol", protocol } };
        }
      }
      return undefined;
    },
    admitted: (connection, purpose) => {
      if (purpose.kind === "data") {
        const announced = purpose.token === undefined ? undefined : this.#data.get(purpose.token);
        if (announced === undefined) connection.destroy();
        else announced.arrived(connection);
        return;
      }
      for (const listener of this.#connected) listener(connection);
      const accept = this.#accept.get(connection.protocol);
      if (accept === undefined) connection.destroy();
      else accept(connection);
    },
    request: (stream, from) => {
      const sink = this.#options.requestSink;
      if (sink === undefined) stream.destroy();
      else this.#intake.take(stream, from, (request, stranger) => this.#counted(sink, request, stranger));
    },
  };
}

interface Announced {
  control: PeerConnection;
  tries: number;
  arrived(connection: PeerConnection): void;
  void(): void;
}

/** A door behind which one protocol only is spoken, and which it goes without saying. */
function doorOf(protocol: Protocol, admitted: Door["admitted"]): Door {
  const implied: Purpose = { kind: "protocol", protocol };
  const alpn = ALPN[protocol];
  return {
    choose: (offered) => (offered.includes(alpn) ? { alpn, purpose: implied } : undefined),
    implied,
    admitted,
  };
}
