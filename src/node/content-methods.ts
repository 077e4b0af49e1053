import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { basename, isAbsolute } from "node:path";
import { z } from "zod";
import type { ItemId, Receipt } from "../delivery/envelope.ts";
import type { StoredItem } from "../delivery/store.ts";
import { type Identity, parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { storedText } from "../sip/instant.ts";
import { type Method, method } from "./control.ts";
import type { PeerNode } from "./node.ts";
import { pause } from "./pause.ts";
import { readableMail } from "./readable.ts";

const person = z.string().max(254);
const id = z.string().min(1).max(26);
/** How long an answer waits for news of the first attempt. */
const waitSeconds = z.number().min(0).max(60).default(10);
const PROGRESS_MS = 250;
/** Most of a mail that is shown as text; `read.bytes` has the rest. */
const MAX_SHOWN = 1_048_576;

/** Sending, and reading what came. */
export function contentMethods(node: PeerNode): Readonly<Record<string, Method>> {
  const { store, outbox } = node;

  /** Writing to a person lets him answer: he becomes a contact. */
  const recipients = async (to: readonly string[]): Promise<Identity[]> => {
    const identities = to.map((one) => parseIdentity(one));
    for (const identity of identities) if (identity !== node.identity) await node.addContact(identity, identity);
    return identities;
  };

  const outcome = async (item: ItemId, seconds: number, signal: AbortSignal) => {
    if (seconds > 0) await firstNews(node, item, AbortSignal.any([signal, AbortSignal.timeout(seconds * 1000)]));
    return { item, receipts: await outbox.receipts({ item }) };
  };

  return {
    send: method(
      z.strictObject({ to: person, text: z.string().min(1).max(32_768), waitSeconds }),
      async ({ to, text, waitSeconds }, _emit, signal) =>
        outcome(await node.sip.send(await recipients([to]), text), waitSeconds, signal),
    ),
    mail: method(
      z.strictObject({
        to: z.array(person).min(1).max(100),
        subject: z.string().max(900),
        text: z.string().max(900_000),
        waitSeconds,
      }),
      async ({ to, subject, text, waitSeconds }, _emit, signal) =>
        outcome(await node.smtp.send({ to: await recipients(to), subject, text }), waitSeconds, signal),
    ),
    /** Emits `{sentBytes, totalBytes}`; without `watch` it answers when the file is durable here. */
    file: method(
      z.strictObject({ to: person, path: z.string().min(1), watch: z.boolean().default(true) }),
      async ({ to, path, watch }, emit, signal) => {
        const facts = await regularFile(path);
        const item = await node.ftps.send({
          to: await recipients([to]),
          name: basename(path),
          size: facts.size,
          modified: facts.mtime,
          source: bytesOf(path, signal),
        });
        if (watch) await watched(node, item, emit, signal);
        return { item, receipts: await outbox.receipts({ item }) };
      },
    ),
    inbox: method(z.strictObject({ limit: z.number().int().min(1).max(1_000).default(50) }), async ({ limit }) => {
      const items = await store.items({ box: "inbox", limit });
      return items.map(({ id, kind, from, title, at, size, seenAt, protection }) => ({
        id,
        kind,
        from,
        title,
        at,
        size,
        sealed: protection.sealed,
        seen: seenAt !== undefined,
      }));
    }),
    read: method(z.strictObject({ id }), async ({ id }) => {
      const item = await store.item(id);
      const { kind, from, at, size, fileName } = item;
      const shown = await shownText(node, item);
      await store.markSeen(item.id);
      return { id: item.id, kind, from, at, size, protection: protectionOf(item), fileName, ...shown };
    }),
    /** Emits `{data}`, base64, in order. */
    "read.bytes": method(
      z.strictObject({ id, form: z.enum(["raw", "sealed"]) }),
      async ({ id, form }, emit, signal) => {
        const item = await store.item(id);
        const bytes = form === "sealed" ? store.openOriginal(item) : store.openItem(item);
        for await (const chunk of bytes) {
          signal.throwIfAborted();
          await emit({ data: (chunk as Buffer).toString("base64") });
        }
        if (form === "raw") await store.markSeen(item.id);
        return { size: item.size };
      },
    ),
    queue: method(z.strictObject({}), async () => outbox.receipts({ open: true })),
    "queue.act": method(
      z.strictObject({ id, action: z.enum(["retry", "cancel", "hold", "release"]) }),
      async ({ id, action }) => outbox[action]((await store.item(id)).id),
    ),
  };
}

/** Resolves when something is known of the item's first attempt, or `signal` aborts. */
async function firstNews({ store, outbox }: PeerNode, item: ItemId, signal: AbortSignal): Promise<void> {
  const told = Promise.withResolvers<void>();
  const known = async () => {
    const receipts = await outbox.receipts({ item });
    if (
      receipts.every(
        ({ status }) => status.state !== "sending" && (status.state !== "queued" || status.why !== undefined),
      )
    )
      told.resolve();
  };
  const off = store.events.onEvent(({ body }) => {
    if (body.type === "receipt.changed" && body.item === item) known().catch(told.reject);
  });
  const end = () => told.resolve();
  signal.addEventListener("abort", end, { once: true });
  try {
    await known();
    await told.promise;
  } finally {
    off();
    signal.removeEventListener("abort", end);
  }
}

/** Tells how far the item is, a few times a second, until it has arrived, failed or waits for something. */
async function watched(
  node: PeerNode,
  item: ItemId,
  emit: (event: unknown) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const settled = firstNews(node, item, signal).then(() => true);
  settled.catch(() => undefined); // told below
  while (!(await Promise.race([settled, pause(PROGRESS_MS, signal).then(() => false)]))) {
    const [receipt] = await node.outbox.receipts({ item });
    if (receipt !== undefined) await emit(progressOf(receipt));
    if (signal.aborted) return;
  }
}

function progressOf({ status }: Receipt): { sentBytes: number; totalBytes: number } {
  return status.state === "sending"
    ? { sentBytes: status.sentBytes, totalBytes: status.totalBytes }
    : { sentBytes: 0, totalBytes: 0 };
}

async function regularFile(path: string) {
  if (!isAbsolute(path))
    throw new SuiteError("syntax", "the path is not absolute", { fault: "local", details: { path } });
  let facts: Awaited<ReturnType<typeof stat>>;
  try {
    facts = await stat(path);
  } catch (cause) {
    throw new SuiteError("not-found", "there is no such file", { fault: "local", cause, details: { path } });
  }
  if (!facts.isFile()) throw new SuiteError("syntax", "this is not a file", { fault: "local", details: { path } });
  return facts;
}

/** @throws SuiteError forbidden when the file cannot be read */
async function* bytesOf(path: string, signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* createReadStream(path, { highWaterMark: 1_048_576, signal }) as AsyncIterable<Buffer>;
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new SuiteError("forbidden", "the file cannot be read", { fault: "local", cause, details: { path } });
  }
}

async function shownText(
  { store }: PeerNode,
  item: StoredItem,
): Promise<{ text?: string; subject?: string; to?: string }> {
  if (item.kind === "message") return { text: storedText(await store.bytes(item.content)) };
  if (item.kind === "file") return {};
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const chunk of store.openItem(item)) {
    pieces.push(chunk as Buffer);
    size += (chunk as Buffer).length;
    if (size >= MAX_SHOWN) break;
  }
  const { subject, to, text } = readableMail(Buffer.concat(pieces));
  const cut = size < item.size ? "\n\n[cut here: read --raw has all of it]" : "";
  return { subject, to, text: text + cut };
}

function protectionOf({ protection, from }: StoredItem): string {
  return protection.sealed
    ? `sealed, signed by ${from} (sha256:${protection.signer}), ${protection.cipher}`
    : "none: protected on the way alone";
}
