import type { Refreshed } from "./refreshed.ts";

/** A place that is asked again and again. */
export interface Source {
  /** Name of the anchor whose certificates led there: it has nobody's room but its own. */
  readonly anchor: string;
  readonly refreshed: Refreshed;
}

/**
 * Sources by key. A CA can name as many places as it signs certificates, so there is a limit for each anchor: of its own
 * sources the one that was not used for longest makes room. Of all together only one more is too many.
 */
export class Sources<S extends Source> {
  readonly #limits: { anchor: number; total: number };
  readonly #dropped: (source: S) => void;
  /** By anchor, and there by key, the one used longest ago first. */
  readonly #byAnchor = new Map<string, Map<string, S>>();
  #size = 0;

  /** @param dropped told of each that is not asked any more */
  constructor(limits: { anchor: number; total: number }, dropped: (source: S) => void) {
    this.#limits = limits;
    this.#dropped = dropped;
  }

  *[Symbol.iterator](): IterableIterator<S> {
    for (const sources of this.#byAnchor.values()) yield* sources.values();
  }

  of(anchor: string): Iterable<S> {
    return this.#byAnchor.get(anchor)?.values() ?? [];
  }

  /** As used now. */
  get(anchor: string, key: string): S | undefined {
    const sources = this.#byAnchor.get(anchor);
    const found = sources?.get(key);
    if (found === undefined) return undefined;
    sources?.delete(key);
    sources?.set(key, found);
    return found;
  }

  has(key: string, source: S): boolean {
    return this.#byAnchor.get(source.anchor)?.get(key) === source;
  }

  /** @returns whether there was room */
  add(key: string, source: S): boolean {
    const sources = this.#byAnchor.get(source.anchor) ?? new Map<string, S>();
    const [oldest] = sources.keys();
    if (sources.size >= this.#limits.anchor && oldest !== undefined) this.delete(source.anchor, oldest);
    if (this.#size >= this.#limits.total) return false;
    this.#byAnchor.set(source.anchor, sources.set(key, source));
    this.#size += 1;
    return true;
  }

  /** It is not asked any more. */
  delete(anchor: string, key: string): void {
    const sources = this.#byAnchor.get(anchor);
    const found = sources?.get(key);
    if (sources === undefined || found === undefined) return;
    void found.refreshed.stop();
    sources.delete(key);
    this.#size -= 1;
    if (sources.size === 0) this.#byAnchor.delete(anchor);
    this.#dropped(found);
  }
}
