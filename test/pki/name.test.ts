import { describe, expect, test } from "vitest";
import { shownText } from "../../src/pki/character-string.ts";
import * as der from "../../src/pki/der.ts";
import {
  attributeTexts,
  encodeName,
  type Name,
  nameWithin,
  type RdnTemplate,
  readName,
  sameName,
  showName,
} from "../../src/pki/name.ts";
import { attributeType } from "../../src/pki/oid.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";

const { commonName, organizationName, countryName, emailAddress, userId } = attributeType;
const name = (...rdns: RdnTemplate[]): Name => readName(der.readDer(encodeName(rdns)));
/** One common name as another string type would write it. */
const as = (tag: number, content: Uint8Array): Name =>
  readName(der.readDer(der.sequence(der.set(der.sequence(der.oid(commonName), der.encode(tag, content))))));

/** One RDN of two common names, in this order. */
const unsorted = (...texts: string[]): Name => {
  const attributes = texts.map((text) => der.sequence(der.oid(commonName), der.utf8String(text)));
  return readName(der.readDer(der.sequence(der.encode(der.tag.set, ...attributes))));
};

describe("names compare as RFC 5280 §7.1 says", () => {
  const plain = name([commonName, "Alice Smith"]);
  test.each<[string, Name, Name, boolean]>([
    ["case is folded", plain, name([commonName, "ALICE smith"]), true],
    ["outer and repeated spaces do not count", plain, name([commonName, "  Alice   Smith "]), true],
    ["PrintableString equals UTF8String", plain, as(0x13, Buffer.from("Alice Smith")), true],
    ["BMPString equals UTF8String", plain, as(0x1e, Buffer.from("Alice Smith", "utf16le").swap16()), true],
    ["composed equals decomposed", name([commonName, "José"]), name([commonName, "Jose\u0301"]), true],
    ["ß equals SS", name([commonName, "Strauß"]), name([commonName, "STRAUSS"]), true],
    ["a soft hyphen is nothing", plain, name([commonName, "Al\u00adice Smith"]), true],
    ["a missing space counts", plain, name([commonName, "AliceSmith"]), false],
    ["the attribute type counts", plain, name([organizationName, "Alice Smith"]), false],
    [
      "the order of RDNs counts",
      name([countryName, "DE"], [commonName, "A"]),
      name([commonName, "A"], [countryName, "DE"]),
      false,
    ],
    ["the order within an RDN does not, even unsorted", unsorted("A", "B"), unsorted("B", "A"), true],
    [
      "two RDNs are not one of two",
      name([commonName, "A"], [userId, "a"]),
      name([
        [commonName, "A"],
        [userId, "a"],
      ]),
      false,
    ],
    ["a longer name is another", plain, name([commonName, "Alice Smith"], [userId, "a"]), false],
    [
      "text that looks like the next RDN is none",
      name([commonName, "a2.5.4.3=b"]),
      name([commonName, "a"], [commonName, "b"]),
      false,
    ],
    ["nothing equals nothing", name(), name(), true],
    ["a value that is no text is compared by its octets", as(0x04, Buffer.of(1)), as(0x04, Buffer.of(2)), false],
    ["text that looks like such octets is not those", as(0x04, Buffer.of(1)), name([commonName, "\x01040101"]), false],
  ])("%s", (_, a, b, same) => {
    expect(sameName(a, b)).toBe(same);
    expect(sameName(b, a)).toBe(same);
    expect(a.key === b.key).toBe(same);
  });

  test("a subtree holds what begins with it", () => {
    const base = name([countryName, "DE"], [organizationName, "Example"]);
    expect(nameWithin(base, name([countryName, "de"], [organizationName, "EXAMPLE"], [commonName, "A"]))).toBe(true);
    expect(nameWithin(base, base)).toBe(true);
    expect(nameWithin(base, name([countryName, "DE"]))).toBe(false);
    expect(nameWithin(base, name([countryName, "DE"], [organizationName, "Example Ltd"]))).toBe(false);
    expect(nameWithin(name(), base)).toBe(true);
  });
});

describe("names are shown, never parsed back", () => {
  test.each<[Name, string]>([
    [name([countryName, "DE"], [organizationName, "A, B + C"], [commonName, "Zoë"]), "CN=Zoë,O=A\\, B \\+ C,C=DE"],
    [
      name([
        [commonName, "A"],
        [userId, "a"],
      ]),
      "CN=A+UID=a",
    ],
    [name([commonName, "#x"]), "CN=\\#x"],
    [name(["1.2.3.4", "x"]), "1.2.3.4=x"],
    [name([commonName, "a\nO=b\u202e\0"]), "CN=a O\\=b"],
    [as(0x04, Buffer.of(255)), "CN=#0401ff"],
  ])("%#: %s", (shown, text) => {
    expect(showName(shown)).toBe(text);
  });

  test("shown text ends at its limit", () => {
    expect(Array.from(shownText("😀".repeat(500)))).toHaveLength(128);
  });
});

test("attribute texts come in the order of the name, also out of a multi-valued RDN", () => {
  const many = name(
    [emailAddress, "a@b.c"],
    [
      [commonName, "A"],
      [emailAddress, "d@e.f"],
    ],
  );
  expect(attributeTexts(many, emailAddress)).toEqual(["a@b.c", "d@e.f"]);
});

test("64 attributes are read, 65 are not", () => {
  const many = (count: number) => name(...Array.from({ length: count }, (): RdnTemplate => [commonName, "x"]));
  expect(many(64).rdns).toHaveLength(64);
  expect(() => many(65)).toThrow(SuiteError);
});

test("one RDN of 65 attributes is not read", () => {
  const attribute = der.sequence(der.oid(commonName), der.utf8String("x"));
  expect(() => readName(der.readDer(der.sequence(der.set(...Array.from({ length: 65 }, () => attribute)))))).toThrow(
    SuiteError,
  );
});

test("an empty RDN is not read", () => {
  expect(() => readName(der.readDer(der.sequence(der.set())))).toThrow(SuiteError);
});
