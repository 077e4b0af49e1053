import { statfs } from "node:fs/promises";
import type { Log } from "../pki/log.ts";
import { storeFailed } from "./health.ts";
import type { Timekeeper } from "./time.ts";

/** What is left free on the disk for the rest of the machine, unless configured otherwise. */
export const MIN_FREE_BYTES = 512 * 1024 * 1024;

/** An answer of the file system is good for so long. */
const FRESH = 1_000;

/** Refuses new work while the disk is nearly full: a refusal in time is better than a write that fails half way. */
export interface FreeSpace {
  /** @param bytes what is about to be written, as far as known @throws SuiteError store-failed (temporary) */
  check(bytes: number): Promise<void>;
}

export function freeSpace(o: { directory: string; minFreeBytes: number; time: Timekeeper; log: Log }): FreeSpace {
  let asked = Number.NEGATIVE_INFINITY;
  let answer: Promise<number> = Promise.resolve(0);
  let low = false;
  return {
    async check(bytes) {
      // One shared answer for all who ask at the same time: so nobody overtakes who came before.
      if (o.time.monotonic() - asked > FRESH) {
        asked = o.time.monotonic();
        answer = statfs(o.directory).then(({ bavail, bsize }) => bavail * bsize);
      }
      const free = await answer.catch((error: unknown) => {
        throw storeFailed("statfs", error);
      });
      const wasLow = low;
      low = free < o.minFreeBytes;
      if (low && !wasLow)
        o.log.error({ free, minFreeBytes: o.minFreeBytes }, "the disk is nearly full: nothing new is accepted");
      if (!low && wasLow) o.log.info({ free }, "there is room on the disk again");
      if (low || free - bytes < o.minFreeBytes) throw storeFailed("disk nearly full");
    },
  };
}
