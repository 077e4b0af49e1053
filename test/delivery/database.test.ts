import { createHash } from "node:crypto";
import { open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { type Database, openDatabase } from "../../src/delivery/database.ts";
import { makeHealth } from "../../src/delivery/health.ts";
import type { EventRow } from "../../src/delivery/transaction.ts";
import { temporaryFolder } from "../support/tmp.ts";

const contact = (name: string) => ({ type: "contact.added" as const, identity: "x@y.test", name });

async function opened(directory: string): Promise<Database & AsyncDisposable & { events: EventRow[][] }> {
  const database = await openDatabase(join(directory, "delivery.db"), makeHealth());
  const events: EventRow[][] = [];
  database.onEvents((rows) => events.push([...rows]));
  return { ...database, events, [Symbol.asyncDispose]: () => database.close() };
}

test("calls made together share few commits, and each is answered with its own result", async () => {
  await using folder = await temporaryFolder();
  await using database = await opened(folder.path);
  const seqs = await Promise.all(
    Array.from({ length: 600 }, (_, n) => database.call("appendEvent", { at: n, body: contact(`${n}`) })),
  );
  expect(seqs).toEqual(Array.from({ length: 600 }, (_, n) => n + 1));
  expect(database.events.length).toBeLessThan(60);
  expect(Math.max(...database.events.map((batch) => batch.length))).toBeLessThanOrEqual(256);
  expect(database.events.flat().map(({ seq }) => seq)).toEqual(seqs);
});

test("a call that fails takes back only itself, also its events", async () => {
  await using folder = await temporaryFolder();
  await using database = await opened(folder.path);
  const good = database.call("appendEvent", { at: 1, body: contact("before") });
  // No such lane: it fails after the item was written and its event appended.
  const item = accepted("0".repeat(64), "");
  const bad = database.call("acceptItem", { ...item, rows: [{ to: "b@b.test", lane: "fast" as "talk" }] });
  const after = database.call("appendEvent", { at: 1, body: contact("after") });
  await expect(bad).rejects.toMatchObject({ code: "internal" });
  expect(await good).toBe(1);
  expect(await after).toBe(2);
  expect(await database.call("items", { limit: 10 })).toEqual([]);
});

test("what resolved is in the file for another process at once", async () => {
  await using folder = await temporaryFolder();
  await using database = await opened(folder.path);
  await database.call("appendEvent", { at: 1, body: contact("there") });
  const other = new DatabaseSync(join(folder.path, "delivery.db"), { readOnly: true });
  expect(other.prepare("SELECT count(*) AS n FROM event").get()).toEqual({ n: 1 });
  expect(other.prepare("PRAGMA journal_mode").get()).toEqual({ journal_mode: "wal" });
  other.close();
});

test("calls after the end are refused, those before it are finished", async () => {
  await using folder = await temporaryFolder();
  const database = await opened(folder.path);
  const under = database.call("appendEvent", { at: 1, body: contact("last") });
  await database.close();
  expect(await under).toBe(1);
  await expect(database.call("eventBounds")).rejects.toMatchObject({ code: "store-failed", temporary: true });
});

test("a database of a newer program is not opened", async () => {
  await using folder = await temporaryFolder();
  const newer = new DatabaseSync(join(folder.path, "delivery.db"));
  newer.exec("PRAGMA user_version = 999");
  newer.close();
  await expect(opened(folder.path)).rejects.toMatchObject({ code: "store-failed" });
});

test("a file that is no database is not opened", async () => {
  await using folder = await temporaryFolder();
  await writeFile(join(folder.path, "delivery.db"), Buffer.alloc(8192, 7));
  await expect(opened(folder.path)).rejects.toMatchObject({ code: "store-failed" });
});

test("after an error of the file below everything is refused as a temporary failure of the store", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "delivery.db");
  const first = await openDatabase(path, makeHealth());
  // A table that is larger than what a connection keeps of it in memory.
  const digests = Array.from({ length: 1_500 }, (_, n) => createHash("sha256").update(`${n}`).digest("hex"));
  await Promise.all(digests.map((digest) => first.call("acceptItem", accepted(digest, "long ".repeat(700)))));
  await first.close();
  const health = makeHealth();
  const told: string[] = [];
  health.onFailure((failure) => told.push(failure.code));
  const database = await openDatabase(path, health);
  const file = await open(path, "r+");
  const { size } = await file.stat();
  await file.write(Buffer.alloc(size - 4096, 0xff), 0, size - 4096, 4096);
  await file.close();
  const calls = Array.from({ length: 50 }, () => database.call("items", { limit: 1_500 }));
  const results = await Promise.allSettled(calls);
  expect(results.every((result) => result.status === "rejected" && result.reason.code === "store-failed")).toBe(true);
  expect(health.failure).toMatchObject({ code: "store-failed", temporary: true, fault: "local" });
  await expect(database.call("eventBounds")).rejects.toMatchObject({ code: "store-failed", temporary: true });
  expect(told).toEqual(["store-failed"]);
  await database.close();
});

function accepted(digest: string, title: string) {
  return {
    entropy: createHash("sha256").update(digest).digest(),
    at: 1,
    kind: "message" as const,
    from: "a@a.test",
    messageId: digest,
    title,
    fileName: undefined,
    content: { digest, size: 1, bytes: Buffer.from("x") },
    outerHeader: "",
    seal: "none" as const,
    expiresAt: 2,
    firstAttempt: 1,
    rows: [{ to: "b@b.test", lane: "talk" as const }],
  };
}
