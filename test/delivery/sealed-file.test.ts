import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { type FileHandle, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { makeHealth, storeFailed } from "../../src/delivery/health.ts";
import { sealFile } from "../../src/delivery/sealed-file.ts";
import type { Sealer } from "../../src/delivery/seals.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { alice, bob } from "./party.ts";
import { toyCertificate, toySeal } from "./toy-seal.ts";

const never = new AbortController().signal;
const roomy = { check: () => Promise.resolve() };
const how = { kind: "file" as const, from: alice, to: bob, recipient: toyCertificate(bob), opens: [] };

/** Seals into a file whose synchronisation fails. */
const failingWith = (code: string): Sealer => ({
  ...toySeal,
  file(source, head, target: FileHandle, o, signal) {
    target.datasync = () => Promise.reject(Object.assign(new Error(code), { code }));
    return toySeal.file(source, head, target, o, signal);
  },
});

test.each([
  ["ENOSPC", "usable"],
  ["EDQUOT", "usable"],
  ["EIO", "not to be trusted"],
])("a disk that says %s to the sync of sealed bytes is %s after that, and nothing is left", async (code, then) => {
  await using folder = await temporaryFolder();
  const [path, target] = [join(folder.path, "file"), join(folder.path, "sealed")];
  await writeFile(path, randomBytes(1_000));
  const file = { path, start: 0, end: 1_000, head: new Uint8Array(), target };
  const health = makeHealth();
  const sealing = sealFile(file, { seal: failingWith(code), how, health, space: roomy }, never);
  await expect(sealing).rejects.toMatchObject({ code: "store-failed", temporary: true });
  expect(health.failure === undefined ? "usable" : "not to be trusted").toBe(then);
  expect(existsSync(target)).toBe(false);
});

test("a file for whose sealed bytes there is no room is not begun", async () => {
  await using folder = await temporaryFolder();
  const target = join(folder.path, "sealed");
  const asked: number[] = [];
  const check = (bytes: number) => {
    asked.push(bytes);
    return Promise.reject(storeFailed("disk nearly full"));
  };
  const file = { path: join(folder.path, "none"), start: 5, end: 1_005, head: new Uint8Array(), target };
  const o = { seal: toySeal, how, health: makeHealth(), space: { check } };
  await expect(sealFile(file, o, never)).rejects.toMatchObject({ details: { step: "disk nearly full" } });
  expect(asked).toEqual([1_000]);
});
