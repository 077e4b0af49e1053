import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { CutPoint } from "../../src/delivery/cut-point.ts";
import type { Kind } from "../../src/delivery/envelope.ts";
import type { NodeEvent } from "../../src/delivery/event-types.ts";
import { storeFailed } from "../../src/delivery/health.ts";
import { makeInbox, type SealedArrival } from "../../src/delivery/inbox.ts";
import type { Store } from "../../src/delivery/store.ts";
import type { Identity } from "../../src/pki/identity.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { VirtualTime } from "../support/virtual-time.ts";
import { alice, bob, carol, nextEvent, openTestStore, peerOf, receiver } from "./party.ts";
import { toyCertificate, toyOpener, toySeal } from "./toy-seal.ts";

const never = new AbortController().signal;

async function sealed(text: string, o: { signer?: Identity; body?: Buffer } = {}): Promise<Buffer> {
  async function* entity() {
    yield Buffer.from(`Subject: ${text}\r\nMessage-ID: <${text}@a.test>\r\n\r\n`);
    yield o.body ?? Buffer.from(text);
  }
  const parts: Uint8Array[] = [];
  const to = { kind: "mail" as const, from: o.signer ?? alice, to: bob, recipient: toyCertificate(bob), opens: [] };
  for await (const part of toySeal.stream(entity(), to, never)) parts.push(part);
  return Buffer.concat(parts);
}

async function* inPieces(bytes: Buffer, size = 10_000): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function arrival(bytes: Buffer, o: Partial<SealedArrival> & { kind?: Kind } = {}): SealedArrival {
  return { kind: "mail", peer: peerOf(alice), source: inPieces(bytes), maxBytes: 10_000_000, ...o };
}

async function filesOf(directory: string): Promise<string[]> {
  const found = await readdir(join(directory, "content"), { recursive: true, withFileTypes: true });
  return found.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

const text = async (stream: AsyncIterable<Buffer>) => {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts).toString();
};

const eventsOf = async (store: Store): Promise<NodeEvent[]> => {
  const rows = await store.inside.database.call("eventsAfter", { after: 0, limit: 1_000 });
  return rows.map(({ json }) => JSON.parse(json) as NodeEvent);
};

describe("a sealed thing", () => {
  test("is stored opened and as it came, with the verdict, and the owner is told", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    const bytes = await sealed("hello");
    const told = nextEvent(party.store, (body) => body.type === "item.received");
    const { id, duplicate, digest } = await party.inbox.receiveSealed(
      arrival(bytes, {
        to: [bob],
        original: { head: "X-Outer: yes\r\n\r\n", encoding: "base64" },
        present: ({ signer, cipher }) => `X-Seal: ${signer.identities[0]?.identity} ${cipher}\r\n`,
      }),
      never,
    );
    expect(duplicate).toBe(false);
    expect((await told).body).toMatchObject({ item: id, kind: "mail", from: alice, title: "hello", sealed: true });
    const item = await party.store.item(String(id));
    expect(item).toMatchObject({
      box: "inbox",
      from: alice,
      to: [bob],
      messageId: "hello@a.test",
      title: "hello",
      peer: toyCertificate(alice).fingerprint,
      protection: { sealed: true, signer: toyCertificate(alice).fingerprint, digest, cipher: "toy" },
      repeatsId: false,
    });
    const shown = await text(party.store.openItem(item));
    expect(shown).toBe("X-Seal: alice@a.test toy\r\nSubject: hello\r\nMessage-ID: <hello@a.test>\r\n\r\nhello");
    expect(Buffer.byteLength(shown)).toBe(item.size);
    expect(await text(party.store.openItem(item, 30))).toBe(shown.slice(30));
    expect(await text(party.store.openItem(item, 10))).toBe(shown.slice(10));
    const original = await text(party.store.openOriginal(item));
    const [head, body = ""] = original.split("\r\n\r\n");
    expect(head).toBe("X-Outer: yes");
    expect(Buffer.from(body, "base64").equals(bytes)).toBe(true);
    expect(body.split("\r\n").every((line) => line.length <= 76)).toBe(true);
  });

  test("that is large becomes two files with final names, and nothing stays behind", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    const body = randomBytes(500_000);
    const bytes = await sealed("big", { body });
    const { id } = await party.inbox.receiveSealed(arrival(bytes, { kind: "file" }), never);
    const item = await party.store.item(String(id));
    expect((await party.store.bytes(item.content)).equals(body)).toBe(true);
    expect((await filesOf(folder.path)).sort()).toEqual([item.content.digest, item.original?.content.digest].sort());
  });

  test.each([0, 300_000])("that comes twice is stored once, also with another seal (%d bytes)", async (size) => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    const body = randomBytes(size);
    const first = await party.inbox.receiveSealed(arrival(await sealed("same", { body })), never);
    const second = await party.inbox.receiveSealed(arrival(await sealed("same", { body })), never);
    expect(second).toEqual({ ...first, duplicate: true });
    expect(await party.store.items()).toHaveLength(1);
    expect(await filesOf(folder.path)).toHaveLength(size === 0 ? 0 : 2);
  });

  test("that comes on ten connections at once is stored once, and all get yes with the same id", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    const body = randomBytes(200_000);
    const arrivals = await Promise.all(Array.from({ length: 10 }, () => sealed("same", { body })));
    const stored = await Promise.all(arrivals.map((bytes) => party.inbox.receiveSealed(arrival(bytes), never)));
    expect(new Set(stored.map(({ id }) => id)).size).toBe(1);
    expect(stored.filter(({ duplicate }) => !duplicate)).toHaveLength(1);
    expect(await party.store.items()).toHaveLength(1);
    expect(await filesOf(folder.path)).toHaveLength(2);
    expect((await eventsOf(party.store)).filter(({ type }) => type === "item.received")).toHaveLength(1);
  });

  test("with a known message id and other content is stored and marked", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    await party.inbox.receiveSealed(arrival(await sealed("a"), { messageId: "one" }), never);
    const { id } = await party.inbox.receiveSealed(arrival(await sealed("b"), { messageId: "one" }), never);
    expect((await party.store.item(String(id))).repeatsId).toBe(true);
    expect(await party.store.items()).toHaveLength(2);
  });

  test("signed by somebody else than the peer is refused, whatever the opener says", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    const stolen = await sealed("x", { signer: carol });
    await expect(party.inbox.receiveSealed(arrival(stolen), never)).rejects.toMatchObject({
      code: "seal-wrong-signer",
    });
    const lax = makeInbox({
      store: party.store,
      open: (source, o, signal) => toyOpener(toyCertificate(bob))(source, { ...o, expectedSigner: carol }, signal),
    });
    await expect(lax.receiveSealed(arrival(stolen), never)).rejects.toMatchObject({ code: "seal-wrong-signer" });
    expect(await party.store.items()).toEqual([]);
    expect(await filesOf(folder.path)).toEqual([]);
    expect((await eventsOf(party.store)).map(({ type }) => type)).toEqual(["seal.refused", "seal.refused"]);
  });

  test("leaves nothing when its source breaks off, or what shows it refuses it", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    const bytes = await sealed("x", { body: randomBytes(500_000) });
    async function* broken() {
      yield bytes.subarray(0, 400_000);
      throw new Error("connection lost");
    }
    await expect(party.inbox.receiveSealed(arrival(bytes, { source: broken() }), never)).rejects.toMatchObject({
      code: "internal",
    });
    const present = () => {
      throw new Error("another From");
    };
    await expect(party.inbox.receiveSealed(arrival(bytes, { present }), never)).rejects.toThrow();
    expect(await filesOf(folder.path)).toEqual([]);
    expect(await party.store.items()).toEqual([]);
  });

  test("is kept whole when the opener sees the end before the source does", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    const hasty = makeInbox({
      store: party.store,
      open: async (source, o, signal) => {
        const first: Uint8Array[] = [];
        for await (const part of source) {
          first.push(part);
          break;
        }
        return toyOpener(toyCertificate(bob))(inPieces(Buffer.concat(first)), o, signal);
      },
    });
    const bytes = await sealed("x");
    async function* twoPieces() {
      yield bytes;
      yield Buffer.from("\n");
    }
    const { id } = await hasty.receiveSealed(arrival(bytes, { source: twoPieces() }), never);
    expect((await party.store.item(String(id))).original?.content.size).toBe(bytes.length + 1);
  });

  test("over the limit is refused while it comes", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    const bytes = await sealed("x", { body: randomBytes(500_000) });
    let pulled = 0;
    async function* counted() {
      for await (const piece of inPieces(bytes)) {
        pulled += piece.length;
        yield piece;
      }
    }
    const refused = party.inbox.receiveSealed(arrival(bytes, { source: counted(), maxBytes: 100_000 }), never);
    await expect(refused).rejects.toMatchObject({ code: "seal-too-large", temporary: false });
    expect(pulled).toBeLessThan(120_000);
    expect(await filesOf(folder.path)).toEqual([]);
  });
});

describe("a peer's bounds", () => {
  test("after 20 unreadable seals a day the next are refused unread, also after a restart, until tomorrow", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    let opened = 0;
    const attempt = async (party: Awaited<ReturnType<typeof receiver>>, what = "UNREADABLE") =>
      party.inbox
        .receiveSealed(
          arrival(Buffer.alloc(0), {
            source: (async function* () {
              opened += 1;
              yield await sealed(what);
            })(),
          }),
          never,
        )
        .catch((error: { code: string }) => error.code);
    {
      await using party = await receiver(folder.path, { time });
      for (let n = 0; n < 19; n += 1) expect(await attempt(party)).toBe("seal-unreadable");
    }
    await using party = await receiver(folder.path, { time });
    expect(await attempt(party)).toBe("seal-unreadable");
    expect(await attempt(party)).toBe("seal-rate-limited");
    expect(await attempt(party, "fine")).toBe("seal-rate-limited");
    expect(opened).toBe(20);
    const other = arrival(await sealed("carol's", { signer: carol }), { peer: peerOf(carol) });
    expect((await party.inbox.receiveSealed(other, never)).duplicate).toBe(false);
    time.advance(86_400_000);
    expect(await attempt(party, "fine")).toMatchObject({ duplicate: false });
  });

  test("many unreadable seals at once do not buy more than the budget by much", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    const codes: string[] = [];
    const attempt = async () => {
      await party.inbox
        .receiveSealed(arrival(await sealed("UNREADABLE")), never)
        .catch((error) => codes.push(error.code));
    };
    await attempt();
    for (let round = 0; round < 10; round += 1) await Promise.all(Array.from({ length: 15 }, attempt));
    expect(codes.filter((code) => code === "seal-unreadable").length).toBeLessThanOrEqual(20);
  });

  test("a seal for somebody else's key costs nothing of the budget", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path, { owner: carol });
    for (let n = 0; n < 25; n += 1) {
      const refused = party.inbox.receiveSealed(arrival(await sealed(`${n}`)), never);
      await expect(refused).rejects.toMatchObject({ code: "seal-not-for-us" });
    }
  });

  test("items a day are limited, with one word to the owner; a duplicate costs nothing", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using party = await receiver(folder.path, { time, quota: { items: 3 } });
    const take = async (name: string) => party.inbox.receiveSealed(arrival(await sealed(name)), never);
    await take("1");
    await take("1");
    await take("2");
    await take("3");
    for (const name of ["4", "5"])
      await expect(take(name)).rejects.toMatchObject({ code: "quota-exceeded", temporary: true });
    const told = (await eventsOf(party.store)).filter(({ type }) => type === "quota.reached");
    expect(told).toEqual([{ type: "quota.reached", peer: alice, what: "items" }]);
    time.advance(86_400_000);
    await take("4");
  });

  test("bytes a day are limited, of files apart from the rest, and refused while they come", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path, { quota: { bytes: 150_000, fileBytes: 1_000_000 } });
    const large = await sealed("large", { body: randomBytes(200_000) });
    await expect(party.inbox.receiveSealed(arrival(large), never)).rejects.toMatchObject({ code: "quota-exceeded" });
    await party.inbox.receiveSealed(arrival(large, { kind: "file" }), never);
    expect(await party.store.items()).toHaveLength(1);
  });

  test("bytes of several that come at once are limited together, of mail apart from files", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path, { quota: { bytes: 1_000_000, fileBytes: 1_000_000 } });
    let came = 0;
    const { promise: end, resolve } = Promise.withResolvers<void>();
    async function* half() {
      for (let n = 0; n < 8; n += 1) {
        came += 50_000;
        yield Buffer.alloc(50_000, "{");
      }
      await end;
    }
    const give = (kind: Kind) => party.inbox.receiveSealed(arrival(Buffer.alloc(0), { kind, source: half() }), never);
    const waiting = Promise.allSettled([give("file"), give("file"), give("mail")]);
    await expect.poll(() => came).toBe(1_200_000);
    await expect(give("file")).rejects.toMatchObject({ code: "quota-exceeded", details: { what: "file-bytes" } });
    resolve();
    await waiting;
    await expect(give("file")).rejects.toMatchObject({ code: "seal-malformed" });
  });

  test("what is more than the quota with its original has no name, also of many at once: nothing of it stays", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path, { quota: { fileBytes: 500_000 } });
    const names = Array.from({ length: 4 }, (_, n) => `file ${n}`);
    const all = await Promise.all(names.map((name) => sealed(name, { body: randomBytes(200_000) })));
    const taken = all.map((bytes) => party.inbox.receiveSealed(arrival(bytes, { kind: "file" }), never));
    const settled = await Promise.allSettled(taken);
    expect(settled.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected", "rejected", "rejected"]);
    expect(await filesOf(folder.path)).toHaveLength(2);
    const large = party.inbox.receiveSealed(
      arrival(await sealed("large", { body: randomBytes(90_000) }), { kind: "file", peer: peerOf(alice) }),
      never,
    );
    await expect(large).rejects.toMatchObject({ code: "quota-exceeded", temporary: true });
    expect(await filesOf(folder.path)).toHaveLength(2);
  });

  test("everything is refused for now while the disk is nearly full", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path, { minFreeBytes: Number.MAX_SAFE_INTEGER });
    const sealedOne = party.inbox.receiveSealed(arrival(await sealed("x")), never);
    await expect(sealedOne).rejects.toMatchObject({ code: "store-failed", temporary: true, fault: "local" });
    const plain = {
      kind: "message" as const,
      peer: peerOf(alice),
      messageId: "1",
      bytes: Buffer.from("x"),
      title: "x",
    };
    await expect(party.inbox.receivePlain(plain, never)).rejects.toMatchObject({ code: "store-failed" });
  });
});

test("a sealed thing for which the disk has too little room is refused while it comes, and nothing of it stays", async () => {
  await using folder = await temporaryFolder();
  await using party = await receiver(folder.path);
  let left = 500_000;
  const check = (bytes: number) => {
    left -= bytes;
    return left < 0 ? Promise.reject(storeFailed("disk nearly full")) : Promise.resolve();
  };
  const store = { ...party.store, inside: { ...party.store.inside, space: { check } } };
  const inbox = makeInbox({ store, open: toyOpener(toyCertificate(bob)) });
  let came = 0;
  async function* source() {
    yield await sealed("large", { body: randomBytes(100_000) });
    for (; came < 5_000_000; came += 50_000) yield randomBytes(50_000);
  }
  const refused = inbox.receiveSealed(arrival(Buffer.alloc(0), { source: source(), kind: "file" }), never);
  await expect(refused).rejects.toMatchObject({ code: "store-failed", temporary: true });
  expect(came).toBeLessThan(1_000_000);
  expect(await filesOf(folder.path)).toEqual([]);
});

describe("an unsealed message", () => {
  const plain = (id: string, bytes = id) => ({
    kind: "message" as const,
    peer: peerOf(alice),
    messageId: id,
    bytes: Buffer.from(bytes),
    title: id,
  });

  test("is stored once, and readers go on from their marks in the order of storing", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    const heard: string[] = [];
    party.store.onReceived("message", (id) => heard.push(id));
    const first = await party.inbox.receivePlain(plain("1"), never);
    expect(await party.inbox.receivePlain(plain("1"), never)).toEqual({ ...first, duplicate: true });
    await Promise.all(["2", "3", "4"].map((id) => party.inbox.receivePlain(plain(id), never)));
    expect(heard).toHaveLength(4);
    const all = await party.store.receivedAfter("message", await party.store.mark("app"), 500);
    expect(all.map(({ title }) => title)).toEqual(["1", "2", "3", "4"]);
    expect(all.every(({ protection }) => !protection.sealed)).toBe(true);
    await party.store.setMark("app", all[2]?.seq ?? 0);
    const rest = await party.store.receivedAfter("message", await party.store.mark("app"), 500);
    expect(rest.map(({ title }) => title)).toEqual(["4"]);
    expect((await party.store.receivedAfter("message", undefined, 2)).map(({ title }) => title)).toEqual(["3", "4"]);
  });

  test("is durable before it is acknowledged: content, then the commit", async () => {
    await using folder = await temporaryFolder();
    const passed: CutPoint[] = [];
    const party = await receiver(folder.path, { cut: (point) => passed.push(point) });
    const { id, digest } = await party.inbox.receivePlain(plain("1", "x".repeat(100_000)), never);
    expect(passed).toEqual([
      "content.written",
      "content.synced",
      "content.renamed",
      "inbox.content-synced",
      "inbox.committed",
    ]);
    expect(existsSync(join(folder.path, "content", digest.slice(0, 2), digest))).toBe(true);
    await party[Symbol.asyncDispose]();
    await using again = await receiver(folder.path);
    expect((await again.store.item(String(id))).title).toBe("1");
  });
});

describe("the store's lists", () => {
  test("filter, page, find by the beginning of an id, and mark as seen once", async () => {
    await using folder = await temporaryFolder();
    await using party = await receiver(folder.path);
    for (const [n, peer] of [alice, carol, alice].entries()) {
      const kind = n === 2 ? "file" : "message";
      await party.inbox.receivePlain(
        { kind, peer: peerOf(peer), messageId: `${n}`, bytes: Buffer.from(`${n}`), title: `${n}` },
        never,
      );
    }
    const titles = async (filter: Parameters<Store["items"]>[0]) =>
      (await party.store.items(filter)).map(({ title }) => title);
    expect(await titles({})).toEqual(["2", "1", "0"]);
    expect(await titles({ kind: "message" })).toEqual(["1", "0"]);
    expect(await titles({ peer: alice })).toEqual(["2", "0"]);
    expect(await titles({ box: "sent" })).toEqual([]);
    const [newest] = await party.store.items({ limit: 1 });
    if (newest === undefined) throw new Error("there are three");
    expect(await titles({ beforeSeq: newest.seq, limit: 1 })).toEqual(["1"]);
    expect((await party.store.item(newest.id.toLowerCase())).id).toBe(newest.id);
    expect((await party.store.item(newest.id.slice(0, 24))).id).toBe(newest.id);
    await expect(party.store.item("ZZZZ")).rejects.toMatchObject({ code: "not-found" });
    await expect(party.store.item(newest.id.slice(0, 2))).rejects.toMatchObject({ code: "conflict" });
    await party.store.markSeen(newest.id);
    await party.store.markSeen(newest.id);
    expect(await titles({ unseen: true })).toEqual(["1", "0"]);
    expect((await eventsOf(party.store)).filter(({ type }) => type === "item.seen")).toHaveLength(1);
  });

  test("say that a thing came unsealed when its original is asked for", async () => {
    await using folder = await temporaryFolder();
    const store = await openTestStore(folder.path);
    await store.close();
    await using party = await receiver(folder.path);
    const { id } = await party.inbox.receivePlain(
      { kind: "message", peer: peerOf(alice), messageId: "1", bytes: Buffer.from("x"), title: "x" },
      never,
    );
    const item = await party.store.item(String(id));
    expect(() => party.store.openOriginal(item)).toThrow("came unsealed");
  });
});
