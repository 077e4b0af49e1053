import { expect, test } from "vitest";
import { FACTS, listingBytes, longLine, mlsx, TREE_FACTS } from "../../src/ftps/listing.ts";
import type { Entry } from "../../src/ftps/tree.ts";

const now = new Date("2026-11-25T10:00:00Z");
const file: Entry = {
  name: "a b.txt",
  kind: "file",
  size: 1_234,
  modified: new Date("2026-11-24T08:09:10Z"),
  perm: "r",
  unique: "u1",
  facts: [["x.state", "held"]],
};
const folder: Entry = { name: "inbox", kind: "folder", perm: "el" };
const all = new Set<string>([...FACTS, ...TREE_FACTS]);

test.each([
  ["all facts", file, all, "type=file;perm=r;size=1234;modify=20261124080910;unique=u1;x.state=held; a b.txt"],
  ["chosen facts", file, new Set(["size", "type"]), "type=file;size=1234; a b.txt"],
  ["no facts", file, new Set<string>(), " a b.txt"],
  ["a folder", folder, all, "type=dir;perm=el; inbox"],
])("MLSx (RFC 3659 §7.2): %s", (_name, entry, facts, expected) => {
  expect(mlsx(entry, facts)).toBe(expected);
});

test.each([
  ["of yesterday", file, "-rw------- 1 owner group         1234 Nov 24 08:09 a b.txt"],
  [
    "of last year",
    { ...file, modified: new Date("2025-01-02T08:09:10Z") },
    "-rw------- 1 owner group         1234 Jan  2  2025 a b.txt",
  ],
  [
    "of next year",
    { ...file, modified: new Date("2027-01-02T08:09:10Z") },
    "-rw------- 1 owner group         1234 Jan  2  2027 a b.txt",
  ],
  ["a folder", folder, "drwx------ 2 owner group            0 Nov 25 10:00 inbox"],
])("LIST: %s", (_name, entry, expected) => {
  expect(longLine(entry, now)).toBe(expected);
});

test("a long listing goes in blocks, and nothing of it is lost", () => {
  const lines = Array.from({ length: 5_000 }, (_one, n) => `file number ${n}`);
  const blocks = [...listingBytes(lines)];
  expect(blocks.length).toBeGreaterThan(3);
  expect(Math.max(...blocks.map((block) => block.length))).toBeLessThan(20_000);
  expect(Buffer.concat(blocks).toString()).toBe(lines.map((line) => `${line}\r\n`).join(""));
  expect([...listingBytes([])]).toEqual([]);
});
