import { describe, expect, test } from "vitest";
import * as der from "../../src/pki/der.ts";
import {
  allReasons,
  crlReasons,
  encodeReason,
  pointNames,
  readDistributionPoint,
  shareName,
} from "../../src/pki/distribution-point.ts";
import { encodeDirectoryName, encodeDnsName, encodeUri, type GeneralName } from "../../src/pki/general-name.ts";
import { encodeName, type Name, readName, showName } from "../../src/pki/name.ts";
import { attributeType } from "../../src/pki/oid.ts";

const read = (...parts: Uint8Array[]) => readDistributionPoint(der.readDer(der.sequence(...parts)));
const fullName = (...names: Uint8Array[]) => der.implicitConstructed(0, der.implicitConstructed(0, ...names));
const reasons = (...octets: number[]) => der.implicitPrimitive(1, Buffer.from(octets));
const name = (text: string) => encodeName([[attributeType.commonName, text]]);
const parsed = (bytes: Uint8Array): Name => readName(der.readDer(bytes));
const uri = (text: string): GeneralName => ({ type: "uri", text });

describe("a distribution point is read", () => {
  test("empty: all reasons, no place", () => {
    expect(read()).toEqual({ reasons: allReasons });
  });

  test("full names", () => {
    const { fullName: names } = read(fullName(encodeUri("http://a.test/"), encodeDnsName("b.test")));
    expect(names).toEqual([uri("http://a.test/"), { type: "dNSName", text: "b.test" }]);
  });

  test.each<[string, number[], number]>([
    ["keyCompromise", [6, 0x40], 1 << 1],
    ["aACompromise alone, in the second octet", [7, 0, 0x80], 1 << 8],
    ["all of them", [7, 0x7f, 0x80], allReasons],
    ["bit 0 means nothing", [7, 0x80], 0],
    ["none", [0], 0],
  ])("reasons: %s", (_, octets, mask) => {
    expect(read(reasons(...octets)).reasons).toBe(mask);
  });

  test("the issuer of its lists", () => {
    const { crlIssuer = [] } = read(der.implicitConstructed(2, encodeDirectoryName(name("Other"))));
    expect(shareName(crlIssuer, [{ type: "directoryName", name: parsed(name("OTHER")) }])).toBe(true);
  });

  test("a name relative to the issuer of the list", () => {
    const attribute = der.sequence(der.oid(attributeType.commonName), der.utf8String("Part 1"));
    const point = read(der.implicitConstructed(0, der.implicitConstructed(1, attribute)));
    const [whole] = pointNames(point, parsed(name("CA")));
    expect(whole?.type === "directoryName" && showName(whole.name)).toBe("CN=Part 1,CN=CA");
  });

  test("a relative name that makes too long a name is the same as no other, itself included", () => {
    const many = Array.from({ length: 64 }, (_, n) => [attributeType.commonName, `${n}`] as const);
    const attribute = der.sequence(der.oid(attributeType.commonName), der.utf8String("Part 1"));
    const point = read(der.implicitConstructed(0, der.implicitConstructed(1, attribute)));
    const names = pointNames(point, parsed(encodeName(many)));
    expect(names).toHaveLength(1);
    expect(shareName(names, names)).toBe(false);
    const fitting = pointNames(point, parsed(encodeName(many.slice(1))));
    expect(shareName(fitting, fitting)).toBe(true);
  });

  test("64 names, not 65", () => {
    const names = (count: number) => Array.from({ length: count }, (_, n) => encodeUri(`http://a.test/${n}`));
    expect(read(fullName(...names(64))).fullName).toHaveLength(64);
    expect(() => read(fullName(...names(65)))).toThrow(expect.objectContaining({ code: "syntax" }));
  });

  test.each<[string, Uint8Array[]]>([
    ["a name that is no choice", [der.implicitConstructed(0)]],
    ["a choice that does not exist", [der.implicitConstructed(0, der.implicitConstructed(2, encodeUri("http://a/")))]],
    ["no names", [fullName()]],
    ["a relative name that is none", [der.implicitConstructed(0, der.implicitConstructed(1, der.nullValue()))]],
    ["a relative name of nothing", [der.implicitConstructed(0, der.implicitConstructed(1))]],
    ["something behind", [der.implicitConstructed(3)]],
    ["the wrong order", [der.implicitConstructed(2, encodeUri("http://a/")), reasons(6, 0x40)]],
  ])("not %s", (_, parts) => {
    expect(() => read(...parts)).toThrow(expect.objectContaining({ code: "syntax" }));
  });
});

test.each<[GeneralName, GeneralName, boolean]>([
  [uri("http://a.test/"), uri("http://a.test/"), true],
  [uri("http://a.test/"), uri("http://A.test/"), false],
  [uri("a.test"), { type: "dNSName", text: "a.test" }, false],
  [{ type: "dNSName", text: "a.test" }, { type: "dNSName", text: "a.test" }, true],
  [{ type: "directoryName", name: parsed(name("A  b")) }, { type: "directoryName", name: parsed(name("a B")) }, true],
  [{ type: "directoryName", name: parsed(name("A")) }, uri("A"), false],
  [{ type: "ipAddress", octets: Buffer.of(1, 2, 3, 4) }, { type: "ipAddress", octets: Buffer.of(1, 2, 3, 4) }, false],
])("%o and %o are the same: %s", (a, b, same) => {
  expect(shareName([uri("x"), a], [b, uri("y")])).toBe(same);
  expect(shareName([b], [a])).toBe(same);
});

test("every reason is written by its code", () => {
  for (const [code, reason] of Object.entries(crlReasons))
    expect([...encodeReason(reason)]).toEqual([der.tag.enumerated, 1, Number(code)]);
});
