import type { Timekeeper } from "../../src/delivery/time.ts";

interface Timer {
  due: number;
  run: () => void;
}

/** Time that stands still until a test moves it. Wall and monotonic clock go together unless the wall clock is stepped. */
export class VirtualTime implements Timekeeper {
  #monotonic = 0;
  #wall: number;
  #timers = new Set<Timer>();

  constructor(start: Date = new Date("2026-11-23T09:00:00Z")) {
    this.#wall = start.getTime();
  }

  now = (): Date => new Date(this.#wall);
  monotonic = (): number => this.#monotonic;

  after = (milliseconds: number, run: () => void): (() => void) => {
    const timer = { due: this.#monotonic + Math.max(0, milliseconds), run };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  };

  /** Lets time pass, running what becomes due, in its order and at its time. */
  advance(milliseconds: number): void {
    const end = this.#monotonic + milliseconds;
    for (;;) {
      const next = [...this.#timers].filter(({ due }) => due <= end).sort((a, b) => a.due - b.due)[0];
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#pass(next.due - this.#monotonic);
      next.run();
    }
    this.#pass(end - this.#monotonic);
  }

  /** Somebody sets the wall clock. */
  stepWall(milliseconds: number): void {
    this.#wall += milliseconds;
  }

  /** Milliseconds until the next timer. */
  get next(): number | undefined {
    const dues = [...this.#timers].map(({ due }) => due - this.#monotonic);
    return dues.length === 0 ? undefined : Math.min(...dues);
  }

  #pass(milliseconds: number): void {
    this.#monotonic += milliseconds;
    this.#wall += milliseconds;
  }
}
