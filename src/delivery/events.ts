import type { Log } from "../pki/log.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import type { Database } from "./database.ts";
import type { NodeEvent } from "./event-types.ts";
import type { EventRow } from "./transaction.ts";

/** An event in its place: `seq` grows by one from event to event. */
export interface StoredEvent {
  seq: number;
  at: Date;
  body: NodeEvent;
}

/** What happened, in order, without gap or repetition. */
export interface Events {
  /**
   * All events after `after`: those that are kept, then live ones, until `signal` aborts. If some after `after` are kept no
   * longer (or `after` is no number of this store), the first is `events.gap` with the number of the last one missed.
   */
  follow(after: number, signal: AbortSignal): AsyncIterable<StoredEvent>;
  /** Called for each event after its commit, before the call that caused it resolves; the answer ends it. */
  onEvent(listener: (event: StoredEvent) => void): () => void;
  /** The number of the last event. */
  readonly last: number;
}

/** Events read at a time, and kept in memory for followers that are nearly up to date. */
const PAGE = 500;
const RECENT = 1_000;

export async function openEvents(database: Database, log: Log): Promise<Events> {
  const listeners = new Set<(event: StoredEvent) => void>();
  const recent: StoredEvent[] = [];
  let wake = Promise.withResolvers<void>();
  let { last } = await database.call("eventBounds");

  database.onEvents((rows) => {
    for (const row of rows) {
      const event = storedEvent(row);
      last = event.seq;
      recent.push(event);
      for (const listener of listeners) {
        try {
          listener(event);
        } catch (error) {
          log.error({ error: asSuiteError(error), type: event.body.type }, "a listener to events failed");
        }
      }
    }
    if (recent.length > RECENT) recent.splice(0, recent.length - RECENT);
    wake.resolve();
    wake = Promise.withResolvers<void>();
  });

  /** Events after `after`, from memory if it reaches back so far. A follower never has more than a page in hand. */
  const pageAfter = async (after: number): Promise<StoredEvent[]> => {
    const first = recent[0];
    if (first !== undefined && first.seq <= after + 1)
      return recent.slice(after + 1 - first.seq, after + 1 - first.seq + PAGE);
    return (await database.call("eventsAfter", { after, limit: PAGE })).map(storedEvent);
  };

  async function* follow(after: number, signal: AbortSignal): AsyncGenerator<StoredEvent> {
    let position = after;
    const aborted = Promise.withResolvers<void>();
    const abort = () => aborted.resolve();
    signal.addEventListener("abort", abort, { once: true });
    try {
      while (!signal.aborted) {
        const news = wake.promise; // both taken before looking, so that nothing that comes meanwhile is missed
        const upTo = last;
        const page = position >= upTo ? [] : await pageAfter(position);
        const [first] = page;
        const behind = first === undefined ? upTo : first.seq - 1; // where the reader should be by what there is
        if (behind !== position) {
          yield { seq: behind, at: first?.at ?? new Date(0), body: { type: "events.gap", after: position } };
          position = behind;
        }
        for (const event of page) {
          if (signal.aborted) return;
          yield event;
          position = event.seq;
        }
        if (position === last) await Promise.race([news, aborted.promise]);
      }
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  return {
    follow,
    onEvent(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    get last() {
      return last;
    },
  };
}

function storedEvent(row: EventRow): StoredEvent {
  return { seq: row.seq, at: new Date(row.at), body: JSON.parse(row.json) as NodeEvent };
}
