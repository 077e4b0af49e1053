import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { HttpsClient } from "../../src/peertls-core/https-client.ts";
import type { Identity } from "../../src/pki/identity.ts";
import type { SuiteError } from "../../src/pki/suite-error.ts";
import { DirectoryClient } from "../../src/sixid/client.ts";
import type { StreamEvent } from "../../src/sixid/server-sent-events.ts";
import { watch } from "../../src/sixid/watch.ts";
import { httpTo, MemoryPins, ownOf, startDirectory, startLiar, type TestDirectory } from "../support/directory.ts";
import { makeTestDomain } from "../support/pki.ts";
import { recordLog } from "../support/record-log.ts";
import { requestFrom } from "../support/request.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const stop = new AbortController();
let directory: TestDirectory;
const open: HttpsClient[] = [];

beforeAll(async () => {
  directory = await startDirectory(alpha);
});
afterEach(() => {
  for (const client of open.splice(0)) client.close();
});
afterAll(async () => {
  stop.abort();
  await directory[Symbol.asyncDispose]();
});

let count = 0;

/** Somebody with a record, and his view of the directory. */
async function member(name = `p${(count += 1)}`) {
  const person = alpha.person({ identity: `${name}@alpha.test`, encryptionKey: "ec" });
  const uuid = await directory.account(person.identity);
  const http = httpTo(alpha, directory.address, person.auth);
  open.push(http);
  const log = recordLog();
  const client = new DirectoryClient({
    ...{ http, uuid, pins: new MemoryPins(), clock: () => new Date(), log },
    signer: () => person.auth,
    anchorsFor: () => [alpha.anchor],
    onEvent: () => undefined,
    onDomain: () => undefined,
  });
  await client.publishIdentity(ownOf(person, uuid), stop.signal);
  const at = (port: number) =>
    client.publishAddresses([{ host: "2001:db8::1", port, kind: "direct", priority: 10 }], stop.signal);
  return { person, uuid, http, client, at, log };
}
type Member = Awaited<ReturnType<typeof member>>;

/** What a member is told of people, one event at a time. */
function watching(by: Member, ...people: readonly Member[]): AsyncGenerator<StreamEvent, void, undefined> {
  const know = new Map(people.map(({ person }) => [person.identity, by.client.known(person.identity)]));
  return watch(by.http, know, stop.signal);
}

async function next(stream: AsyncGenerator<StreamEvent, void, undefined>): Promise<StreamEvent> {
  const { value, done } = await stream.next();
  if (done) throw new Error("the stream has ended");
  return value as StreamEvent;
}

test("who watches is told what is new at once, verified as any answer, and a look-up needs no server then", async () => {
  const [alice, bob] = [await member(), await member()];
  const stream = watching(alice, bob);
  const first = await next(stream); // of whom nothing is known, all is new
  expect((await alice.client.takeNews(first.data, stop.signal)).devices[0]?.addresses).toEqual([]);
  for (const port of [1, 2, 3]) {
    const told = next(stream);
    const began = performance.now();
    await bob.at(port);
    const { type, data } = await told;
    expect(performance.now() - began).toBeLessThan(1_000);
    const record = await alice.client.takeNews(data, stop.signal);
    expect([type, record.identity, record.devices[0]?.addresses[0]?.port]).toEqual([
      "record",
      bob.person.identity,
      port,
    ]);
  }
  const { addresses } = (await alice.client.lookup(bob.person.identity, {}, stop.signal)).devices[0] ?? {};
  expect(addresses?.[0]?.port).toBe(3);
  await stream.return();
});

test("who comes again says what he knows and is told only what is newer", async () => {
  const [alice, bob, carol] = [await member(), await member(), await member()];
  await bob.at(1);
  for (const one of [bob, carol]) await alice.client.lookup(one.person.identity, {}, stop.signal);
  await bob.at(2); // while nobody watches
  const stream = watching(alice, bob, carol);
  const record = await alice.client.takeNews((await next(stream)).data, stop.signal);
  expect(record.devices[0]?.addresses[0]?.port).toBe(2);
  const told = next(stream);
  await carol.at(9);
  expect(JSON.parse((await told).data)).toMatchObject({ of: carol.person.identity });
  await stream.return();
});

test("many changes while one is told become the last", async () => {
  const [alice, bob] = [await member(), await member()];
  const stream = watching(alice, bob);
  await next(stream);
  await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map((port) => bob.at(port)));
  // Which one is the last is decided by the order in which they arrive.
  const now = await bob.client.lookup(bob.person.identity, { fresh: true }, stop.signal);
  const last = now.devices[0]?.addresses[0]?.port;
  const ports: unknown[] = [];
  while (ports.at(-1) !== last && ports.length < 8) {
    const record = await alice.client.takeNews((await next(stream)).data, stop.signal);
    ports.push(record.devices[0]?.addresses[0]?.port);
  }
  expect(ports.at(-1)).toBe(last);
  await stream.return();
});

test("somebody who does not exist is no different from somebody of whom there is nothing new", async () => {
  const [alice, bob] = [await member(), await member()];
  await alice.client.lookup(bob.person.identity, {}, stop.signal);
  const nobody = "nobody@alpha.test" as Identity;
  const stream = watch(
    alice.http,
    new Map([
      [nobody, alice.client.known(nobody)],
      [bob.person.identity, alice.client.known(bob.person.identity)],
    ]),
    stop.signal,
  );
  const told = next(stream);
  await bob.at(5);
  expect(JSON.parse((await told).data)).toMatchObject({ of: bob.person.identity });
  await stream.return();
});

test("whoever asks to be admitted is told to the owner who watches, and to nobody else", async () => {
  const [alice, bob, carol] = [await member(), await member(), await member()];
  const [owners, others] = [watching(bob), watching(carol, bob)];
  await next(others);
  const [mine, theirs] = [next(owners), next(others)];
  const body = await requestFrom(alice.person, bob.person.identity);
  await alice.http.request(
    { method: "POST", path: "/v1/requests", headers: { "content-type": "application/jose" }, body },
    stop.signal,
  );
  expect(await mine).toEqual({ type: "request", data: "{}" });
  await bob.at(4);
  expect((await theirs).type).toBe("record");
  await owners.return();
  await others.return();
});

describe("who may watch, and how often", () => {
  const refusal = async (
    http: HttpsClient,
    know: Map<Identity, { identity: number; devices: Record<string, number> }>,
  ) => {
    try {
      await watch(http, know, stop.signal).next();
      return "told";
    } catch (error) {
      return (error as SuiteError).details["status"];
    }
  };

  test("nobody without a certificate, nobody with a token alone; not more than 500 people", async () => {
    const anonymous = httpTo(alpha, directory.address);
    open.push(anonymous);
    expect(await refusal(anonymous, new Map())).toBe(403);
    const alice = await member();
    const many = new Map(
      Array.from({ length: 501 }, (_, n) => [`x${n}@alpha.test` as Identity, { identity: 0, devices: {} }] as const),
    );
    expect(await refusal(alice.http, many)).toBe(400);
  });

  test("a third stream of a device ends its first", async () => {
    const [alice, bob] = [await member(), await member()];
    const streams = [watching(alice, bob), watching(alice, bob), watching(alice, bob)];
    const firsts = [];
    for (const stream of streams) firsts.push(await next(stream));
    expect(firsts).toHaveLength(3);
    await expect(next(streams[0] as never)).rejects.toMatchObject({ code: "unreachable" });
    const told = streams.slice(1).map(next);
    await bob.at(6);
    expect((await Promise.all(told)).map(({ type }) => type)).toEqual(["record", "record"]);
    for (const stream of streams) await stream.return();
  });
});

describe("news are not believed", () => {
  /** What a liar tells first, once asked. */
  async function fromLiar(by: Member, data: object): Promise<SuiteError | undefined> {
    await using liar = await startLiar(alpha, () => ({ body: `event: record\ndata: ${JSON.stringify(data)}\n\n` }));
    const http = httpTo(alpha, liar.address, by.person.auth);
    open.push(http);
    const stream = watch(http, new Map(), stop.signal);
    const { data: told } = await next(stream);
    return by.client.takeNews(told, stop.signal).then(
      () => undefined,
      (error: unknown) => error as SuiteError,
    );
  }
  const told = async (of: Member) =>
    JSON.parse(
      (
        await of.http.request({ method: "GET", path: `/v1/records/${of.person.identity}` }, stop.signal)
      ).body.toString(),
    );

  test("that are older than what was seen, another person's, or of a form that nobody asked for", async () => {
    const [alice, bob, carol] = [await member(), await member(), await member()];
    await bob.at(1);
    const old = await told(bob);
    await bob.at(2);
    await alice.client.lookup(bob.person.identity, {}, stop.signal);
    expect((await fromLiar(alice, { ...old, of: bob.person.identity }))?.code).toBe("record-rollback");
    expect((await fromLiar(alice, { ...(await told(carol)), of: bob.person.identity }))?.code).toBe("record-rejected");
    expect((await fromLiar(alice, { ...(await told(bob)), of: "no identity" }))?.code).toBe("identity-invalid");
    expect((await fromLiar(alice, { of: bob.person.identity }))?.code).toBe("record-rejected");
    expect(await fromLiar(alice, { ...(await told(bob)), of: bob.person.identity })).toBeUndefined();
  });
});

test("an answer that was on its way while newer news came is no rollback", async () => {
  const [alice, bob] = [await member(), await member()];
  await bob.at(1);
  await alice.client.lookup(bob.person.identity, {}, stop.signal);
  const stream = watching(alice, bob);
  for (let port = 2; port < 20; port += 1) {
    const looking = alice.client.lookup(bob.person.identity, { fresh: true }, stop.signal);
    const telling = next(stream).then(({ data }) => alice.client.takeNews(data, stop.signal));
    await bob.at(port);
    await Promise.all([looking, telling]);
  }
  expect(alice.log.lines.filter(({ level }) => level === "warn")).toEqual([]);
  await stream.return();
});
