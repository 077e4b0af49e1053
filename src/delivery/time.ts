/** Time as delivery uses it: the wall clock for what is written down, a clock that never steps for delays, and a timer. */
export interface Timekeeper {
  now(): Date;
  /** Milliseconds since some moment; never goes back, whatever is done to the wall clock. */
  monotonic(): number;
  /** Runs `run` once after so many milliseconds; the answer cancels it. Does not keep the process alive. */
  after(milliseconds: number, run: () => void): () => void;
}

/** Longest delay that `setTimeout` takes without turning it into 1 ms. */
const LONGEST_TIMER = 2 ** 31 - 1;

export function systemTime(now: () => Date = () => new Date()): Timekeeper {
  return {
    now,
    monotonic: () => performance.now(),
    after(milliseconds, run) {
      const timer = setTimeout(run, Math.min(Math.max(milliseconds, 0), LONGEST_TIMER));
      timer.unref();
      return () => clearTimeout(timer);
    },
  };
}
