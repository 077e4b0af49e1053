import type { Change } from "./store.ts";

/** Those who want to know of changes. */
export class Listeners {
  readonly #listeners = new Set<(change: Change) => void>();

  add(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The same change once, however often it was made in one commit. */
  tell(changes: readonly Change[]): void {
    if (this.#listeners.size === 0) return;
    const told = new Set<string>();
    for (const change of changes) {
      const key = `${change.what} ${change.uuid}`;
      if (told.has(key)) continue;
      told.add(key);
      for (const listener of this.#listeners) listener(change);
    }
  }
}
