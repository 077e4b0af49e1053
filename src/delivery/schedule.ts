/** Delay in seconds before attempt 1, 2, 3 …; the last entry holds for all that follow (delivery.md §1.4). */
export const SCHEDULE: readonly number[] = [0, 15, 60, 300, 900, 1800, 3600];

/** How long to wait after a directory did not answer, before it is asked again; the last holds for all that follow. */
export const DIRECTORY_SCHEDULE: readonly number[] = [2, 4, 8, 15, 30];

/** Share of a delay by which it is made longer or shorter, so that the rows of a dead peer do not come in step. */
const JITTER = 0.1;

/**
 * Milliseconds to wait after `failures` failures in a row.
 * @param random a number in [0, 1)
 */
export function delayAfter(failures: number, random: number, schedule: readonly number[] = SCHEDULE): number {
  const seconds = schedule[Math.min(failures, schedule.length - 1)] ?? 0;
  return Math.round(seconds * 1000 * (1 - JITTER + 2 * JITTER * random));
}

/** Bounds of how long a thing may wait for its delivery, in seconds (delivery.md §1.6). */
export const LIFETIME = { default: 5 * 86_400, least: 60, most: 30 * 86_400 } as const;

/** When something accepted at `accepted` is given up. */
export function expiryOf(accepted: Date, lifetimeSeconds: number = LIFETIME.default): Date {
  const seconds = Math.min(Math.max(lifetimeSeconds, LIFETIME.least), LIFETIME.most);
  return new Date(accepted.getTime() + seconds * 1000);
}

/** Wall and monotonic clock may drift apart by this many milliseconds before it counts as a step of the wall clock. */
const STEP = 30_000;
/** After a start, and after a step of the wall clock, nothing expires for this many milliseconds. */
const GRACE = 60_000;

/**
 * Whether a wall clock can be believed enough to give things up by it: not within a minute of the start, nor of a step.
 */
export interface ExpiryGuard {
  /** Monotonic time from which on things may expire. */
  mayExpireAt(wall: number, monotonic: number): number;
}

export function expiryGuard(wall: number, monotonic: number): ExpiryGuard {
  let offset = wall - monotonic;
  let from = monotonic + GRACE;
  return {
    mayExpireAt(wallNow, monotonicNow) {
      if (Math.abs(wallNow - monotonicNow - offset) > STEP) from = monotonicNow + GRACE;
      offset = wallNow - monotonicNow;
      return from;
    },
  };
}
