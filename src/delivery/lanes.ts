import type { Identity } from "../pki/identity.ts";
import type { Kind } from "./envelope.ts";

/** `talk`: messages and small mail. `bulk`: all that would keep them waiting. */
export type LaneName = "talk" | "bulk";

export const LANE_NAMES: readonly LaneName[] = ["talk", "bulk"];

/** The largest mail that goes with the messages. */
export const TALK_BYTES = 1_048_576;

/** What one round adds to the account of each kind of a bulk lane. */
const QUANTUM = 1_048_576;

export function laneOf(kind: Kind, size: number): LaneName {
  if (kind === "file") return "bulk";
  return kind === "message" || size <= TALK_BYTES ? "talk" : "bulk";
}

/** One row that is due. */
export interface DueRow {
  row: number;
  item: string;
  kind: Kind;
  size: number;
}

export interface Turn {
  peer: Identity;
  lane: LaneName;
  row: DueRow;
}

/** Attempts that may run at once, over all peers. */
export interface LaneLimits {
  talk: number;
  bulk: number;
}

export const LANE_LIMITS: LaneLimits = { talk: 64, bulk: 8 };

interface Lane {
  waiting: DueRow[];
  running: boolean;
  /** Deficit round robin: bytes that a kind may still send before it is the other's turn. */
  account: Map<Kind, number>;
}

/**
 * Who goes next: two lanes for each peer, one attempt in each, round robin over peers; in a bulk lane deficit round robin
 * over kinds, so that neither files nor large mail starve the other. Knows nothing of clocks or of what became of anything.
 */
export class Lanes {
  readonly #limits: LaneLimits;
  readonly #running: Record<LaneName, number> = { talk: 0, bulk: 0 };
  /** In the order of their turns: who had one is put at the end. */
  readonly #peers: Record<LaneName, Map<Identity, Lane>> = { talk: new Map(), bulk: new Map() };

  constructor(limits: LaneLimits = LANE_LIMITS) {
    this.#limits = limits;
  }

  /** Replaces what waits for a peer, in the order given. */
  fill(peer: Identity, lane: LaneName, rows: readonly DueRow[]): void {
    const existing = this.#peers[lane].get(peer);
    if (existing !== undefined) existing.waiting = [...rows];
    else if (rows.length > 0) this.#peers[lane].set(peer, { waiting: [...rows], running: false, account: new Map() });
    this.#forgetIfIdle(peer, lane);
  }

  waiting(peer: Identity, lane: LaneName): number {
    return this.#peers[lane].get(peer)?.waiting.length ?? 0;
  }

  isRunning(peer: Identity, lane: LaneName): boolean {
    return this.#peers[lane].get(peer)?.running ?? false;
  }

  hasFreeSlot(lane: LaneName): boolean {
    return this.#running[lane] < this.#limits[lane];
  }

  /** Takes the next row out, or nothing if all slots are taken or nobody who waits is ready. */
  next(lane: LaneName, ready: (peer: Identity) => boolean): Turn | undefined {
    if (!this.hasFreeSlot(lane)) return undefined;
    for (const [peer, state] of this.#peers[lane]) {
      if (state.running || state.waiting.length === 0 || !ready(peer)) continue;
      const row = takeByDeficit(state);
      state.running = true;
      this.#running[lane] += 1;
      this.#peers[lane].delete(peer);
      this.#peers[lane].set(peer, state);
      return { peer, lane, row };
    }
    return undefined;
  }

  finished(peer: Identity, lane: LaneName): void {
    const state = this.#peers[lane].get(peer);
    if (state === undefined || !state.running) return;
    state.running = false;
    this.#running[lane] -= 1;
    this.#forgetIfIdle(peer, lane);
  }

  #forgetIfIdle(peer: Identity, lane: LaneName): void {
    const state = this.#peers[lane].get(peer);
    if (state !== undefined && !state.running && state.waiting.length === 0) this.#peers[lane].delete(peer);
  }
}

/**
 * Takes the first row of the kind whose account covers it after the fewest rounds; ties go to the row that came first. The
 * rounds are counted, not played: a 100 GiB file would need 100,000 of them.
 */
function takeByDeficit(lane: Lane): DueRow {
  const heads = new Map<Kind, DueRow>();
  for (const row of lane.waiting) if (!heads.has(row.kind)) heads.set(row.kind, row);
  let chosen: DueRow | undefined;
  let fewest = Number.POSITIVE_INFINITY;
  for (const row of heads.values()) {
    const rounds = Math.max(0, Math.ceil((row.size - (lane.account.get(row.kind) ?? 0)) / QUANTUM));
    if (rounds < fewest) {
      fewest = rounds;
      chosen = row;
    }
  }
  if (chosen === undefined) throw new Error("a lane without rows has no turn");
  const taken = chosen;
  for (const kind of [...lane.account.keys()]) if (!heads.has(kind)) lane.account.delete(kind);
  for (const kind of heads.keys()) lane.account.set(kind, (lane.account.get(kind) ?? 0) + fewest * QUANTUM);
  lane.account.set(taken.kind, (lane.account.get(taken.kind) ?? 0) - taken.size);
  lane.waiting.splice(lane.waiting.indexOf(taken), 1);
  return taken;
}
