import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { SuiteError } from "../pki/suite-error.ts";
import { storeFailed } from "./failure.ts";
import type { FileJob, FileResult } from "./file-job.ts";

/** Threads that had nothing to do for so long are ended. */
const IDLE_MS = 10_000;

interface Waiting {
  job: FileJob;
  resolve: (octets: Buffer) => void;
  reject: (error: unknown) => void;
}

/** Threads that hash and encrypt files, so that nobody else waits for it. They begin when there is work. */
export class Threads implements AsyncDisposable {
  /** How many jobs run at once. */
  readonly count: number;
  readonly #idleMs: number;
  readonly #waiting: Waiting[] = [];
  readonly #busy = new Map<Worker, Waiting>();
  #idle: Worker[] = [];
  #ending: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(o: { count?: number; idleMs?: number } = {}) {
    this.count = o.count ?? Math.max(1, Math.min(4, availableParallelism()));
    this.#idleMs = o.idleMs ?? IDLE_MS;
  }

  /** How many there are now. */
  get running(): number {
    return this.#busy.size + this.#idle.length;
  }

  /** Jobs begin in the order they come. @throws SuiteError "store-failed", "source-changed", "cancelled" (it was stopped) */
  run(job: FileJob): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, resolve, reject });
      this.#next();
    });
  }

  /** Ends the threads; what they were at fails. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#ending);
    for (const { reject } of this.#waiting.splice(0)) reject(ended(undefined));
    await Promise.all([...this.#busy.keys(), ...this.#idle.splice(0)].map((worker) => worker.terminate()));
  }

  #next(): void {
    const [next] = this.#waiting;
    if (next === undefined) return;
    if (this.#closed) {
      for (const { reject } of this.#waiting.splice(0)) reject(ended(undefined));
      return;
    }
    const worker = this.#idle.pop() ?? (this.#busy.size < this.count ? this.#begin() : undefined);
    if (worker === undefined) return;
    this.#waiting.shift();
    this.#busy.set(worker, next);
    worker.ref(); // somebody waits for it
    worker.postMessage(next.job);
  }

  #begin(): Worker {
    const worker = new Worker(new URL("./file-worker.ts", import.meta.url));
    worker.on("message", (result: FileResult) => {
      const done = this.#free(worker);
      this.#idle.push(worker);
      worker.unref();
      this.#endLater();
      this.#next();
      if (result.ok) done?.resolve(Buffer.from(result.octets));
      else done?.reject(failureOf(result));
    });
    const gone = (cause?: unknown) => {
      this.#idle = this.#idle.filter((other) => other !== worker);
      this.#free(worker)?.reject(ended(cause));
      this.#next(); // another takes its place
    };
    worker.once("error", gone);
    worker.once("exit", () => gone());
    return worker;
  }

  #free(worker: Worker): Waiting | undefined {
    const done = this.#busy.get(worker);
    this.#busy.delete(worker);
    return done;
  }

  #endLater(): void {
    clearTimeout(this.#ending);
    this.#ending = setTimeout(() => {
      for (const worker of this.#idle.splice(0)) void worker.terminate();
    }, this.#idleMs);
    this.#ending.unref();
  }
}

function failureOf({ what, reason }: FileResult & { ok: false }): SuiteError {
  if (what === "changed") {
    return new SuiteError("source-changed", "the file was changed while it was read", {
      fault: "local",
      details: { reason },
    });
  }
  if (what === "stopped")
    return new SuiteError("cancelled", "cancelled while a file was sealed", { fault: "local", temporary: true });
  return storeFailed(what, new Error(reason));
}

function ended(cause: unknown): SuiteError {
  return storeFailed("thread", cause ?? new Error("a thread that seals files has ended"));
}
