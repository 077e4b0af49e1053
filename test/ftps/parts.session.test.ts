import { createHash, randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { ItemId } from "../../src/delivery/envelope.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { type FileNode, FileWorld, pieces, startFileNode } from "./file-node.ts";

const PARTS = { above: 1_048_576, bytes: 524_288 };
const patience = () => AbortSignal.timeout(15_000);
const world = new FileWorld();
const [aliceKeys, bobKeys] = [world.person("alice"), world.person("bob")];
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let alice: FileNode;
let bob: FileNode;

beforeEach(async () => {
  folder = await temporaryFolder();
  alice = await startFileNode(world, aliceKeys, folder.path, { parts: PARTS });
  bob = await startFileNode(world, bobKeys, folder.path);
});
afterEach(async () => {
  await alice[Symbol.asyncDispose]();
  await bob[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

const send = (bytes: Buffer) =>
  alice.ftps.send({ to: [bobKeys.identity], name: "film.mkv", size: bytes.length, source: pieces(bytes) });

async function arrived(): Promise<string[]> {
  const items = await bob.store.items({ box: "inbox", kind: "file" });
  return Promise.all(
    items.map(async (item) => {
      const hash = createHash("sha256");
      for await (const chunk of bob.store.openItem(item)) hash.update(chunk as Buffer);
      return `${item.fileName} ${hash.digest("hex")}`;
    }),
  );
}

const expected = (bytes: Buffer) => [`film.mkv ${createHash("sha256").update(bytes).digest("hex")}`];
const left = (of: string, ...names: string[]) =>
  names
    .flatMap((name) => readdirSync(join(folder.path, of, name), { recursive: true, encoding: "utf8" }))
    .filter((name) => /[0-9a-f.]{66}|part/.test(name) && !/^[0-9a-f]{64}$/.test(name));

/** Resolves when so many bytes have gone out. */
async function sent(item: ItemId, bytes: number): Promise<void> {
  for (;;) {
    const [receipt] = await alice.outbox.receipts({ item });
    if (receipt?.status.state === "sending" && receipt.status.sentBytes >= bytes) return;
    if (receipt?.status.state === "delivered") throw new Error("too late");
    await new Promise(setImmediate);
  }
}

test("a file in parts arrives equal, as one file, and leaves nothing beside it", async () => {
  const bytes = randomBytes(3_000_001);
  expect(await alice.outbox.settled(await send(bytes), patience())).toBe("delivered");
  expect(await arrived()).toEqual(expected(bytes));
  expect(left("alice", "attempt")).toEqual([]);
  expect(left("bob", "transfer", "unfinished", "content/tmp")).toEqual([]);
  const [item] = await bob.store.items({ box: "inbox", kind: "file" });
  expect(item?.protection).toMatchObject({ sealed: true, signer: aliceKeys.auth.certificate.fingerprint });
});

test.each([PARTS, { above: 1e9, bytes: 1e9 }])(
  "connections that break again and again cost neither the file nor the attempt (%j)",
  async (parts) => {
    await alice[Symbol.asyncDispose]();
    alice = await startFileNode(world, aliceKeys, folder.path, { parts });
    const bytes = randomBytes(8_000_000);
    const item = await send(bytes);
    for (const at of [1_000_000, 3_000_000]) {
      await sent(item, at);
      for (const connection of bob.core.connections) connection.destroy();
    }
    expect(await alice.outbox.settled(item, patience())).toBe("delivered");
    expect(await arrived()).toEqual(expected(bytes));
    expect(left("bob", "transfer", "unfinished", "content/tmp")).toEqual([]);
  },
);

test("a receiver that was stopped in the middle, and a sender that was, go on with the parts that are missing", async () => {
  const bytes = randomBytes(6_000_000);
  const item = await send(bytes);
  await sent(item, 1_500_000);
  await bob[Symbol.asyncDispose]();
  await alice[Symbol.asyncDispose]();
  alice = await startFileNode(world, aliceKeys, folder.path, { parts: PARTS });
  const sending = await alice.store.inside.database.call("sending", 1);
  const acknowledged = [...(sending?.parts.values() ?? [])].filter((part) => part.acknowledged).length;
  expect(acknowledged).toBeGreaterThan(0);
  bob = await startFileNode(world, bobKeys, folder.path);
  expect(await alice.outbox.settled(item, patience())).toBe("delivered");
  expect(await arrived()).toEqual(expected(bytes));
});

test("parts that the receiver has lost are sent again, and those that it has are not", async () => {
  const bytes = randomBytes(6_000_000);
  const item = await send(bytes);
  await sent(item, 2_500_000);
  const { database } = bob.store.inside;
  await database.call("dropTransfers", await database.call("unfinishedTransfers"));
  expect(await alice.outbox.settled(item, patience())).toBe("delivered");
  expect(await arrived()).toEqual(expected(bytes));
  const usage = await database.call("usage", { peer: aliceKeys.identity, at: Date.now() });
  expect(usage).toMatchObject({ items: 1, unreadable: 0 });
});

/** Cuts Bob off in the middle, changes what Alice has kept, and lets it go on. */
async function damaged(parts: typeof PARTS): Promise<Buffer> {
  await alice[Symbol.asyncDispose]();
  alice = await startFileNode(world, aliceKeys, folder.path, { parts });
  const bytes = randomBytes(12_000_000);
  const item = await send(bytes);
  await sent(item, 4_500_000);
  await alice[Symbol.asyncDispose]();
  await bob[Symbol.asyncDispose]();
  const attempts = join(folder.path, "alice", "attempt");
  const [name = ""] = await readdir(attempts);
  const file = await open(join(attempts, name), "r+");
  const { size } = await file.stat();
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, size - 200_000);
  byte.writeUInt8(byte.readUInt8() ^ 1);
  await file.write(byte, 0, 1, size - 200_000);
  await file.close();
  bob = await startFileNode(world, bobKeys, folder.path);
  alice = await startFileNode(world, aliceKeys, folder.path, { parts });
  expect(await alice.outbox.settled(item, patience())).toBe("delivered");
  return bytes;
}

test.each([
  { above: 8e6, bytes: 4e6 },
  { above: 1e9, bytes: 1e9 },
])("sealed bytes that were damaged while they waited are refused, and sealed and sent again (%j)", async (parts) => {
  const bytes = await damaged(parts);
  expect(await arrived()).toEqual(expected(bytes));
  const events = await bob.store.inside.database.call("eventsAfter", { after: 0, limit: 1_000 });
  expect(events.filter(({ json }) => json.includes("seal.refused")).length).toBeGreaterThan(0);
});

test("a cancel stops it, and removes everything at the sender", async () => {
  const item = await send(randomBytes(20_000_000));
  await sent(item, 2_000_000);
  await alice.outbox.cancel(item);
  expect(await alice.outbox.settled(item, patience())).toBe("failed");
  expect(left("alice", "attempt")).toEqual([]);
  expect(await arrived()).toEqual([]);
});

test("memory does not grow with a large file", async () => {
  const block = randomBytes(1_000_000);
  async function* source() {
    for (let n = 0; n < 200; n += 1) yield block;
  }
  await alice[Symbol.asyncDispose]();
  alice = await startFileNode(world, aliceKeys, folder.path, { parts: { above: 60_000_000, bytes: 50_000_000 } });
  const before = process.memoryUsage.rss();
  let most = 0;
  const item = await alice.ftps.send({ to: [bobKeys.identity], name: "film.mkv", source: source() });
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage.rss());
  }, 20);
  expect(await alice.outbox.settled(item, patience())).toBe("delivered");
  clearInterval(timer);
  expect(most - before).toBeLessThan(150_000_000);
});
