import type { Change } from "./store.ts";

export type Value = string | number | null;
export type Row = Record<string, Value>;

/**
 * What an operation asks of the database it runs on. SQL is what SQLite and PostgreSQL both understand, with `?1`, `?2`, …
 * for the values. `lock`: others who lock the same name wait until this transaction has ended; a no-op where there is one
 * writer. `changed`: told to those who listen, after the commit.
 */
export type Step =
  | { sql: string; values: readonly Value[] }
  | { lock: string }
  | {
      changed: Change;
    };

/** `count`: rows written, where the statement returns none. */
export interface Outcome {
  rows: readonly Row[];
  count: number;
}

/**
 * One thing that a directory's store does, whatever database it runs on: a generator, so that the same text runs on a thread
 * that waits (SQLite) and on a connection that does not (PostgreSQL). It happens as a whole or not at all.
 */
export type Operation<T> = Generator<Step, T, Outcome>;

export function* all<R>(sql: string, ...values: Value[]): Operation<R[]> {
  return (yield { sql, values }).rows as unknown as R[];
}

export function* one<R>(sql: string, ...values: Value[]): Operation<R | undefined> {
  return (yield { sql, values }).rows[0] as unknown as R | undefined;
}

/** @returns how many rows were written */
export function* run(sql: string, ...values: Value[]): Operation<number> {
  return (yield { sql, values }).count;
}

export function* changed(change: Change): Operation<void> {
  yield { changed: change };
}

export function* lock(name: string): Operation<void> {
  yield { lock: name };
}
