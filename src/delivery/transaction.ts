import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { NodeEvent } from "./event-types.ts";

/** What a call inside the database worker has in hand. Calls run one after the other, each in its own savepoint. */
export interface Transaction {
  /** The statement of this text, prepared once. */
  sql(text: string): StatementSync;
  /** Appends an event, to be published after the commit of what it tells of. */
  append(at: number, body: NodeEvent): number;
}

/** An event on its way out of the worker. `json` stays text until somebody wants it. */
export interface EventRow {
  seq: number;
  at: number;
  json: string;
}

/** Events are kept so long and at most so many (delivery.md §2 "Events"). */
const KEPT_DAYS = 30;
const KEPT_EVENTS = 100_000;
/** Old events are dropped once in so many. */
const PRUNE_EVERY = 1_000;

const DAY = 86_400_000;

/** @param published where events go; the caller takes back those of a savepoint that was rolled back */
export function makeTransaction(database: DatabaseSync, published: EventRow[]): Transaction {
  const statements = new Map<string, StatementSync>();
  const sql = (text: string): StatementSync => {
    let statement = statements.get(text);
    if (statement === undefined) {
      statement = database.prepare(text);
      statements.set(text, statement);
    }
    return statement;
  };
  return {
    sql,
    append(at, body) {
      const json = JSON.stringify(body);
      const seq = Number(
        sql("INSERT INTO event (at, type, json) VALUES (?, ?, ?)").run(at, body.type, json).lastInsertRowid,
      );
      published.push({ seq, at, json });
      if (seq % PRUNE_EVERY === 0) {
        sql("DELETE FROM event WHERE seq <= ? OR at < ?").run(seq - KEPT_EVENTS, at - KEPT_DAYS * DAY);
      }
      return seq;
    },
  };
}

/** A row's column as text; the schema is STRICT, so another type is a defect of this program. */
export function text(row: Record<string, unknown>, column: string): string {
  const value = row[column];
  if (typeof value !== "string") throw new TypeError(`column ${column} is no text`);
  return value;
}

export function optionalText(row: Record<string, unknown>, column: string): string | undefined {
  return row[column] === null ? undefined : text(row, column);
}

export function integer(row: Record<string, unknown>, column: string): number {
  const value = row[column];
  if (typeof value !== "number") throw new TypeError(`column ${column} is no number`);
  return value;
}

export function optionalInteger(row: Record<string, unknown>, column: string): number | undefined {
  return row[column] === null ? undefined : integer(row, column);
}
