import type { Identity } from "../pki/identity.ts";
import type { QueuedReason } from "./envelope.ts";
import { LANE_NAMES, type LaneName } from "./lanes.ts";
import { DIRECTORY_SCHEDULE, delayAfter } from "./schedule.ts";

/** What is remembered, while the node runs, about a peer for whom something waits. Times are monotonic milliseconds. */
export interface PeerQueue {
  readonly peer: Identity;
  /** Attempts in a row that did not reach the peer. */
  failures: number;
  /** No attempt before this, for any row: not reaching a peer belongs to the peer. */
  notBefore: number;
  why: QueuedReason | undefined;
  /** Try once at once, whatever `notBefore` says. */
  woken: boolean;
  /** The last attempt reached the peer: both lanes may run. Until then one dial at a time. */
  reached: boolean;
  running: number;
  readonly lanes: Readonly<Record<LaneName, LaneWindow>>;
}

/** What of a lane is in memory. */
export interface LaneWindow {
  /** The database knows better: to be read again before the next row is taken. */
  stale: boolean;
  loading: boolean;
  /** Wall time at which a row becomes due that is not in memory. */
  nextDue: number | undefined;
  more: boolean;
}

export function peerQueue(peer: Identity): PeerQueue {
  const window = (): LaneWindow => ({ stale: true, loading: false, nextDue: undefined, more: false });
  return {
    peer,
    failures: 0,
    notBefore: 0,
    why: undefined,
    woken: false,
    reached: false,
    running: 0,
    lanes: { talk: window(), bulk: window() },
  };
}

/** Notes an attempt that did not reach the peer. One made for a wake-up leaves the back-off as it is. */
export function backOff(
  queue: PeerQueue,
  o: { now: number; random: number; schedule: readonly number[]; woken: boolean; why: QueuedReason },
): void {
  queue.reached = false;
  queue.why = o.why;
  if (o.woken && queue.notBefore > o.now) return;
  queue.failures += 1;
  queue.notBefore = o.now + delayAfter(queue.failures, o.random, o.schedule);
}

export function reached(queue: PeerQueue): void {
  queue.reached = true;
  queue.failures = 0;
  queue.notBefore = 0;
  queue.why = undefined;
}

export function markStale(queue: PeerQueue, lane?: LaneName): void {
  for (const name of lane === undefined ? LANE_NAMES : [lane]) queue.lanes[name].stale = true;
}

/** Nothing of this peer is left in memory, and nothing in the database that this would know of. */
export function isIdle(queue: PeerQueue): boolean {
  return (
    queue.running === 0 &&
    LANE_NAMES.every((name) => {
      const lane = queue.lanes[name];
      return !lane.stale && !lane.loading && !lane.more && lane.nextDue === undefined;
    })
  );
}

/** A directory that did not answer: all whose records it keeps wait, and one of them asks again after a while. */
export interface DirectoryGate {
  failures: number;
  notBefore: number;
  /** Somebody is asking. */
  probing: boolean;
}

export function closedGate(earlier: DirectoryGate | undefined, now: number, random: number): DirectoryGate {
  const failures = (earlier?.failures ?? 0) + 1;
  return { failures, notBefore: now + delayAfter(failures - 1, random, DIRECTORY_SCHEDULE), probing: false };
}
