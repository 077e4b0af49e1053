import type { FailedReason, HeldReason, ItemId, Kind, QueuedReason } from "./envelope.ts";
import { insertContent, itemId, type WrittenContent } from "./item-calls.ts";
import type { DueRow, LaneName } from "./lanes.ts";
import { integer, optionalText, type Transaction, text } from "./transaction.ts";

/** Something to send, its files durable. */
export interface AcceptedItem {
  entropy: Uint8Array;
  at: number;
  kind: Kind;
  from: string;
  messageId: string;
  title: string;
  fileName: string | undefined;
  content: WrittenContent;
  outerHeader: string;
  seal: "node" | "none";
  expiresAt: number;
  firstAttempt: number;
  rows: readonly { to: string; lane: LaneName }[];
}

/** A row of `receipt` as it crosses the thread. */
export interface ReceiptRow {
  row: number;
  item: string;
  kind: Kind;
  peer: string;
  state: "queued" | "held" | "delivered" | "failed";
  reason: string | undefined;
  detail: string;
  attempts: number;
  nextAttempt: number;
  at: number;
}

/**
 * What an attempt, the owner or time makes of a row. `counted`: it was an attempt that the peer could have answered.
 * `told`: when the next attempt is, if something else than the row (the peer, the directory) decides that.
 */
export type RowChange =
  | {
      state: "queued";
      why: QueuedReason | undefined;
      detail: string;
      nextAttempt: number;
      told?: number;
      counted: boolean;
    }
  | { state: "held"; reason: HeldReason; detail: string; counted: boolean }
  | { state: "delivered"; counted: boolean }
  | { state: "failed"; reason: FailedReason; detail: string; counted: boolean };

/** Whose rows the owner means: an item's, one recipient's of it, or all of a peer. */
export type RowTarget = { item: string; to?: string } | { peer: string };

export type OwnerAction = "cancel" | "hold" | "release" | "retry";

/** Rows that one call changes at most, so that no transaction keeps the others waiting. */
export const ROWS_A_CALL = 1_000;

/** Calls of the database worker about what is to be sent. */
export const outboxCalls = {
  acceptItem(tx: Transaction, o: AcceptedItem): ItemId {
    const id = itemId(o.at, o.entropy);
    const recipients = o.rows.map((row) => row.to);
    insertContent(tx, o.content);
    tx.sql(
      `INSERT INTO item (id, box, kind, sender, recipients, message_id, title, file_name, at, seen_at, content, head, seal, expires_at)
       VALUES (?, 'sent', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ).run(
      id,
      o.kind,
      o.from,
      JSON.stringify(recipients),
      o.messageId,
      o.title,
      o.fileName ?? null,
      o.at,
      o.at,
      o.content.digest,
      o.outerHeader,
      o.seal,
      o.expiresAt,
    );
    tx.append(o.at, {
      type: "item.accepted",
      item: id,
      kind: o.kind,
      to: recipients,
      title: o.title,
      size: o.content.size,
    });
    const insert = tx.sql(
      `INSERT INTO receipt (item, peer, kind, lane, size, conversation, state, next_attempt, expires_at, at)
       VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?)`,
    );
    for (const { to, lane } of o.rows) {
      const conversation = o.kind === "message" ? `${o.from} ${to}` : null;
      insert.run(id, to, o.kind, lane, o.content.size, conversation, o.firstAttempt, o.expiresAt, o.at);
    }
    return id;
  },

  /** Lanes in which something is queued. */
  waitingLanes(tx: Transaction): { peer: string; lane: LaneName }[] {
    const rows = tx.sql("SELECT DISTINCT peer, lane FROM receipt WHERE state = 'queued'").all();
    return rows.map((row) => ({ peer: text(row, "peer"), lane: text(row, "lane") as LaneName }));
  },

  /**
   * The first rows of a lane that are due, and when the next of the others is. A message is not due before those of its
   * conversation that were accepted earlier; what is due later than `latest` was dated by a clock that has been set back
   * since, and is due now.
   */
  dueRows(
    tx: Transaction,
    o: { peer: string; lane: LaneName; now: number; latest: number; limit: number },
  ): { rows: DueRow[]; nextDue: number | undefined; more: boolean } {
    const rows = tx
      .sql(
        `SELECT row, item, kind, size FROM receipt r
         WHERE state = 'queued' AND peer = ? AND lane = ? AND (next_attempt <= ? OR next_attempt > ?)
           AND (conversation IS NULL OR NOT EXISTS (SELECT 1 FROM receipt e WHERE e.state = 'queued'
             AND e.conversation = r.conversation AND e.row < r.row AND e.next_attempt > ? AND e.next_attempt <= ?))
         ORDER BY row LIMIT ?`,
      )
      .all(o.peer, o.lane, o.now, o.latest, o.now, o.latest, o.limit + 1);
    const next = tx
      .sql(
        `SELECT min(next_attempt) AS due FROM receipt
         WHERE state = 'queued' AND peer = ? AND lane = ? AND next_attempt > ? AND next_attempt <= ?`,
      )
      .get(o.peer, o.lane, o.now, o.latest);
    return {
      rows: rows.slice(0, o.limit).map((row) => ({
        row: integer(row, "row"),
        item: text(row, "item"),
        kind: text(row, "kind") as Kind,
        size: integer(row, "size"),
      })),
      nextDue: next?.["due"] == null ? undefined : integer(next, "due"),
      more: rows.length > o.limit,
    };
  },

  /** How often the row was tried, or nothing if it is no longer queued. */
  attempted(tx: Transaction, row: number): { attempts: number } | undefined {
    const found = tx.sql("SELECT attempts FROM receipt WHERE row = ? AND state = 'queued'").get(row);
    return found === undefined ? undefined : { attempts: integer(found, "attempts") };
  },

  /**
   * Notes what became of an attempt. A yes of the peer wins over whatever the owner wanted meanwhile; all else counts only
   * while the row is still queued.
   */
  settle(tx: Transaction, o: { row: number; at: number; change: RowChange }): void {
    const from =
      o.change.state === "delivered"
        ? "(state IN ('queued', 'held') OR reason IN ('cancelled', 'expired'))"
        : "state = 'queued'";
    changeRows(tx, `row = ? AND ${from}`, [o.row], o.at, o.change);
  },

  /** A peer's gate or certificate stops all that is queued for the peer, not one row. @returns the rows held */
  holdPeer(tx: Transaction, o: { peer: string; at: number; reason: HeldReason; detail: string }): number[] {
    const change: RowChange = { state: "held", reason: o.reason, detail: o.detail, counted: false };
    return changeRows(tx, "peer = ? AND state = 'queued'", [o.peer], o.at, change);
  },

  /** Queues again what is held because the peer did not admit us. @returns the rows */
  releaseNotAdmitted(tx: Transaction, o: { peer: string; at: number }): number[] {
    const change: RowChange = { state: "queued", why: undefined, detail: "", nextAttempt: o.at, counted: false };
    return changeRows(tx, "peer = ? AND state = 'held' AND reason = 'not-admitted'", [o.peer], o.at, change);
  },

  /** What the owner wants of his rows. @returns the rows that changed, and the peers of all that were meant */
  ownerAction(
    tx: Transaction,
    o: { target: RowTarget; action: OwnerAction; at: number },
  ): { rows: number[]; peers: string[] } {
    const [where, values] = targetOf(o.target);
    const known = tx.sql(`SELECT DISTINCT peer FROM receipt WHERE ${where}`).all(...values);
    const [from, change] = ownerChange(o.action, o.at);
    const rows = changeRows(tx, `${where} AND ${from}`, values, o.at, change);
    return { rows, peers: known.map((row) => text(row, "peer")) };
  },

  /** Gives up what is past its time, except what is being sent right now. @returns the rows given up and when the next is */
  expire(tx: Transaction, o: { at: number; except: readonly number[] }): { rows: number[]; next: number | undefined } {
    const change: RowChange = { state: "failed", reason: "expired", detail: "", counted: false };
    const rows = changeRows(tx, "state IN ('queued', 'held') AND expires_at <= ?", [o.at], o.at, change, o.except);
    const next = tx.sql("SELECT min(expires_at) AS at FROM receipt WHERE state IN ('queued', 'held')").get();
    return { rows, next: next?.["at"] == null ? undefined : integer(next, "at") };
  },

  receipts(tx: Transaction, o: { item?: string; open?: boolean; limit: number }): ReceiptRow[] {
    const where = ["1 = 1"];
    const values: string[] = [];
    if (o.item !== undefined) where.push("item = ?") && values.push(o.item);
    if (o.open === true) where.push("state IN ('queued', 'held')");
    const rows = tx
      .sql(`SELECT * FROM receipt WHERE ${where.join(" AND ")} ORDER BY row DESC LIMIT ?`)
      .all(...values, o.limit);
    return rows.map(receiptRow).reverse();
  },

  /** Which of these rows are not final. */
  openRows(tx: Transaction, rows: readonly number[]): number[] {
    const open = tx.sql("SELECT 1 FROM receipt WHERE row = ? AND state IN ('queued', 'held')");
    return rows.filter((row) => open.get(row) !== undefined);
  },
};

function targetOf(target: RowTarget): [where: string, values: string[]] {
  if ("peer" in target) return ["peer = ? AND state IN ('queued', 'held')", [target.peer]];
  return target.to === undefined ? ["item = ?", [target.item]] : ["item = ? AND peer = ?", [target.item, target.to]];
}

function ownerChange(action: OwnerAction, at: number): [from: string, change: RowChange] {
  switch (action) {
    case "cancel":
      return ["state IN ('queued', 'held')", { state: "failed", reason: "cancelled", detail: "", counted: false }];
    case "hold":
      return ["state = 'queued'", { state: "held", reason: "owner", detail: "", counted: false }];
    case "release":
      return ["state = 'held'", { state: "queued", why: undefined, detail: "", nextAttempt: at, counted: false }];
    case "retry":
      return [
        "state IN ('queued', 'held')",
        { state: "queued", why: undefined, detail: "", nextAttempt: at, counted: false },
      ];
  }
}

/** Changes at most `ROWS_A_CALL` rows, each with its event. @returns the rows changed */
function changeRows(
  tx: Transaction,
  where: string,
  values: readonly (string | number)[],
  at: number,
  change: RowChange,
  except: readonly number[] = [],
): number[] {
  const found = tx
    .sql(`SELECT * FROM receipt WHERE ${where} ORDER BY row LIMIT ?`)
    .all(...values, ROWS_A_CALL + except.length);
  const skipped = new Set(except);
  const rows = found
    .map(receiptRow)
    .filter((row) => !skipped.has(row.row))
    .slice(0, ROWS_A_CALL);
  for (const row of rows) changeRow(tx, row, at, change);
  return rows.map((row) => row.row);
}

function changeRow(tx: Transaction, row: ReceiptRow, at: number, change: RowChange): void {
  const attempts = row.attempts + (change.counted ? 1 : 0);
  const nextAttempt = change.state === "queued" ? change.nextAttempt : row.nextAttempt;
  const reason = change.state === "queued" ? change.why : change.state === "delivered" ? undefined : change.reason;
  const detail = change.state === "delivered" ? "" : change.detail;
  tx.sql(
    "UPDATE receipt SET state = ?, reason = ?, detail = ?, attempts = ?, next_attempt = ?, at = ? WHERE row = ?",
  ).run(change.state, reason ?? null, detail, attempts, nextAttempt, at, row.row);
  if (change.state === "delivered" || change.state === "failed")
    tx.sql("DELETE FROM sending WHERE row = ?").run(row.row);
  tx.append(at, {
    type: "receipt.changed",
    item: row.item,
    kind: row.kind,
    to: row.peer,
    attempts,
    state: change.state,
    ...(change.state === "held" || change.state === "failed" ? { reason: change.reason } : {}),
    ...(change.state === "queued" && change.why !== undefined ? { why: change.why } : {}),
    ...(detail === "" ? {} : { detail }),
    ...(change.state === "queued" ? { nextAttempt: new Date(change.told ?? nextAttempt).toISOString() } : {}),
  });
}

function receiptRow(row: Record<string, unknown>): ReceiptRow {
  return {
    row: integer(row, "row"),
    item: text(row, "item"),
    kind: text(row, "kind") as Kind,
    peer: text(row, "peer"),
    state: text(row, "state") as ReceiptRow["state"],
    reason: optionalText(row, "reason"),
    detail: text(row, "detail"),
    attempts: integer(row, "attempts"),
    nextAttempt: integer(row, "next_attempt"),
    at: integer(row, "at"),
  };
}
