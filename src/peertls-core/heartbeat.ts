import type { PeerConnection } from "./connection.ts";

/** How often a peer is asked whether it is still there, in milliseconds. */
export interface HeartbeatTimes {
  /** Between beats while the connection is in use. */
  activeMs: number;
  /** Between beats else. */
  idleMs: number;
  /** For so long after the last thing of the protocol it counts as in use. */
  activeForMs: number;
}

export const HEARTBEAT: HeartbeatTimes = { activeMs: 15_000, idleMs: 60_000, activeForMs: 120_000 };

type Life = Pick<PeerConnection, "stream" | "destroy">;

const MISSES = 2;

/**
 * Finds out that a peer is gone although TCP does not tell: who says nothing at all after two beats has its connection
 * destroyed. Made after the protocol's own `data` listener, since its own makes a stream flow.
 */
export class Heartbeat {
  readonly #connection: Life;
  readonly #beat: () => void;
  readonly #times: HeartbeatTimes;
  #usedAt = performance.now();
  #unanswered = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param beat says what the peer has to answer */
  constructor(connection: Life, beat: () => void, times: HeartbeatTimes = HEARTBEAT) {
    this.#connection = connection;
    this.#beat = beat;
    this.#times = times;
    connection.stream.on("data", this.#heard);
    this.#arm();
  }

  /** Something of the protocol went one way or the other. */
  used(): void {
    const wasIdle = this.#interval === this.#times.idleMs;
    this.#usedAt = performance.now();
    if (wasIdle && this.#timer !== undefined) this.#arm();
  }

  /** For good. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#connection.stream.off("data", this.#heard);
  }

  get #interval(): number {
    const { activeMs, idleMs, activeForMs } = this.#times;
    return performance.now() - this.#usedAt < activeForMs ? activeMs : idleMs;
  }

  #arm(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tick(), this.#interval);
    this.#timer.unref();
  }

  #tick(): void {
    if (this.#unanswered >= MISSES) {
      this.stop();
      this.#connection.destroy();
      return;
    }
    this.#unanswered += 1;
    this.#beat();
    if (this.#timer !== undefined) this.#arm();
  }

  readonly #heard = (): void => {
    this.#unanswered = 0;
  };
}

/**
 * For a connection that was open already, when it is used again: unless the peer says anything in time it is destroyed,
 * and may be dialled anew.
 * @param heard told at the first sign of life
 * @returns ends the watch
 */
export function mustAnswer(connection: Life, withinMs: number, heard: () => void = () => undefined): () => void {
  const { stream } = connection;
  const stop = () => {
    clearTimeout(timer);
    stream.off("data", alive);
  };
  const alive = () => {
    stop();
    heard();
  };
  const timer = setTimeout(() => {
    stop();
    connection.destroy();
  }, withinMs);
  timer.unref();
  stream.on("data", alive);
  return stop;
}
