import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parseFingerprint } from "../../src/pki/certificate.ts";
import { FailureBudget } from "../../src/smime/failure.ts";
import { PartFile } from "../../src/smime/part-file.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { failureOf } from "../support/smime.ts";

describe("a part file", () => {
  test("keeps 64 KiB in memory and makes a file of one byte more, for its owner alone", async () => {
    using folder = temporaryFolder();
    await using small = new PartFile(folder.path, { hashed: true });
    for (let i = 0; i < 64; i++) await small.write(Buffer.alloc(1024, i));
    expect(await small.finish()).toMatchObject({ bytes: expect.objectContaining({ length: 65_536 }) });
    expect(readdirSync(folder.path)).toEqual([]);
    await using large = new PartFile(folder.path, { hashed: true });
    await large.write(Buffer.alloc(65_537));
    const content = await large.finish();
    if (!("path" in content)) throw new Error("not a file");
    expect(content).toEqual({ path: expect.stringMatching(/\/[0-9a-f]{32}\.part$/), size: 65_537 });
    expect(statSync(content.path)).toMatchObject({ size: 65_537 });
    expect(statSync(content.path).mode & 0o777).toBe(0o600);
  });

  test("has the bytes and the hash of all that was written, in tiny or huge pieces", async () => {
    using folder = temporaryFolder();
    for (const [count, size] of [
      [3000, 100],
      [5, 1_100_000],
      [1, 70_000],
      [0, 0],
    ] as const) {
      await using part = new PartFile(folder.path, { hashed: true });
      const pieces = Array.from({ length: count }, () => randomBytes(size));
      for (const piece of pieces) await part.write(piece);
      const content = await part.finish();
      const all = Buffer.concat(pieces);
      expect(("bytes" in content ? content.bytes : readFileSync(content.path)).equals(all)).toBe(true);
      expect(part.sha256).toBe(createHash("sha256").update(all).digest("hex"));
    }
  });

  test("never replaces what has the name, keeps the content, and takes another name after that", async () => {
    using folder = temporaryFolder();
    const taken = join(folder.path, "taken");
    writeFileSync(taken, "older");
    symlinkSync("/nowhere", join(folder.path, "dangling"));
    for (const size of [10, 100_000]) {
      await using part = new PartFile(folder.path, { hashed: true });
      await part.write(Buffer.alloc(size, 1));
      await part.finish();
      expect((await failureOf(part.moveTo(taken))).code).toBe("conflict");
      expect((await failureOf(part.moveTo(join(folder.path, "dangling")))).code).toBe("conflict");
      await part.moveTo(join(folder.path, `free-${size}`));
    }
    expect(readFileSync(taken, "latin1")).toBe("older");
    expect(readdirSync(folder.path).toSorted()).toEqual(["dangling", "free-10", "free-100000", "taken"]);
    expect(statSync(join(folder.path, "free-100000")).size).toBe(100_000);
  });

  test("has no name before it is finished, and is removed when it is disposed of at any time", async () => {
    using folder = temporaryFolder();
    for (const finish of [false, true]) {
      await using part = new PartFile(folder.path, { hashed: true });
      await part.write(Buffer.alloc(2_000_000));
      expect(readdirSync(folder.path)).toHaveLength(1);
      if (finish) await part.finish();
      else await expect(part.moveTo(join(folder.path, "early"))).rejects.toThrow("moved before it was verified");
      await part[Symbol.asyncDispose]();
      await part[Symbol.asyncDispose]();
      expect(readdirSync(folder.path)).toEqual([]);
    }
  });

  test("a folder to move to that is missing is store-failed and loses nothing", async () => {
    using folder = temporaryFolder();
    await using part = new PartFile(folder.path, { hashed: true });
    await part.write(Buffer.alloc(100_000));
    await part.finish();
    const target = join(folder.path, "sub", "name");
    expect(await failureOf(part.moveTo(target))).toMatchObject({ code: "store-failed", temporary: true });
    mkdirSync(join(folder.path, "sub"));
    await part.moveTo(target);
    expect(statSync(target).size).toBe(100_000);
  });

  test("a full disk is store-failed", async () => {
    await using part = new PartFile("/dev/null", { hashed: false });
    expect((await failureOf(part.write(Buffer.alloc(2_000_000)))).code).toBe("store-failed");
  });
});

test("the failure budget forgets each failure after 24 hours", () => {
  const budget = new FailureBudget(2);
  const peer = parseFingerprint("ab".repeat(32));
  const at = (hours: number) => new Date(hours * 3_600_000);
  budget.count(peer, at(0));
  budget.count(peer, at(12));
  expect(() => budget.check(peer, at(23.9))).toThrow(expect.objectContaining({ code: "seal-rate-limited" }));
  budget.check(peer, at(24.1));
  budget.count(peer, at(24.1));
  expect(() => budget.check(peer, at(35.9))).toThrow();
  budget.check(peer, at(36.1));
});
