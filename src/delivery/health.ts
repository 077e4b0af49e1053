import { SuiteError } from "../pki/suite-error.ts";

/**
 * Whether this machine's disk can be trusted. After a failed fsync, fdatasync or commit the kernel may have dropped what it
 * could not write, so that trying again would report success for lost bytes: from then on all new work is refused, until
 * the node has been started again and has looked at its files.
 */
export interface Health {
  readonly failure: SuiteError | undefined;
  /** Throws `store-failed` (temporary) once something failed. */
  check(): void;
  fail(cause: unknown, step: string): SuiteError;
  /** Called once, at the first failure. */
  onFailure(listener: (failure: SuiteError) => void): void;
}

export function makeHealth(): Health {
  let failure: SuiteError | undefined;
  const listeners: ((failure: SuiteError) => void)[] = [];
  return {
    get failure() {
      return failure;
    },
    check() {
      if (failure !== undefined) throw storeFailed("an earlier write failed", failure);
    },
    fail(cause, step) {
      const error = storeFailed(step, cause);
      if (failure === undefined) {
        failure = error;
        for (const listener of listeners) listener(error);
      }
      return error;
    },
    onFailure: (listener) => void listeners.push(listener),
  };
}

/** The one failure of this machine's store; `step` says in which step. */
export function storeFailed(step: string, cause?: unknown): SuiteError {
  const code = errorCode(cause);
  return new SuiteError("store-failed", "the local store failed", {
    fault: "local",
    temporary: true,
    details: code === undefined ? { step } : { step, cause: code },
    ...(cause === undefined ? {} : { cause }),
  });
}

function errorCode(cause: unknown): string | undefined {
  if (typeof cause !== "object" || cause === null || !("code" in cause)) return undefined;
  return typeof cause.code === "string" ? cause.code : undefined;
}
