import { SuiteError } from "../pki/suite-error.ts";
import type { ItemId, Kind } from "./envelope.ts";
import { insertContent, itemId, type WrittenContent } from "./item-calls.ts";
import { integer, type Transaction, text } from "./transaction.ts";

/** What one peer may bring in a day. */
export interface PeerQuota {
  items: number;
  /** Of messages and mail. */
  bytes: number;
  fileBytes: number;
}

export interface PeerUsage {
  items: number;
  bytes: number;
  fileBytes: number;
  unreadable: number;
  /** Of `fileBytes`: counted in advance for the parts that are still to come. */
  expected: number;
}

/** A received thing, opened and verified, its files durable. */
export interface ArrivedItem {
  /** SHA-256 over signer, message id and signed digest. */
  key: Uint8Array;
  entropy: Uint8Array;
  at: number;
  quota: PeerQuota;
  kind: Kind;
  sender: string;
  recipients: readonly string[];
  messageId: string;
  title: string;
  fileName: string | undefined;
  content: WrittenContent;
  head: string;
  original: (WrittenContent & { head: string; encoding: "base64" | "binary" }) | undefined;
  peerFingerprint: string;
  seal: { signer: string; signedAt: number | undefined; digest: string; cipher: string } | undefined;
}

const DAY = 86_400_000;
/** How long a key is remembered: longer than the longest expiry of a sender's outbox (30 days). */
const SEEN_DAYS = 35;
const NO_USAGE: PeerUsage = { items: 0, bytes: 0, fileBytes: 0, unreadable: 0, expected: 0 };
/** Refused seals of a peer that are told in a day; the rest is counted only. */
const TOLD_REFUSALS = 50;

/** Calls of the database worker about what arrives. */
export const inboxCalls = {
  usage(tx: Transaction, o: { peer: string; at: number }): PeerUsage {
    const row = tx
      .sql("SELECT items, bytes, file_bytes, unreadable FROM usage WHERE peer = ? AND day = ?")
      .get(o.peer, dayOf(o.at));
    const expected = bytesToCome(tx, o.peer);
    if (row === undefined) return { ...NO_USAGE, expected };
    return {
      expected,
      items: integer(row, "items"),
      bytes: integer(row, "bytes"),
      fileBytes: integer(row, "file_bytes"),
      unreadable: integer(row, "unreadable"),
    };
  },

  seen(tx: Transaction, key: Uint8Array): ItemId | undefined {
    const row = tx.sql("SELECT item FROM seen WHERE key = ?").get(key);
    return row === undefined ? undefined : (text(row, "item") as ItemId);
  },

  /** Stores what arrived, unless the same was stored before: then the first one's id. Throws `quota-exceeded`. */
  storeArrived(tx: Transaction, o: ArrivedItem): { id: ItemId; duplicate: boolean } {
    const earlier = inboxCalls.seen(tx, o.key);
    if (earlier !== undefined) return { id: earlier, duplicate: true };
    charge(tx, o, o.content.size + (o.original?.size ?? 0));
    return { id: insertArrived(tx, o), duplicate: false };
  },

  /** Counts a seal that was refused; `unreadable` if a private key was used to find that out. */
  noteSealRefused(
    tx: Transaction,
    o: { at: number; peer: string; fingerprint: string; kind: Kind; code: string; unreadable: boolean },
  ): void {
    const day = dayOf(o.at);
    const column = o.unreadable ? "unreadable" : "refused";
    tx.sql(
      `INSERT INTO usage (peer, day, ${column}) VALUES (?, ?, 1) ON CONFLICT (peer, day) DO UPDATE SET ${column} = ${column} + 1`,
    ).run(o.peer, day);
    const row = tx.sql("SELECT unreadable + refused AS n FROM usage WHERE peer = ? AND day = ?").get(o.peer, day);
    if (row !== undefined && integer(row, "n") <= TOLD_REFUSALS) {
      tx.append(o.at, { type: "seal.refused", peer: o.peer, fingerprint: o.fingerprint, kind: o.kind, code: o.code });
    }
  },

  /** Tells the owner once a day that a peer's quota is used up. */
  noteQuotaReached(tx: Transaction, o: { at: number; peer: string; what: "items" | "bytes" | "file-bytes" }): void {
    const day = dayOf(o.at);
    const first = tx
      .sql(
        "INSERT INTO usage (peer, day, told) VALUES (?, ?, 1) ON CONFLICT (peer, day) DO UPDATE SET told = 1 WHERE told = 0",
      )
      .run(o.peer, day);
    if (first.changes !== 0) tx.append(o.at, { type: "quota.reached", peer: o.peer, what: o.what });
  },

  /** Drops what no longer serves: keys of things too old to come again, accounts of days gone by. */
  forgetOld(tx: Transaction, at: number): void {
    tx.sql("DELETE FROM seen WHERE at < ?").run(at - SEEN_DAYS * DAY);
    tx.sql("DELETE FROM usage WHERE day < ?").run(dayOf(at) - 1);
  },
};

/** What a peer may still bring in a day ends a transfer with this; the sender's outbox tries again. */
export function quotaExceeded(peer: string, what: "items" | "bytes" | "file-bytes"): SuiteError {
  return new SuiteError("quota-exceeded", "the peer's quota for today is used up", {
    fault: "peer",
    temporary: true,
    details: { peer, what },
  });
}

/** The item, its content, the key by which it is known again, and the event. */
export function insertArrived(tx: Transaction, o: ArrivedItem): ItemId {
  const id = itemId(o.at, o.entropy);
  insertContent(tx, o.content);
  if (o.original !== undefined) insertContent(tx, o.original);
  const repeatsId = tx
    .sql("SELECT 1 FROM item WHERE box = 'inbox' AND sender = ? AND message_id = ?")
    .get(o.sender, o.messageId);
  tx.sql(
    `INSERT INTO item (id, box, kind, sender, recipients, message_id, title, file_name, at, content, head, seal, original,
       original_head, original_encoding, peer_fingerprint, signer_fingerprint, signed_at, signed_digest, cipher, repeats_id)
     VALUES (?, 'inbox', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  ).run(
    id,
    o.kind,
    o.sender,
    JSON.stringify(o.recipients),
    o.messageId,
    o.title,
    o.fileName ?? null,
    o.at,
    o.content.digest,
    o.head,
    o.seal === undefined ? "none" : "node",
    o.original?.digest ?? null,
    o.original?.head ?? null,
    o.original?.encoding ?? null,
    o.peerFingerprint,
    o.seal?.signer ?? null,
    o.seal?.signedAt ?? null,
    o.seal?.digest ?? null,
    o.seal?.cipher ?? null,
    repeatsId === undefined ? 0 : 1,
  );
  tx.sql("INSERT INTO seen (key, item, at) VALUES (?, ?, ?)").run(o.key, id, o.at);
  tx.append(o.at, {
    type: "item.received",
    item: id,
    kind: o.kind,
    from: o.sender,
    title: o.title,
    size: Buffer.byteLength(o.head) + o.content.size,
    sealed: o.seal !== undefined,
  });
  return id;
}

/** Counts an item and its bytes. @throws SuiteError quota-exceeded */
export function charge(
  tx: Transaction,
  o: { kind: Kind; sender: string; at: number; quota: PeerQuota },
  size: number,
  items = 1,
): void {
  const used = inboxCalls.usage(tx, { peer: o.sender, at: o.at });
  const isFile = o.kind === "file";
  if (used.items + items > o.quota.items) throw quotaExceeded(o.sender, "items");
  if (isFile && used.fileBytes + size > o.quota.fileBytes) throw quotaExceeded(o.sender, "file-bytes");
  if (!isFile && used.bytes + size > o.quota.bytes) throw quotaExceeded(o.sender, "bytes");
  tx.sql(
    `INSERT INTO usage (peer, day, items, bytes, file_bytes) VALUES (?, ?, ?, ?, ?) ON CONFLICT (peer, day) DO UPDATE
       SET items = items + excluded.items, bytes = bytes + excluded.bytes, file_bytes = file_bytes + excluded.file_bytes`,
  ).run(o.sender, dayOf(o.at), items, isFile ? 0 : size, isFile ? size : 0);
}

/** What is still to come of transfers that were begun: their whole size was counted then. */
function bytesToCome(tx: Transaction, peer: string): number {
  const row = tx
    .sql(
      `SELECT coalesce(sum(total), 0) - coalesce((SELECT sum(p.size) FROM transfer_part p JOIN transfer u ON u.id = p.id
         WHERE u.peer = ? AND u.item IS NULL), 0) AS bytes FROM transfer WHERE peer = ? AND item IS NULL`,
    )
    .get(peer, peer);
  return row === undefined ? 0 : integer(row, "bytes");
}

function dayOf(at: number): number {
  return Math.floor(at / DAY);
}
