import type { Fingerprint } from "../pki/certificate.ts";
import { SuiteError } from "../pki/suite-error.ts";

/** A faulty seal, or one past a structural limit. Before the key step it is told by name, after it `unreadable` stands for it. */
export function malformed(what: string, cause?: unknown): SuiteError {
  return new SuiteError("seal-malformed", "not a well-formed seal", {
    fault: "peer",
    details: { what },
    ...(cause === undefined ? {} : { cause }),
  });
}

/** An algorithm or a structure that is known not to be read here. */
export function unsupported(what: string): SuiteError {
  return new SuiteError("seal-unsupported", "the seal uses what this program does not read", {
    fault: "peer",
    details: { what },
  });
}

/**
 * The one failure for all that follows the use of a private key. `cause` is for a debug log: neither a reply nor the
 * level of a log line may depend on it, or the peer has a decryption oracle.
 */
export function unreadable(cause: unknown): SuiteError {
  return new SuiteError("seal-unreadable", "the seal cannot be opened", { fault: "peer", cause });
}

export function tooLarge(maxBytes: number): SuiteError {
  return new SuiteError("seal-too-large", "the seal is larger than allowed", { fault: "peer", details: { maxBytes } });
}

export function storeFailed(what: string, cause: unknown): SuiteError {
  return new SuiteError("store-failed", "the disk refused", {
    fault: "local",
    temporary: true,
    details: { what },
    cause,
  });
}

/** What an aborted signal throws: its reason if that says what it is, else `cancelled`. */
export function cancelled(signal: AbortSignal): SuiteError {
  if (signal.reason instanceof SuiteError) return signal.reason;
  return new SuiteError("cancelled", "cancelled while a seal was made or opened", {
    fault: "local",
    temporary: true,
    cause: signal.reason,
  });
}

const dayMs = 86_400_000;

/**
 * How many seals of one peer may fail in 24 hours before its seals are refused unread, so that nobody can ask a node
 * often enough to learn about a key. Kept in memory: a restart gives at most one more budget.
 */
export class FailureBudget {
  readonly #perDay: number;
  readonly #failures = new Map<Fingerprint, number[]>();

  constructor(perDay = 20) {
    this.#perDay = perDay;
  }

  /** Throws SuiteError "seal-rate-limited" (temporary) if the peer has used up its failures. */
  check(peer: Fingerprint, now: Date): void {
    if (this.#recent(peer, now).length < this.#perDay) return;
    throw new SuiteError("seal-rate-limited", "too many seals of this peer could not be opened", {
      fault: "peer",
      temporary: true,
    });
  }

  count(peer: Fingerprint, now: Date): void {
    const recent = this.#recent(peer, now);
    if (recent.length < this.#perDay) recent.push(now.getTime()); // more would only use memory
    this.#failures.set(peer, recent);
    for (const other of this.#failures.keys()) this.#recent(other, now);
  }

  #recent(peer: Fingerprint, now: Date): number[] {
    const recent = (this.#failures.get(peer) ?? []).filter((at) => Math.abs(now.getTime() - at) < dayMs);
    if (recent.length === 0) this.#failures.delete(peer);
    else this.#failures.set(peer, recent);
    return recent;
  }
}
