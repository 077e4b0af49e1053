import { createHash, randomBytes } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { describe, expect, test } from "vitest";
import type { CutPoint } from "../../src/delivery/cut-point.ts";
import type { PeerQuota } from "../../src/delivery/inbox-calls.ts";
import type { Draft } from "../../src/delivery/outbox.ts";
import type { Store } from "../../src/delivery/store.ts";
import { asSuiteError } from "../../src/pki/suite-error.ts";
import { serializeHead } from "../../src/smime/entity.ts";
import { fileHead } from "../../src/smime/file-name.ts";
import {
  MANIFEST_TYPE,
  type Manifest,
  manifestBytes,
  type PartPlace,
  transferField,
} from "../../src/smime/transfer.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { VirtualTime } from "../support/virtual-time.ts";
import {
  alice,
  bob,
  carol,
  type Delivery,
  failure,
  nextEvent,
  peerOf,
  receiptChange,
  receiver,
  record,
  sender,
  unreachable,
} from "./party.ts";
import { toyCertificate, toySeal } from "./toy-seal.ts";

type Sender = Awaited<ReturnType<typeof sender>>;
type Receiver = Awaited<ReturnType<typeof receiver>>;

const never = new AbortController().signal;
const PARTS = { above: 250_000, bytes: 100_000 };
const DAY = 86_400_000;

function fileDraft(bytes: Buffer, name = "film.mkv"): Draft {
  const [from, to, messageId] = [alice, [bob], `${name}@a.test`];
  const date = new Date("2026-11-25T10:00:00Z");
  const head = fileHead({ from, to, messageId, date, name, mediaType: "video/x-matroska", size: bytes.length });
  const entity = Buffer.concat([serializeHead(head), bytes]);
  return { kind: "file", from, to, messageId, entity, seal: "node", title: name, fileName: name };
}

/** Hands on to Bob's inbox as an endpoint does. */
function handOver(delivery: Delivery, to: Receiver): Promise<void> {
  const arrival = {
    kind: "file" as const,
    peer: peerOf(alice),
    to: [bob],
    source: delivery.item.open(),
    maxBytes: 1e8,
  };
  return to.inbox.receiveSealed(arrival, delivery.signal).then(
    () => delivery.yes(),
    (error: unknown) => delivery.no(asSuiteError(error)),
  );
}

async function onlyFile(store: Store): Promise<Buffer | undefined> {
  const items = await store.items({ box: "inbox" });
  expect(items.length).toBeLessThan(2);
  const [item] = items;
  return item === undefined ? undefined : Buffer.concat((await store.openItem(item).toArray()) as Buffer[]);
}

const objectsOf = (party: Sender) =>
  party.endpoint.deliveries.map(({ item }) => item.object.replace(/^[0-9a-f]{32}/, ""));
const stray = (folder: string) =>
  ["attempt", "transfer", join("content", "tmp")].flatMap((name) =>
    existsSync(join(folder, name)) ? readdirSync(join(folder, name)) : [],
  );

async function pair(folder: string, o: { quota?: Partial<PeerQuota>; time?: VirtualTime; parts?: typeof PARTS } = {}) {
  const party = await sender(join(folder, "alice"), { parts: PARTS, schedule: [0, 0.01], ...o });
  const other = await receiver(join(folder, "bob"), o);
  return {
    party,
    other,
    async [Symbol.asyncDispose]() {
      await party[Symbol.asyncDispose]();
      await other[Symbol.asyncDispose]();
    },
  };
}

describe("a large file", () => {
  test("goes in parts and a manifest, and is one file in the end", async () => {
    await using folder = await temporaryFolder();
    await using nodes = await pair(folder.path);
    const { party, other } = nodes;
    const bytes = randomBytes(330_000);
    party.endpoint.answer = (delivery) => void handOver(delivery, other);
    const told = nextEvent(other.store, (body) => body.type === "item.received");
    const item = await party.outbox.accept(fileDraft(bytes));
    expect(await party.outbox.settled(item, AbortSignal.timeout(5_000))).toBe("delivered");
    expect((await told).body).toMatchObject({ kind: "file", from: alice, title: "film.mkv", size: bytes.length });
    expect((await onlyFile(other.store))?.equals(bytes)).toBe(true);
    const [stored] = await other.store.items();
    expect(stored).toMatchObject({
      from: alice,
      to: [bob],
      fileName: "film.mkv",
      messageId: "film.mkv@a.test",
      content: { digest: createHash("sha256").update(bytes).digest("hex"), size: bytes.length },
      protection: { sealed: true, signer: toyCertificate(alice).fingerprint },
    });
    expect(objectsOf(party)).toEqual([".0000.p7m", ".0001.p7m", ".0002.p7m", ".0003.p7m", ".manifest.p7m"]);
    expect(stray(join(folder.path, "alice"))).toEqual([]);
    expect(stray(join(folder.path, "bob"))).toEqual([]);
    const manifest = Buffer.concat(
      (await other.store.openOriginal(stored as NonNullable<typeof stored>).toArray()) as Buffer[],
    );
    expect(manifest.toString()).toContain('"name":"film.mkv"');
  });

  test.each([
    [250_000, [".p7m"]],
    [250_001, [".0000.p7m", ".0001.p7m", ".0002.p7m", ".manifest.p7m"]],
  ])("of %d bytes goes as %j", async (size, objects) => {
    await using folder = await temporaryFolder();
    await using nodes = await pair(folder.path);
    const bytes = randomBytes(size);
    nodes.party.endpoint.answer = (delivery) => void handOver(delivery, nodes.other);
    const item = await nodes.party.outbox.accept(fileDraft(bytes));
    expect(await nodes.party.outbox.settled(item, AbortSignal.timeout(5_000))).toBe("delivered");
    expect(objectsOf(nodes.party)).toEqual(objects);
    expect((await onlyFile(nodes.other.store))?.equals(bytes)).toBe(true);
  });

  test("tells its progress over the whole", async () => {
    await using folder = await temporaryFolder();
    await using nodes = await pair(folder.path);
    const { party, other } = nodes;
    const told: unknown[] = [];
    party.endpoint.answer = async (delivery) => {
      for (const sent of [0, 60_000, delivery.item.size]) {
        delivery.item.progress(sent);
        const [receipt] = await party.outbox.receipts({ item });
        if (receipt?.status.state === "sending") told.push([receipt.status.sentBytes, receipt.status.totalBytes]);
      }
      await handOver(delivery, other);
    };
    const item = await party.outbox.accept(fileDraft(randomBytes(300_000)));
    await party.outbox.settled(item, AbortSignal.timeout(5_000));
    const whole = [0, 60_000, 100_000, 100_000, 160_000, 200_000, 200_000, 260_000, 300_000, 300_000, 300_000, 300_000];
    expect(told).toEqual(whole.map((sent) => [sent, 300_000]));
  });

  test("that is cut goes on with the part that was not acknowledged, with the same bytes, also after a restart", async () => {
    await using folder = await temporaryFolder();
    const bytes = randomBytes(330_000);
    const seen: Buffer[] = [];
    {
      await using nodes = await pair(folder.path, { time: new VirtualTime() });
      const { party, other } = nodes;
      party.endpoint.answer = async (delivery) => {
        if (!delivery.item.object.includes(".0002.")) return handOver(delivery, other);
        seen.push(await delivery.bytes());
        return delivery.no(unreachable());
      };
      const noted = nextEvent(party.store, receiptChange("queued"));
      await party.outbox.accept(fileDraft(bytes));
      await noted;
      expect(readdirSync(join(folder.path, "alice", "attempt"))).toHaveLength(1);
    }
    await using nodes = await pair(folder.path);
    const { party, other } = nodes;
    const answer = async (delivery: Delivery) => {
      if (delivery.item.object.includes(".0002.")) {
        seen.push(await delivery.bytes());
        expect(delivery.item.again).toBe(true);
      }
      return handOver(delivery, other);
    };
    party.endpoint.answer = answer;
    for (const delivery of party.endpoint.deliveries) void answer(delivery); // it may have begun at once
    const [receipt] = await party.outbox.receipts();
    if (receipt === undefined) throw new Error("no receipt");
    expect(await party.outbox.settled(receipt.item, AbortSignal.timeout(5_000))).toBe("delivered");
    expect(objectsOf(party)).toEqual([".0002.p7m", ".0003.p7m", ".manifest.p7m"]);
    expect(seen[0]?.equals(seen[1] ?? Buffer.alloc(0))).toBe(true);
    expect((await onlyFile(other.store))?.equals(bytes)).toBe(true);
    expect(stray(join(folder.path, "bob"))).toEqual([]);
  });

  test("begins anew, with another transfer, for the recipient's new certificate, and is stored once", async () => {
    await using folder = await temporaryFolder();
    await using nodes = await pair(folder.path);
    const { party } = nodes;
    const transfers = new Set<string>();
    party.endpoint.answer = (delivery) => {
      transfers.add(delivery.item.transfer);
      if (!delivery.item.object.includes(".0001.") || party.endpoint.deliveries.length > 2) return delivery.yes();
      party.sixid.records.set(bob, record(bob, { encryption: [toyCertificate(bob, 2)] }));
      return delivery.no(failure("busy", { temporary: true }));
    };
    const item = await party.outbox.accept(fileDraft(randomBytes(300_000)));
    expect(await party.outbox.settled(item, AbortSignal.timeout(5_000))).toBe("delivered");
    expect(objectsOf(party).join(" ")).toBe(".0000.p7m .0001.p7m .0000.p7m .0001.p7m .0002.p7m .manifest.p7m");
    expect(transfers.size).toBe(2);
    expect(stray(join(folder.path, "alice"))).toEqual([]);
  });

  test("whose parts the peer's node has lost is sent again", async () => {
    await using folder = await temporaryFolder();
    await using nodes = await pair(folder.path);
    const { party, other } = nodes;
    const bytes = randomBytes(300_000);
    let lost = false;
    party.endpoint.answer = async (delivery) => {
      if (delivery.item.object.includes("manifest") && !lost) {
        lost = true;
        const ids = await other.store.inside.database.call("unfinishedTransfers");
        await other.store.inside.database.call("dropTransfers", ids);
      }
      return handOver(delivery, other);
    };
    const item = await party.outbox.accept(fileDraft(bytes));
    expect(await party.outbox.settled(item, AbortSignal.timeout(5_000))).toBe("delivered");
    expect(party.endpoint.deliveries).toHaveLength(8);
    expect((await onlyFile(other.store))?.equals(bytes)).toBe(true);
  });

  test("whose last yes gets lost is there once, and its parts are not sent again", async () => {
    await using folder = await temporaryFolder();
    await using nodes = await pair(folder.path);
    const { party, other } = nodes;
    const bytes = randomBytes(300_000);
    let answered = false;
    party.endpoint.answer = async (delivery) => {
      if (!delivery.item.object.includes("manifest") || answered) return handOver(delivery, other);
      answered = true;
      await handOver({ ...delivery, yes: () => delivery.no(unreachable()) }, other); // the yes gets lost
    };
    const item = await party.outbox.accept(fileDraft(bytes));
    expect(await party.outbox.settled(item, AbortSignal.timeout(5_000))).toBe("delivered");
    expect(objectsOf(party).slice(-2)).toEqual([".manifest.p7m", ".manifest.p7m"]);
    expect((await onlyFile(other.store))?.equals(bytes)).toBe(true);
  });

  test("that the owner cancels stops, and nothing of it is left at the sender", async () => {
    await using folder = await temporaryFolder();
    await using nodes = await pair(folder.path);
    const { party, other } = nodes;
    party.endpoint.answer = (delivery) => {
      if (!delivery.item.object.includes(".0001.")) void handOver(delivery, other);
    };
    const item = await party.outbox.accept(fileDraft(randomBytes(300_000)));
    const second = await party.endpoint.delivery(1);
    expect(readdirSync(join(folder.path, "alice", "attempt"))).toHaveLength(1);
    await party.outbox.cancel(item);
    expect(second.signal.aborted).toBe(true);
    expect(await party.outbox.settled(item, AbortSignal.timeout(5_000))).toBe("failed");
    expect(stray(join(folder.path, "alice"))).toEqual([]);
    expect(await party.store.inside.database.call("sending", 1)).toBeUndefined();
    expect(party.endpoint.deliveries).toHaveLength(2);
  });
});

/** A part or manifest, sealed by hand. */
async function sealedBy(
  what: { place?: PartPlace; body: Buffer } | { manifest: Manifest },
  signer = alice,
): Promise<Buffer> {
  const [from, to, messageId, date] = [signer, [bob], "by-hand@a.test", new Date("2026-11-25T10:00:00Z")];
  const mediaType = "manifest" in what ? MANIFEST_TYPE : "text/plain";
  const head = fileHead({ from, to, messageId, date, name: "x", mediaType });
  const place = "place" in what ? what.place : undefined;
  const fields = place === undefined ? head.fields : [...head.fields, transferField(place)];
  async function* entity() {
    yield serializeHead({ fields });
    yield "body" in what ? what.body : manifestBytes(what.manifest);
  }
  const how = { kind: "file" as const, from: signer, to: bob, recipient: toyCertificate(bob), opens: [] };
  return Buffer.concat(await Array.fromAsync(toySeal.stream(entity(), how, never)));
}

describe("a peer that puts parts together by hand", () => {
  const transfer = "ab".repeat(16);
  const body = randomBytes(250_000);
  const ranges = [0, 1, 2].map((part) => ({ part, bytes: body.subarray(part * 100_000, (part + 1) * 100_000) }));
  const placed = (part: number): PartPlace => ({ transfer, part, of: 3, offset: part * 100_000, total: 250_000 });
  const part = (n: number, change: Partial<PartPlace> = {}, bytes = ranges[n]?.bytes ?? Buffer.alloc(0)) =>
    sealedBy({ place: { ...placed(n), ...change }, body: bytes });
  const digestOf = (sealed: Buffer) =>
    createHash("sha256")
      .update(sealed.subarray(sealed.indexOf("\n") + 1))
      .digest("hex");
  const give = (to: Receiver, bytes: Buffer, maxBytes = 1e8) => {
    async function* source() {
      yield bytes;
    }
    return to.inbox.receiveSealed({ kind: "file", peer: peerOf(alice), source: source(), maxBytes }, never);
  };
  const codeOf = (promise: Promise<unknown>) =>
    promise.then(
      () => "taken",
      (error: unknown) => `${asSuiteError(error).code}${asSuiteError(error).temporary ? " for now" : ""}`,
    );
  const manifestOf = (parts: readonly Buffer[], change: Partial<Manifest> = {}) =>
    sealedBy({
      manifest: {
        ...{ transfer, name: "whole.txt", mediaType: "text/plain", size: 250_000, partSize: 100_000 },
        parts: parts.map((sealed, n) => ({ size: ranges[n]?.bytes.length ?? 0, digest: digestOf(sealed) })),
        ...change,
      },
    });

  test("may bring them in any order, twice, and the manifest twice: one file", async () => {
    await using folder = await temporaryFolder();
    await using other = await receiver(folder.path);
    const parts = [await part(0), await part(1), await part(2)];
    for (const n of [2, 0, 0, 1, 2]) await give(other, parts[n] as Buffer);
    expect(await onlyFile(other.store)).toBeUndefined();
    const manifest = await manifestOf(parts);
    const first = await give(other, manifest);
    expect(await give(other, manifest)).toEqual({ ...first, duplicate: true });
    expect(await codeOf(give(other, parts[1] as Buffer))).toBe("taken");
    expect((await onlyFile(other.store))?.equals(body)).toBe(true);
    expect(stray(folder.path)).toEqual([]);
  });

  test("has them after a restart, and the manifest before the last one is put off", async () => {
    await using folder = await temporaryFolder();
    const parts = [await part(0), await part(1), await part(2)];
    {
      await using other = await receiver(folder.path);
      await give(other, parts[0] as Buffer);
      await give(other, parts[2] as Buffer);
      expect(await codeOf(give(other, await manifestOf(parts)))).toBe("conflict for now");
    }
    await writeFile(join(folder.path, "transfer", "77.part"), "of nothing that is known");
    await using other = await receiver(folder.path);
    expect(readdirSync(join(folder.path, "transfer"))).toEqual(["1.part"]);
    expect(await onlyFile(other.store)).toBeUndefined();
    await give(other, parts[1] as Buffer);
    await give(other, await manifestOf(parts));
    expect((await onlyFile(other.store))?.equals(body)).toBe(true);
  });

  test("may seal a part anew, with another digest: the last one counts, in the file too", async () => {
    await using folder = await temporaryFolder();
    await using other = await receiver(folder.path);
    const changed = Buffer.concat([body.subarray(0, 100_000), randomBytes(100_000), body.subarray(200_000)]);
    const parts = [await part(0), await part(1, {}, changed.subarray(100_000, 200_000)), await part(2)];
    for (const sealed of [parts[0], await part(1), parts[2], parts[1]]) await give(other, sealed as Buffer);
    expect(await codeOf(give(other, await manifestOf([parts[0] as Buffer, await part(1), parts[2] as Buffer])))).toBe(
      "seal-malformed",
    );
    const { id } = await give(other, await manifestOf(parts));
    expect((await onlyFile(other.store))?.equals(changed)).toBe(true);
    const item = await other.store.item(String(id));
    expect(item.content.digest).toBe(createHash("sha256").update(changed).digest("hex"));
  });

  test("and sends all again under another transfer, as to another certificate, has one file stored", async () => {
    await using folder = await temporaryFolder();
    await using other = await receiver(folder.path);
    const ids = [];
    for (const id of [transfer, "cd".repeat(16)]) {
      const parts = [0, 1, 2].map((n) => part(n, { transfer: id }));
      for (const sealed of parts) await give(other, await sealed);
      ids.push(await give(other, await manifestOf(await Promise.all(parts), { transfer: id })));
    }
    expect(ids.map(({ duplicate }) => duplicate)).toEqual([false, true]);
    expect(ids[1]?.id).toBe(ids[0]?.id);
    expect((await onlyFile(other.store))?.equals(body)).toBe(true);
    expect(stray(folder.path)).toEqual([]);
  });

  test("of a small file gets it stored all the same", async () => {
    await using folder = await temporaryFolder();
    await using other = await receiver(folder.path);
    const at = { of: 2, total: 3 };
    const parts = [await part(0, at, Buffer.from("ab")), await part(1, { ...at, offset: 2 }, Buffer.from("c"))];
    for (const sealed of parts) await give(other, sealed);
    const listed = parts.map((sealed, n) => ({ size: 2 - n, digest: digestOf(sealed) }));
    await give(other, await manifestOf(parts, { size: 3, partSize: 2, parts: listed }));
    expect((await onlyFile(other.store))?.toString()).toBe("abc");
  });

  test.each<[string, Partial<PartPlace>, number]>([
    ["another total", { total: 249_999 }, 99_999],
    ["another count", { of: 4, total: 350_000 }, 100_000],
    ["an overlap", { offset: 99_999 }, 100_000],
    ["other parts", { offset: 120_000, total: 250_000 }, 120_000],
  ])("is refused a part with %s", async (_what, change, size) => {
    await using folder = await temporaryFolder();
    await using other = await receiver(folder.path);
    await give(other, await part(0));
    expect(await codeOf(give(other, await part(1, change, randomBytes(size))))).toBe("seal-malformed");
    await give(other, await part(1));
  });

  test("is refused a manifest that names other parts, and nothing of the file has a name", async () => {
    await using folder = await temporaryFolder();
    await using other = await receiver(folder.path);
    const parts = [await part(0), await part(1), await part(2)];
    for (const sealed of parts) await give(other, sealed);
    const swapped = [parts[0], parts[2], parts[1]] as Buffer[];
    expect(await codeOf(give(other, await manifestOf(swapped)))).toBe("seal-malformed");
    expect(await codeOf(give(other, await manifestOf(parts, { transfer: "cd".repeat(16) })))).toBe("conflict for now");
    expect(readdirSync(join(folder.path, "content"))).toEqual(["tmp"]);
    expect(await onlyFile(other.store)).toBeUndefined();
  });

  test("is refused a file beyond the quota before anything of it is written, and is counted once", async () => {
    await using folder = await temporaryFolder();
    await using other = await receiver(folder.path, { quota: { fileBytes: 300_000 } });
    const huge = { total: 400_001, of: 5 };
    expect(await codeOf(give(other, await part(0, huge)))).toBe("seal-too-large");
    expect(await codeOf(give(other, await part(0), 249_999))).toBe("seal-too-large");
    expect(readdirSync(join(folder.path, "transfer"))).toEqual([]);
    const parts = [await part(0), await part(1), await part(2)];
    await give(other, parts[0] as Buffer);
    expect(await codeOf(give(other, await part(0, { transfer: "cd".repeat(16) })))).toBe("quota-exceeded for now");
    await give(other, parts[1] as Buffer);
    await give(other, parts[2] as Buffer);
    await give(other, await manifestOf(parts));
    expect(await other.store.inside.database.call("usage", { peer: alice, at: Date.now() })).toMatchObject({
      ...{ items: 1, fileBytes: 250_000, expected: 0 },
    });
  });

  test("is refused a file that the disk has no room for before anything of it is written", async () => {
    await using folder = await temporaryFolder();
    const [partSize, of] = [2 ** 40, 4_096];
    const last = { part: 4_095, of, offset: 4_095 * partSize, total: 4_095 * partSize + 5 };
    await using roomy = await receiver(folder.path, { quota: { fileBytes: Number.MAX_SAFE_INTEGER } });
    const sealed = await part(0, last, Buffer.from("12345"));
    expect(await codeOf(give(roomy, sealed, Number.MAX_SAFE_INTEGER))).toBe("store-failed for now");
    expect(readdirSync(join(folder.path, "transfer"))).toEqual([]);
  });

  test("has at most 64 files unfinished, each for a week", async () => {
    await using folder = await temporaryFolder();
    const time = new VirtualTime();
    await using other = await receiver(folder.path, { time });
    const begun = (n: number) => part(0, { transfer: n.toString(16).padStart(32, "0") });
    for (let n = 0; n < 64; n += 1) await give(other, await begun(n));
    expect(await codeOf(give(other, await begun(64)))).toBe("quota-exceeded for now");
    expect(await codeOf(give(other, await begun(63)))).toBe("taken");
    time.advance(6 * DAY);
    await give(other, await part(1, { transfer: "0".repeat(32) }));
    const left = () => {
      time.advance(6 * 3_600_000);
      return readdirSync(join(folder.path, "transfer"));
    };
    await expect.poll(left, { timeout: 10_000, interval: 100 }).toEqual(["1.part"]);
    await give(other, await begun(64));
  });

  test("whose file was whole, but not stored, cannot change what another has brought the same of", async () => {
    await using folder = await temporaryFolder();
    let fails = true;
    const cut = (point: CutPoint) => {
      if (fails && point === "inbox.content-synced") throw new Error("died");
    };
    await using other = await receiver(folder.path, { cut });
    const parts = [await part(0), await part(1), await part(2)];
    for (const sealed of parts) await give(other, sealed);
    expect(await codeOf(give(other, await manifestOf(parts)))).toBe("internal for now");
    fails = false;
    const changed = await part(1, {}, Buffer.alloc(100_000, "changed"));
    expect(await codeOf(give(other, changed))).toBe("conflict for now");
    const whole = await sealedBy({ body }, carol);
    const arrival = { kind: "file" as const, peer: peerOf(carol), source: Readable.from([whole]), maxBytes: 1e8 };
    await other.inbox.receiveSealed(arrival, never);
    expect((await onlyFile(other.store))?.equals(body)).toBe(true);
    for (const sealed of parts) await give(other, sealed); // as its sender does who is told that parts are missing
    const { id } = await give(other, await manifestOf(parts));
    expect((await other.store.item(String(id))).content.digest).toBe(createHash("sha256").update(body).digest("hex"));
    expect(stray(folder.path)).toEqual([]);
  });

  test("brings what the quota has no room for: nothing of it has a name, also of several at once", async () => {
    await using folder = await temporaryFolder();
    await using other = await receiver(folder.path, { quota: { items: 1 } });
    const second = { transfer: "cd".repeat(16) };
    const fresh = [0, 1, 2].map(() => randomBytes(100_000));
    const one = [await part(0), await part(1), await part(2)];
    const another = await Promise.all([0, 1, 2].map((n) => part(n, second, fresh[n]?.subarray(0, n < 2 ? 1e5 : 5e4))));
    for (const sealed of [...one, ...another]) await give(other, sealed);
    const manifests = [await manifestOf(one), await manifestOf(another, second)];
    const codes = await Promise.all(manifests.map((sealed) => codeOf(give(other, sealed))));
    expect(codes.toSorted()).toEqual(["quota-exceeded for now", "taken"]);
    expect(readdirSync(join(folder.path, "content")).filter((name) => name !== "tmp")).toHaveLength(1);
    expect(readdirSync(join(folder.path, "transfer"))).toHaveLength(1);
  });

  test("is told of its last ten thousand objects, under however many names it brings one", async () => {
    await using folder = await temporaryFolder();
    await using other = await receiver(folder.path);
    const { database } = other.store.inside;
    const note = (n: number, peer = alice) =>
      database.call("noteOpened", { peer, name: `${n}.p7m`, size: 1, digest: "0".repeat(64), at: n });
    await note(0, bob);
    await Promise.all(Array.from({ length: 10_050 }, (_, n) => note(n)));
    const known = (n: number, peer = alice) => other.store.opened(peer, { name: `${n}.p7m` });
    expect(await Promise.all([known(49), known(50), known(0, bob)])).toMatchObject([[], [{ at: 50 }], [{ at: 0 }]]);
  });

  test("and signs with another key from then on sends all again", async () => {
    await using folder = await temporaryFolder();
    await using other = await receiver(folder.path);
    const parts = [await part(0), await part(1), await part(2)];
    for (const sealed of parts) await give(other, sealed);
    const { database } = other.store.inside;
    const row = await database.call("transfer", { peer: alice, transfer });
    expect(row?.parts).toHaveLength(3);
    const signer = toyCertificate(bob).fingerprint;
    const begun = { peer: alice, signer, place: placed(1), partSize: 100_000, digest: "0".repeat(64), at: 0 };
    const quota = { items: 9, bytes: 9, fileBytes: 1e9 };
    expect(await database.call("beginPart", { ...begun, quota })).toMatchObject({ state: "wanted", dropped: row?.id });
    expect((await database.call("transfer", { peer: alice, transfer }))?.parts).toEqual([]);
  });
});
