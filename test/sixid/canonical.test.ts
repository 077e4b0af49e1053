import { describe, expect, test } from "vitest";
import { type Canonical, canonicalJson, parseCanonical, payloadHash } from "../../src/sixid/canonical.ts";

const nested = (depth: number): Canonical => (depth === 0 ? [] : [nested(depth - 1)]);

describe("canonicalJson writes the one text of a value (RFC 8785)", () => {
  test.each<[string, Canonical, string]>([
    [
      "§3.2.3 members sorted by UTF-16 code units",
      { "\u20ac": 1, "\r": 2, "\ufb33": 3, 1: 4, "\u{1f600}": 5, "\u0080": 6, "\u00f6": 7 },
      '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"\u{1f600}":5,"\ufb33":3}',
    ],
    [
      "§3.2.2.2 only the short escapes and \\u00xx of controls",
      '\u20ac$\u000f\nA\'B"\\\\"/\u007f',
      '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/\u007f"',
    ],
    ["capitals before small letters", { b: 1, a: 2, B: 3 }, '{"B":3,"a":2,"b":1}'],
    [
      "nested members are sorted, too",
      { z: { b: [], a: {} }, a: [{ d: true, c: false }] },
      '{"a":[{"c":false,"d":true}],"z":{"a":{},"b":[]}}',
    ],
    ["undefined members are left out", { a: undefined, b: 1 }, '{"b":1}'],
    ["the largest safe integers", [9007199254740991, -9007199254740991, 0], "[9007199254740991,-9007199254740991,0]"],
    ["sixteen levels", nested(16), `${"[".repeat(17)}${"]".repeat(17)}`],
    ["a member called __proto__", JSON.parse('{"__proto__":1}') as Canonical, '{"__proto__":1}'],
  ])("%s", (_name, value, text) => {
    expect(canonicalJson(value)).toBe(text);
    expect(canonicalJson(parseCanonical(text))).toBe(text);
  });

  test.each<[string, unknown]>([
    ["a fraction", 1.5],
    ["an unsafe integer", 9007199254740992],
    ["minus zero", -0],
    ["not a number", Number.NaN],
    ["null", null],
    ["null in a list", [null]],
    ["a lone surrogate", "\ud800"],
    ["a lone surrogate in a name", { "\udc00": 1 }],
    ["seventeen levels", nested(17)],
    ["a bigint", 1n],
  ])("%s is outside the subset", (_name, value) => {
    expect(() => canonicalJson(value as Canonical)).toThrow(expect.objectContaining({ code: "syntax" }));
  });
});

describe("parseCanonical takes nothing but the canonical text", () => {
  test.each([
    ["white space", '{ "a":1}'],
    ["a line end", '{"a":1}\n'],
    ["members out of order", '{"b":1,"a":2}'],
    ["a duplicate name", '{"a":1,"a":1}'],
    ["an escape that is not needed", '"\\u0041"'],
    ["an escaped slash", '"\\/"'],
    ["capital hexadecimal digits", '"\\u000F"'],
    ["an exponent", "1e3"],
    ["a fraction of zero", "1.0"],
    ["minus zero", "-0"],
    ["a number that rounds", "9007199254740993"],
    ["null", "null"],
    ["a byte order mark", "\ufeff{}"],
    ["nothing", ""],
    ["two values", "{}{}"],
    ["a comment", "{}//"],
    ["too deep nesting", `${"[".repeat(18)}${"]".repeat(18)}`],
    ["very deep nesting", `${"[".repeat(5_000)}${"]".repeat(5_000)}`],
    ["a lone surrogate, escaped", '"\\ud800"'],
  ])("%s is refused", (_name, text) => {
    expect(() => parseCanonical(text)).toThrow(expect.objectContaining({ code: "syntax" }));
  });
});

test("the hash of a payload is its SHA-256 in UTF-8", () => {
  expect(payloadHash("ö")).toBe("6dbd11fd012e225b28a5d94a9b432bc491344f3e92158661be2ae5ae2b8b1ad8");
  expect(payloadHash("")).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  expect(payloadHash("abc")).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
});
