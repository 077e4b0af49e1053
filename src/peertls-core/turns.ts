/** Runs of one name wait for one another beyond so many at once; those of another name do not wait for them. */
export class Turns {
  readonly #atOnce: number;
  readonly #byName = new Map<string, { running: number; waiting: (() => void)[] }>();

  constructor(atOnce: number) {
    this.#atOnce = atOnce;
  }

  async run<T>(name: string, run: () => Promise<T>): Promise<T> {
    const turns = this.#byName.get(name) ?? { running: 0, waiting: [] };
    this.#byName.set(name, turns);
    if (turns.running < this.#atOnce) turns.running += 1;
    else await new Promise<void>((begin) => turns.waiting.push(begin)); // in the place of the one that ended
    try {
      return await run();
    } finally {
      const next = turns.waiting.shift();
      if (next !== undefined) next();
      else {
        turns.running -= 1;
        if (turns.running === 0) this.#byName.delete(name);
      }
    }
  }
}
