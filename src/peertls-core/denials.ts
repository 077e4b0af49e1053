import type { Log } from "../pki/log.ts";
import type { Denial } from "./door.ts";

const WINDOW_MS = 60_000;
/** Lines a minute: strangers who come again and again fill no disk. */
const MOST_LINES = 100;

/** Tells the log of everybody who was sent away, one by one as long as they are not too many, else how many they were. */
export class DenialLog {
  readonly #log: Log;
  readonly #now: () => number;
  #windowEnds = 0;
  #lines = 0;
  #untold = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;

  /** @param now monotonic milliseconds */
  constructor(log: Log, now: () => number) {
    this.#log = log;
    this.#now = now;
  }

  /** @param entry of the rules, which decided */
  tell(denial: Denial, entry?: string): void {
    const now = this.#now();
    if (now >= this.#windowEnds) {
      this.tellRest();
      this.#windowEnds = now + WINDOW_MS;
      this.#lines = 0;
    }
    if (this.#lines >= MOST_LINES) {
      this.#untold.set(denial.reason, (this.#untold.get(denial.reason) ?? 0) + 1);
      this.#timer ??= setTimeout(() => this.tellRest(), this.#windowEnds - now).unref();
      return;
    }
    this.#lines += 1;
    const { direction, protocol, reason, alert, address, certificate } = denial;
    const claims = certificate?.identities.map((one) => one.identity);
    this.#log.warn(
      { direction, protocol, reason, alert, address, fingerprint: certificate?.fingerprint, claims, entry },
      "peer denied",
    );
  }

  /** What was not told one by one. */
  tellRest(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#untold.size === 0) return;
    this.#log.warn({ reasons: Object.fromEntries(this.#untold) }, "more peers were denied than are told one by one");
    this.#untold.clear();
  }
}
