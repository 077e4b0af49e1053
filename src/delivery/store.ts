import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import type { Fingerprint } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type ContentStore, openContent } from "./content.ts";
import type { Cut } from "./cut-point.ts";
import { type Database, openDatabase } from "./database.ts";
import type { ContentRef, ItemId, Kind } from "./envelope.ts";
import { type NodeEvent, nodeEventSchema } from "./event-types.ts";
import { type Events, openEvents } from "./events.ts";
import { type FreeSpace, freeSpace, MIN_FREE_BYTES } from "./free-space.ts";
import { type Health, makeHealth } from "./health.ts";
import type { ItemQuery, ItemRow } from "./item-calls.ts";
import type { Timekeeper } from "./time.ts";
import type { OpenedObject } from "./transfer-calls.ts";
import { openTransfers, type Transfers } from "./transfers.ts";

/** How a received thing was protected, beyond PeerTLS. */
export type Protection =
  | { sealed: false }
  | {
      sealed: true;
      signer: Fingerprint;
      signedAt?: Date /** The signed message digest, hex. */;
      digest: string;
      cipher: string;
    };

/** One thing in the owner's store: received (`inbox`) or accepted for sending (`sent`). */
export interface StoredItem {
  id: ItemId;
  /** Grows in the order in which things were stored: whoever remembers one misses none after it. */
  seq: number;
  box: "inbox" | "sent";
  kind: Kind;
  from: Identity;
  to: readonly Identity[];
  messageId: string;
  title: string;
  fileName?: string;
  at: Date;
  seenAt?: Date;
  /** Header lines that stand before `content` in what is shown; empty if the content is all. */
  head: string;
  /** What the seal held, or the unsealed thing; of sent items the entity as accepted. */
  content: ContentRef;
  /** Size of `openItem`'s bytes. */
  size: number;
  protection: Protection;
  /** The key of the peer that brought it. */
  peer?: Fingerprint;
  /** The sealed bytes (DER) and what stood before them, as they came. */
  original?: { content: ContentRef; head: string; encoding: "base64" | "binary" };
  /** The sender used this message id before, for other content. */
  repeatsId: boolean;
}

export interface ItemFilter {
  box?: "inbox" | "sent";
  kind?: Kind;
  /** The sender of received things, a recipient of sent ones. */
  peer?: Identity;
  unseen?: boolean;
  /** Only those stored before the one with this `seq`, for the next page. */
  beforeSeq?: number;
  /** Default 100, at most 1000. */
  limit?: number;
}

/** What the owner has received and sent, and what happened. */
export interface Store {
  readonly events: Events;
  readonly health: Health;
  /** Newest first. */
  items(filter?: ItemFilter): Promise<StoredItem[]>;
  /** Received things of a kind with a greater `seq`: the newest `limit` of them, oldest first. */
  receivedAfter(kind: Kind, seq: number | undefined, limit: number): Promise<StoredItem[]>;
  /** By id, or by its beginning if only one begins so. @throws SuiteError not-found, conflict (ambiguous) */
  item(id: string): Promise<StoredItem>;
  /** The item as the owner's programs see it: `head`, then `content`. */
  openItem(item: StoredItem, offset?: number): Readable;
  /** The sealed original as it came. @throws SuiteError not-found if it came unsealed */
  openOriginal(item: StoredItem): Readable;
  openContent(ref: ContentRef, offset?: number): Readable;
  /** For what is known to be small. */
  bytes(ref: ContentRef): Promise<Buffer>;
  markSeen(id: ItemId): Promise<void>;
  /** The named sealed objects of a peer that are durable here, also as parts: by name, or the newest since a time. */
  opened(peer: Identity, which: { name: string } | { since: Date; limit: number }): Promise<OpenedObject[]>;
  /** How far a reader is, by a name of its choice: the `seq` of the last item that it has had. */
  mark(name: string): Promise<number | undefined>;
  setMark(name: string, seq: number): Promise<void>;
  /** Calls `listener` for each thing received from now on, once it is durable; the answer ends it. */
  onReceived(kind: Kind, listener: (id: ItemId) => void): () => void;
  /** Adds an event of another part of the program; resolves with its number when it is durable. */
  appendEvent(event: NodeEvent): Promise<number>;
  close(): Promise<void>;
  /** A directory for what endpoints have not got whole yet: the inbox may take over files from there. */
  readonly unfinished: string;
  /** For the outbox and the inbox alone. */
  readonly inside: StoreInside;
}

export interface StoreInside {
  readonly directory: string;
  readonly health: Health;
  readonly database: Database;
  readonly content: ContentStore;
  readonly transfers: Transfers;
  readonly space: FreeSpace;
  readonly time: Timekeeper;
  readonly random: (length: number) => Buffer;
  readonly log: Log;
  readonly cut: Cut;
}

export interface StoreOptions {
  directory: string;
  time: Timekeeper;
  random: (length: number) => Buffer;
  log: Log;
  cut: Cut;
  minFreeBytes?: number;
}

/** Opens, or makes, `delivery.db` and `content/` in the directory. @throws SuiteError store-failed */
export async function openStore(o: StoreOptions): Promise<Store> {
  await mkdir(o.directory, { recursive: true, mode: 0o700 });
  const health = makeHealth();
  health.onFailure((failure) =>
    o.log.error({ error: failure }, "the store failed: nothing new is accepted until the next start"),
  );
  const database = await openDatabase(join(o.directory, "delivery.db"), health);
  const now = () => o.time.now().getTime();
  await database.call("forgetOld", now());
  const content = await openContent({
    directory: join(o.directory, "content"),
    database,
    health,
    random: o.random,
    now: o.time.now,
    cut: o.cut,
  });
  const events = await openEvents(database, o.log);
  const space = freeSpace({
    directory: o.directory,
    minFreeBytes: o.minFreeBytes ?? MIN_FREE_BYTES,
    time: o.time,
    log: o.log,
  });
  const unfinished = join(o.directory, "unfinished");
  await mkdir(unfinished, { recursive: true, mode: 0o700 });
  const transfers = await openTransfers({
    directory: join(o.directory, "transfer"),
    ...{ database, content, space, health, time: o.time },
  });
  return {
    events,
    health,
    unfinished,
    inside: {
      directory: o.directory,
      health,
      database,
      content,
      transfers,
      space,
      time: o.time,
      random: o.random,
      log: o.log,
      cut: o.cut,
    },
    async items(filter = {}) {
      const { limit = 100, ...rest } = filter;
      const query: ItemQuery = { ...rest, limit: Math.min(limit, 1_000) };
      return (await database.call("items", query)).map(storedItem);
    },
    async receivedAfter(kind, seq, limit) {
      const rows = await database.call("items", { box: "inbox", kind, afterSeq: seq ?? 0, limit });
      return rows.map(storedItem).reverse();
    },
    async item(id) {
      const [row, another] = await database.call("itemsByPrefix", id.toUpperCase());
      if (row === undefined) throw new SuiteError("not-found", "no such item", { fault: "local", details: { id } });
      if (another !== undefined)
        throw new SuiteError("conflict", "several items begin so", { fault: "local", details: { id } });
      return storedItem(row);
    },
    openItem(item, offset = 0) {
      const head = Buffer.from(item.head);
      if (offset >= head.length) return content.open(item.content, offset - head.length);
      return Readable.from(joinedBytes(head.subarray(offset), content.open(item.content)), { objectMode: false });
    },
    openOriginal(item) {
      if (item.original === undefined)
        throw new SuiteError("not-found", "this came unsealed", { fault: "local", details: { id: item.id } });
      const { head, content: ref, encoding } = item.original;
      const sealed = content.open(ref);
      const body = encoding === "base64" ? base64Lines(sealed) : sealed;
      return Readable.from(joinedBytes(Buffer.from(head), body), { objectMode: false });
    },
    openContent: (ref, offset) => content.open(ref, offset),
    bytes: (ref) => content.bytes(ref),
    markSeen: (id) => database.call("markSeen", { id, at: now() }),
    opened: (peer, which) =>
      database.call("openedObjects", {
        peer,
        ...("name" in which ? which : { since: which.since.getTime(), limit: which.limit }),
      }),
    mark: (name) => database.call("mark", name),
    setMark: (name, seq) => database.call("setMark", { name, seq }),
    onReceived: (kind, listener) =>
      events.onEvent(({ body }) => {
        if (body.type === "item.received" && body.kind === kind) listener(body.item as ItemId);
      }),
    appendEvent: async (event) => database.call("appendEvent", { at: now(), body: nodeEventSchema.parse(event) }),
    close() {
      transfers.close();
      return database.close();
    },
  };
}

async function* joinedBytes(head: Buffer, rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (head.length > 0) yield head;
  yield* rest;
}

/** Bytes of one line of 76 characters (RFC 2045 §6.8). */
const LINE_BYTES = 57;

async function* base64Lines(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let rest = Buffer.alloc(0);
  const encode = (bytes: Buffer) => Buffer.from(bytes.toString("base64").replace(/.{1,76}/g, "$&\r\n"));
  for await (const chunk of source) {
    const bytes = Buffer.concat([rest, chunk]);
    const whole = bytes.length - (bytes.length % LINE_BYTES);
    if (whole > 0) yield encode(bytes.subarray(0, whole));
    rest = bytes.subarray(whole);
  }
  if (rest.length > 0) yield encode(rest);
}

function storedItem(row: ItemRow): StoredItem {
  const { original } = row;
  return {
    id: row.id as ItemId,
    seq: row.seq,
    box: row.box,
    kind: row.kind,
    from: row.sender as Identity,
    to: JSON.parse(row.recipients) as Identity[],
    messageId: row.messageId,
    title: row.title,
    ...(row.fileName === undefined ? {} : { fileName: row.fileName }),
    at: new Date(row.at),
    ...(row.seenAt === undefined ? {} : { seenAt: new Date(row.seenAt) }),
    // What stands outside the seal of something sent is no part of what was sent.
    head: row.box === "inbox" ? row.head : "",
    content: row.content,
    size: (row.box === "inbox" ? Buffer.byteLength(row.head) : 0) + row.content.size,
    protection: protectionOf(row),
    ...(row.peerFingerprint === undefined ? {} : { peer: row.peerFingerprint as Fingerprint }),
    ...(original === undefined
      ? {}
      : {
          original: {
            content: { digest: original.digest, size: original.size },
            head: original.head,
            encoding: original.encoding,
          },
        }),
    repeatsId: row.repeatsId,
  };
}

function protectionOf(row: ItemRow): Protection {
  const { signerFingerprint, signedDigest, cipher, signedAt } = row;
  if (signerFingerprint === undefined || signedDigest === undefined || cipher === undefined) return { sealed: false };
  return {
    sealed: true,
    signer: signerFingerprint as Fingerprint,
    ...(signedAt === undefined ? {} : { signedAt: new Date(signedAt) }),
    digest: signedDigest,
    cipher,
  };
}
