import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { identityDomain, identityLocal, parseDomain, parseIdentity } from "../../src/pki/identity.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";

describe("identities are canonical", () => {
  test.each([
    ["alice@example.com", "alice@example.com"],
    ["Alice.Smith@Example.COM", "alice.smith@example.com"],
    ["alice+tag@example.com", "alice+tag@example.com"],
    ["o'hara/x=1@example.com", "o'hara/x=1@example.com"],
    ["alice@localhost", "alice@localhost"],
    ["JOSÉ@example.com", "josé@example.com"],
    ["jose\u0301@example.com", "josé@example.com"],
    ["anna@bücher.example", "anna@xn--bcher-kva.example"],
    ["anna@XN--BCHER-KVA.example", "anna@xn--bcher-kva.example"],
    ["用户@例え.テスト", "用户@xn--r8jz45g.xn--zckzah"],
    [`${"a".repeat(64)}@example.com`, `${"a".repeat(64)}@example.com`],
  ])("%s becomes %s", (text, canonical) => {
    expect(parseIdentity(text)).toBe(canonical);
  });
});

describe("what is no identity is refused", () => {
  test.each([
    "",
    "alice",
    "@example.com",
    "alice@",
    "a@b@example.com",
    "alice@@example.com",
    "sip:alice@example.com",
    "mailto:alice@example.com",
    "Alice <alice@example.com>",
    '"alice smith"@example.com',
    "alice smith@example.com",
    "alice@example.com\n",
    "alice\0@example.com",
    "alice@exam\0ple.com",
    "al\u202eice@example.com",
    "al\u200bice@example.com",
    "alice@exam\u200dple.com",
    ".alice@example.com",
    "alice.@example.com",
    "al..ice@example.com",
    "alice@example.com.",
    "alice@.example.com",
    "alice@example..com",
    "alice@-example.com",
    "alice@example-.com",
    "alice@exa_mple.com",
    "alice@exa%6dple.com",
    "alice@[192.0.2.1]",
    "alice@192.0.2.1",
    "alice@0x7f.1",
    "alice@1",
    "alice@1.0x7f",
    "alice@２.１",
    "alice@a/b",
    "alice@example.com:5061",
    `${"a".repeat(65)}@example.com`,
    `${"é".repeat(33)}@example.com`,
    `alice@${"a".repeat(64)}.com`,
    `alice@${"abcdefgh.".repeat(28)}com`,
  ])("%j", (text) => {
    expect(() => parseIdentity(text)).toThrow(expect.objectContaining({ code: "identity-invalid", fault: "peer" }));
  });
});

test("an identity is its local part, an @ and its domain", () => {
  const identity = parseIdentity("Zoë@Bücher.example");
  expect(identityLocal(identity)).toBe("zoë");
  expect(identityDomain(identity)).toBe("xn--bcher-kva.example");
});

test.each(["example.com", "localhost"])("%s is a domain", (text) => {
  expect(parseDomain(text.toUpperCase())).toBe(text);
});

test.each(["", "example.com.", "*.example.com", "127.0.0.1", "::1", "a b", "a@b"])("%j is no domain", (text) => {
  expect(() => parseDomain(text)).toThrow(SuiteError);
});

test("parsing what was parsed changes nothing, whatever the text", () => {
  const part = fc.string({ unit: "binary", minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(
      fc.oneof(
        part,
        fc.tuple(part, part).map(([a, b]) => `${a}@${b}`),
        fc.emailAddress(),
      ),
      (text) => {
        let identity: string;
        try {
          identity = parseIdentity(text);
        } catch (error) {
          expect(error).toBeInstanceOf(SuiteError);
          return;
        }
        expect(parseIdentity(identity)).toBe(identity);
        expect(Buffer.byteLength(identity)).toBeLessThanOrEqual(254);
        expect(identity).not.toMatch(/[\p{C}\p{Z}]/u);
      },
    ),
    { numRuns: 3000 },
  );
});
