import type { NodeEvent } from "./event-types.ts";
import { type EventRow, integer, type Transaction, text } from "./transaction.ts";

/** Calls of the database worker about events. */
export const eventCalls = {
  appendEvent(tx: Transaction, o: { at: number; body: NodeEvent }): number {
    return tx.append(o.at, o.body);
  },

  eventsAfter(tx: Transaction, o: { after: number; limit: number }): EventRow[] {
    const rows = tx.sql("SELECT seq, at, json FROM event WHERE seq > ? ORDER BY seq LIMIT ?").all(o.after, o.limit);
    return rows.map((row) => ({ seq: integer(row, "seq"), at: integer(row, "at"), json: text(row, "json") }));
  },

  /** The first event that is kept and the last that was written; for none ever, 1 and 0. */
  eventBounds(tx: Transaction): { first: number; last: number } {
    const last = tx.sql("SELECT seq FROM sqlite_sequence WHERE name = 'event'").get();
    const first = tx.sql("SELECT min(seq) AS seq FROM event").get();
    const lastSeq = last === undefined ? 0 : integer(last, "seq");
    return { first: first?.["seq"] == null ? lastSeq + 1 : integer(first, "seq"), last: lastSeq };
  },
};
