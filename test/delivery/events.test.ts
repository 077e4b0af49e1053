import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import type { StoredEvent } from "../../src/delivery/events.ts";
import type { Store } from "../../src/delivery/store.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { openTestStore, within } from "./party.ts";

const append = (store: Store, name: string) => store.appendEvent({ type: "contact.added", identity: "x@y.test", name });

/** Takes `count` events after `after`. */
async function take(store: Store, after: number, count: number): Promise<StoredEvent[]> {
  const stop = new AbortController();
  const taken: StoredEvent[] = [];
  const reading = (async () => {
    for await (const event of store.events.follow(after, stop.signal)) {
      taken.push(event);
      if (taken.length === count) break;
    }
  })();
  await within(reading, "events").finally(() => stop.abort());
  return taken;
}

describe("following events", () => {
  test("gives those kept, then those that happen, without gap or repetition", async () => {
    await using folder = await temporaryFolder();
    const store = await openTestStore(folder.path);
    for (let n = 0; n < 20; n += 1) await append(store, `${n}`);
    const reading = take(store, 5, 1_500);
    const more = Promise.all(Array.from({ length: 1_600 }, (_, n) => append(store, `more ${n}`)));
    const events = await reading;
    await more;
    expect(events.map(({ seq }) => seq)).toEqual(Array.from({ length: 1_500 }, (_, n) => n + 6));
    await store.close();
  });

  test("goes on after a restart where the reader was", async () => {
    await using folder = await temporaryFolder();
    const first = await openTestStore(folder.path);
    for (let n = 0; n < 10; n += 1) await append(first, `${n}`);
    const before = await take(first, 0, 4);
    await first.close();
    const second = await openTestStore(folder.path);
    await append(second, "after the restart");
    const after = await take(second, before.at(-1)?.seq ?? 0, 7);
    expect([...before, ...after].map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(after.at(-1)?.body).toMatchObject({ name: "after the restart" });
    await second.close();
  });

  test("tells a reader whose events are kept no longer of the gap, once, and goes on behind it", async () => {
    await using folder = await temporaryFolder();
    const first = await openTestStore(folder.path);
    for (let n = 0; n < 10; n += 1) await append(first, `${n}`);
    await first.close();
    const file = new DatabaseSync(join(folder.path, "delivery.db"));
    file.exec("DELETE FROM event WHERE seq <= 6");
    file.close();
    const store = await openTestStore(folder.path);
    const events = await take(store, 2, 5);
    expect(events[0]).toMatchObject({ seq: 6, body: { type: "events.gap", after: 2 } });
    expect(events.slice(1).map(({ seq }) => seq)).toEqual([7, 8, 9, 10]);
    await store.close();
  });

  test("tells of a gap when all events are gone, and a reader of another store's numbers", async () => {
    await using folder = await temporaryFolder();
    const first = await openTestStore(folder.path);
    for (let n = 0; n < 3; n += 1) await append(first, `${n}`);
    await first.close();
    const file = new DatabaseSync(join(folder.path, "delivery.db"));
    file.exec("DELETE FROM event");
    file.close();
    const store = await openTestStore(folder.path);
    const both = [take(store, 1, 2), take(store, 1_000, 2)];
    await append(store, "next");
    for (const events of await Promise.all(both)) {
      expect(events.map(({ seq, body }) => [seq, body.type])).toEqual([
        [3, "events.gap"],
        [4, "contact.added"],
      ]);
    }
    await store.close();
  });

  test("ends when its signal aborts, also while nothing happens", async () => {
    await using folder = await temporaryFolder();
    const store = await openTestStore(folder.path);
    const stop = new AbortController();
    const reading = (async () => {
      for await (const _ of store.events.follow(0, stop.signal));
    })();
    stop.abort();
    await within(reading, "end");
    await store.close();
  });
});

test("a listener has an event before the call that caused it resolves, and one that throws does not stop the others", async () => {
  await using folder = await temporaryFolder();
  const store = await openTestStore(folder.path);
  const heard: number[] = [];
  store.events.onEvent(() => {
    throw new Error("a listener's own fault");
  });
  const off = store.events.onEvent(({ seq }) => heard.push(seq));
  const seq = await append(store, "one");
  expect(heard).toEqual([seq]);
  off();
  await append(store, "two");
  expect(heard).toEqual([seq]);
  await store.close();
});

test("an event outside of the closed union is refused", async () => {
  await using folder = await temporaryFolder();
  const store = await openTestStore(folder.path);
  await expect(store.appendEvent({ type: "nobody.knows" } as never)).rejects.toThrow();
  await store.close();
});
