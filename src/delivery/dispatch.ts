import { type Identity, identityDomain } from "../pki/identity.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import { Aftermath } from "./aftermath.ts";
import { type AttemptOptions, attempt } from "./attempt.ts";
import type { QueuedReason } from "./envelope.ts";
import { Expiry } from "./expiry.ts";
import { type DueRow, LANE_NAMES, type LaneName, Lanes, type Turn } from "./lanes.ts";
import { ROWS_A_CALL } from "./outbox-calls.ts";
import { type DirectoryGate, isIdle, markStale, type PeerQueue, peerQueue } from "./peer-queue.ts";

export interface DispatcherOptions extends AttemptOptions {
  schedule: readonly number[];
}

/** An attempt under way. */
export interface Running {
  item: string;
  peer: Identity;
  sentBytes: number;
  totalBytes: number;
}

/** Rows of a lane that are in memory at a time. */
const WINDOW = 100;
/** Wake-ups of a peer that come closer together count as one. */
const WAKE_INTERVAL = 15_000;
const MOVE_INTERVAL = 2_000;
/** What this machine could not note is tried again after this. */
const LOCAL_RETRY = 15_000;
/** How long attempts to say something short may still run when the node stops. */
const DRAIN = 5_000;

/** Decides who is tried when, runs the attempts and notes what became of them. The rows are the database's; this keeps clocks. */
export class Dispatcher {
  readonly #o: DispatcherOptions;
  readonly #lanes = new Lanes();
  readonly #queues = new Map<Identity, PeerQueue>();
  readonly #gates = new Map<string, DirectoryGate>();
  readonly #running = new Map<number, Running & { lane: LaneName; abort: AbortController; ended: Promise<void> }>();
  readonly #wakes = new Map<Identity, { again: boolean }>();
  readonly #moves = new Map<Identity, { again: boolean }>();
  readonly #longestDelay: number;
  readonly #expiry: Expiry;
  readonly #aftermath: Aftermath;
  #state: "new" | "running" | "stopped" = "new";
  #pumping = false;
  #cancelTimer: () => void = () => undefined;

  constructor(o: DispatcherOptions) {
    this.#o = o;
    // What waits longer than any delay was dated by a clock that has been set back since.
    this.#longestDelay = Math.max(...o.schedule) * 1_000 * 2 + 60_000;
    this.#expiry = new Expiry(o.inside, o.copies);
    this.#aftermath = new Aftermath(o.inside, o.copies, o.schedule, this.#gates);
  }

  async start(): Promise<void> {
    const { database } = this.#o.inside;
    const waiting = await database.call("waitingLanes");
    await this.#expiry.start();
    if (this.#state === "stopped") return;
    this.#state = "running";
    for (const { peer } of waiting) this.#queue(peer as Identity);
    this.#pump();
  }

  async stop(): Promise<void> {
    this.#state = "stopped";
    this.#cancelTimer();
    const end = (lane?: LaneName) => {
      for (const one of this.#running.values()) if (lane === undefined || one.lane === lane) one.abort.abort();
    };
    end("bulk"); // goes on from where it was
    const cancel = this.#o.inside.time.after(DRAIN, () => end());
    await Promise.all([...this.#running.values()].map((one) => one.ended));
    cancel();
  }

  /** Something was queued, released or put off: look at the rows of these peers again. */
  refresh(peers: Iterable<Identity>, expiresAt?: number): void {
    if (expiresAt !== undefined) this.#expiry.add(expiresAt);
    for (const peer of peers) markStale(this.#queue(peer));
    this.#pump();
  }

  /** The owner wants it tried now. */
  tryNow(peers: Iterable<Identity>): void {
    const known = [...peers];
    for (const peer of known) this.#queue(peer).woken = true;
    this.refresh(known);
  }

  /** The peer connected to us, or the directory has news of it. Within 15 s of the last time it takes effect after them. */
  wake(peer: Identity): void {
    if (this.#state === "stopped") return;
    const { time, log } = this.#o.inside;
    const earlier = this.#wakes.get(peer);
    if (earlier !== undefined) {
      earlier.again = true;
      return;
    }
    const mark = { again: false };
    this.#wakes.set(peer, mark);
    time.after(WAKE_INTERVAL, () => {
      this.#wakes.delete(peer);
      if (mark.again) this.wake(peer);
    });
    this.#wake(peer).catch((error: unknown) =>
      log.error({ peer, error: asSuiteError(error) }, "waking what waits for a peer failed"),
    );
  }

  /**
   * The peer's devices have left addresses: what is being dialled there, or is under way and has sent nothing yet, begins
   * anew. Whoever moves all the time is followed every two seconds.
   */
  moved(peer: Identity): void {
    if (this.#state === "stopped") return;
    const earlier = this.#moves.get(peer);
    if (earlier !== undefined) {
      earlier.again = true;
      return;
    }
    const mark = { again: false };
    this.#moves.set(peer, mark);
    this.#o.inside.time.after(MOVE_INTERVAL, () => {
      this.#moves.delete(peer);
      if (mark.again) this.moved(peer);
    });
    for (const one of this.#running.values()) if (one.peer === peer && one.sentBytes === 0) one.abort.abort();
    this.tryNow([peer]);
  }

  /** The directory answers again. */
  directoryBack(): void {
    this.#gates.clear();
    for (const queue of this.#queues.values()) if (queue.why === "directory-unavailable") queue.notBefore = 0;
    this.#pump();
  }

  running(row: number): Running | undefined {
    return this.#running.get(row);
  }

  /** Ends the attempts of these rows; resolves when they have ended. */
  async interrupt(rows: Iterable<number>): Promise<void> {
    const ends: Promise<void>[] = [];
    for (const row of rows) {
      const one = this.#running.get(row);
      if (one === undefined) continue;
      one.abort.abort();
      ends.push(one.ended);
    }
    await Promise.all(ends);
  }

  /** Why nothing of this peer is tried now, and when it will be: what the row itself does not know. */
  waitingFor(peer: Identity): { why: QueuedReason; until: Date } | undefined {
    const { time } = this.#o.inside;
    const now = time.monotonic();
    const wallAt = (monotonic: number) => new Date(time.now().getTime() + Math.max(0, monotonic - now));
    const gate = this.#gates.get(identityDomain(peer));
    if (gate !== undefined) return { why: "directory-unavailable", until: wallAt(gate.notBefore) };
    const queue = this.#queues.get(peer);
    if (queue?.why === undefined || queue.notBefore <= now) return undefined;
    return { why: queue.why, until: wallAt(queue.notBefore) };
  }

  #queue(peer: Identity): PeerQueue {
    let queue = this.#queues.get(peer);
    if (queue === undefined) {
      queue = peerQueue(peer);
      this.#queues.set(peer, queue);
    }
    return queue;
  }

  async #wake(peer: Identity): Promise<void> {
    const { database, time } = this.#o.inside;
    for (;;) {
      const rows = await database.call("releaseNotAdmitted", { peer, at: time.now().getTime() });
      if (rows.length > 0) markStale(this.#queue(peer));
      if (rows.length < ROWS_A_CALL) break;
    }
    const queue = this.#queues.get(peer);
    if (queue !== undefined) queue.woken = true;
    this.#pump();
  }

  /** Starts what can start, once all that happens in this turn of the event loop has happened. */
  #pump(): void {
    if (this.#pumping || this.#state !== "running") return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      if (this.#state !== "running" || this.#o.inside.health.failure !== undefined) return;
      this.#expiry.run([...this.#running.keys()], () => this.#pump());
      for (const lane of LANE_NAMES) {
        if (this.#lanes.hasFreeSlot(lane)) this.#loadStale(lane);
        for (;;) {
          const turn = this.#lanes.next(lane, (peer) => this.#laneReady(this.#queue(peer), lane));
          if (turn === undefined) break;
          this.#begin(turn);
        }
      }
      this.#arm();
    });
  }

  #peerReady(queue: PeerQueue): boolean {
    const now = this.#o.inside.time.monotonic();
    if (!queue.reached && queue.running > 0) return false; // one dial at a time
    if (queue.woken) return true;
    const gate = this.#gates.get(identityDomain(queue.peer));
    if (gate !== undefined && (gate.probing || gate.notBefore > now)) return false;
    return queue.notBefore <= now;
  }

  #laneReady(queue: PeerQueue, lane: LaneName): boolean {
    const window = queue.lanes[lane];
    return !window.stale && !window.loading && this.#peerReady(queue);
  }

  /** Reads the due rows of lanes that could run if it were known what waits in them. */
  #loadStale(lane: LaneName): void {
    const now = this.#o.inside.time.now().getTime();
    for (const queue of this.#queues.values()) {
      const window = queue.lanes[lane];
      if (window.nextDue !== undefined && window.nextDue <= now) window.stale = true;
      if (window.more && this.#lanes.waiting(queue.peer, lane) === 0) window.stale = true;
      // A lane that runs is not read: its row would be found again.
      if (!window.stale || window.loading || this.#lanes.isRunning(queue.peer, lane) || !this.#peerReady(queue))
        continue;
      window.loading = true;
      this.#load(queue, lane).catch((error: unknown) =>
        this.#couldNot(queue, error, "reading what waits for a peer failed"),
      );
    }
  }

  async #load(queue: PeerQueue, lane: LaneName): Promise<void> {
    const { database, time } = this.#o.inside;
    const window = queue.lanes[lane];
    try {
      window.stale = false; // what changes from here on is read once more
      const now = time.now().getTime();
      const due = await database.call("dueRows", {
        peer: queue.peer,
        lane,
        now,
        latest: now + this.#longestDelay,
        limit: WINDOW,
      });
      this.#lanes.fill(queue.peer, lane, due.rows);
      window.nextDue = due.nextDue;
      window.more = due.more;
    } finally {
      window.loading = false;
    }
    this.#forgetIfIdle(queue);
    this.#pump();
  }

  #forgetIfIdle(queue: PeerQueue): void {
    if (isIdle(queue) && LANE_NAMES.every((lane) => this.#lanes.waiting(queue.peer, lane) === 0))
      this.#queues.delete(queue.peer);
  }

  #begin({ peer, lane, row }: Turn): void {
    const queue = this.#queue(peer);
    const woken = queue.woken;
    queue.woken = false;
    queue.running += 1;
    const gate = this.#gates.get(identityDomain(peer));
    if (gate !== undefined) gate.probing = true;
    const abort = new AbortController();
    const ended = this.#run(queue, row, woken, abort.signal).then(() => {
      this.#running.delete(row.row);
      this.#lanes.finished(peer, lane);
      queue.running -= 1;
      if (gate !== undefined) gate.probing = false;
      this.#forgetIfIdle(queue);
      this.#pump();
    });
    this.#running.set(row.row, { item: row.item, peer, lane, sentBytes: 0, totalBytes: row.size, abort, ended });
  }

  /** One attempt and its consequences. Never throws. */
  async #run(queue: PeerQueue, row: DueRow, woken: boolean, signal: AbortSignal): Promise<void> {
    const watch = {
      onRecord: () => {
        if (this.#gates.delete(identityDomain(queue.peer))) this.#pump();
      },
      onProgress: (sentBytes: number, totalBytes: number) => {
        const running = this.#running.get(row.row);
        if (running !== undefined) Object.assign(running, { sentBytes, totalBytes });
        if (!queue.reached) {
          queue.reached = true; // the other lane may dial too
          this.#pump();
        }
      },
    };
    try {
      const result = await attempt(this.#o, queue.peer, row, watch, signal).catch((error: unknown) =>
        asSuiteError(error),
      );
      if (result === "gone") return;
      if (result === "delivered") await this.#aftermath.delivered(queue, row);
      else if (result === "key-changed") await this.#aftermath.held(queue, row, "key-changed", "");
      else if (!signal.aborted) await this.#aftermath.failed(queue, row, result, woken);
    } catch (error) {
      this.#couldNot(queue, error, "what became of an attempt could not be noted");
    }
  }

  /** The database or the disk failed: later. What was not noted is done again; the receiver drops what it has. */
  #couldNot(queue: PeerQueue, error: unknown, message: string): void {
    const { time, log } = this.#o.inside;
    log.error({ peer: queue.peer, error: asSuiteError(error) }, message);
    queue.notBefore = time.monotonic() + LOCAL_RETRY;
    markStale(queue);
    this.#pump();
  }

  /** One timer, for whatever is next. */
  #arm(): void {
    const { time } = this.#o.inside;
    const now = time.monotonic();
    const wall = time.now().getTime();
    let delay = Number.POSITIVE_INFINITY;
    const at = (monotonic: number) => {
      if (monotonic > now) delay = Math.min(delay, monotonic - now);
    };
    for (const queue of this.#queues.values()) {
      at(queue.notBefore);
      for (const lane of LANE_NAMES) {
        const { nextDue } = queue.lanes[lane];
        if (nextDue !== undefined) at(now + nextDue - wall);
      }
    }
    for (const gate of this.#gates.values()) at(gate.notBefore);
    const expiry = this.#expiry.due;
    if (expiry !== undefined) at(expiry);
    this.#cancelTimer();
    if (Number.isFinite(delay)) this.#cancelTimer = time.after(delay, () => this.#pump());
  }
}
