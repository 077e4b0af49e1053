import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { fromWire, type SuiteError, type WireError } from "../pki/suite-error.ts";
import type { CallArguments, CallName, CallResult } from "./calls.ts";
import { type Health, storeFailed } from "./health.ts";
import type { EventRow } from "./transaction.ts";

export type ToWorker = { kind: "call"; id: number; name: CallName; argument: unknown } | { kind: "end" };

export type FromWorker =
  | { kind: "ready" }
  | {
      kind: "batch";
      replies: Reply[];
      events: EventRow[] /** The file is in doubt; the worker ends. */;
      fatal?: string;
    };

export type Reply = { id: number; result: unknown } | { id: number; error: WireError };

/** `delivery.db` behind its worker thread. Whatever resolves has been committed with fsync; calls happen in the order made. */
export interface Database {
  /** @throws SuiteError what the call says, or store-failed (temporary) */
  call<K extends CallName>(name: K, ...argument: CallArguments<K>): Promise<CallResult<K>>;
  /** Events in the order of their numbers, after their commit and before the calls of the same commit resolve. */
  onEvents(listener: (events: readonly EventRow[]) => void): void;
  /** Finishes the calls under way and closes the file. */
  close(): Promise<void>;
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: SuiteError): void;
}

/** @throws SuiteError store-failed if the file cannot be opened, is damaged, or was written by a newer program */
export async function openDatabase(path: string, health: Health): Promise<Database> {
  const worker = new Worker(new URL("./database-worker.ts", import.meta.url), { workerData: { path } });
  const pending = new Map<number, Pending>();
  const listeners: ((events: readonly EventRow[]) => void)[] = [];
  let nextId = 0;
  let closing = false;

  const failAll = (error: SuiteError) => {
    for (const { reject } of pending.values()) reject(error);
    pending.clear();
  };
  const exited = once(worker, "exit");
  exited.catch(() => undefined);
  await ready(worker);
  worker.on("message", (message: FromWorker) => {
    if (message.kind !== "batch") return;
    if (message.fatal !== undefined) health.fail(new Error(message.fatal), "database");
    if (message.events.length > 0) for (const listener of listeners) listener(message.events);
    for (const reply of message.replies) settle(pending, reply);
  });
  worker.on("error", (error) => failAll(health.fail(error, "database worker")));
  worker.on("exit", () => failAll(closing ? storeFailed("closed") : health.fail(undefined, "database worker ended")));

  return {
    call<K extends CallName>(name: K, ...argument: CallArguments<K>) {
      if (health.failure !== undefined) return Promise.reject(storeFailed("an earlier write failed", health.failure));
      if (closing) return Promise.reject(storeFailed("closed"));
      return new Promise<CallResult<K>>((resolve, reject) => {
        const id = nextId;
        nextId += 1;
        pending.set(id, { resolve: (result) => resolve(result as CallResult<K>), reject });
        post(worker, { kind: "call", id, name, argument: argument[0] });
      });
    },
    onEvents: (listener) => void listeners.push(listener),
    async close() {
      if (!closing) {
        closing = true;
        post(worker, { kind: "end" });
      }
      await exited.catch(() => undefined);
    },
  };
}

function post(worker: Worker, message: ToWorker): void {
  worker.postMessage(message);
}

function ready(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (error?: unknown) => {
      worker.off("message", onReady);
      worker.off("error", onError);
      worker.off("exit", onExit);
      if (error === undefined) resolve();
      else reject(storeFailed("the database cannot be opened", error));
    };
    const onReady = () => done();
    const onError = (error: unknown) => done(error);
    const onExit = () => done(new Error("the database worker ended"));
    worker.on("message", onReady);
    worker.on("error", onError);
    worker.on("exit", onExit);
  });
}

function settle(pending: Map<number, Pending>, reply: Reply): void {
  const call = pending.get(reply.id);
  if (call === undefined) return;
  pending.delete(reply.id);
  if ("result" in reply) call.resolve(reply.result);
  else call.reject(fromWire(reply.error));
}
