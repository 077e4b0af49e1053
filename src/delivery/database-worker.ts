import { DatabaseSync } from "node:sqlite";
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { SuiteError, toWire, type WireError } from "../pki/suite-error.ts";
import { CALLS } from "./calls.ts";
import type { FromWorker, Reply, ToWorker } from "./database.ts";
import { migrate } from "./schema.ts";
import { type EventRow, makeTransaction, type Transaction } from "./transaction.ts";

/** Calls that share one commit at most. A batch is what arrived during the commit before: no timer, no waiting. */
const BATCH = 256;
/** SQLite result codes after which the database may be used on: nothing was written, nothing is damaged. BUSY, LOCKED, FULL. */
const HARMLESS: readonly number[] = [5, 6, 13];

/** The one thread that owns the database file. It ends after any failure that puts durability in doubt. */
function serve(port: MessagePort, path: string): void {
  const published: EventRow[] = [];
  const database = open(path);
  const transaction = makeTransaction(database, published);
  send(port, { kind: "ready" });
  port.on("message", (first: ToWorker) => {
    const batch = [first];
    while (batch.length < BATCH) {
      const more = receiveMessageOnPort(port);
      if (more === undefined) break;
      batch.push(more.message as ToWorker);
    }
    const calls = batch.filter((message) => message.kind === "call");
    if (calls.length > 0) {
      const outcome = runBatch(database, transaction, published, calls);
      send(port, outcome);
      if (outcome.fatal !== undefined) end(port, database);
    }
    if (calls.length < batch.length) end(port, database);
  });
}

type Call = Extract<ToWorker, { kind: "call" }>;

function open(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: 5_000 });
  database.exec("PRAGMA journal_mode = WAL");
  database.exec("PRAGMA synchronous = FULL"); // with WAL: an fsync at every commit
  database.exec("PRAGMA temp_store = MEMORY");
  const check = database.prepare("PRAGMA quick_check(1)").get();
  if (check?.["quick_check"] !== "ok") throw new Error("the database is damaged");
  migrate(database);
  return database;
}

/** Runs calls in one transaction, each in its own savepoint: one that throws takes back only its own changes. */
function runBatch(
  database: DatabaseSync,
  transaction: Transaction,
  published: EventRow[],
  calls: readonly Call[],
): Extract<FromWorker, { kind: "batch" }> {
  published.length = 0;
  const replies: Reply[] = [];
  try {
    database.exec("BEGIN");
    for (const call of calls) replies.push(runCall(database, transaction, published, call));
    database.exec("COMMIT");
    return { kind: "batch", replies, events: [...published] };
  } catch (error) {
    // Without a commit no call of the batch has happened, whatever it returned.
    const fatal = !HARMLESS.includes(sqliteCode(error) ?? 0) || !rolledBack(database);
    const failed = calls.map(({ id }): Reply => ({ id, error: wireError(error) }));
    return { kind: "batch", replies: failed, events: [], ...(fatal ? { fatal: String(error) } : {}) };
  }
}

function runCall(database: DatabaseSync, transaction: Transaction, published: EventRow[], call: Call): Reply {
  const before = published.length;
  database.exec("SAVEPOINT one");
  try {
    const result = (CALLS[call.name] as (tx: Transaction, argument: unknown) => unknown)(transaction, call.argument);
    database.exec("RELEASE one");
    return { id: call.id, result };
  } catch (error) {
    if (!(error instanceof SuiteError) && !isStatementError(error)) throw error;
    database.exec("ROLLBACK TO one");
    database.exec("RELEASE one");
    published.length = before;
    return { id: call.id, error: wireError(error) };
  }
}

/** An error of one call (a constraint, a wrong type), not of the file below. */
function isStatementError(error: unknown): boolean {
  const code = sqliteCode(error);
  return code === undefined || code === 1 /* ERROR */ || code === 19 /* CONSTRAINT */ || code === 20 /* MISMATCH */;
}

/** The primary result code (https://sqlite.org/rescode.html). */
function sqliteCode(error: unknown): number | undefined {
  if (typeof error !== "object" || error === null || !("errcode" in error)) return undefined;
  return typeof error.errcode === "number" ? error.errcode & 0xff : undefined;
}

function rolledBack(database: DatabaseSync): boolean {
  try {
    if (database.isTransaction) database.exec("ROLLBACK");
    return true;
  } catch {
    return false;
  }
}

function wireError(error: unknown): WireError {
  if (error instanceof SuiteError) return toWire(error);
  return {
    code: isStatementError(error) ? "internal" : "store-failed",
    message: "the local store failed",
    fault: "local",
    temporary: true,
    details: { step: "database", cause: String(error) },
  };
}

function send(port: MessagePort, message: FromWorker): void {
  port.postMessage(message);
}

function end(port: MessagePort, database: DatabaseSync): void {
  try {
    database.close();
  } finally {
    port.close(); // nothing else keeps the thread alive
  }
}

if (parentPort !== null) serve(parentPort, (workerData as { path: string }).path);
