import fc from "fast-check";
import { expect, test } from "vitest";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { type Canonical, canonicalJson, parseCanonical } from "../../src/sixid/canonical.ts";
import { readSigned } from "../../src/sixid/signed.ts";

const leaf = fc.oneof(fc.maxSafeInteger(), fc.boolean(), fc.string({ unit: "grapheme" }));
const { value } = fc.letrec<{ value: Canonical }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    leaf.filter((one) => !Object.is(one, -0)),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(fc.string({ unit: "grapheme" }), tie("value"), { maxKeys: 4 }),
  ) as fc.Arbitrary<Canonical>,
}));

test("every value has one text, whatever the order of its members, and that text is read back as the value", () => {
  const shuffled = (one: Canonical): Canonical =>
    Array.isArray(one)
      ? one.map(shuffled)
      : typeof one === "object"
        ? Object.fromEntries(
            Object.entries(one)
              .reverse()
              .map(([name, member]) => [name, member === undefined ? undefined : shuffled(member)]),
          )
        : one;
  fc.assert(
    fc.property(value, (one) => {
      const text = canonicalJson(one);
      expect(canonicalJson(shuffled(one))).toBe(text);
      expect(canonicalJson(parseCanonical(text))).toBe(text);
      expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(one)));
    }),
  );
});

test("of two texts of one value at most one is canonical", () => {
  fc.assert(
    fc.property(value, fc.nat(), fc.constantFrom(" ", "\n", "\t", "0", "\\u0041", ","), (one, at, put) => {
      const text = canonicalJson(one);
      const other = text.slice(0, at % (text.length + 1)) + put + text.slice(at % (text.length + 1));
      try {
        expect(canonicalJson(parseCanonical(other))).toBe(other);
        expect(JSON.parse(other)).not.toEqual(JSON.parse(text));
      } catch (error) {
        expect(error).toBeInstanceOf(SuiteError);
      }
    }),
  );
});

test("no text makes the reader of signed objects throw anything but its own error", () => {
  const part = fc.constantFrom(
    ".",
    "eyJ",
    "AAAA",
    "-",
    "_",
    "=",
    "e30",
    Buffer.from('{"alg":"ES256","typ":"sixid-identity","x5c":["AAAA"]}').toString("base64url"),
    Buffer.from('{"alg":"ES256","kid":"a","typ":"sixid-addresses"}').toString("base64url"),
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 6 }), (parts) => {
      for (const typ of ["sixid-identity", "sixid-addresses"] as const) {
        try {
          readSigned(parts.join(""), typ, 1_000);
        } catch (error) {
          expect(error).toMatchObject({ code: "record-rejected" });
        }
      }
    }),
    { numRuns: 1_000 },
  );
});
