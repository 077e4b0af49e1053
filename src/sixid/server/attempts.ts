import { SuiteError } from "../../pki/suite-error.ts";
import { network } from "./network.ts";

const AT_ONCE = 4;
const MOST_WAITING = 32;
const WINDOW_MS = 600_000;
const MOST_FAILURES = 20;
const MOST_PLACES = 50_000;

/**
 * Bounds what guessing passwords costs this machine, and how often it is tried from one place. A few are hashed at once, 64
 * MiB each; those of one account one after the other, so that many at once count as many.
 */
export class Attempts {
  readonly #clock: () => Date;
  readonly #last = new Map<string, Promise<unknown>>();
  readonly #places = new Map<string, { since: number; failures: number }>();
  readonly #waiting: (() => void)[] = [];
  #begun = 0;
  #running = 0;

  constructor(clock: () => Date) {
    this.#clock = clock;
  }

  /** @param who the account, as it was named @throws SuiteError busy; what the work throws */
  async one<T>(who: string, work: () => Promise<T>): Promise<T> {
    if (this.#begun >= MOST_WAITING + AT_ONCE) throw busy(1);
    this.#begun += 1;
    const before = this.#last.get(who) ?? Promise.resolve();
    const turn = before.then(() => this.#slot(work));
    const settled = turn.then(
      () => undefined,
      () => undefined,
    );
    this.#last.set(who, settled);
    try {
      return await turn;
    } finally {
      this.#begun -= 1;
      if (this.#last.get(who) === settled) this.#last.delete(who);
    }
  }

  /** @param from an address @throws SuiteError busy for one from which too many failed */
  async from<T>(from: string, work: () => Promise<T>): Promise<T> {
    const place = network(from);
    const now = this.#clock().getTime();
    const known = this.#places.get(place);
    if (known !== undefined && now - known.since >= WINDOW_MS) this.#places.delete(place);
    else if (known !== undefined && known.failures >= MOST_FAILURES)
      throw busy(Math.ceil((known.since + WINDOW_MS - now) / 1000));
    // Counted before it is known, or many at once would all be the first.
    const counted = this.#places.get(place) ?? { since: now, failures: 0 };
    counted.failures += 1;
    this.#places.set(place, counted);
    const [oldest] = this.#places.keys();
    if (this.#places.size > MOST_PLACES && oldest !== undefined) this.#places.delete(oldest);
    try {
      const result = await work();
      counted.failures -= 1;
      return result;
    } catch (error) {
      if (!(error instanceof SuiteError) || error.code !== "auth-failed") counted.failures -= 1;
      throw error;
    }
  }

  async #slot<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= AT_ONCE) await new Promise<void>((resolve) => void this.#waiting.push(resolve));
    this.#running += 1;
    try {
      return await work();
    } finally {
      this.#running -= 1;
      this.#waiting.shift()?.();
    }
  }
}

function busy(retrySeconds: number): SuiteError {
  return new SuiteError("busy", "too many attempts; wait", {
    fault: "peer",
    temporary: true,
    details: { retrySeconds },
  });
}
