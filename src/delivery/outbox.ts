import { join } from "node:path";
import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Directory } from "../sixid/directory.ts";
import { Dispatcher } from "./dispatch.ts";
import type { Endpoint } from "./endpoint.ts";
import type { FailedReason, HeldReason, ItemId, Kind, QueuedReason, Receipt, ReceiptState } from "./envelope.ts";
import { laneOf } from "./lanes.ts";
import { PART_SIZES, type PartSizes } from "./objects.ts";
import type { OwnerAction, ReceiptRow, RowTarget } from "./outbox-calls.ts";
import { ROWS_A_CALL } from "./outbox-calls.ts";
import { delayAfter, expiryOf, SCHEDULE } from "./schedule.ts";
import { openSealedCopies } from "./sealed-copies.ts";
import type { Sealer } from "./seals.ts";
import type { Store } from "./store.ts";

/** Something that the owner wants to send. */
export interface Draft {
  kind: Kind;
  from: Identity;
  /** Whom it is for; one named twice gets it once. */
  to: readonly Identity[];
  /** Without angle brackets. */
  messageId: string;
  /** The MIME entity that gets signed; of an unsealed message the message itself. */
  entity: Buffer | AsyncIterable<Uint8Array>;
  /** What stands outside the seal: a mail's outer header fields. */
  outerHeader?: string;
  seal: "node" | "none";
  title: string;
  fileName?: string;
  /** Given up after this; default 5 days, at least a minute, at most 30 days. */
  lifetimeSeconds?: number;
}

/** The one queue under messages, mail and files: at least once on the wire, with a state per recipient. */
export interface Outbox {
  /** Resolves when content and rows are durable. @throws SuiteError store-failed (temporary), syntax (nobody to send to) */
  accept(draft: Draft): Promise<ItemId>;
  /** In the order accepted; the newest 1000 unless `item` is given. `open`: only what is not final. */
  receipts(o?: { item?: ItemId; open?: boolean }): Promise<Receipt[]>;
  /** Resolves when every receipt of the item is final or held, or `signal` aborts: `open`. */
  settled(item: ItemId, signal: AbortSignal): Promise<"delivered" | "held" | "failed" | "open">;
  /** Queued or held rows are tried now. @throws SuiteError not-found; as the three below */
  retry(item: ItemId, to?: Identity): Promise<void>;
  /** Gives up; a yes that the peer said meanwhile wins. */
  cancel(item: ItemId, to?: Identity): Promise<void>;
  hold(item: ItemId, to?: Identity): Promise<void>;
  /** Queues again what is held: of an item, or all that is for a person. */
  release(of: Identity | ItemId): Promise<void>;
  /** The peer connected to us, or the directory has news of it. */
  wake(peer: Identity): void;
  /** The peer's devices have left addresses: what is under way there, and has sent nothing yet, begins anew. */
  moved(peer: Identity): void;
  /** The directory answers again. */
  directoryBack(): void;
  start(): void;
  /** No new attempts; resolves when those under way have ended. */
  stop(): Promise<void>;
}

export interface OutboxOptions {
  store: Store;
  directory: Directory;
  seal: Sealer;
  endpointOf: (kind: Kind) => Pick<Endpoint, "deliver">;
  /** Seconds before attempt 1, 2, 3 …; the last one repeats. */
  schedule?: readonly number[];
  /** Lifetime of what names none. */
  lifetimeSeconds?: number;
  /** Which files go in parts; above 1 GiB, of 512 MiB. */
  parts?: PartSizes;
}

export async function makeOutbox(o: OutboxOptions): Promise<Outbox> {
  const { inside, events } = o.store;
  const { database, time, random, log } = inside;
  const schedule = o.schedule ?? SCHEDULE;
  const copies = await openSealedCopies({
    directory: join(inside.directory, "attempt"),
    database,
    random,
  });
  const dispatcher = new Dispatcher({
    inside,
    directory: o.directory,
    seal: o.seal,
    copies,
    parts: o.parts ?? PART_SIZES,
    endpointOf: o.endpointOf,
    schedule,
  });
  let starting: Promise<void> = Promise.resolve();

  const receipts: Outbox["receipts"] = async (filter = {}) => {
    const rows = await database.call("receipts", {
      ...filter,
      limit: filter.item === undefined ? 1_000 : Number.MAX_SAFE_INTEGER,
    });
    return rows.map((row) => receiptOf(row, dispatcher));
  };

  /** Does it to all rows meant, a thousand a transaction, and ends the attempts that it contradicts. */
  const act = async (action: OwnerAction, target: RowTarget): Promise<void> => {
    const changed: number[] = [];
    let peers: readonly string[] = [];
    for (;;) {
      const done = await database.call("ownerAction", { target, action, at: time.now().getTime() });
      peers = peers.length === 0 ? done.peers : peers;
      changed.push(...done.rows);
      // What is retried stays among those that can be: one call is all.
      if (done.rows.length < ROWS_A_CALL || action === "retry") break;
    }
    if (peers.length === 0 && "item" in target) {
      throw new SuiteError("not-found", "nothing of that name was sent", { fault: "local", details: { ...target } });
    }
    if (action === "cancel" || action === "hold") {
      await dispatcher.interrupt(changed);
      if (action === "cancel") for (const row of changed) await copies.discard(row);
    }
    if (action === "retry" || action === "release") dispatcher.tryNow(peers as readonly Identity[]);
    else dispatcher.refresh(peers as readonly Identity[]);
  };

  return {
    async accept(draft) {
      const to = [...new Set(draft.to)];
      if (to.length === 0) throw new SuiteError("syntax", "there is nobody to send this to", { fault: "local" });
      inside.health.check();
      await inside.space.check(Buffer.isBuffer(draft.entity) ? draft.entity.length : 0);
      const writer = inside.content.writer();
      try {
        if (Buffer.isBuffer(draft.entity)) await writer.write(draft.entity);
        else
          for await (const chunk of draft.entity) {
            await inside.space.check(chunk.length);
            await writer.write(chunk);
          }
      } catch (error) {
        await writer.abort();
        throw error;
      }
      const content = await writer.finish();
      inside.cut("outbox.content-synced");
      const accepted = time.now();
      const expiresAt = expiryOf(accepted, draft.lifetimeSeconds ?? o.lifetimeSeconds).getTime();
      const lane = laneOf(draft.kind, content.size);
      const id = await database.call("acceptItem", {
        entropy: random(16),
        at: accepted.getTime(),
        kind: draft.kind,
        from: draft.from,
        messageId: draft.messageId,
        title: draft.title,
        fileName: draft.fileName,
        content,
        outerHeader: draft.outerHeader ?? "",
        seal: draft.seal,
        expiresAt,
        firstAttempt: accepted.getTime() + delayAfter(0, 0.5, schedule),
        rows: to.map((one) => ({ to: one, lane })),
      });
      inside.cut("outbox.accepted");
      dispatcher.refresh(to, expiresAt);
      return id;
    },
    receipts,
    async settled(item, signal) {
      const done = Promise.withResolvers<void>();
      let check = Promise.resolve();
      let result: "delivered" | "held" | "failed" | "open" = "open";
      const look = () => {
        check = check.then(async () => {
          result = settlement(await receipts({ item }));
          if (result !== "open") done.resolve();
        });
        check.catch(done.reject);
      };
      const off = events.onEvent(({ body }) => {
        if (body.type === "receipt.changed" && body.item === item) look();
      });
      const abort = () => done.resolve();
      signal.addEventListener("abort", abort, { once: true });
      try {
        look();
        if (signal.aborted) abort();
        await done.promise;
        return result;
      } finally {
        off();
        signal.removeEventListener("abort", abort);
      }
    },
    retry: (item, to) => act("retry", targetOf(item, to)),
    cancel: (item, to) => act("cancel", targetOf(item, to)),
    hold: (item, to) => act("hold", targetOf(item, to)),
    release: (of) => act("release", of.includes("@") ? { peer: of } : { item: of }),
    wake: (peer) => dispatcher.wake(peer),
    moved: (peer) => dispatcher.moved(peer),
    directoryBack: () => dispatcher.directoryBack(),
    start() {
      starting = dispatcher.start();
      starting.catch((error: unknown) => log.error({ error }, "the outbox cannot start"));
    },
    async stop() {
      await starting.catch(() => undefined);
      await dispatcher.stop();
    },
  };
}

function targetOf(item: ItemId, to: Identity | undefined): RowTarget {
  return to === undefined ? { item } : { item, to };
}

function settlement(receipts: readonly Receipt[]): "delivered" | "held" | "failed" | "open" {
  const states = receipts.map((receipt) => receipt.status.state);
  if (states.some((state) => state === "queued" || state === "sending")) return "open";
  if (states.includes("held")) return "held";
  return states.includes("failed") ? "failed" : "delivered";
}

function receiptOf(row: ReceiptRow, dispatcher: Dispatcher): Receipt {
  return {
    item: row.item as ItemId,
    to: row.peer as Identity,
    attempts: row.attempts,
    status: stateOf(row, dispatcher),
  };
}

function stateOf(row: ReceiptRow, dispatcher: Dispatcher): ReceiptState {
  switch (row.state) {
    case "delivered":
      return { state: "delivered", at: new Date(row.at) };
    case "failed":
      return { state: "failed", reason: row.reason as FailedReason, detail: row.detail };
    case "held":
      return { state: "held", reason: row.reason as HeldReason };
    case "queued": {
      const running = dispatcher.running(row.row);
      if (running !== undefined)
        return { state: "sending", sentBytes: running.sentBytes, totalBytes: running.totalBytes };
      const waiting = dispatcher.waitingFor(row.peer as Identity);
      const own = new Date(row.nextAttempt);
      if (waiting !== undefined)
        return { state: "queued", why: waiting.why, nextAttempt: waiting.until > own ? waiting.until : own };
      return {
        state: "queued",
        ...(row.reason === undefined ? {} : { why: row.reason as QueuedReason }),
        nextAttempt: own,
      };
    }
  }
}
