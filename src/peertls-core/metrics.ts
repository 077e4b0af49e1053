import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { PeerConnection } from "./connection.ts";
import type { DropReason } from "./limits.ts";
import { CounterTally, HistogramTally } from "./tallies.ts";
import type { DenialReason } from "./verdict.ts";

/** What came of a handshake: admitted, denied by a verdict, or dropped before there could be one. */
export type HandshakeResult =
  | { result: "admitted" }
  | { result: "denied"; reason: DenialReason }
  | { result: "dropped"; reason: DropReason | "handshake-timeout" | "tls-error" };

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Counts of the core, `peertls_*`. Labels are closed unions: no name of a person, no address. */
export class GateMetrics {
  readonly #handshakes: CounterTally;
  readonly #handshakeSeconds: HistogramTally;
  readonly #gateSeconds: HistogramTally;
  readonly #bytes: CounterTally;
  readonly #alerts: Counter;
  readonly #dialSeconds: Histogram;
  readonly #requests: Counter;
  readonly #denialMode: Gauge;

  /** @param watch what is read when somebody asks for the numbers */
  constructor(registry: Registry, watch: { connections(): readonly PeerConnection[]; pending(): number }) {
    const registers = [registry];
    this.#handshakes = new CounterTally(
      {
        name: "peertls_handshakes_total",
        help: "handshakes by what came of them",
        labelNames: ["role", "protocol", "result", "reason"],
      },
      registry,
    );
    this.#handshakeSeconds = new HistogramTally(
      {
        name: "peertls_handshake_seconds",
        help: "from the connection to the verdict",
        labelNames: ["role", "resumed"],
        buckets: SECONDS,
      },
      registry,
    );
    this.#gateSeconds = new HistogramTally(
      {
        name: "peertls_gate_seconds",
        help: "certificate, path and policy, on the event loop",
        labelNames: [],
        buckets: [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01],
      },
      registry,
    );
    this.#bytes = new CounterTally(
      {
        name: "peertls_bytes_total",
        help: "bytes on closed connections, TLS included",
        labelNames: ["protocol", "direction"],
      },
      registry,
    );
    this.#alerts = new Counter({
      name: "peertls_alerts_total",
      help: "refusals sent, by TLS alert",
      labelNames: ["sent"],
      registers,
    });
    this.#dialSeconds = new Histogram({
      name: "peertls_dial_seconds",
      help: "from the first try to our gate's admission, or to giving up",
      labelNames: ["result"],
      buckets: SECONDS,
      registers,
    });
    this.#requests = new Counter({
      name: "peertls_requests_total",
      help: "requests to be admitted that came on the peer port",
      labelNames: ["result"],
      registers,
    });
    this.#denialMode = new Gauge({
      name: "peertls_denial_mode",
      help: "1: refusals are TLS alerts; 0: the self-test failed and they are plain closes",
      registers,
    });
    new Gauge({
      name: "peertls_connections",
      help: "admitted connections that are open",
      labelNames: ["protocol"],
      registers,
      collect() {
        this.reset();
        for (const { protocol } of watch.connections()) this.inc({ protocol });
      },
    });
    new Gauge({
      name: "peertls_pending_handshakes",
      help: "accepted connections without a verdict",
      registers,
      collect() {
        this.set(watch.pending());
      },
    });
  }

  handshake(
    of: { role: "server" | "client"; protocol: string | undefined; resumed: boolean; seconds: number },
    what: HandshakeResult,
  ): void {
    const { role, protocol = "unknown", resumed, seconds } = of;
    const reason = what.result === "admitted" ? "" : what.reason;
    const { result } = what;
    this.#handshakes.add(`${role} ${protocol} ${result} ${reason}`, () => ({ role, protocol, result, reason }));
    if (result === "dropped") return;
    this.#handshakeSeconds.observe(`${role} ${resumed}`, () => ({ role, resumed: String(resumed) }), seconds);
  }

  gate(seconds: number): void {
    this.#gateSeconds.observe("", () => ({}), seconds);
  }

  alertSent(alert: number): void {
    this.#alerts.inc({ sent: alert });
  }

  closed(protocol: string, bytes: { read: number; written: number }): void {
    this.#bytes.add(`${protocol} in`, () => ({ protocol, direction: "in" }), bytes.read);
    this.#bytes.add(`${protocol} out`, () => ({ protocol, direction: "out" }), bytes.written);
  }

  dialled(result: "admitted" | "failed", seconds: number): void {
    this.#dialSeconds.observe({ result }, seconds);
  }

  request(result: "kept" | "later" | "refused"): void {
    this.#requests.inc({ result });
  }

  denialMode(alerts: boolean): void {
    this.#denialMode.set(alerts ? 1 : 0);
  }
}
