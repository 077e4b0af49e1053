import fc from "fast-check";
import { expect, test } from "vitest";
import { freeName } from "../../src/ftps/inbox-files.ts";
import { fromNetwork, toNetwork } from "../../src/ftps/transfer.ts";
import { bytesOf, Pieces } from "../support/smime.ts";

const convert = async (how: typeof toNetwork, text: string, size: number) =>
  (await bytesOf(how(new Pieces(Buffer.from(text, "latin1"), size)))).toString("latin1");

test.each([
  ["a\nb\n", "a\r\nb\r\n"],
  ["a\r\nb", "a\r\nb"],
  ["\n\n", "\r\n\r\n"],
  ["\r\r\n\r", "\r\r\n\r"],
  ["\u00ff\n", "\u00ff\r\n"],
  ["", ""],
])("TYPE A on the way out: %j is %j, in one piece and byte by byte", async (kept, sent) => {
  expect(await convert(toNetwork, kept, 100)).toBe(sent);
  expect(await convert(toNetwork, kept, 1)).toBe(sent);
});

test.each([
  ["a\r\nb\r\n", "a\nb\n"],
  ["a\nb", "a\nb"],
  ["\r\r\n\r", "\r\n\r"],
  ["\r", "\r"],
  ["\r\n", "\n"],
  ["", ""],
])("TYPE A on the way in: %j is %j, in one piece and byte by byte", async (sent, kept) => {
  expect(await convert(fromNetwork, sent, 100)).toBe(kept);
  expect(await convert(fromNetwork, sent, 1)).toBe(kept);
});

test("any text at any cuts comes back", async () => {
  const text = fc.array(fc.constantFrom("a", "\n", "bc"), { maxLength: 60 }).map((parts) => parts.join(""));
  await fc.assert(
    fc.asyncProperty(text, fc.integer({ min: 1, max: 9 }), async (kept, size) => {
      expect(await convert(fromNetwork, await convert(toNetwork, kept, size), size)).toBe(kept);
    }),
  );
});

test.each([
  ["a.txt", [], "a.txt"],
  ["a.txt", ["a.txt"], "a (2).txt"],
  ["a.txt", ["a.txt", "a (2).txt"], "a (3).txt"],
  ["a", ["a"], "a (2)"],
  [".a", [".a"], ".a (2)"],
  ["a.tar.gz", ["a.tar.gz"], "a.tar (2).gz"],
])("a name that is taken: %s beside %j is %s", (name, taken, expected) => {
  expect(freeName(name, new Set(taken))).toBe(expected);
});
