import { createHash } from "node:crypto";
import { SuiteError } from "../../pki/suite-error.ts";

/** What one who asks may ask. */
export interface Limits {
  /** Look-ups of any kind. */
  perMinute: number;
  /** Different names. */
  perDay: number;
  /** Different names that there is nothing of, before waiting begins; one so many-th of an hour forgives one. */
  missesPerHour: number;
}

export const PERSON: Limits = { perMinute: 120, perDay: 2_000, missesPerHour: 10 };
export const ANONYMOUS: Limits = { perMinute: 10, perDay: 500, missesPerHour: 10 };
/** Of a domain that the configuration names: it asks for many. */
export const LISTED_DOMAIN: Limits = { perMinute: 3_000, perDay: 200_000, missesPerHour: 300 };
/** Of a domain that anybody may have registered this morning. */
export const OTHER_DOMAIN: Limits = { perMinute: 3_000, perDay: 1_440, missesPerHour: 10 };

interface Asker {
  minute: number;
  inMinute: number;
  day: number;
  /** Names told about today. */
  found: Set<number>;
  /** Names today that there was nothing of. */
  missed: Set<number>;
  /** Misses that are not forgiven yet, as of `since`. */
  misses: number;
  since: number;
  waitUntil: number;
}

const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 86_400_000;
const FIRST_WAIT_SECONDS = 60;
const MOST_WAIT_SECONDS = 3_600;
const MOST_ASKERS = 50_000;
const MOST_NAMES = 2_000_000;

/**
 * Makes finding out who exists dear, and cheap what people really do: asking again for those who were told is always
 * free of it. Times are Unix milliseconds. Of this process alone; nothing lasts.
 */
export class Quotas {
  readonly #askers = new Map<string, Asker>();
  #names = 0;

  /**
   * Counts a question before it is looked at.
   * @throws SuiteError busy with `retrySeconds`: the same whether there is somebody of that name
   */
  ask(who: string, limits: Limits, name: string, now: number): void {
    const asker = this.#asker(who, now);
    asker.inMinute += 1;
    if (asker.inMinute > limits.perMinute) throw busy((asker.minute + 1) * MINUTE - now);
    this.mayAsk(who, limits, name, now);
  }

  /** The same without a count of how often: for what is asked once and then told. @throws SuiteError busy */
  mayAsk(who: string, limits: Limits, name: string, now: number): void {
    const asker = this.#asker(who, now);
    const hash = hashOf(name);
    if (asker.found.has(hash) || asker.missed.has(hash)) return;
    if (now < asker.waitUntil) throw busy(asker.waitUntil - now);
    if (asker.found.size + asker.missed.size >= limits.perDay) throw busy((asker.day + 1) * DAY - now);
  }

  /** @returns what a 404 says of when to ask for others; undefined while nothing has to be waited for */
  told(who: string, limits: Limits, name: string, found: boolean, now: number): number | undefined {
    const asker = this.#asker(who, now);
    const names = found ? asker.found : asker.missed;
    const hash = hashOf(name);
    if (!names.has(hash)) {
      names.add(hash);
      this.#names += 1;
      if (!found) this.#missed(asker, limits, now);
    }
    this.#bound();
    return found || now >= asker.waitUntil ? undefined : Math.ceil((asker.waitUntil - now) / 1000);
  }

  #missed(asker: Asker, limits: Limits, now: number): void {
    asker.misses = Math.max(0, asker.misses - ((now - asker.since) / HOUR) * limits.missesPerHour) + 1;
    asker.since = now;
    const beyond = Math.ceil(asker.misses - limits.missesPerHour);
    if (beyond <= 0) return;
    asker.waitUntil = now + Math.min(MOST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (beyond - 1)) * 1000;
  }

  #asker(who: string, now: number): Asker {
    const [minute, day] = [Math.floor(now / MINUTE), Math.floor(now / DAY)];
    let asker = this.#askers.get(who);
    if (asker === undefined) {
      asker = {
        ...{ minute, inMinute: 0, day, found: new Set<number>(), missed: new Set<number>() },
        ...{ misses: 0, since: now, waitUntil: 0 },
      };
      this.#askers.set(who, asker);
    }
    if (asker.minute !== minute) {
      asker.minute = minute;
      asker.inMinute = 0;
      // Who asked last stands last.
      this.#askers.delete(who);
      this.#askers.set(who, asker);
    }
    if (asker.day !== day) {
      this.#names -= asker.found.size + asker.missed.size;
      asker.day = day;
      asker.found = new Set();
      asker.missed = new Set();
    }
    return asker;
  }

  /** Who has not asked for longest is forgotten. */
  #bound(): void {
    for (const [who, asker] of this.#askers) {
      if (this.#askers.size <= MOST_ASKERS && this.#names <= MOST_NAMES) return;
      this.#names -= asker.found.size + asker.missed.size;
      this.#askers.delete(who);
    }
  }
}

/** 48 bits: enough that no two of some thousand names are one. */
function hashOf(name: string): number {
  return createHash("sha256").update(name).digest().readUIntBE(0, 6);
}

function busy(milliseconds: number): SuiteError {
  return new SuiteError("busy", "asked too often; wait", {
    fault: "peer",
    temporary: true,
    details: { retrySeconds: Math.max(1, Math.ceil(milliseconds / 1000)) },
  });
}
