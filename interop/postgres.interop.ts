import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { silentLog } from "../src/pki/log.ts";
import { DirectoryClient } from "../src/sixid/client.ts";
import { openPostgresStore } from "../src/sixid/store/postgres.ts";
import type { Change, DirectoryStore } from "../src/sixid/store/store.ts";
import { watch } from "../src/sixid/watch.ts";
import { storeCompliance } from "../test/sixid/store.compliance.ts";
import { httpTo, MemoryPins, ownOf, startDirectory, type TestDirectory } from "../test/support/directory.ts";
import { makeTestDomain, type TestPerson } from "../test/support/pki.ts";
import { startPostgres, type TestPostgres } from "../test/support/postgres.ts";

let server: TestPostgres;
const opened: DirectoryStore[] = [];
beforeAll(() => {
  server = startPostgres();
});
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
});
afterAll(() => server[Symbol.asyncDispose]());

const open = async (connection: string) => {
  const store = await openPostgresStore(connection);
  opened.push(store);
  return store;
};

describe("PostgreSQL", () => {
  storeCompliance(async () => {
    const connection = server.database();
    const store = await open(connection);
    return {
      store,
      reopened: async () => {
        await store.close();
        return open(connection);
      },
    };
  });
});

/** Resolves with the next change of another process. */
const heard = (store: DirectoryStore, what: Change["what"]) =>
  new Promise<number>((resolve) => {
    const off = store.changes((change) => {
      if (change.what !== what) return;
      off();
      resolve(performance.now());
    });
  });

async function pair() {
  const connection = server.database();
  const [one, two] = await Promise.all([open(connection), open(connection)]); // both migrate; one does
  await one.addUser({ uuid: "u", identity: "a@alpha.test" as never, name: "A" });
  await one.putIdentity("u", { seq: 1, hash: "h", jws: "j", devices: ["d"] }, "");
  return { one, two };
}

test("what one process was answered the other reads at once, and hears of within half a second", async () => {
  const { one, two } = await pair();
  const delays: number[] = [];
  for (let seq = 1; seq <= 20; seq += 1) {
    const told = heard(two, "record");
    const began = performance.now();
    await one.putAddresses("u", "d", { seq, jws: `a${seq}`, seen: 1 });
    expect((await two.find({ kind: "identity", value: "a@alpha.test" }))?.record.devices[0]?.seq).toBe(seq);
    delays.push((await told) - began);
  }
  console.info("another process hears of a change after (ms, worst of 20)", Math.round(Math.max(...delays)));
  expect(Math.max(...delays)).toBeLessThan(500);
});

test("of two processes that write the same next object one is answered stale", async () => {
  const { one, two } = await pair();
  const next = (n: number) => ({ seq: 2, hash: `h${n}`, jws: "j", devices: [] });
  const outcomes = await Promise.all([
    ...[1, 2].map((n) => one.putIdentity("u", next(n), "h")),
    ...[3, 4].map((n) => two.putIdentity("u", next(n), "h")),
  ]);
  expect(outcomes.toSorted()).toEqual(["stale", "stale", "stale", "stored"]);
});

test("a database that crashes keeps what was answered; writes fail meanwhile, and who listens is told that he missed something", async () => {
  const { one, two } = await pair();
  const answered: number[] = [];
  const writing = (async () => {
    for (let seq = 1; ; seq += 1) {
      await one.putAddresses("u", "d", { seq, jws: `a${seq}`, seen: 1 });
      answered.push(seq);
    }
  })();
  const failure = writing.catch((error: unknown) => error);
  await expect.poll(() => answered.length).toBeGreaterThan(50);
  server.crash();
  expect(await failure).toMatchObject({ code: "store-failed", temporary: true });
  await expect(two.find({ kind: "uuid", value: "u" })).rejects.toMatchObject({ code: "store-failed" });
  const everything = heard(two, "everything");
  server.start();
  await everything;
  expect((await two.record("u"))?.devices[0]?.seq).toBeGreaterThanOrEqual(answered.at(-1) ?? 0);
  const again = heard(two, "record");
  await one.putAddresses("u", "d", { seq: 1_000_000, jws: "a", seen: 1 });
  await again;
});

test("one that cannot be reached, or that a newer program wrote, is not opened", async () => {
  await expect(openPostgresStore("postgres://nobody@/none?host=/nowhere")).rejects.toMatchObject({
    code: "store-failed",
  });
});

test("two servers of a domain on one database: what is announced at one is in the other's next answer, and its watchers hear of it", async () => {
  const connection = server.database();
  const alpha = makeTestDomain({ domain: "alpha.test" });
  const alice = alpha.person({ identity: "alice@alpha.test", encryptionKey: "ec" });
  const bob = alpha.person({ identity: "bob@alpha.test", encryptionKey: "ec" });
  await using one = await startDirectory(alpha, { store: await open(connection) });
  await using two = await startDirectory(alpha, { store: await open(connection) });
  const clientAt = (directory: TestDirectory, of: TestPerson, uuid: string) => {
    const http = httpTo(alpha, directory.address, of.auth);
    const { now, log } = { now: () => new Date(), log: silentLog };
    const rest = { pins: new MemoryPins(), clock: now, log, onEvent: () => undefined, onDomain: () => undefined };
    return {
      http,
      client: new DirectoryClient({ http, uuid, signer: () => of.auth, anchorsFor: () => [alpha.anchor], ...rest }),
    };
  };
  const uuid = await one.account(alice.identity);
  const alices = clientAt(one, alice, uuid);
  const bobs = clientAt(two, bob, await two.account(bob.identity));
  await alices.client.publishIdentity(ownOf(alice, uuid), AbortSignal.timeout(9_000));
  const ends = new AbortController();
  const news = watch(bobs.http, new Map([[alice.identity, bobs.client.known(alice.identity)]]), ends.signal);
  const next = async () => {
    for (;;) {
      const { value } = await news.next();
      if (value?.type === "record") return bobs.client.takeNews(value.data, AbortSignal.timeout(9_000));
    }
  };
  expect((await next()).devices[0]?.addresses).toEqual([]);
  const delays: number[] = [];
  for (let n = 1; n <= 10; n += 1) {
    const at = { host: `2001:db8::${n}`, port: 4605, kind: "direct", priority: 1 } as const;
    const heard = next();
    const began = performance.now();
    await alices.client.publishAddresses([at], AbortSignal.timeout(9_000));
    const looked = await bobs.client.lookup(alice.identity, { fresh: true }, AbortSignal.timeout(9_000));
    expect(looked.devices[0]?.addresses).toEqual([at]);
    expect((await heard).devices[0]?.addresses).toEqual([at]);
    delays.push(performance.now() - began);
  }
  console.info("a watcher at the other server knows after (ms, worst of 10)", Math.round(Math.max(...delays)));
  expect(Math.max(...delays)).toBeLessThan(500);
  ends.abort();
  alices.http.close();
  bobs.http.close();
});
