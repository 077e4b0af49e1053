import type { Socket } from "node:net";
import { connect, type SecureContext, TLSSocket } from "node:tls";
import { Registry } from "prom-client";
import type { Log } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { peekHello } from "./client-hello.ts";
import { GATE_KEY, type PeerAddress, PeerConnection } from "./connection.ts";
import { type Credentials, peerSecureContext } from "./credentials.ts";
import { DenialLog } from "./denials.ts";
import { type ConnectOptions, type Denial, type Door, type Purpose, protocolOf } from "./door.ts";
import { Confirmation, type Facts, factsOf, remoteOf } from "./handshake.ts";
import { type How, type Judged, Judging, type RevocationSource } from "./judging.ts";
import { type DropReason, HandshakeLimits, type LimitOptions } from "./limits.ts";
import { GateMetrics } from "./metrics.ts";
import { denied, peerFailure } from "./peer-failure.ts";
import { RecordTap, trackEnd } from "./record-tap.ts";
import { RefusalSecret } from "./refusal.ts";
import { SeenCertificates } from "./seen-certificates.ts";
import { Sessions } from "./sessions.ts";
import type { Trust } from "./trust.ts";
import { alertOf, type Verdict } from "./verdict.ts";

export interface GateOptions {
  credentials: Credentials;
  trust: Trust;
  limits: LimitOptions;
  /** Without one nothing is checked. */
  revocations?: RevocationSource;
  /** Where the numbers are kept; a private one if absent. */
  registry?: Registry;
  clock: () => Date;
  /** Random bytes. */
  random: (length: number) => Buffer;
  log: Log;
  onDenied?: (denial: Denial) => void;
  onDropped?: (reason: Dropped) => void;
}

const ID_BYTES = 6;
/** OpenSSL's own refusal, with alert 116, of a client that shows none. */
const NO_CERTIFICATE = "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE";

type Dropped = DropReason | "handshake-timeout" | "tls-error";

/** The only way from a raw socket to a `PeerConnection`: accepted, dialled, full, resumed, control and data alike. */
export class Gate {
  readonly #options: GateOptions;
  readonly #limits: HandshakeLimits;
  readonly #sessions = new Sessions();
  readonly #seen = new SeenCertificates();
  readonly #judging: Judging;
  readonly #denials: DenialLog;
  readonly metrics: GateMetrics;
  #credentials: Credentials;
  #context: SecureContext;
  #alerts = true;
  #ids: Buffer = Buffer.alloc(0);

  constructor(options: GateOptions) {
    this.#options = options;
    this.#limits = new HandshakeLimits(options.limits);
    this.#credentials = options.credentials;
    this.#context = peerSecureContext(options.credentials);
    this.#judging = new Judging(options);
    this.#denials = new DenialLog(options.log, () => performance.now());
    this.metrics = new GateMetrics(options.registry ?? new Registry(), {
      connections: () => this.connections,
      pending: () => this.#limits.pending,
    });
    this.metrics.denialMode(true);
  }

  /** Whether the self-test proved the alert records; else a refusal is a plain close. */
  set alerts(proven: boolean) {
    this.#alerts = proven;
    this.metrics.denialMode(proven);
  }

  get credentials(): Credentials {
    return this.#credentials;
  }

  /** New key or certificate: a new context, so that old tickets end too. */
  useCredentials(credentials: Credentials): void {
    this.#context = peerSecureContext(credentials);
    this.#credentials = credentials;
    this.#sessions.clear();
  }

  get connections(): readonly PeerConnection[] {
    return this.#judging.connections;
  }

  /** Judges all open connections again; policy and revocation do so by themselves when they change. */
  judgeAgain(): void {
    this.#judging.judgeAgain();
  }

  /** Judges an accepted socket. Nothing is thrown: whoever may not come in is gone afterwards. */
  accept(raw: Socket, door: Door): void {
    const address = remoteOf(raw);
    raw.on("error", () => undefined);
    if (address === undefined) {
      raw.destroy();
      return;
    }
    const began = performance.now();
    let settled = false;
    const abandon = {
      silent: () => raw.bytesRead === 0,
      now: () => {
        this.#dropped("server", "pending-total");
        raw.resetAndDestroy();
        settle(false);
      },
    };
    const settle = (admitted: boolean) => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      this.#limits.end(address.host, admitted, abandon);
    };
    const dropped = this.#limits.begin(address.host, began, abandon);
    if (dropped !== undefined) {
      raw.resetAndDestroy();
      this.#dropped("server", dropped);
      return;
    }
    raw.setNoDelay(true);
    // An absolute timer: the one of TLSSocket restarts with every byte that drips in.
    const timer = setTimeout(() => {
      this.#dropped("server", "handshake-timeout");
      raw.destroy();
    }, this.#options.limits.handshakeSeconds * 1000);
    raw.once("close", () => settle(false));
    const handshake = { address, door, began, settle, settled: () => settled };
    const data = door.awaitsData?.();
    if (data === undefined) this.#handshake(raw, raw, handshake);
    // How a data channel ended has to be known (a cut file is no file): a tap lies below its TLS.
    else peekHello(raw, data, (named) => this.#handshake(raw, named ? new RecordTap(raw) : raw, handshake));
  }

  /** @param below what TLS runs over: the socket itself, or the tap on it */
  #handshake(
    raw: Socket,
    below: Socket | RecordTap,
    o: {
      address: PeerAddress;
      door: Door;
      began: number;
      settle: (admitted: boolean) => void;
      settled: () => boolean;
    },
  ): void {
    const { address, door, settle } = o;
    let purpose = door.implied;
    const socket = new TLSSocket(below as Socket, {
      isServer: true,
      secureContext: this.#context,
      requestCert: true,
      rejectUnauthorized: true, // OpenSSL itself then refuses a missing certificate with 116; an untrusted one it passes on
      ALPNCallback: ({ servername, protocols }: { servername: string; protocols: string[] }) => {
        const chosen = door.choose(protocols, servername || undefined);
        purpose = chosen?.purpose;
        return chosen?.alpn;
      },
    });
    if (below instanceof RecordTap) trackEnd(socket, below);
    const secret = new RefusalSecret(socket, "server");
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (o.settled()) return;
      if (error.code === NO_CERTIFICATE) {
        const verdict = { admit: false, reason: "no-certificate" } as const;
        this.#count("server", purpose, false, o.began, verdict);
        this.metrics.alertSent(alertOf(verdict.reason));
        this.#denied(verdict, { direction: "in", purpose, address }, {});
        return;
      }
      this.#dropped("server", "tls-error");
      this.#options.log.debug({ address, error: error.message }, "handshake of a peer failed");
    });
    const gone = () => {
      secret.forget();
      settle(false);
      socket.destroy();
    };
    socket.once("close", gone);
    raw.once("close", gone); // below a tap the end of the connection does not show by itself
    socket.once("secure", () => {
      raw.off("close", gone);
      const facts = factsOf(socket, undefined, this.#seen);
      const verdict = this.#judge(facts, o.began, {
        direction: "in",
        purpose,
        address,
        resumed: socket.isSessionReused(),
      });
      if (!verdict.admit) {
        this.#deny(raw, secret, verdict, { direction: "in", purpose, address }, facts);
        settle(false);
        return;
      }
      secret.forget();
      settle(purpose?.kind !== "request"); // who asks to be admitted is not
      if (purpose?.kind === "request") {
        door.request?.(socket, { certificate: verdict.approach.certificate, identity: verdict.identity, address });
        return;
      }
      const connection = this.#admit(socket, raw, verdict, purpose?.kind === "data", Promise.resolve());
      door.admitted(connection, purpose as Purpose);
    });
  }

  /**
   * TLS as the client over a connected socket, judged before our certificate leaves.
   * @returns an admitted connection; for `request` the bare stream
   * @throws SuiteError identity-mismatch, refused-by-policy, certificate-invalid, handshake-failed, cancelled
   */
  connect(
    raw: Socket,
    o: ConnectOptions,
    signal: AbortSignal,
  ): Promise<{ connection?: PeerConnection; stream: TLSSocket }> {
    return new Promise((resolve, reject) => {
      const address = remoteOf(raw);
      raw.on("error", () => undefined);
      if (address === undefined) {
        reject(
          new SuiteError("unreachable", "the peer closed before the handshake", { fault: "peer", temporary: true }),
        );
        return;
      }
      raw.setNoDelay(true);
      const began = performance.now();
      const sessionKey = `${o.expected.fingerprints.join(",")}|${o.alpn}`;
      const kept = o.serverName === undefined ? this.#sessions.take(sessionKey) : undefined;
      const socket = connect({
        socket: raw,
        secureContext: this.#context,
        rejectUnauthorized: false, // the gate decides below, from the certificate itself
        checkServerIdentity: () => undefined,
        host: o.expected.fingerprints[0] ?? "", // binds the session; no server name is sent (it would tell whom we call)
        ALPNProtocols: [o.alpn],
        ...(o.serverName === undefined ? {} : { servername: o.serverName }),
        ...(kept === undefined ? {} : { session: kept.session }),
      });
      const secret = new RefusalSecret(socket, "client");
      const purpose: Purpose = o.purpose;
      let admitted = false;
      const timer = setTimeout(
        () => socket.destroy(new Error("handshake timeout")),
        this.#options.limits.handshakeSeconds * 1000,
      );
      const abort = () => socket.destroy(new Error("aborted"));
      signal.addEventListener("abort", abort, { once: true });
      const confirmed = new Confirmation(socket);
      let failure: SuiteError | undefined;
      socket.on("error", (error) => {
        const refusal = peerFailure(error, admitted, kept !== undefined && socket.isSessionReused());
        failure ??= refusal;
      });
      socket.once("close", () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", abort);
        secret.forget();
        const cancelled = new SuiteError("cancelled", "the dial was given up", { fault: "local", temporary: true });
        const why = signal.aborted && !admitted ? cancelled : (failure ?? peerFailure(undefined, admitted, false));
        confirmed.fail(why);
        reject(why); // without effect once resolved
      });
      socket.on("session", (session: Buffer) => {
        if (!admitted) return;
        confirmed.succeed(); // tickets come from a server that has admitted us
        const approach = connection === undefined ? undefined : this.#judging.approachOf(connection);
        if (approach !== undefined) this.#sessions.put(sessionKey, { session, certificate: approach.certificate });
      });
      let connection: PeerConnection | undefined;
      socket.once("secureConnect", () => {
        const resumed = socket.isSessionReused();
        const facts = factsOf(socket, resumed ? kept?.certificate : undefined, this.#seen);
        const how = { direction: "out", purpose, address, resumed, expected: o.expected } as const;
        const sent = [...(facts.sent ?? []), ...(o.expected.intermediates ?? [])];
        const verdict = this.#judge({ ...facts, sent }, began, how);
        if (!verdict.admit) {
          failure = denied(verdict.reason);
          this.#deny(raw, secret, verdict, { direction: "out", purpose, address }, facts);
          return;
        }
        if (socket.alpnProtocol !== o.alpn) {
          failure = new SuiteError("handshake-failed", "the peer does not speak this protocol", {
            fault: "peer",
            temporary: true,
          });
          socket.destroy();
          return;
        }
        clearTimeout(timer);
        signal.removeEventListener("abort", abort);
        secret.forget();
        admitted = true;
        if (purpose.kind === "request") {
          resolve({ stream: socket });
          return;
        }
        connection = this.#admit(socket, raw, verdict, purpose.kind === "data", confirmed.promise);
        resolve({ connection, stream: socket });
      });
    });
  }

  #judge(facts: Facts, began: number, how: How): Judged {
    const from = performance.now();
    const judged = this.#judging.judge(facts, how);
    this.metrics.gate((performance.now() - from) / 1000);
    this.#count(how.direction === "in" ? "server" : "client", how.purpose, how.resumed, began, judged);
    return judged;
  }

  #count(
    role: "server" | "client",
    purpose: Purpose | undefined,
    resumed: boolean,
    began: number,
    verdict: Verdict,
  ): void {
    this.metrics.handshake(
      { role, protocol: protocolOf(purpose), resumed, seconds: (performance.now() - began) / 1000 },
      verdict.admit ? { result: "admitted" } : { result: "denied", reason: verdict.reason },
    );
  }

  #dropped(role: "server" | "client", reason: Dropped): void {
    this.metrics.handshake({ role, protocol: undefined, resumed: false, seconds: 0 }, { result: "dropped", reason });
    this.#options.onDropped?.(reason);
  }

  /** Random, but not asked for one by one. */
  #nextId(): string {
    if (this.#ids.length === 0) this.#ids = this.#options.random(ID_BYTES * 128);
    const id = this.#ids.toString("hex", 0, ID_BYTES);
    this.#ids = this.#ids.subarray(ID_BYTES);
    return id;
  }

  #admit(
    socket: TLSSocket,
    raw: Socket,
    verdict: Judged & { admit: true },
    data: boolean,
    confirmed: Promise<void>,
  ): PeerConnection {
    const { approach } = verdict;
    const connection = new PeerConnection(GATE_KEY, {
      id: this.#nextId(),
      direction: approach.direction,
      protocol: approach.protocol === "request" ? "sip" : approach.protocol,
      certificate: approach.certificate,
      identity: approach.expected?.identity ?? verdict.identity,
      address: approach.address,
      localAddress: () => ({ host: raw.localAddress ?? "", port: raw.localPort ?? 0 }),
      resumed: approach.resumed,
      admittedBy: verdict.by.rule,
      stream: socket,
      confirmed,
    });
    this.#judging.opened(connection, approach, data);
    socket.once("close", () =>
      this.metrics.closed(connection.protocol, { read: raw.bytesRead, written: raw.bytesWritten }),
    );
    this.#options.log.info(
      {
        conn: connection.id,
        peer: connection.identity,
        protocol: connection.protocol,
        direction: connection.direction,
        address: connection.address,
        rule: verdict.by.rule,
        entry: verdict.by.entry,
        resumed: connection.resumed,
      },
      "peer admitted",
    );
    return connection;
  }

  #deny(
    raw: Socket,
    secret: RefusalSecret,
    verdict: Verdict & { admit: false },
    how: Pick<How, "direction" | "purpose" | "address">,
    facts: Facts,
  ): void {
    secret.refuse(raw, this.#alerts ? alertOf(verdict.reason) : undefined);
    if (this.#alerts) this.metrics.alertSent(alertOf(verdict.reason));
    this.#denied(verdict, how, facts);
  }

  #denied(
    { reason, entry }: Verdict & { admit: false },
    how: Pick<How, "direction" | "purpose" | "address">,
    { certificate, sent }: Facts,
  ): void {
    const denial: Denial = {
      at: this.#options.clock(),
      direction: how.direction,
      protocol: protocolOf(how.purpose),
      reason,
      alert: alertOf(reason),
      address: how.address,
      ...(certificate === undefined ? {} : { certificate }),
      ...(sent === undefined ? {} : { sent }),
    };
    this.#denials.tell(denial, entry);
    this.#options.onDenied?.(denial);
  }
}
