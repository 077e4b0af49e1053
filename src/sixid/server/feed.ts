import { type Identity, identityDomain } from "../../pki/identity.ts";
import type { Log } from "../../pki/log.ts";
import { asSuiteError, SuiteError } from "../../pki/suite-error.ts";
import type { RecordReply, WatchBody } from "../records.ts";
import { COMMENT, eventText } from "../server-sent-events.ts";
import type { Change, DirectoryStore, StoredRecord } from "../store/store.ts";
import type { Caller } from "./caller.ts";

/** Where news go. */
export interface FeedStream {
  /** @returns how much waits there, not taken yet */
  write(text: string): number;
  end(): void;
}

export interface FeedOptions {
  domain: string;
  store: DirectoryStore;
  /** A person's record and what that caller may see of it; undefined: nothing. */
  seen: (caller: Caller, of: Identity) => Promise<{ record: StoredRecord; reply: RecordReply } | undefined>;
  clock: () => Date;
  log: Log;
}

/** What a stream has been told: of the identity object and of each device's addresses and presence the sequence. */
interface Told {
  identity: number;
  devices: Record<string, number>;
  presence: Record<string, number>;
}

interface Stream {
  readonly caller: Caller & { kind: "person" };
  readonly device: string;
  readonly told: Map<Identity, Told>;
  readonly to: FeedStream;
  /** What changed since it was last looked at. */
  readonly due: Set<Identity>;
  looking: boolean;
  closed: boolean;
}

const REQUEST = eventText({ type: "request", data: "{}" });
/** Somebody wants to replace the devices of him who is told. */
const ROOT = eventText({ type: "root", data: "{}" });
const BACKUP = eventText({ type: "backup", data: "{}" });
const COMMENT_MS = 25_000;
const MAX_BACKLOG_BYTES = 1_048_576;
const MAX_STREAMS = 10_000;
const STREAMS_OF_A_DEVICE = 2;

/** Tells those who watch somebody what is new of him, at once. What a watcher knows already he says himself: nothing is kept for him. */
export class Feed {
  readonly #o: FeedOptions;
  readonly #streams = new Set<Stream>();
  readonly #watchers = new Map<Identity, Set<Stream>>();
  readonly #off: () => void;
  readonly #alive: NodeJS.Timeout;

  constructor(options: FeedOptions) {
    this.#o = options;
    this.#off = options.store.changes((change) => void this.#changed(change));
    this.#alive = setInterval(() => {
      for (const stream of this.#streams) this.#write(stream, COMMENT);
    }, COMMENT_MS);
    this.#alive.unref();
  }

  /**
   * Begins to tell, with what is newer than what the caller knows. A third stream of a device ends its oldest.
   * @returns what ends it
   * @throws SuiteError forbidden unless a person proves by certificate who he is; busy
   */
  watch(caller: Caller, { know }: WatchBody, to: FeedStream): () => void {
    if (caller.kind !== "person" || caller.by !== "sca")
      throw new SuiteError("forbidden", "who watches proves who he is by certificate", { fault: "peer" });
    if (this.#streams.size >= MAX_STREAMS)
      throw new SuiteError("busy", "too many watch", { fault: "service", temporary: true });
    const { fingerprint: device } = caller;
    const others = [...this.#streams].filter((one) => one.device === device);
    for (const oldest of others.slice(0, Math.max(0, others.length - STREAMS_OF_A_DEVICE + 1))) this.#end(oldest);
    const told = new Map(
      Object.entries(know)
        .filter(([identity]) => identityDomain(identity as Identity) === this.#o.domain)
        .map(([identity, { identity: seq, devices, presence }]) => [
          identity as Identity,
          { identity: seq, devices: { ...devices }, presence: { ...presence } },
        ]),
    );
    const stream = { caller, device, told, to, due: new Set(told.keys()), looking: false, closed: false };
    this.#streams.add(stream);
    for (const identity of told.keys()) {
      const watchers = this.#watchers.get(identity) ?? new Set();
      this.#watchers.set(identity, watchers.add(stream));
    }
    this.#write(stream, COMMENT);
    void this.#look(stream);
    void this.#tellRequests(stream);
    return () => this.#end(stream);
  }

  /** Tells a device nothing any more: it was revoked. */
  drop(device: string): void {
    for (const stream of this.#streams) if (stream.device === device) this.#end(stream);
  }

  close(): void {
    this.#off();
    clearInterval(this.#alive);
    for (const stream of this.#streams) this.#end(stream);
  }

  async #changed({ uuid, what }: Change): Promise<void> {
    if (this.#streams.size === 0) return;
    if (what === "everything") {
      for (const stream of this.#streams) {
        for (const watched of stream.told.keys()) stream.due.add(watched);
        void this.#look(stream);
        this.#write(stream, REQUEST);
      }
      return;
    }
    const identity = (await this.#o.store.userById(uuid))?.identity;
    if (identity === undefined) return;
    if (what !== "record") {
      const text = { request: REQUEST, root: ROOT, backup: BACKUP }[what];
      for (const stream of this.#streams) if (stream.caller.identity === identity) this.#write(stream, text);
      return;
    }
    for (const stream of this.#watchers.get(identity) ?? []) {
      stream.due.add(identity);
      void this.#look(stream);
    }
  }

  /** What came before he watched waits in his box. */
  async #tellRequests(stream: Stream): Promise<void> {
    const { store, log } = this.#o;
    try {
      const owner = await store.user(stream.caller.identity);
      const waiting = owner === undefined ? [] : await store.requestsOf(owner.uuid, this.#o.clock().getTime());
      if (waiting.length > 0) this.#write(stream, REQUEST);
    } catch (error) {
      log.error({ error: asSuiteError(error) }, "a watcher cannot be told of his requests");
    }
  }

  /** Tells what is due; what comes meanwhile is told after it, and once. */
  async #look(stream: Stream): Promise<void> {
    if (stream.looking) return;
    stream.looking = true;
    try {
      for (const identity of stream.due) {
        stream.due.delete(identity);
        await this.#tell(stream, identity);
      }
    } catch (error) {
      this.#o.log.error({ error: asSuiteError(error) }, "a watcher cannot be told");
      this.#end(stream);
    } finally {
      stream.looking = false;
    }
  }

  async #tell(stream: Stream, identity: Identity): Promise<void> {
    const seen = await this.#o.seen(stream.caller, identity);
    if (seen === undefined || stream.closed) return;
    const { record, reply } = seen;
    const before = stream.told.get(identity);
    // Only what he sees: otherwise that something changed would tell him of what he does not.
    const now: Told = { identity: record.seq, devices: {}, presence: {} };
    for (const { fingerprint, seq, presenceSeq } of record.devices) {
      const told = reply.devices[fingerprint];
      if (told?.addresses !== undefined && seq !== undefined) now.devices[fingerprint] = seq;
      if (told?.presence !== undefined && presenceSeq !== undefined) now.presence[fingerprint] = presenceSeq;
    }
    const rises = (next: Record<string, number>, last: Record<string, number>) =>
      Object.entries(next).some(([device, seq]) => seq > (last[device] ?? 0));
    const isNew =
      before === undefined ||
      now.identity > before.identity ||
      Object.keys(before.devices).some((device) => now.devices[device] === undefined) || // gone, or revoked
      rises(now.devices, before.devices) ||
      rises(now.presence, before.presence);
    stream.told.set(identity, now);
    if (isNew) this.#write(stream, eventText({ type: "record", data: JSON.stringify({ of: identity, ...reply }) }));
  }

  #write(stream: Stream, text: string): void {
    if (stream.closed) return;
    if (stream.to.write(text) > MAX_BACKLOG_BYTES) this.#end(stream); // it comes again, and says what it knows
  }

  #end(stream: Stream): void {
    if (stream.closed) return;
    stream.closed = true;
    this.#streams.delete(stream);
    for (const identity of stream.told.keys()) {
      const watchers = this.#watchers.get(identity);
      watchers?.delete(stream);
      if (watchers?.size === 0) this.#watchers.delete(identity);
    }
    stream.to.end();
  }
}
