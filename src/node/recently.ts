const WHILE_MS = 60_000;
const MAX_REMEMBERED = 1_000;
/** What is told is kept durably, and strangers make as many names and keys as they like. */
const MOST = 20;

/** Whether something is worth telling: not the same again within a minute, and no more than 20 things a minute in all. */
export class Recently {
  readonly #seen = new Map<string, number>();
  #told: number[] = [];

  /** @param now monotonic milliseconds */
  isNew(key: string, now: number): boolean {
    const last = this.#seen.get(key);
    if (last !== undefined && now - last < WHILE_MS) return false;
    this.#told = this.#told.filter((time) => now - time < WHILE_MS);
    if (this.#told.length >= MOST) return false;
    this.#told.push(now);
    this.#seen.delete(key);
    this.#seen.set(key, now);
    const oldest = this.#seen.keys().next();
    if (this.#seen.size > MAX_REMEMBERED && !oldest.done) this.#seen.delete(oldest.value);
    return true;
  }
}
