import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import {
  checkOwnPassphrase,
  generatePassphrase,
  isGenerated,
  passphraseOctets,
  typedPassphrases,
} from "../../src/smime/passphrase.ts";

test("fifteen octets become 24 characters, five bits each, in order", () => {
  expect(generatePassphrase(() => Buffer.alloc(15))).toBe("0000-0000-0000-0000-0000-0000");
  expect(generatePassphrase(() => Buffer.alloc(15, 0xff))).toBe("ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ");
  const counted = Buffer.from("00443214c74254b635cf84653a56d7", "hex"); // 0, 1, 2, … 23
  expect(generatePassphrase(() => counted)).toBe("0123-4567-89AB-CDEF-GHJK-MNPQ");
});

test("each is another, asks for 15 octets, and is taken for a generated one", () => {
  const asked: number[] = [];
  const make = () =>
    generatePassphrase((length) => {
      asked.push(length);
      return randomBytes(length);
    });
  const made = new Set(Array.from({ length: 100 }, make));
  expect(made.size).toBe(100);
  expect(new Set(asked)).toEqual(new Set([15]));
  for (const one of made) expect(isGenerated(one)).toBe(true);
});

test.each([
  "0123456789ABCDEFGHJKMNPQ",
  "0123-4567-89AB-CDEF-GHJK-MNPU",
  "0123-4567-89AB-CDEF-GHJK",
  "mother's maiden name",
])("%s is not taken for a generated one", (text) => {
  expect(isGenerated(text)).toBe(false);
});

test.each([
  "0123-4567-89ab-cdef-ghjk-mnpq",
  "o123 4567 89ab cdef ghjk mnpq",
  "OI23456789ABCDEFGHJKMNPQ",
  " 0l23-4567-89AB-CDEF-GHJK-MNPQ ",
])("%j is tried as typed, then as it was printed", (typed) => {
  expect(typedPassphrases(typed)).toEqual([typed, "0123-4567-89AB-CDEF-GHJK-MNPQ"]);
});

test("what cannot be a generated one, or is one exactly, is tried once", () => {
  expect(typedPassphrases("correct horse battery")).toEqual(["correct horse battery"]);
  expect(typedPassphrases("0123-4567-89AB-CDEF-GHJK-MNPQ")).toHaveLength(1);
});

test.each(["fourteen chars", "~".repeat(500)])(
  "an own one of 14 characters of printable ASCII is good enough",
  (text) => {
    expect(() => checkOwnPassphrase(text)).not.toThrow();
  },
);

test.each(["thirteen char", "", "fünfzehn Zeichen", "with a tab\tin it", "a line\nand another"])(
  "%j is refused as an own one, and why is said",
  (text) => {
    expect(() => checkOwnPassphrase(text)).toThrow(
      expect.objectContaining({
        code: "syntax",
        message: expect.stringContaining("14 characters") as unknown,
      }) as Error,
    );
  },
);

test("a BMPString is UTF-16, big-endian, and ends with two zero octets", () => {
  expect(passphraseOctets("aß€😀")).toEqual({
    utf8: Buffer.from("61c39fe282acf09f9880", "hex"),
    bmp: Buffer.from("006100df20acd83dde000000", "hex"),
  });
});
