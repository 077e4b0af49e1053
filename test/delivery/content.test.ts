import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ROW_BYTES } from "../../src/delivery/content.ts";
import type { CutPoint } from "../../src/delivery/cut-point.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { alice, bob, openTestStore } from "./party.ts";

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

async function files(directory: string): Promise<string[]> {
  const found = await readdir(join(directory, "content"), { recursive: true, withFileTypes: true });
  return found.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

describe("content", () => {
  test.each([0, 1, ROW_BYTES, ROW_BYTES + 1, 300_000, 1_000_000])(
    "of %d bytes comes back as it was, also from the middle",
    async (size) => {
      await using folder = await temporaryFolder();
      const store = await openTestStore(folder.path);
      const bytes = randomBytes(size);
      const writer = store.inside.content.writer();
      for (let at = 0; at < size; at += 40_000) await writer.write(bytes.subarray(at, at + 40_000));
      const written = await writer.finish();
      expect(written).toMatchObject({ digest: sha256(bytes), size });
      expect(await files(folder.path)).toEqual(size > ROW_BYTES ? [sha256(bytes)] : []);
      await keep(store, written);
      expect((await store.bytes(written)).equals(bytes)).toBe(true);
      const half = Math.floor(size / 2);
      const rest = Buffer.concat((await store.openContent(written, half).toArray()) as Buffer[]);
      expect(rest.equals(bytes.subarray(half))).toBe(true);
      await store.close();
    },
  );

  test("is not changed by a source that uses its memory again", async () => {
    await using folder = await temporaryFolder();
    const store = await openTestStore(folder.path);
    const writer = store.inside.content.writer();
    const block = Buffer.alloc(50_000, 1);
    await writer.write(block);
    block.fill(2);
    await writer.write(block);
    const written = await writer.finish();
    const expected = Buffer.concat([Buffer.alloc(50_000, 1), Buffer.alloc(50_000, 2)]);
    expect(written.digest).toBe(sha256(expected));
    expect(
      (await readFile(join(folder.path, "content", written.digest.slice(0, 2), written.digest))).equals(expected),
    ).toBe(true);
    await store.close();
  });

  test("that is the same is one file, also when it is written twice at once", async () => {
    await using folder = await temporaryFolder();
    const store = await openTestStore(folder.path);
    const bytes = randomBytes(100_000);
    const write = async () => {
      const writer = store.inside.content.writer();
      await writer.write(bytes);
      return writer.finish();
    };
    await Promise.all([write(), write(), write()]);
    expect(await files(folder.path)).toEqual([sha256(bytes)]);
    await store.close();
  });

  test("is synced before it gets its name", async () => {
    await using folder = await temporaryFolder();
    const seen: [CutPoint, named: boolean][] = [];
    const bytes = randomBytes(100_000);
    const path = join(folder.path, "content", sha256(bytes).slice(0, 2), sha256(bytes));
    const store = await openTestStore(folder.path, { cut: (point) => seen.push([point, existsSync(path)]) });
    const writer = store.inside.content.writer();
    await writer.write(bytes);
    await writer.finish();
    expect(seen).toEqual([
      ["content.written", false],
      ["content.synced", false],
      ["content.renamed", true],
    ]);
    await store.close();
  });

  test("that was aborted leaves nothing", async () => {
    await using folder = await temporaryFolder();
    const store = await openTestStore(folder.path);
    const writer = store.inside.content.writer();
    await writer.write(randomBytes(400_000));
    expect(await files(folder.path)).toHaveLength(1);
    await writer.abort();
    expect(await files(folder.path)).toEqual([]);
    await store.close();
  });

  test("that an earlier run did not finish is removed at the start", async () => {
    await using folder = await temporaryFolder();
    await mkdir(join(folder.path, "content", "tmp"), { recursive: true });
    await writeFile(join(folder.path, "content", "tmp", "stray"), "x");
    const store = await openTestStore(folder.path);
    expect(await files(folder.path)).toEqual([]);
    await store.close();
  });

  test("that nothing refers to is removed at a start an hour later, what is referred to stays", async () => {
    await using folder = await temporaryFolder();
    const first = await openTestStore(folder.path);
    const write = async () => {
      const writer = first.inside.content.writer();
      await writer.write(randomBytes(100_000));
      return writer.finish();
    };
    const [orphan, young, kept] = [await write(), await write(), await write()];
    await keep(first, kept);
    await first.close();
    const old = new Date(Date.now() - 3_700_000);
    for (const { digest } of [orphan, kept])
      await utimes(join(folder.path, "content", digest.slice(0, 2), digest), old, old);
    const second = await openTestStore(folder.path);
    expect((await files(folder.path)).sort()).toEqual([young.digest, kept.digest].sort());
    await second.close();
  });

  test("whose file is gone fails by name", async () => {
    await using folder = await temporaryFolder();
    const store = await openTestStore(folder.path);
    const missing = { digest: "0".repeat(64), size: 100_000 };
    await expect(store.bytes(missing)).rejects.toMatchObject({ code: "store-failed" });
    await expect(store.openContent(missing).toArray()).rejects.toMatchObject({ code: "store-failed" });
    await store.close();
  });
});

/** Refers to content as an accepted item does. */
async function keep(
  store: Awaited<ReturnType<typeof openTestStore>>,
  content: { digest: string; size: number; bytes?: Uint8Array },
) {
  await store.inside.database.call("acceptItem", {
    entropy: randomBytes(16),
    at: 1,
    kind: "message",
    from: alice,
    messageId: content.digest,
    title: "",
    fileName: undefined,
    content,
    outerHeader: "",
    seal: "none",
    expiresAt: 2,
    firstAttempt: 1,
    rows: [{ to: bob, lane: "talk" }],
  });
}
