import type { DatabaseSync } from "node:sqlite";

/**
 * One entry per step of `PRAGMA user_version`. An entry is never changed after a release, only followed by another.
 * Times are milliseconds since 1970. Digests are 64 lower hex digits.
 */
const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE content (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    bytes BLOB                            -- NULL: a file of the content directory
  ) STRICT;

  CREATE TABLE item (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of commits: a reader that knows one misses none after it
    id TEXT NOT NULL UNIQUE,
    box TEXT NOT NULL CHECK (box IN ('inbox', 'sent')),
    kind TEXT NOT NULL CHECK (kind IN ('message', 'mail', 'file')),
    sender TEXT NOT NULL,
    recipients TEXT NOT NULL,             -- JSON array of identities
    message_id TEXT NOT NULL,
    title TEXT NOT NULL,
    file_name TEXT,
    at INTEGER NOT NULL,
    seen_at INTEGER,
    content TEXT NOT NULL REFERENCES content (digest),
    head TEXT NOT NULL DEFAULT '',        -- inbox: header lines shown before the content; sent: what stands outside the seal
    seal TEXT NOT NULL CHECK (seal IN ('node', 'none')),
    expires_at INTEGER,                   -- sent only
    original TEXT REFERENCES content (digest),
    original_head TEXT,
    original_encoding TEXT,
    peer_fingerprint TEXT,
    signer_fingerprint TEXT,
    signed_at INTEGER,
    signed_digest TEXT,
    cipher TEXT,
    repeats_id INTEGER NOT NULL DEFAULT 0 -- the sender used this message id before, for other content
  ) STRICT;
  CREATE INDEX item_by_box ON item (box, kind, seq);
  CREATE INDEX item_by_message_id ON item (sender, message_id);
  CREATE INDEX item_by_content ON item (content);
  CREATE INDEX item_by_original ON item (original) WHERE original IS NOT NULL;

  CREATE TABLE receipt (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    item TEXT NOT NULL REFERENCES item (id),
    peer TEXT NOT NULL,
    kind TEXT NOT NULL,
    lane TEXT NOT NULL CHECK (lane IN ('talk', 'bulk')),
    size INTEGER NOT NULL,
    conversation TEXT,                    -- messages of one sender to one recipient keep their order
    state TEXT NOT NULL CHECK (state IN ('queued', 'held', 'delivered', 'failed')),
    reason TEXT,
    detail TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    at INTEGER NOT NULL,                  -- when the state last changed
    UNIQUE (item, peer)
  ) STRICT;
  CREATE INDEX receipt_queued ON receipt (peer, lane, row) WHERE state = 'queued';
  CREATE INDEX receipt_held ON receipt (peer, row) WHERE state = 'held';
  CREATE INDEX receipt_expiry ON receipt (expires_at) WHERE state IN ('queued', 'held');
  CREATE INDEX receipt_conversation ON receipt (conversation, row) WHERE state = 'queued' AND conversation IS NOT NULL;

  CREATE TABLE seen (
    key BLOB PRIMARY KEY,
    item TEXT NOT NULL,
    at INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX seen_by_time ON seen (at);

  CREATE TABLE usage (
    peer TEXT NOT NULL,
    day INTEGER NOT NULL,                 -- days since 1970, UTC
    items INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,     -- of messages and mail
    file_bytes INTEGER NOT NULL DEFAULT 0,
    unreadable INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (peer, day)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    type TEXT NOT NULL,
    json TEXT NOT NULL
  ) STRICT;

  CREATE TABLE mark (
    name TEXT PRIMARY KEY,
    seq INTEGER NOT NULL                  -- of the last item that this reader has had
  ) STRICT, WITHOUT ROWID;
  `,
  `
  CREATE TABLE sending (                  -- receipts whose file goes in parts
    row INTEGER PRIMARY KEY REFERENCES receipt (row),
    certificate TEXT NOT NULL,            -- SHA-256 of the one that it is sealed to
    transfer TEXT NOT NULL,
    part_bytes INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE sending_part (             -- parts that were sealed
    row INTEGER NOT NULL REFERENCES sending (row) ON DELETE CASCADE,
    part INTEGER NOT NULL,
    digest TEXT NOT NULL,                 -- that was signed
    acknowledged INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (row, part)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE transfer (                 -- files that come in parts
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- names the file that they are put together in
    peer TEXT NOT NULL,
    transfer TEXT NOT NULL,
    signer TEXT NOT NULL,                 -- fingerprint
    parts INTEGER NOT NULL,
    part_size INTEGER NOT NULL,
    total INTEGER NOT NULL,
    at INTEGER NOT NULL,                  -- when something last came of it
    item TEXT,                            -- what it has become
    UNIQUE (peer, transfer)
  ) STRICT;

  CREATE TABLE transfer_part (            -- parts that are durable in that file
    id INTEGER NOT NULL REFERENCES transfer (id) ON DELETE CASCADE,
    part INTEGER NOT NULL,
    size INTEGER NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (id, part)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE opened_object (            -- sealed files that were opened, by the names under which they came
    peer TEXT NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    digest TEXT NOT NULL,                 -- that was signed
    at INTEGER NOT NULL,
    PRIMARY KEY (peer, name)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX opened_object_by_time ON opened_object (peer, at);

  -- Of a part that is not there any more nobody is told that it was opened, or it would never be sent again.
  CREATE TRIGGER part_gone AFTER DELETE ON transfer_part BEGIN
    DELETE FROM opened_object WHERE (peer, name) IN
      (SELECT peer, transfer || printf('.%04d.p7m', old.part) FROM transfer WHERE id = old.id);
  END;
  CREATE TRIGGER transfer_gone AFTER DELETE ON transfer BEGIN
    DELETE FROM opened_object WHERE peer = old.peer AND name >= old.transfer || '.' AND name < old.transfer || '/';
  END;
  `,
];

export const SCHEMA_VERSION = MIGRATIONS.length;

/** Brings a database to this program's schema, one transaction a step. Throws for one that a newer program has written. */
export function migrate(database: DatabaseSync): void {
  const row = database.prepare("PRAGMA user_version").get();
  const version = Number(row?.["user_version"]);
  if (version > SCHEMA_VERSION) throw new Error(`database schema ${version} is newer than this program`);
  for (let step = version; step < SCHEMA_VERSION; step += 1) {
    database.exec("BEGIN IMMEDIATE");
    database.exec(MIGRATIONS[step] ?? "");
    database.exec(`PRAGMA user_version = ${step + 1}`);
    database.exec("COMMIT");
  }
}
