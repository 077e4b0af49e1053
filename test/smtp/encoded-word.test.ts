import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeWords, encodeWords } from "../../src/smtp/encoded-word.ts";

test.each([
  ["plain text", "plain text"],
  ["=?utf-8?q?Caf=C3=A9?=", "Café"],
  ["=?UTF-8?B?R3LDvMOfZQ==?=", "Grüße"],
  ["=?iso-8859-1?Q?a_b=E9?= and more", "a bé and more"],
  ["=?utf-8?b?w6Q=?= =?utf-8?b?w7Y=?=", "äö"],
  ["=?utf-8?b?w6Q=?=  x =?utf-8?b?w7Y=?=", "ä  x ö"],
  ["=?utf-8?b?8J+Y?= =?utf-8?b?gA==?=", "😀"], // a character that was cut between two words
  ["=?utf-8*en?q?tagged?=", "tagged"],
  ["=?utf-8?q?a?= =?iso-8859-1?q?=E4?=", "aä"],
  ["=?no-such-set?q?a?=", "=?no-such-set?q?a?="],
  ["=?utf-8?x?a?= =?broken", "=?utf-8?x?a?= =?broken"],
  ["", ""],
])("%j reads %j", (text, decoded) => {
  expect(decodeWords(text)).toBe(decoded);
});

test("what was encoded reads as before, fits its lines and is ASCII", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", maxLength: 200 }), (text) => {
      const encoded = encodeWords(text);
      expect(encoded).toMatch(/^[\x20-\x7e]*$/);
      for (const word of encoded.split(" ")) if (word.startsWith("=?")) expect(word.length).toBeLessThanOrEqual(75);
      expect(decodeWords(encoded)).toBe(text.toWellFormed().replace(/[\x00-\x1f\x7f]+/g, " "));
    }),
  );
});

test("a line of 60,000 characters of near-words is read at once", () => {
  const began = performance.now();
  decodeWords("=?utf-8?q?a".repeat(6_000));
  decodeWords("=?=?=?=?".repeat(8_000));
  expect(performance.now() - began).toBeLessThan(500);
});
