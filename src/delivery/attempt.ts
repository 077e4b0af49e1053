import type { Identity } from "../pki/identity.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import type { Directory, PeerRecord } from "../sixid/directory.ts";
import type { Endpoint, Outgoing } from "./endpoint.ts";
import type { Envelope, ItemId, Kind } from "./envelope.ts";
import type { ItemRow } from "./item-calls.ts";
import type { DueRow } from "./lanes.ts";
import { type ObjectOptions, objectsOf, type WireObject } from "./objects.ts";
import type { Timekeeper } from "./time.ts";

export interface AttemptOptions extends ObjectOptions {
  directory: Directory;
  endpointOf: (kind: Kind) => Pick<Endpoint, "deliver">;
}

/** What an attempt tells while it runs. */
export interface AttemptWatch {
  /** The directory answered. */
  onRecord(): void;
  onProgress(sentBytes: number, totalBytes: number): void;
}

/** Milliseconds without progress after which an attempt is given up (delivery.md §2 "One attempt"). */
const STALL = { message: 10_000, mail: 60_000, file: 60_000 } as const;
/** After the last byte: the peer's node still opens the seal and syncs its disk. */
const STALL_AT_END = { message: 10_000, mail: 600_000, file: 600_000 } as const;
/** A directory that does not answer within this time is away. */
const LOOKUP = 30_000;
/** An endpoint that was told to stop has so long to do it. */
const STOPPING = 5_000;

/**
 * Tries once to hand one row to its peer: look up, seal, deliver.
 * @returns `gone` if the row was no longer queued, `key-changed` if the owner has to agree to the peer's new keys first
 * @throws SuiteError what `outcomeOf` takes
 */
export async function attempt(
  o: AttemptOptions,
  peer: Identity,
  row: DueRow,
  watch: AttemptWatch,
  signal: AbortSignal,
): Promise<"delivered" | "gone" | "key-changed"> {
  const { database, cut } = o.inside;
  const queued = await database.call("attempted", row.row);
  if (queued === undefined) return "gone";
  const fresh = queued.attempts > 0;
  const record = await lookup(o, peer, fresh, signal);
  watch.onRecord();
  if (record.trust === "changed") return "key-changed";
  const [item] = await database.call("itemsByPrefix", row.item);
  if (item === undefined)
    throw new SuiteError("internal", "a queued row has no item", { fault: "local", details: { item: row.item } });
  let way = record;
  for await (const object of objectsOf(o, row.row, item, record, signal)) {
    cut("outbox.sealed");
    try {
      way = await handOver(o, way, { row, item, object, fresh }, watch, signal).catch(async (error: unknown) => {
        if (object.copy.again === undefined || asSuiteError(error).code !== "seal-unreadable") throw error;
        // What was kept since an earlier attempt may have been damaged on our disk.
        return handOver(o, way, { row, item, object: await object.remade(), fresh }, watch, signal);
      });
    } catch (error) {
      await object.refused(asSuiteError(error));
      throw error;
    }
    await object.acknowledged();
  }
  cut("outbox.sent");
  return "delivered";
}

interface Task {
  row: DueRow;
  item: ItemRow;
  object: WireObject;
  /** The record is new. */
  fresh: boolean;
}

/** @returns the record by which the peer was found */
async function handOver(
  o: AttemptOptions,
  record: PeerRecord,
  task: Task,
  watch: AttemptWatch,
  signal: AbortSignal,
): Promise<PeerRecord> {
  try {
    await deliver(o, record, task, watch, signal);
    return record;
  } catch (error) {
    const moved = task.fresh ? undefined : await elsewhere(o, record, error, signal);
    if (moved === undefined) throw error;
    const copy = { ...task.object.copy, again: true as const }; // how much came before is not known
    await deliver(o, moved, { ...task, object: { ...task.object, copy } }, watch, signal);
    return moved;
  }
}

/** Hands the bytes to the endpoint, and gives up when nothing moves any more. */
async function deliver(
  o: AttemptOptions,
  record: PeerRecord,
  { row, item, object }: Task,
  watch: AttemptWatch,
  signal: AbortSignal,
): Promise<void> {
  const { name, copy, digest, before, share, total } = object;
  const stall = stallGuard(o.inside.time, row.kind, copy.size, signal);
  const outgoing: Outgoing = {
    envelope: envelopeOf(item),
    transfer: copy.transfer,
    object: name,
    ...(copy.again === undefined ? {} : { again: copy.again }),
    ...(digest === undefined ? {} : { digest }),
    size: copy.size,
    open: (offset) => copy.open(offset),
    progress(sentBytes) {
      stall.progress(sentBytes);
      watch.onProgress(before + Math.min(sentBytes, share), total);
    },
  };
  try {
    await untilStopped(o.endpointOf(row.kind).deliver(outgoing, record, stall.signal), stall.signal, o.inside.time);
  } catch (error) {
    throw stall.stalled() ? stalled(error) : asSuiteError(error);
  } finally {
    stall.end();
  }
}

/** Where nobody (or somebody else) answered: the directory's newest word, if it names other addresses for the same keys. */
async function elsewhere(
  o: AttemptOptions,
  known: PeerRecord,
  error: unknown,
  signal: AbortSignal,
): Promise<PeerRecord | undefined> {
  const code = error instanceof SuiteError ? error.code : "internal";
  if (code !== "unreachable" && code !== "handshake-failed" && code !== "identity-mismatch") return undefined;
  const record = await lookup(o, known.identity, true, signal).catch(() => undefined);
  if (record === undefined || record.trust === "changed" || record.stale) return undefined;
  const same = record.encryption[0]?.sha256 === known.encryption[0]?.sha256;
  return same && routesOf(record) !== routesOf(known) ? record : undefined;
}

function routesOf({ devices }: PeerRecord): string {
  return JSON.stringify(devices.map(({ fingerprint, addresses }) => [fingerprint, addresses]));
}

async function lookup(o: AttemptOptions, peer: Identity, fresh: boolean, signal: AbortSignal): Promise<PeerRecord> {
  const limit = new AbortController();
  const cancel = o.inside.time.after(LOOKUP, () => limit.abort());
  try {
    return await o.directory.lookup(peer, { fresh }, AbortSignal.any([signal, limit.signal]));
  } catch (error) {
    if (!limit.signal.aborted) throw asSuiteError(error);
    throw new SuiteError("directory-unavailable", "the directory does not answer", {
      fault: "service",
      temporary: true,
      cause: error,
    });
  } finally {
    cancel();
  }
}

function envelopeOf(item: ItemRow): Envelope {
  return {
    id: item.id as ItemId,
    kind: item.kind,
    from: item.sender as Identity,
    to: JSON.parse(item.recipients) as Identity[],
    messageId: item.messageId,
    entity: item.content,
    outerHeader: item.head,
    seal: item.seal,
    acceptedAt: new Date(item.at),
    expiresAt: new Date(item.expiresAt ?? item.at),
    title: item.title,
  };
}

interface StallGuard {
  signal: AbortSignal;
  progress(sentBytes: number): void;
  stalled(): boolean;
  end(): void;
}

/** Aborts what shows no progress: a connection of a peer that moved to another network does not break by itself. */
function stallGuard(time: Timekeeper, kind: Kind, size: number, signal: AbortSignal): StallGuard {
  const limit = new AbortController();
  let last = -1;
  let since = time.monotonic();
  let patience: number = STALL[kind];
  let cancel: () => void = () => undefined;
  // The timer looks again instead of being set anew at each progress, of which there may be thousands a second.
  const look = () => {
    const left = since + patience - time.monotonic();
    if (left <= 0) limit.abort();
    else cancel = time.after(left, look);
  };
  look();
  return {
    signal: AbortSignal.any([signal, limit.signal]),
    progress(sentBytes) {
      if (sentBytes === last) return; // it may also begin again from 0
      last = sentBytes;
      since = time.monotonic();
      if (sentBytes >= size) patience = STALL_AT_END[kind];
    },
    stalled: () => limit.signal.aborted,
    end: () => cancel(),
  };
}

function stalled(cause: unknown): SuiteError {
  return new SuiteError("unreachable", "the peer made no progress", { fault: "peer", temporary: true, cause });
}

/** The endpoint's answer, also if it comes after the signal; but an endpoint that never ends does not block the lane. */
async function untilStopped(delivering: Promise<void>, signal: AbortSignal, time: Timekeeper): Promise<void> {
  let cancel: () => void = () => undefined;
  const late = new Promise<never>((_, reject) => {
    const begin = () => {
      cancel = time.after(STOPPING, () => {
        reject(new SuiteError("cancelled", "the endpoint did not stop in time", { fault: "local", temporary: true }));
      });
    };
    if (signal.aborted) begin();
    else signal.addEventListener("abort", begin, { once: true });
  });
  try {
    await Promise.race([delivering, late]);
  } finally {
    cancel();
  }
}
