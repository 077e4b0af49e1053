import type { Fingerprint } from "../pki/certificate.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { malformed } from "../smime/failure.ts";
import type { PartPlace, VerifiedPart } from "../smime/transfer.ts";
import type { ItemId } from "./envelope.ts";
import { type ArrivedItem, charge, inboxCalls, insertArrived, type PeerQuota, quotaExceeded } from "./inbox-calls.ts";
import { integer, optionalText, type Transaction, text } from "./transaction.ts";

/** A file that comes in parts. */
export interface TransferRow {
  id: number;
  signer: Fingerprint;
  total: number;
  /** What it has become. */
  item: ItemId | undefined;
  parts: VerifiedPart[];
}

/** A sealed file, or part of one, that was opened. */
export interface OpenedObject {
  name: string;
  /** Of the sealed bytes. */
  size: number;
  digest: string;
  at: number;
}

export interface NewPart {
  peer: string;
  signer: Fingerprint;
  place: PartPlace;
  partSize: number;
  digest: string;
  at: number;
  quota: PeerQuota;
}

/** Unfinished transfers of one peer (ftps.md §2.8). */
const MOST_UNFINISHED = 64;
/** Names of one peer's objects that are remembered: it asks for those that it brought last. */
const MOST_NOTED = 10_000;

/** Calls of the database worker about files that come in parts. */
export const transferCalls = {
  transfer(tx: Transaction, o: { peer: string; transfer: string }): TransferRow | undefined {
    const row = tx.sql("SELECT * FROM transfer WHERE peer = ? AND transfer = ?").get(o.peer, o.transfer);
    return row === undefined ? undefined : transferRow(tx, row);
  },

  /**
   * Whether a part is wanted, and where; counts the file at its first part. Parts signed by another key than those before
   * them begin the file anew.
   * @throws SuiteError seal-malformed if it cannot belong to the parts before it; quota-exceeded
   */
  beginPart(
    tx: Transaction,
    o: NewPart,
  ): { id: number; state: "wanted" | "stored" | "finished"; dropped: number | undefined } {
    const { transfer, part, of, total } = o.place;
    const row = tx.sql("SELECT * FROM transfer WHERE peer = ? AND transfer = ?").get(o.peer, transfer);
    let dropped: number | undefined;
    if (row !== undefined) {
      const id = integer(row, "id");
      if (integer(row, "parts") !== of || integer(row, "total") !== total || integer(row, "part_size") !== o.partSize)
        throw malformed("parts of one transfer disagree");
      if (optionalText(row, "item") !== undefined) return { id, state: "finished", dropped };
      if (text(row, "signer") === o.signer) {
        const known = tx.sql("SELECT digest FROM transfer_part WHERE id = ? AND part = ?").get(id, part);
        if (known !== undefined && text(known, "digest") === o.digest) return { id, state: "stored", dropped };
        // It is about to be written over: until that is durable there is no such part.
        tx.sql("DELETE FROM transfer_part WHERE id = ? AND part = ?").run(id, part);
        return { id, state: "wanted", dropped };
      }
      tx.sql("DELETE FROM transfer WHERE id = ?").run(id);
      dropped = id;
    }
    return { id: begin(tx, o), state: "wanted", dropped };
  },

  /** The part is durable. @throws SuiteError conflict (temporary) if the transfer lapsed meanwhile */
  recordPart(tx: Transaction, o: { id: number; part: number; size: number; digest: string; at: number }): void {
    const still = tx.sql("UPDATE transfer SET at = ? WHERE id = ? AND item IS NULL").run(o.at, o.id);
    if (still.changes === 0) throw partsMissing();
    tx.sql("INSERT INTO transfer_part (id, part, size, digest) VALUES (?, ?, ?, ?)").run(
      o.id,
      o.part,
      o.size,
      o.digest,
    );
  },

  /** Stores a file that is whole, unless it was stored before; its transfer is finished in either case. */
  finishTransfer(
    tx: Transaction,
    o: { id: number; item: ArrivedItem /** What makes two files the same. */; fileKey: Uint8Array },
  ): { id: ItemId; duplicate: boolean } {
    const earlier = inboxCalls.seen(tx, o.item.key) ?? inboxCalls.seen(tx, o.fileKey);
    if (earlier === undefined) charge(tx, o.item, 0);
    const id = earlier ?? insertArrived(tx, o.item);
    const keep = tx.sql("INSERT INTO seen (key, item, at) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING");
    for (const key of [o.item.key, o.fileKey]) keep.run(key, id, o.item.at);
    tx.sql("DELETE FROM transfer_part WHERE id = ?").run(o.id);
    tx.sql("UPDATE transfer SET item = ?, at = ? WHERE id = ?").run(id, o.item.at, o.id);
    return { id, duplicate: earlier !== undefined };
  },

  noteOpened(tx: Transaction, o: OpenedObject & { peer: string }): void {
    tx.sql(
      `INSERT INTO opened_object (peer, name, size, digest, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (peer, name)
         DO UPDATE SET size = excluded.size, digest = excluded.digest, at = excluded.at`,
    ).run(o.peer, o.name, o.size, o.digest, o.at);
    // The names are the peer's choice, and bringing again what was stored costs it no quota.
    tx.sql(
      `DELETE FROM opened_object WHERE peer = ? AND at <
         (SELECT at FROM opened_object WHERE peer = ? ORDER BY at DESC LIMIT 1 OFFSET ?)`,
    ).run(o.peer, o.peer, MOST_NOTED - 1);
  },

  /** What a peer brought under this name, or what it brought since then, the newest first. */
  openedObjects(
    tx: Transaction,
    o: { peer: string } & ({ name: string } | { since: number; limit: number }),
  ): OpenedObject[] {
    const rows =
      "name" in o
        ? tx.sql("SELECT * FROM opened_object WHERE peer = ? AND name = ?").all(o.peer, o.name)
        : tx
            .sql("SELECT * FROM opened_object WHERE peer = ? AND at >= ? ORDER BY at DESC LIMIT ?")
            .all(o.peer, o.since, o.limit);
    return rows.map((row) => ({
      name: text(row, "name"),
      size: integer(row, "size"),
      digest: text(row, "digest"),
      at: integer(row, "at"),
    }));
  },

  unfinishedTransfers(tx: Transaction): number[] {
    const rows = tx.sql("SELECT id FROM transfer WHERE item IS NULL").all();
    return rows.map((row) => integer(row, "id"));
  },

  dropTransfers(tx: Transaction, ids: readonly number[]): void {
    for (const id of ids) tx.sql("DELETE FROM transfer WHERE id = ? AND item IS NULL").run(id);
  },

  /** Gives up what did not go on, and forgets what was finished long ago. @returns those given up */
  lapseTransfers(tx: Transaction, o: { unfinishedBefore: number; finishedBefore: number }): number[] {
    const lapsed = tx.sql("SELECT id FROM transfer WHERE item IS NULL AND at < ?").all(o.unfinishedBefore);
    const ids = lapsed.map((row) => integer(row, "id"));
    transferCalls.dropTransfers(tx, ids);
    tx.sql("DELETE FROM transfer WHERE item IS NOT NULL AND at < ?").run(o.finishedBefore);
    tx.sql("DELETE FROM opened_object WHERE at < ?").run(o.finishedBefore);
    return ids;
  },
};

/** The parts are to be sent again. */
export function partsMissing(): SuiteError {
  return new SuiteError("conflict", "parts of the file are missing", { fault: "peer", temporary: true });
}

function begin(tx: Transaction, o: NewPart): number {
  const { transfer, of, total } = o.place;
  const open = tx
    .sql("SELECT count(*) AS n, coalesce(sum(total), 0) AS bytes FROM transfer WHERE peer = ? AND item IS NULL")
    .get(o.peer);
  if (open !== undefined && integer(open, "n") >= MOST_UNFINISHED) throw quotaExceeded(o.peer, "items");
  if (open !== undefined && integer(open, "bytes") + total > o.quota.fileBytes)
    throw quotaExceeded(o.peer, "file-bytes");
  charge(tx, { kind: "file", sender: o.peer, at: o.at, quota: o.quota }, total, 0);
  const { lastInsertRowid } = tx
    .sql("INSERT INTO transfer (peer, transfer, signer, parts, part_size, total, at) VALUES (?, ?, ?, ?, ?, ?, ?)")
    .run(o.peer, transfer, o.signer, of, o.partSize, total, o.at);
  return Number(lastInsertRowid);
}

function transferRow(tx: Transaction, row: Record<string, unknown>): TransferRow {
  const id = integer(row, "id");
  const [transfer, signer] = [text(row, "transfer"), text(row, "signer") as Fingerprint];
  const [of, total, partSize] = [integer(row, "parts"), integer(row, "total"), integer(row, "part_size")];
  const parts = tx.sql("SELECT part, size, digest FROM transfer_part WHERE id = ? ORDER BY part").all(id);
  return {
    id,
    signer,
    total,
    item: optionalText(row, "item") as ItemId | undefined,
    parts: parts.map((found) => {
      const part = integer(found, "part");
      const place = { transfer, part, of, offset: part * partSize, total };
      return { place, size: integer(found, "size"), digest: text(found, "digest"), signer };
    }),
  };
}
