const HOUR = 3_600_000;
const MAX_COUNTED = 10_000;

/** What a request counts against: its key, where it came from, and who vouches for the asker. */
export interface Asker {
  key: string;
  prefix: string;
  issuer: string;
}

/** Most requests in a while: one a key and day, three a prefix and hour, ten an issuer and hour (peertls.md §2.8). */
const LIMITS: readonly { of: keyof Asker; most: number; milliseconds: number }[] = [
  { of: "key", most: 1, milliseconds: 24 * HOUR },
  { of: "prefix", most: 3, milliseconds: HOUR },
  { of: "issuer", most: 10, milliseconds: HOUR },
];

/** Keeps strangers from filling the owner's list. In memory: a restart forgets, the owner's list itself is bounded. */
export class RequestQuota {
  readonly #counted = new Map<string, number[]>();

  /** Whether the request may be looked at; only then does it count. @param now monotonic milliseconds */
  admit(asker: Asker, now: number): boolean {
    const looked = LIMITS.map(({ of, most, milliseconds }) => {
      const name = `${of} ${asker[of]}`;
      const times = (this.#counted.get(name) ?? []).filter((time) => now - time < milliseconds);
      return { name, times, full: times.length >= most };
    });
    if (looked.some(({ full }) => full)) return false;
    for (const { name, times } of looked) {
      this.#counted.delete(name);
      this.#counted.set(name, [...times, now]);
      const oldest = this.#counted.keys().next();
      if (this.#counted.size > MAX_COUNTED && !oldest.done) this.#counted.delete(oldest.value);
    }
    return true;
  }
}
