import { integer, type Transaction, text } from "./transaction.ts";

/** How far a file that goes in parts is. */
export interface Sending {
  certificate: string;
  transfer: string;
  partBytes: number;
  /** Those that were sealed, by their number. */
  parts: Map<number, { digest: string; acknowledged: boolean }>;
}

/** Calls of the database worker about files that go in parts. What became final has no entry here. */
export const sendingCalls = {
  sending(tx: Transaction, row: number): Sending | undefined {
    const found = tx.sql("SELECT * FROM sending WHERE row = ?").get(row);
    if (found === undefined) return undefined;
    const parts = tx.sql("SELECT part, digest, acknowledged FROM sending_part WHERE row = ?").all(row);
    return {
      certificate: text(found, "certificate"),
      transfer: text(found, "transfer"),
      partBytes: integer(found, "part_bytes"),
      parts: new Map(
        parts.map((part) => [
          integer(part, "part"),
          { digest: text(part, "digest"), acknowledged: integer(part, "acknowledged") !== 0 },
        ]),
      ),
    };
  },

  /** Begins anew: whatever the peer has of an earlier transfer of this row is not asked for again. */
  beginSending(tx: Transaction, o: { row: number; certificate: string; transfer: string; partBytes: number }): void {
    tx.sql("DELETE FROM sending WHERE row = ?").run(o.row);
    tx.sql(
      `INSERT INTO sending (row, certificate, transfer, part_bytes)
       SELECT row, ?, ?, ? FROM receipt WHERE row = ? AND state = 'queued'`,
    ).run(o.certificate, o.transfer, o.partBytes, o.row);
  },

  /** The part's sealed bytes are durable under a temporary name. */
  partSealed(tx: Transaction, o: { row: number; part: number; digest: string }): void {
    tx.sql(
      `INSERT INTO sending_part (row, part, digest) VALUES (?, ?, ?)
       ON CONFLICT (row, part) DO UPDATE SET digest = excluded.digest, acknowledged = 0`,
    ).run(o.row, o.part, o.digest);
  },

  partAcknowledged(tx: Transaction, o: { row: number; part: number }): void {
    tx.sql("UPDATE sending_part SET acknowledged = 1 WHERE row = ? AND part = ?").run(o.row, o.part);
  },

  /** The peer's node does not have them any more: all are to be sent again. */
  partsForgotten(tx: Transaction, row: number): void {
    tx.sql("UPDATE sending_part SET acknowledged = 0 WHERE row = ?").run(row);
  },
};
