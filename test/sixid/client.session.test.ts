import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseIdentity } from "../../src/pki/identity.ts";
import { makeAddresses } from "../../src/sixid/announce.ts";
import { DirectoryClient } from "../../src/sixid/client.ts";
import type { RecordEvent } from "../../src/sixid/pins.ts";
import type { RecordReply } from "../../src/sixid/records.ts";
import { type Answer, hashOf, history, httpTo, MemoryPins, ownOf, payloadOf, startLiar } from "../support/directory.ts";
import { makeTestDomain, type TestCredentials } from "../support/pki.ts";
import { recordLog } from "../support/record-log.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const alice = alpha.person({ identity: "alice@alpha.test", encryptionKey: "ec" });
const bob = alpha.person({ identity: "bob@alpha.test", encryptionKey: "ec" });
const bobsNew = alpha.person({ identity: "bob@alpha.test", encryptionKey: "ec" });
const uuid = "01975b3e-0000-7000-8000-000000000001";
const own = ownOf(bob, uuid);
const now = () => new Date();
const signal = () => AbortSignal.timeout(20_000);

/** Three objects of Bob's, each following the one before, and a second third one. */
const [one = "", two = "", three = ""] = await history(
  [1, 2, 3].map((n) => ({ own: { ...own, name: `Bob ${n}` }, by: bob.auth })),
);
const [, , fork = ""] = await history([1, 2, 4].map((n) => ({ own: { ...own, name: `Bob ${n}` }, by: bob.auth })));
const addresses = (seq: number, by: TestCredentials = bob.auth, id = uuid, at = now()) =>
  makeAddresses(id, [{ host: "::1", port: seq % 60_000, kind: "direct", priority: 1 }], seq, by, at);

function reply(identity: string, told?: string, device = bob.auth.certificate.fingerprint): Answer {
  const body: RecordReply = {
    identity,
    devices: told === undefined ? {} : { [device]: { addresses: told } },
    maxAge: 60,
  };
  return { body };
}

let said: (method: string, path: string) => Answer | Promise<Answer> = () => ({ status: 500, body: {} });
let liar: Awaited<ReturnType<typeof startLiar>>;

beforeAll(async () => {
  liar = await startLiar(alpha, (method, path) => said(method, path));
});
afterAll(() => liar[Symbol.asyncDispose]());

function client(pins = new MemoryPins()) {
  const events: RecordEvent[] = [];
  const log = recordLog();
  const http = httpTo(alpha, liar.address, alice.auth);
  const directory = new DirectoryClient({
    http,
    uuid: "01975b3e-0000-7000-8000-00000000000a",
    signer: () => alice.auth,
    anchorsFor: (domain) => (domain === "alpha.test" ? [alpha.anchor] : []),
    pins,
    clock: now,
    log,
    onEvent: (event) => events.push(event),
    onDomain: () => undefined,
  });
  return {
    directory,
    pins,
    events,
    log,
    look: () => directory.lookup(bob.identity, { fresh: true }, signal()),
    [Symbol.dispose]: () => http.close(),
  };
}

const truth = async () => reply(two, await addresses(1_000));

describe("what a lying directory says is refused, named in log and event, and the pin stays", () => {
  const tampered = () => {
    const [head = "", payload = "", signature = ""] = two.split(".");
    const other = Buffer.from(payload, "base64url").toString("utf8").replace('"Bob 2"', '"Eve 2"');
    return `${head}.${Buffer.from(other).toString("base64url")}.${signature}`;
  };
  test.each<[string, string, string | undefined, () => Answer | Promise<Answer>]>([
    ["a tampered record", "record-rejected", "signature", async () => reply(tampered(), await addresses(1_001))],
    [
      "a tampered record that was unknown before",
      "record-rejected",
      "signature",
      () => {
        const [head = "", , signature = ""] = three.split(".");
        return reply(
          `${head}.${Buffer.from(payloadOf(three).replace("Bob 3", "Eve 3")).toString("base64url")}.${signature}`,
        );
      },
    ],
    [
      "a record with another key's signature",
      "record-rejected",
      "signature",
      async () => {
        const [other = ""] = await history([{ own: ownOf(bobsNew, uuid), by: bobsNew.auth }]);
        return reply([...three.split(".").slice(0, 2), other.split(".")[2]].join("."));
      },
    ],
    [
      "a record that another person signed",
      "record-rejected",
      "signer path",
      async () => {
        const [forged = ""] = await history([
          {
            own: { ...own, devices: [...own.devices, { certificate: alice.auth.certificate, label: "" }] },
            by: alice.auth,
          },
        ]);
        return reply(forged);
      },
    ],
    [
      "another person's record",
      "record-rejected",
      "signer path",
      async () => reply((await history([{ own: ownOf(alice, uuid), by: alice.auth }]))[0] ?? ""),
    ],
    [
      "the person's record under another uuid",
      "record-rejected",
      "uuid",
      async () =>
        reply(
          (await history([1, 2, 3].map(() => ({ own: { ...own, uuid: uuid.replace(/1$/, "2") }, by: bob.auth }))))[2] ??
            "",
        ),
    ],
    ["a replayed, older record", "record-rollback", undefined, () => reply(one)],
    [
      "a second record of the same sequence",
      "record-fork",
      undefined,
      async () => {
        const [, other = ""] = await history([1, 3].map((n) => ({ own: { ...own, name: `Bob ${n}` }, by: bob.auth })));
        return reply(other);
      },
    ],
    [
      "a new record with replayed, older addresses",
      "record-rollback",
      undefined,
      async () => reply(three, await addresses(999)),
    ],
    [
      "a new record with addresses that another key signed",
      "record-rejected",
      "device listed",
      async () => reply(three, await addresses(1_001, bobsNew.auth)),
    ],
    [
      "addresses of another record",
      "record-rejected",
      "uuid",
      async () => reply(three, await addresses(1_001, bob.auth, uuid.replace(/1$/, "3"))),
    ],
    [
      "tampered addresses",
      "record-rejected",
      "signature",
      async () => {
        const [head, , signature] = (await addresses(1_001)).split(".");
        return reply(three, [head, (await addresses(1_002)).split(".")[1], signature].join("."));
      },
    ],
    ["an answer of another form", "record-rejected", "reply", () => ({ body: { identity: 7 } })],
    ["an answer that is no JSON", "record-rejected", "reply", () => ({ body: "<html>" })],
    [
      "a record with seventeen devices told beside it",
      "record-rejected",
      "reply",
      () => ({
        body: {
          identity: three,
          devices: Object.fromEntries(Array.from({ length: 17 }, (_one, n) => [n.toString(16).padStart(64, "0"), {}])),
          maxAge: 60,
        },
      }),
    ],
    [
      "a device seen after the year 9999",
      "record-rejected",
      "reply",
      () => ({
        body: { identity: three, devices: { [bob.auth.certificate.fingerprint]: { seen: 9e15 } }, maxAge: 60 },
      }),
    ],
    ["a record of 300 KB", "record-rejected", "reply", () => reply("A".repeat(300_000))],
    [
      "that the other domain's server lies",
      "record-rejected",
      undefined,
      () => ({ status: 502, body: { code: "record-rejected" } }),
    ],
  ])("%s", async (_name, code, step, lie) => {
    using node = client();
    said = truth;
    expect((await node.look()).name).toBe("Bob 2");
    const pinned = structuredClone(node.pins.find(bob.identity));
    expect(pinned).toMatchObject({
      seq: 2,
      hash: hashOf(two),
      addressSeqs: { [bob.auth.certificate.fingerprint]: 1_000 },
    });
    said = lie;
    await expect(node.look()).rejects.toMatchObject({ code });
    expect(node.pins.find(bob.identity)).toEqual(pinned);
    expect(node.events).toEqual([
      { type: "rejected", identity: bob.identity, code, ...(step === undefined ? {} : { step }) },
    ]);
    expect(node.log.lines.filter((line) => line.level === "warn")).toMatchObject([
      {
        message: "a record of the directory was refused",
        fields: { identity: bob.identity, code, ...(step === undefined ? {} : { step }) },
      },
    ]);
    said = truth;
    expect((await node.look()).trust).toBe("pinned");
  });

  test("a person of a domain without anchors is refused, not believed", async () => {
    using node = client();
    said = truth;
    const eve = parseIdentity("eve@unknown.test");
    await expect(node.directory.lookup(eve, {}, signal())).rejects.toMatchObject({ code: "record-rejected" });
    expect(node.events).toMatchObject([{ type: "rejected", identity: eve }]);
    expect(node.pins.pins.size).toBe(0);
  });

  test("a restarted node, which has only its pins, refuses the replay as well", async () => {
    const pins = new MemoryPins();
    {
      using before = client(pins);
      said = () => reply(three);
      await before.look();
    }
    using after = client(pins);
    said = () => reply(two);
    await expect(after.look()).rejects.toMatchObject({ code: "record-rollback", details: { seen: 3, told: 2 } });
    said = () => reply(fork);
    await expect(after.look()).rejects.toMatchObject({ code: "record-fork", details: { seq: 3 } });
  });

  test("an older answer that was asked for before the newer one and comes after it gives the newer one", async () => {
    using node = client();
    const arrived = Promise.withResolvers<void>();
    const held = Promise.withResolvers<Answer>();
    said = () => {
      arrived.resolve();
      return held.promise;
    };
    const slow = node.look();
    await arrived.promise;
    said = () => reply(three);
    await node.look();
    held.resolve(reply(two));
    expect(await slow).toMatchObject({ seq: 3, stale: false });
    expect(node.pins.find(bob.identity)?.seq).toBe(3);
    said = () => reply(two);
    await expect(node.look()).rejects.toMatchObject({ code: "record-rollback" });
  });
});

describe("what an honest directory says", () => {
  test("a changed root is told, and asks for the owner's consent", async () => {
    using node = client();
    said = truth;
    await node.look();
    const [, , replaced = ""] = await history([
      { own, by: bob.auth },
      { own, by: bob.auth },
      { own: ownOf(bobsNew, uuid), by: bobsNew.auth },
    ]);
    said = () => reply(replaced);
    expect((await node.look()).trust).toBe("changed");
    expect(node.events.map((event) => event.type)).toEqual([
      "deviceAdded",
      "deviceRemoved",
      "encryptionChanged",
      "rootReplaced",
    ]);
    expect((await node.look()).trust).toBe("changed");
    node.directory.agree(bob.identity);
    expect((await node.look()).trust).toBe("pinned");
  });

  test("a record serves from memory for as long as it says, and no longer than asked afresh", async () => {
    using node = client();
    let asked = 0;
    said = async () => {
      asked += 1;
      return truth();
    };
    await node.look();
    await node.directory.lookup(bob.identity, {}, signal());
    expect(asked).toBe(1);
    await node.look();
    expect(asked).toBe(2);
  });

  test("expired addresses are none, and no lie", async () => {
    using node = client();
    said = async () => reply(two, await addresses(5, bob.auth, uuid, new Date(Date.now() - 7_300_000)));
    expect((await node.look()).devices[0]?.addresses).toEqual([]);
    expect(node.events).toEqual([]);
  });

  test.each<[string, number, string, boolean]>([
    ["404", 404, "unknown-recipient", false],
    ["401", 401, "auth-failed", false],
    ["403", 403, "forbidden", false],
    ["400", 400, "record-rejected", false],
    ["429", 429, "directory-unavailable", true],
    ["500", 500, "directory-unavailable", true],
    ["503", 503, "directory-unavailable", true],
    ["302", 302, "directory-unavailable", true],
  ])("a stranger's %s means what it says", async (_name, status, code, temporary) => {
    using node = client();
    said = () => ({ status, body: { code: "x" } });
    await expect(node.look()).rejects.toMatchObject({ code, temporary });
  });

  test("while it is away the last verified record serves and is called stale, without an event", async () => {
    using node = client();
    said = truth;
    await node.look();
    said = () => ({ status: 503, body: {} });
    expect(await node.look()).toMatchObject({ stale: true, trust: "pinned", name: "Bob 2", seq: 2 });
    expect((await node.look()).devices[0]?.addresses).toHaveLength(1);
    expect(node.events).toEqual([]);
  });

  test("while it is away a record that has lapsed does not serve: the directory is what is missing, not the person", async () => {
    using node = client();
    said = truth;
    await node.look();
    const pin = node.pins.find(bob.identity);
    if (pin !== undefined) node.pins.put(bob.identity, { ...pin, reply: { ...pin.reply, identity: "lapsed" } });
    said = () => ({ status: 503, body: {} });
    await expect(node.look()).rejects.toMatchObject({ code: "directory-unavailable", temporary: true });
    expect(node.events).toEqual([]);
  });
});

test("told that it announced more already, a node goes on only from what it signed itself", async () => {
  using node = client();
  const forged = await addresses(9_000_000_000_000_000, bobsNew.auth);
  const [own = ""] = await history([{ own: ownOf(alice, uuid), by: alice.auth }]);
  let announced = 0;
  said = (method) => {
    if (method === "GET") return reply(own, forged, alice.auth.certificate.fingerprint);
    announced += 1;
    return { status: 409, body: { code: "conflict" } };
  };
  await expect(node.directory.publishAddresses([], signal())).rejects.toMatchObject({ code: "record-rejected" });
  expect(announced).toBe(1);
});

test("a directory with somebody else's certificate is not asked anything", async () => {
  const other = makeTestDomain({ domain: "alpha.test" });
  let asked = 0;
  await using impostor = await startLiar(other, () => {
    asked += 1;
    return reply(two);
  });
  const http = httpTo(alpha, impostor.address, alice.auth);
  const directory = new DirectoryClient({
    http,
    uuid,
    signer: () => alice.auth,
    anchorsFor: () => [alpha.anchor],
    pins: new MemoryPins(),
    clock: now,
    log: recordLog(),
    onEvent: () => undefined,
    onDomain: () => undefined,
  });
  await expect(directory.lookup(bob.identity, {}, signal())).rejects.toMatchObject({ code: "directory-unavailable" });
  expect(asked).toBe(0);
  http.close();
});
