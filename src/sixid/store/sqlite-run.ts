import type { DatabaseSync, StatementSync } from "node:sqlite";
import { SuiteError, toWire, type WireError } from "../../pki/suite-error.ts";
import type { Operation, Outcome, Row, Value } from "./operation.ts";
import type { Change } from "./store.ts";
import { WRITES, type WriteName } from "./writes.ts";

/** A call as it goes to the thread that writes. */
export interface Call {
  id: number;
  name: WriteName;
  values: readonly unknown[];
}

export type Reply = { id: number; result: unknown } | { id: number; error: WireError };

/** What became of calls that shared a commit. `fatal`: the file is in doubt, nothing more is written. */
export interface Batch {
  replies: Reply[];
  changes: Change[];
  fatal?: string;
}

/** SQLite result codes after which the database may be used on: nothing was written, nothing is damaged. BUSY, LOCKED, FULL. */
const HARMLESS: readonly number[] = [5, 6, 13];

/** Runs operations on a SQLite connection, on the calling thread; statements are prepared once. */
export class SqliteRunner {
  readonly #database: DatabaseSync;
  readonly #prepared = new Map<string, { statement: StatementSync; reads: boolean }>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  run<T>(operation: Operation<T>, changes: Change[]): T {
    let step = operation.next({ rows: [], count: 0 });
    while (step.done !== true) {
      const { value } = step;
      let outcome: Outcome = { rows: [], count: 0 };
      if ("sql" in value) outcome = this.#execute(value.sql, value.values);
      else if ("changed" in value) changes.push(value.changed);
      step = operation.next(outcome);
    }
    return step.value;
  }

  /** All calls in one transaction, each in its own savepoint: one that fails takes back only its own changes. */
  batch(calls: readonly Call[], cut: (point: "written" | "committed") => void = () => undefined): Batch {
    const replies: Reply[] = [];
    const changes: Change[] = [];
    try {
      this.#database.exec("begin immediate");
      for (const call of calls) replies.push(this.#call(call, changes));
      cut("written");
      this.#database.exec("commit");
      cut("committed");
      return { replies, changes };
    } catch (error) {
      // Without a commit no call of the batch has happened, whatever it returned.
      const fatal = !HARMLESS.includes(resultCode(error) ?? 0) || !this.#rolledBack();
      const failed = calls.map(({ id }): Reply => ({ id, error: wireError(error) }));
      return { replies: failed, changes: [], ...(fatal ? { fatal: String(error) } : {}) };
    }
  }

  #call({ id, name, values }: Call, changes: Change[]): Reply {
    const before = changes.length;
    this.#database.exec("savepoint one");
    try {
      const make = WRITES[name] as (...values: readonly unknown[]) => Operation<unknown>;
      const result = this.run(make(...values), changes);
      this.#database.exec("release one");
      return { id, result };
    } catch (error) {
      if (!(error instanceof SuiteError) && !isStatementError(error)) throw error;
      this.#database.exec("rollback to one; release one");
      changes.length = before;
      return { id, error: wireError(error) };
    }
  }

  #execute(sql: string, values: readonly Value[]): Outcome {
    let known = this.#prepared.get(sql);
    if (known === undefined) {
      const statement = this.#database.prepare(sql);
      known = { statement, reads: statement.columns().length > 0 };
      this.#prepared.set(sql, known);
    }
    if (known.reads) return { rows: known.statement.all(...values) as unknown as Row[], count: 0 };
    return { rows: [], count: Number(known.statement.run(...values).changes) };
  }

  #rolledBack(): boolean {
    try {
      if (this.#database.isTransaction) this.#database.exec("rollback");
      return true;
    } catch {
      return false;
    }
  }
}

export function storeFailed(cause: unknown): SuiteError {
  if (cause instanceof SuiteError) return cause;
  return new SuiteError("store-failed", "the directory cannot be read or written", {
    fault: "local",
    temporary: true,
    cause,
  });
}

/** An error of one call (a constraint, a wrong type), not of the file below. */
function isStatementError(error: unknown): boolean {
  const code = resultCode(error);
  return code === undefined || code === 1 /* ERROR */ || code === 19 /* CONSTRAINT */ || code === 20 /* MISMATCH */;
}

/** The primary result code (https://sqlite.org/rescode.html). */
function resultCode(error: unknown): number | undefined {
  if (typeof error !== "object" || error === null || !("errcode" in error)) return undefined;
  return typeof error.errcode === "number" ? error.errcode & 0xff : undefined;
}

function wireError(error: unknown): WireError {
  const wire = toWire(storeFailed(error));
  return { ...wire, details: { ...wire.details, cause: String(error) } };
}
