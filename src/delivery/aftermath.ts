import { identityDomain } from "../pki/identity.ts";
import type { SuiteError } from "../pki/suite-error.ts";
import type { HeldReason, QueuedReason } from "./envelope.ts";
import type { DueRow } from "./lanes.ts";
import { ROWS_A_CALL, type RowChange } from "./outbox-calls.ts";
import { outcomeOf } from "./outcome.ts";
import { backOff, closedGate, type DirectoryGate, markStale, type PeerQueue, reached } from "./peer-queue.ts";
import { delayAfter } from "./schedule.ts";
import type { SealedCopies } from "./sealed-copies.ts";
import type { StoreInside } from "./store.ts";

/** Notes what an attempt came to: for the row, for its peer, for all whose directory is away. */
export class Aftermath {
  readonly #inside: StoreInside;
  readonly #copies: SealedCopies;
  readonly #schedule: readonly number[];
  readonly #gates: Map<string, DirectoryGate>;

  constructor(
    inside: StoreInside,
    copies: SealedCopies,
    schedule: readonly number[],
    gates: Map<string, DirectoryGate>,
  ) {
    this.#inside = inside;
    this.#copies = copies;
    this.#schedule = schedule;
    this.#gates = gates;
  }

  async delivered(queue: PeerQueue, row: DueRow): Promise<void> {
    reached(queue);
    await this.#settle(row, { state: "delivered", counted: true });
    this.#inside.cut("outbox.recorded");
    this.#inside.log.info({ item: row.item, peer: queue.peer }, "delivered");
  }

  /** Holds all that is queued for the peer: trying each row would only be refused again. */
  async held(queue: PeerQueue, row: DueRow, reason: HeldReason, detail: string): Promise<void> {
    const { database, time } = this.#inside;
    const at = time.now().getTime();
    await this.#settle(row, { state: "held", reason, detail, counted: true });
    while ((await database.call("holdPeer", { peer: queue.peer, at, reason, detail })).length === ROWS_A_CALL);
    queue.reached = false;
    markStale(queue);
  }

  /** @param woken the attempt was made for a wake-up, not because its time had come */
  async failed(queue: PeerQueue, row: DueRow, error: SuiteError, woken: boolean): Promise<void> {
    const outcome = outcomeOf(error);
    const fields = { item: row.item, peer: queue.peer, error, next: outcome.next };
    this.#inside.log[outcome.next === "failed" ? "warn" : "info"](fields, "an attempt failed");
    if (outcome.for === "directory") return this.#directoryAway(queue, row, error);
    if (outcome.next === "held") return this.held(queue, row, outcome.reason, error.code);
    if (outcome.for === "peer") return this.#peerAway(queue, row, error, woken, outcome.next === "record-rejected");
    if (error.fault === "peer") reached(queue);
    if (outcome.next === "failed") {
      await this.#settle(row, { state: "failed", reason: outcome.reason, detail: error.code, counted: true });
      return;
    }
    markStale(queue); // the later rows of its conversation wait with it
    const { database, time } = this.#inside;
    const attempts = ((await database.call("attempted", row.row))?.attempts ?? 0) + 1;
    const nextAttempt = time.now().getTime() + delayAfter(attempts, this.#jitter(), this.#schedule);
    const why: QueuedReason = "temporary-refusal";
    await this.#settle(row, { state: "queued", why, detail: error.code, nextAttempt, counted: true });
  }

  async #directoryAway(queue: PeerQueue, row: DueRow, error: SuiteError): Promise<void> {
    const now = this.#inside.time.monotonic();
    const domain = identityDomain(queue.peer);
    const earlier = this.#gates.get(domain);
    markStale(queue);
    if (earlier !== undefined && earlier.notBefore > now) return; // another attempt found it out
    const gate = closedGate(earlier, now, this.#jitter());
    this.#gates.set(domain, gate);
    if (gate.failures > 1) return; // told once, not at every question that nobody answers
    await this.#settle(row, this.#due("directory-unavailable", error, gate.notBefore - now, false));
  }

  async #peerAway(queue: PeerQueue, row: DueRow, error: SuiteError, woken: boolean, rejected: boolean): Promise<void> {
    const { time, database } = this.#inside;
    const now = time.monotonic();
    const why: QueuedReason = rejected ? "directory-unavailable" : "unreachable";
    backOff(queue, { now, random: this.#jitter(), schedule: this.#schedule, woken, why });
    markStale(queue);
    if (rejected) {
      const body = { type: "record.rejected" as const, identity: queue.peer, code: error.code };
      await database.call("appendEvent", { at: time.now().getTime(), body });
    }
    await this.#settle(row, this.#due(why, error, queue.notBefore - now, !rejected));
  }

  /** The row itself stays due: when it is tried is decided by what it waits for, in so many milliseconds. */
  #due(why: QueuedReason, error: SuiteError, wait: number, counted: boolean): RowChange {
    const now = this.#inside.time.now().getTime();
    return { state: "queued", why, detail: error.code, nextAttempt: now, told: now + wait, counted };
  }

  async #settle(row: DueRow, change: RowChange): Promise<void> {
    const { database, time } = this.#inside;
    await database.call("settle", { row: row.row, at: time.now().getTime(), change });
    if (change.state === "delivered" || change.state === "failed") await this.#copies.discard(row.row);
  }

  #jitter(): number {
    return this.#inside.random(4).readUInt32BE() / 2 ** 32;
  }
}
