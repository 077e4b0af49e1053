import { asSuiteError } from "../pki/suite-error.ts";
import { ROWS_A_CALL } from "./outbox-calls.ts";
import { expiryGuard } from "./schedule.ts";
import type { SealedCopies } from "./sealed-copies.ts";
import type { StoreInside } from "./store.ts";

/** What could not be given up, since the disk failed, is tried again after this. */
const RETRY = 15_000;

/** Gives up what is past its time, once the wall clock can be believed. */
export class Expiry {
  readonly #inside: StoreInside;
  readonly #copies: SealedCopies;
  readonly #guard: ReturnType<typeof expiryGuard>;
  #next: number | undefined;
  #running = false;

  constructor(inside: StoreInside, copies: SealedCopies) {
    this.#inside = inside;
    this.#copies = copies;
    this.#guard = expiryGuard(inside.time.now().getTime(), inside.time.monotonic());
  }

  /** Finds out when the first thing expires. */
  async start(): Promise<void> {
    this.#next = (await this.#inside.database.call("expire", { at: 0, except: [] })).next;
  }

  /** Something was accepted that expires then (wall time). */
  add(expiresAt: number): void {
    this.#next = Math.min(this.#next ?? expiresAt, expiresAt);
  }

  /** Monotonic time at which to call `run`. */
  get due(): number | undefined {
    if (this.#next === undefined || this.#running) return undefined;
    const { time } = this.#inside;
    const [wall, now] = [time.now().getTime(), time.monotonic()];
    return Math.max(now + this.#next - wall, this.#guard.mayExpireAt(wall, now));
  }

  /** Gives up what is due, except these rows; calls `then` when that changed something. */
  run(except: readonly number[], then: () => void): void {
    const { time, log } = this.#inside;
    const { due } = this;
    if (due === undefined || due > time.monotonic()) return;
    this.#running = true;
    const wall = time.now().getTime();
    this.#expire(wall, except)
      .catch((error: unknown) => {
        this.#next = wall + RETRY;
        log.error({ error: asSuiteError(error) }, "giving up what is past its time failed");
      })
      .finally(() => {
        this.#running = false;
        then();
      });
  }

  async #expire(wall: number, except: readonly number[]): Promise<void> {
    const { rows, next } = await this.#inside.database.call("expire", { at: wall, except });
    for (const row of rows) await this.#copies.discard(row);
    // One that is being sent just now keeps its time, which is past: looked at again in a while.
    this.#next = next === undefined || rows.length === ROWS_A_CALL ? next : Math.max(next, wall + 1_000);
  }
}
