import { SuiteError } from "../pki/suite-error.ts";
import type { ItemId, Kind } from "./envelope.ts";
import { integer, optionalInteger, optionalText, type Transaction, text } from "./transaction.ts";

/** Bytes that are durable already (a file) or become so with the transaction (`bytes`). */
export interface WrittenContent {
  digest: string;
  size: number;
  bytes?: Uint8Array;
}

/** A row of `item`, as it crosses the thread. */
export interface ItemRow {
  seq: number;
  id: string;
  box: "inbox" | "sent";
  kind: Kind;
  sender: string;
  recipients: string;
  messageId: string;
  title: string;
  fileName: string | undefined;
  at: number;
  seenAt: number | undefined;
  content: { digest: string; size: number };
  head: string;
  seal: "node" | "none";
  expiresAt: number | undefined;
  original: { digest: string; size: number; head: string; encoding: "base64" | "binary" } | undefined;
  peerFingerprint: string | undefined;
  signerFingerprint: string | undefined;
  signedAt: number | undefined;
  signedDigest: string | undefined;
  cipher: string | undefined;
  repeatsId: boolean;
}

export interface ItemQuery {
  box?: "inbox" | "sent";
  kind?: Kind;
  peer?: string;
  unseen?: boolean;
  /** Only items after this one, in the order of commits. */
  afterSeq?: number;
  /** Only items before this one. */
  beforeSeq?: number;
  limit: number;
}

const SELECT = `SELECT item.*, content.size AS content_size, o.size AS original_size
  FROM item JOIN content ON content.digest = item.content LEFT JOIN content o ON o.digest = item.original`;

/** Calls of the database worker about stored items and content. */
export const itemCalls = {
  /** The newest items that fit, newest first. */
  items(tx: Transaction, o: ItemQuery): ItemRow[] {
    const where = ["item.seq > ?", "item.seq < ?"];
    const values: (string | number)[] = [o.afterSeq ?? 0, o.beforeSeq ?? Number.MAX_SAFE_INTEGER];
    if (o.box !== undefined) where.push("box = ?") && values.push(o.box);
    if (o.kind !== undefined) where.push("kind = ?") && values.push(o.kind);
    if (o.unseen === true) where.push("seen_at IS NULL");
    if (o.peer !== undefined) {
      where.push(
        "((box = 'inbox' AND sender = ?) OR (box = 'sent' AND EXISTS (SELECT 1 FROM receipt r WHERE r.item = item.id AND r.peer = ?)))",
      );
      values.push(o.peer, o.peer);
    }
    const rows = tx
      .sql(`${SELECT} WHERE ${where.join(" AND ")} ORDER BY item.seq DESC LIMIT ?`)
      .all(...values, o.limit);
    return rows.map(itemRow);
  },

  /** At most two items whose id begins so: more than one is ambiguous. */
  itemsByPrefix(tx: Transaction, prefix: string): ItemRow[] {
    // The characters of an id end at Z, so "prefix ≤ id < prefix‖[" is exactly "begins with prefix".
    return tx.sql(`${SELECT} WHERE item.id >= ? AND item.id < ? LIMIT 2`).all(prefix, `${prefix}[`).map(itemRow);
  },

  contentBytes(tx: Transaction, digest: string): Uint8Array | undefined {
    const row = tx.sql("SELECT bytes FROM content WHERE digest = ?").get(digest);
    return row?.["bytes"] instanceof Uint8Array ? row["bytes"] : undefined;
  },

  /** Which of these digests nothing refers to. */
  unreferenced(tx: Transaction, digests: readonly string[]): string[] {
    const known = tx.sql("SELECT 1 FROM content WHERE digest = ?");
    return digests.filter((digest) => known.get(digest) === undefined);
  },

  markSeen(tx: Transaction, o: { id: string; at: number }): void {
    const change = tx.sql("UPDATE item SET seen_at = ? WHERE id = ? AND seen_at IS NULL").run(o.at, o.id);
    if (change.changes !== 0) tx.append(o.at, { type: "item.seen", item: o.id });
  },

  mark(tx: Transaction, name: string): number | undefined {
    const row = tx.sql("SELECT seq FROM mark WHERE name = ?").get(name);
    return row === undefined ? undefined : integer(row, "seq");
  },

  setMark(tx: Transaction, o: { name: string; seq: number }): void {
    tx.sql("INSERT INTO mark (name, seq) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = excluded.seq").run(
      o.name,
      o.seq,
    );
  },
};

/** Makes content known. The same bytes are kept once, whoever sent them. */
export function insertContent(tx: Transaction, content: WrittenContent): void {
  tx.sql("INSERT INTO content (digest, size, bytes) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING").run(
    content.digest,
    content.size,
    content.bytes ?? null,
  );
}

const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/**
 * A ULID: 48 bits of time, 80 of randomness, in Crockford's base 32.
 * @param entropy at least 16 random bytes
 */
export function itemId(at: number, entropy: Uint8Array): ItemId {
  if (entropy.length < 16) throw new SuiteError("internal", "too little randomness for an id", { fault: "local" });
  let id = "";
  for (let rest = at, digit = 0; digit < 10; digit += 1, rest = Math.floor(rest / 32))
    id = (CROCKFORD[rest % 32] ?? "") + id;
  for (let digit = 0; digit < 16; digit += 1) id += CROCKFORD[(entropy[digit] ?? 0) % 32] ?? "";
  return id as ItemId;
}

function itemRow(row: Record<string, unknown>): ItemRow {
  const original = optionalText(row, "original");
  return {
    seq: integer(row, "seq"),
    id: text(row, "id"),
    box: text(row, "box") as ItemRow["box"],
    kind: text(row, "kind") as Kind,
    sender: text(row, "sender"),
    recipients: text(row, "recipients"),
    messageId: text(row, "message_id"),
    title: text(row, "title"),
    fileName: optionalText(row, "file_name"),
    at: integer(row, "at"),
    seenAt: optionalInteger(row, "seen_at"),
    content: { digest: text(row, "content"), size: integer(row, "content_size") },
    head: text(row, "head"),
    seal: text(row, "seal") as ItemRow["seal"],
    expiresAt: optionalInteger(row, "expires_at"),
    original:
      original === undefined
        ? undefined
        : {
            digest: original,
            size: integer(row, "original_size"),
            head: text(row, "original_head"),
            encoding: text(row, "original_encoding") as "base64" | "binary",
          },
    peerFingerprint: optionalText(row, "peer_fingerprint"),
    signerFingerprint: optionalText(row, "signer_fingerprint"),
    signedAt: optionalInteger(row, "signed_at"),
    signedDigest: optionalText(row, "signed_digest"),
    cipher: optionalText(row, "cipher"),
    repeatsId: integer(row, "repeats_id") !== 0,
  };
}
