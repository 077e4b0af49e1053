import { SuiteError } from "../pki/suite-error.ts";

/** What Ctrl-C, or whoever else wants the program to end, makes of a command: nothing is left half done. */
export class Interrupted extends SuiteError {
  /** As shells tell of a program that a signal ended: 128 and its number. */
  readonly exitStatus: number;

  constructor(exitStatus: number) {
    super("cancelled", "interrupted; nothing was written", { fault: "local" });
    this.exitStatus = exitStatus;
  }
}

const SIGNALS = [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const;

/** Runs what clears up behind itself when it is aborted; what it has finished stays. A second signal ends the program at once. */
export async function interruptible<T>(action: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const handlers = SIGNALS.map(([name, status]) => ({ name, on: () => stop.abort(new Interrupted(status)) }));
  for (const { name, on } of handlers) process.once(name, on);
  try {
    return await action(stop.signal);
  } finally {
    for (const { name, on } of handlers) process.off(name, on);
  }
}
