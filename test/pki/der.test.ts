import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as der from "../../src/pki/der.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { formatTime } from "../../src/pki/time.ts";

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");
const show = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

describe("what is not DER is refused with the reason", () => {
  test.each([
    ["nothing", "", "truncated"],
    ["an identifier alone", "30", "truncated"],
    ["a length cut off", "3082 01", "truncated"],
    ["content cut off", "0403 0102", "truncated"],
    ["a byte behind", "0500 00", "trailing bytes"],
    ["indefinite length", "3080 0000", "indefinite length"],
    ["a long form for a short length", "04 81 01 00", "length not minimal"],
    ["a leading zero in the length", "04 82 00 80", "length not minimal"],
    ["a length of five octets", "04 85 01 00000000", "length too long"],
    ["a tag number above 30", "1f 81 00", "high tag number"],
    ["end of contents", "0000", "end of contents"],
  ])("%s", (_, bytes, what) => {
    expect(() => der.readDer(hex(bytes))).toThrow(
      expect.objectContaining({ code: "syntax", fault: "peer", details: { what } }),
    );
  });

  test("4 GiB announced in six bytes is refused at once", () => {
    expect(() => der.readDer(hex("04 84 ffffffff"))).toThrow(SuiteError);
  });

  test("nesting of 16 passes, of 17 does not", () => {
    const nested = (depth: number): Buffer => (depth === 1 ? der.nullValue() : der.sequence(nested(depth - 1)));
    expect(() => der.checkDepth(der.readDer(nested(16)))).not.toThrow();
    expect(() => der.checkDepth(der.readDer(nested(17)))).toThrow(SuiteError);
  });
});

describe("INTEGER (X.690 §8.3)", () => {
  test.each([
    [0n, "020100"],
    [127n, "02017f"],
    [128n, "02020080"],
    [-1n, "0201ff"],
    [-128n, "020180"],
    [-129n, "0202ff7f"],
    [2n ** 64n, "0209010000000000000000"],
  ])("%s is %s both ways", (value, encoded) => {
    expect(show(der.integer(value))).toBe(encoded);
    expect(der.readInteger(der.readDer(hex(encoded)))).toBe(value);
  });

  test.each(["0200", "02020001", "0202ffff"])("%s is not minimal and refused", (encoded) => {
    expect(() => der.readInteger(der.readDer(hex(encoded)))).toThrow(SuiteError);
    expect(() => der.readSmallInteger(der.readDer(hex(encoded)))).toThrow(SuiteError);
  });

  test("small integers keep their sign and stop at 32 bits", () => {
    expect(der.readSmallInteger(der.readDer(der.integer(-2)))).toBe(-2);
    expect(der.readSmallInteger(der.readDer(der.integer(0x7fffffff)))).toBe(0x7fffffff);
    expect(() => der.readSmallInteger(der.readDer(der.integer(2n ** 32n)))).toThrow(SuiteError);
  });

  test("a negative serial number is written as it was read", () => {
    const serial = der.integerContent(der.readDer(hex("0202ff7f")));
    expect(show(der.integer(serial))).toBe("0202ff7f");
  });

  test("unsigned octets lose leading zeros and get a sign octet where they need one", () => {
    expect(show(der.unsignedInteger(hex("0000ff")))).toBe("020200ff");
    expect(show(der.unsignedInteger(hex("00")))).toBe("020100");
  });
});

describe("OBJECT IDENTIFIER (X.690 §8.19)", () => {
  test.each([
    ["2.5.4.3", "0603550403"],
    ["1.2.840.113549.1.1.11", "06092a864886f70d01010b"],
    ["0.9.2342.19200300.100.1.1", "060a0992268993f22c640101"],
    ["2.999", "06028837"],
    ["2.25.329800735698586629295641978511506172918", "0614 6983f09da7ebcfdee0c7a1a7b2c0948cc8f9d776"],
  ])("%s both ways", (dotted, encoded) => {
    expect(show(der.oid(dotted))).toBe(encoded.replaceAll(" ", ""));
    expect(der.readOid(der.readDer(hex(encoded)))).toBe(dotted);
  });

  test.each([
    ["empty", "0600"],
    ["with a padded arc", "06035580 01"],
    ["cut inside an arc", "06025586"],
    ["of 65 octets", `0641${"01".repeat(65)}`],
  ])("%s is refused", (_, encoded) => {
    expect(() => der.readOid(der.readDer(hex(encoded)))).toThrow(SuiteError);
  });
});

describe("strings, bits, flags", () => {
  test.each([
    ["UTF8String", "0c03 e282ac", "€"],
    ["PrintableString", "1302 4142", "AB"],
    ["TeletexString as Latin-1", "1401 e9", "é"],
    ["BMPString", "1e04 00e9 20ac", "é€"],
    ["UniversalString", "1c04 0001f600", "😀"],
  ])("%s is read", (_, encoded, text) => {
    expect(der.readString(der.readDer(hex(encoded)))).toBe(text);
  });

  test.each([
    ["bad UTF-8", "0c01 ff"],
    ["an overlong NUL", "0c02 c080"],
    ["IA5String with the high bit", "1601 80"],
    ["BMPString of odd length", "1e01 00"],
    ["BMPString with half a pair", "1e02 d800"],
    ["UniversalString past Unicode", "1c04 00110000"],
    ["an OCTET STRING", "0401 41"],
  ])("%s is no character string", (_, encoded) => {
    expect(() => der.readString(der.readDer(hex(encoded)))).toThrow(SuiteError);
  });

  test.each(["0300", "030108", "030107", "03020101"])("BIT STRING %s is refused", (encoded) => {
    expect(() => der.readBitString(der.readDer(hex(encoded)))).toThrow(SuiteError);
  });

  test("a BIT STRING comes with its unused bits", () => {
    const { bytes, unused } = der.readBitString(der.readDer(der.bitString(hex("80"), 7)));
    expect([show(bytes), unused]).toEqual(["80", 7]);
  });

  test.each(["010101", "01020000", "0100"])("BOOLEAN %s is refused", (encoded) => {
    expect(() => der.readBoolean(der.readDer(hex(encoded)))).toThrow(SuiteError);
  });
});

describe("times (RFC 5280 §4.1.2.5)", () => {
  test.each([
    ["170d 3439313233313233353935395a", "2049-12-31T23:59:59.000Z"],
    ["170d 3530303130313030303030305a", "1950-01-01T00:00:00.000Z"],
    ["180f 32303530303130313030303030305a", "2050-01-01T00:00:00.000Z"],
    ["180f 39393939313233313233353935395a", "9999-12-31T23:59:59.000Z"],
  ])("%s is %s both ways", (encoded, iso) => {
    const date = der.readTime(der.readDer(hex(encoded)));
    expect(date.toISOString()).toBe(iso);
    expect(show(der.time(date))).toBe(encoded.replaceAll(" ", ""));
  });

  test.each([
    ["UTCTime without seconds", 0x17, "4912312359Z"],
    ["UTCTime with an offset", 0x17, "491231235959+0100"],
    ["30 February", 0x17, "490230000000Z"],
    ["month 0", 0x17, "490030000000Z"],
    ["hour 24", 0x17, "491231240000Z"],
    ["minute 60", 0x17, "491231226000Z"],
    ["a leap second", 0x17, "491231235960Z"],
    ["GeneralizedTime with a fraction", 0x18, "20500101000000.5Z"],
    ["a time in an IA5String", 0x16, "491231235959Z"],
  ])("%s is refused", (_, tag, text) => {
    expect(() => der.readTime(der.readDer(der.encode(tag, Buffer.from(text))))).toThrow(SuiteError);
  });

  test("every second of every year up to 9999 survives the way there and back", () => {
    const seconds = fc.integer({ min: -62167219200, max: 253402300799 });
    fc.assert(
      fc.property(seconds, (second) => {
        const date = new Date(second * 1000);
        expect(der.readTime(der.readDer(der.time(date)))).toEqual(date);
        expect(formatTime(date).text).toMatch(/^\d{12}(\d\d)?Z$/);
      }),
    );
  });
});

test("SET OF is sorted by encoding (X.690 §11.6)", () => {
  expect(show(der.set(hex("0c0162"), hex("020105"), hex("0c0161")))).toBe(
    "3109 020105 0c0161 0c0162".replaceAll(" ", ""),
  );
});

test.each([0, 1, 127, 128, 255, 256, 65535, 65536, 0x1000000])("%i octets survive the way there and back", (length) => {
  const element = der.readDer(der.octetString(Buffer.alloc(length)));
  expect(element.content.length).toBe(length);
});

test("a value cut anywhere is refused, whole it is read", () => {
  const whole = der.sequence(
    der.integer(5),
    der.sequence(der.oid("2.5.4.3"), der.utf8String("Zoë")),
    der.set(der.nullValue()),
  );
  for (let length = 0; length < whole.length; length++) {
    expect(() => der.readDer(whole.subarray(0, length))).toThrow(SuiteError);
  }
  expect(() => der.checkDepth(der.readDer(whole))).not.toThrow();
});

test("a cursor gives each value once, in order, and nothing behind its end", () => {
  const cursor = new der.DerCursor(Buffer.concat([der.integer(1), der.boolean(true), der.explicit(0, der.integer(2))]));
  expect(cursor.optional(der.tag.boolean)).toBeUndefined();
  expect(der.readSmallInteger(cursor.next(der.tag.integer))).toBe(1);
  expect(() => cursor.next(der.tag.integer)).toThrow(SuiteError);
  expect(() => cursor.end()).toThrow(SuiteError);
  expect(cursor.optional(der.tag.boolean)).toBeDefined();
  expect(cursor.peekTag()).toBe(der.contextConstructed(0));
  cursor.next();
  expect(cursor.done).toBe(true);
  expect(cursor.peekTag()).toBeUndefined();
  expect(() => cursor.next()).toThrow(SuiteError);
});

test("whatever the bytes, reading throws nothing but SuiteError", () => {
  const readers = [
    der.readInteger,
    der.readSmallInteger,
    der.readOid,
    der.readBitString,
    der.readBoolean,
    der.readString,
    der.readTime,
    der.readIa5,
    der.checkDepth,
  ];
  const content = fc.uint8Array({ maxLength: 40 });
  const bytes = fc.oneof(
    content,
    fc.tuple(fc.integer({ min: 1, max: 254 }), content).map(([tag, inner]) => new Uint8Array(der.encode(tag, inner))),
  );
  fc.assert(
    fc.property(bytes, (input) => {
      for (const read of readers) onlySuiteError(() => read(der.readDer(input)));
    }),
    { numRuns: 2000 },
  );
});

function onlySuiteError(run: () => unknown): void {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(SuiteError);
  }
}
