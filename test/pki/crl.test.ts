import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { standardAlgorithms } from "../../src/pki/algorithm.ts";
import { parseCertificate } from "../../src/pki/certificate.ts";
import { parseRevocationList } from "../../src/pki/crl.ts";
import { issueRevocationList, type RevocationListTemplate, type RevokedTemplate } from "../../src/pki/crl-issue.ts";
import * as der from "../../src/pki/der.ts";
import { allReasons, type CrlReason, crlReasons } from "../../src/pki/distribution-point.ts";
import { encodeExtension } from "../../src/pki/extension.ts";
import { encodeName, readName } from "../../src/pki/name.ts";
import { attributeType, crlEntryExtension, crlExtension, signatureAlgorithm } from "../../src/pki/oid.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { openssl, temporaryFolder } from "../support/openssl.ts";
import { makeCa, makeTestDomain, rsaKeyOf } from "../support/pki.ts";

const now = new Date(Math.floor(Date.now() / 1000) * 1000);
const hour = 3_600_000;
const at = (ms: number) => new Date(now.getTime() + ms);
const home = makeTestDomain({ domain: "example.test", now });
const ca = home.issuing;
const issuerName = ca.certificate.subject;
const number = (n: number) => der.readDer(der.integer(n)).content;
const entry = (n: number, reason?: CrlReason): RevokedTemplate => ({
  serial: number(n),
  since: at(-hour),
  ...(reason === undefined ? {} : { reason }),
});

const make = (o: Partial<RevocationListTemplate> = {}) =>
  issueRevocationList({ issuer: ca, entries: [], number: 1, thisUpdate: at(-hour), nextUpdate: at(hour), ...o });
const list = (o: Partial<RevocationListTemplate> = {}) => parseRevocationList(make(o));

/** A list around any entries, unsigned: what only a parser sees. */
function unsigned(
  entries: Uint8Array,
  extensions: readonly Uint8Array[] = [],
  before: readonly Uint8Array[] = [],
): Buffer {
  const algorithm = der.sequence(der.oid("1.2.840.10045.4.3.2"));
  const tbs = der.sequence(
    der.integer(1),
    algorithm,
    ca.certificate.subjectDer,
    der.time(at(-hour)),
    der.time(at(hour)),
    ...before,
    der.encode(der.tag.sequence, entries),
    ...(extensions.length === 0 ? [] : [der.explicit(0, der.sequence(...extensions))]),
  );
  return der.sequence(tbs, algorithm, der.bitString(Buffer.alloc(8)));
}

const malformed = (bytes: Uint8Array) =>
  expect(() => parseRevocationList(bytes)).toThrow(
    expect.objectContaining({ code: "certificate-malformed", fault: "peer", temporary: false }),
  );

describe("a list that we issued", () => {
  test("says what it was told, for every reason", () => {
    const reasons = Object.values(crlReasons);
    const read = list({ entries: reasons.map((reason, n) => entry(n + 1, reason)), number: 7 });
    expect([read.size, read.number, read.deltaBase]).toEqual([reasons.length, 7n, undefined]);
    expect([read.thisUpdate, read.nextUpdate]).toEqual([at(-hour), at(hour)]);
    for (const [n, reason] of reasons.entries())
      expect(read.find(number(n + 1), issuerName)).toEqual({ reason, since: at(-hour) });
    expect(read.find(number(99), issuerName)).toBeUndefined();
    expect(read.find(number(1), home.root.certificate.subject)).toBeUndefined();
  });

  test("is signed by its issuer alone, and by allowed algorithms alone", () => {
    const read = list();
    expect(read.signedBy(ca.certificate)).toBe(true);
    expect(read.signedBy(home.root.certificate)).toBe(false);
    expect(read.signedBy(ca.certificate, { ...standardAlgorithms, digests: new Set(["sha384"]) })).toBe(false);
    expect(read.signedBy(ca.certificate)).toBe(true);
  });

  test("a changed octet of an entry breaks the signature", () => {
    const bytes = make({ entries: [entry(0x1234)] });
    bytes.writeUInt8(0x35, bytes.indexOf(Buffer.of(2, 2, 0x12, 0x34)) + 3);
    const read = parseRevocationList(bytes);
    expect(read.find(number(0x1235), issuerName)).toBeDefined();
    expect(read.signedBy(ca.certificate)).toBe(false);
  });

  test("inner and outer algorithm that differ, if only in how they are written: signed by nobody", () => {
    const issuer = makeCa("RSA", now, { key: rsaKeyOf("crl") });
    const bytes = make({ issuer });
    const outer = new der.DerCursor(der.readDer(bytes).content);
    const [tbs, , signature] = [outer.next(), outer.next(), outer.next()];
    const withoutNull = der.sequence(der.oid(signatureAlgorithm.sha256WithRsa));
    const read = parseRevocationList(der.sequence(tbs.bytes, withoutNull, signature.bytes));
    expect(parseRevocationList(bytes).signedBy(issuer.certificate)).toBe(true);
    expect(read.signedBy(issuer.certificate)).toBe(false);
  });

  test("is written as RFC 5280 wants it", () => {
    const has = (o: Partial<RevocationListTemplate>, hex: string) => make(o).includes(Buffer.from(hex, "hex"));
    // No reason is said by saying nothing.
    expect(has({ entries: [entry(1, "unspecified")] }, "0603551d15")).toBe(false);
    expect(has({ entries: [entry(1, "superseded")] }, "0603551d15")).toBe(true);
    // An empty list of entries is absent: the extensions follow the times.
    const next = Buffer.from(der.time(at(hour))).toString("hex");
    expect(has({}, `${next}a0`)).toBe(true);
    expect(has({ entries: [entry(1)] }, `${next}30`)).toBe(true);
    // Named bits without zeros at the end.
    expect(has({ scope: { reasons: 1 << 1 } }, "83020640")).toBe(true);
    expect(has({ scope: { reasons: (1 << 1) | (1 << 8) } }, "8303074080")).toBe(true);
    expect(has({ scope: { reasons: 1 << 7 } }, "83020001")).toBe(true);
    // Whoever does not know what the list is about must not use it.
    expect(has({ scope: { only: "user" } }, "0603551d1c0101ff")).toBe(true);
    expect(has({ delta: 1, number: 2 }, "0603551d1b0101ff")).toBe(true);
    // Whoever does not know that an entry is of another issuer must not use the list.
    const other = { ...entry(1), issuer: home.root.certificate.subjectDer };
    expect(has({ entries: [other], scope: { indirect: true } }, "0603551d1d0101ff")).toBe(true);
  });

  test("tells its scope", () => {
    const urls = ["http://example.test/1.crl", "http://example.test/2.crl"];
    const { scope } = list({ scope: { urls, only: "user", reasons: (1 << 1) | (1 << 8), indirect: true } });
    expect(scope).toMatchObject({ only: "user", reasons: (1 << 1) | (1 << 8), indirect: true });
    expect(scope.fullName).toEqual(urls.map((text) => ({ type: "uri", text })));
    expect(list({ scope: { only: "ca" } }).scope).toEqual({ only: "ca", reasons: allReasons, indirect: false });
    expect(list().scope).toEqual({ reasons: allReasons, indirect: false });
    expect(list({ number: 8, delta: 7 }).deltaBase).toBe(7n);
  });

  test("of an indirect one each entry is of the issuer that was named last", () => {
    const [one, two] = ["One", "Two"].map((name) => encodeName([[attributeType.commonName, name]]));
    if (one === undefined || two === undefined) throw new Error("no names");
    const entries = [entry(1), { ...entry(2), issuer: one }, entry(3), { ...entry(2), issuer: two }, entry(1)];
    const read = list({ entries, scope: { indirect: true } });
    const nameOf = (bytes: Uint8Array) => readName(der.readDer(bytes));
    const found = [issuerName, nameOf(one), nameOf(two)].map((name) =>
      [1, 2, 3].filter((n) => read.find(number(n), name) !== undefined),
    );
    expect(found).toEqual([[1], [2, 3], [1, 2]]);
    expect(read.criticalUnknown).toEqual([]);
    // What another thread read serves as well.
    read.signedBy(ca.certificate);
    const handed = structuredClone({ bytes: read.der, reading: read.reading });
    const again = parseRevocationList(handed.bytes, handed.reading);
    expect(again.find(number(3), nameOf(one))).toEqual(read.find(number(3), nameOf(one)));
    expect(again.find(number(3), nameOf(two))).toBeUndefined();
    expect([again.size, again.weight, again.signedBy(ca.certificate)]).toEqual([5, read.weight, true]);
  });

  test("100,000 serial numbers of any kind are found, and no others", () => {
    const serials = Array.from({ length: 100_000 }, (_, n) =>
      n % 2 ? Buffer.concat([Buffer.of(1), randomBytes(15)]) : number(n),
    );
    const read = list({ entries: serials.map((serial) => ({ serial, since: at(-hour) })) });
    expect(read.size).toBe(100_000);
    expect(serials.filter((serial) => read.find(serial, issuerName) === undefined)).toEqual([]);
    expect(serials.filter((_, n) => n % 2 === 0 && read.find(number(n + 1), issuerName) !== undefined)).toEqual([]);
  });
});

describe("openssl judges what we issue", () => {
  test.each<[string, Partial<RevocationListTemplate>, RegExp]>([
    ["empty", {}, /No Revoked Certificates/],
    ["with entries", { entries: [entry(0x1234, "keyCompromise"), entry(0x5678)] }, /1234.*Key Compromise.*5678/s],
    ["its number", { number: 0x123456789abcn }, /X509v3 CRL Number:\s+20015998343868/],
    ["a delta", { number: 9, delta: 8 }, /Delta CRL Indicator: critical\s+8/],
    [
      "a scope",
      { scope: { urls: ["http://example.test/a.crl"], only: "user" } },
      /Only User Certificates.*example\.test\/a\.crl|example\.test\/a\.crl.*Only User Certificates/s,
    ],
    ["reasons", { scope: { reasons: (1 << 1) | (1 << 8) } }, /Only Some Reasons:\s+Key Compromise, AA Compromise/],
  ])("openssl crl: %s", async (_, differences, expected) => {
    using folder = temporaryFolder();
    const [crl, file] = [join(folder.path, "a.crl"), join(folder.path, "ca.pem")];
    writeFileSync(crl, make(differences));
    writeFileSync(file, derToPem(ca.certificate.der, "CERTIFICATE"));
    const { output, code } = await openssl(["crl", "-inform", "DER", "-in", crl, "-CAfile", file, "-noout", "-text"]);
    expect(output).toContain("verify OK");
    expect(output).toMatch(expected);
    expect(code).toBe(0);
  });

  test("openssl verify -crl_check_all takes our lists, and refuses whom they revoke", async () => {
    using folder = temporaryFolder();
    const file = (name: string, ...blocks: readonly (readonly [Uint8Array, string])[]) => {
      const path = join(folder.path, name);
      writeFileSync(path, blocks.map(([bytes, label]) => derToPem(bytes, label)).join(""));
      return path;
    };
    const { certificate } = home.person({ identity: "alice@example.test" }).auth;
    const ofRoot = issueRevocationList({
      issuer: home.root,
      ...{ entries: [], number: 1, thisUpdate: at(-hour), nextUpdate: at(hour) },
    });
    const run = async (entries: readonly RevokedTemplate[]) => {
      const lists = [make({ entries }), ofRoot].map((one) => [one, "X509 CRL"] as const);
      const [root, untrusted] = [
        file("root.pem", [home.root.certificate.der, "CERTIFICATE"]),
        file("ca.pem", [ca.certificate.der, "CERTIFICATE"]),
      ];
      const args = ["-CAfile", root, "-untrusted", untrusted, "-CRLfile", file("crls.pem", ...lists)];
      const leaf = file("a.pem", [certificate.der, "CERTIFICATE"]);
      return (await openssl(["verify", "-x509_strict", "-crl_check_all", ...args, leaf])).output;
    };
    expect(await run([entry(1)])).toMatch(/a\.pem: OK/);
    expect(await run([entry(1), { serial: certificate.serial, since: at(-hour) }])).toContain("certificate revoked");
  });
});

const one = (...extensions: Uint8Array[]) =>
  der.sequence(der.integer(5), der.time(at(-hour)), ...(extensions.length ? [der.sequence(...extensions)] : []));

test("a scope that says FALSE says nothing", () => {
  const scope = (octet: number) => der.sequence(...[1, 4].map((n) => der.implicitPrimitive(n, Buffer.of(octet))));
  const read = (octet: number) =>
    parseRevocationList(unsigned(one(), [encodeExtension(crlExtension.issuingDistributionPoint, true, scope(octet))]));
  expect(read(0).scope).toEqual({ reasons: allReasons, indirect: false });
  expect(read(0xff).scope).toEqual({ only: "user", reasons: allReasons, indirect: true });
});

describe("unknown extensions", () => {
  const odd = (critical: boolean) => encodeExtension("1.2.3.4", critical, der.nullValue());
  test.each<[string, Buffer, string[]]>([
    ["critical in the list", unsigned(one(), [odd(true)]), ["1.2.3.4"]],
    ["not critical in the list", unsigned(one(), [odd(false)]), []],
    ["critical in an entry", unsigned(one(odd(true))), ["1.2.3.4"]],
    ["not critical in an entry", unsigned(one(odd(false))), []],
    ["a critical reason", unsigned(one(encodeExtension(crlEntryExtension.reasonCode, true, Buffer.of(10, 1, 1)))), []],
  ])("%s", (_, bytes, told) => {
    expect(parseRevocationList(bytes).criticalUnknown).toEqual(told);
  });

  test("a reason is found among others, and one that does not exist is none", () => {
    const reason = (code: number) => encodeExtension(crlEntryExtension.reasonCode, false, Buffer.of(10, 1, code));
    const found = (bytes: Buffer) => parseRevocationList(bytes).find(number(5), issuerName)?.reason;
    expect(found(unsigned(one(odd(false), reason(4))))).toBe("superseded");
    expect(found(unsigned(one(reason(7))))).toBe("unspecified");
  });
});

describe("limits and malformed input", () => {
  const plain = (serial: Uint8Array) => der.sequence(der.encode(der.tag.integer, serial), der.time(at(-hour)));

  test("64 MiB are read, 65 are too long", () => {
    const outer = new der.DerCursor(der.readDer(make()).content);
    const [tbs, algorithm] = [outer.next(), outer.next()];
    const long = (mebibytes: number) =>
      der.sequence(tbs.bytes, algorithm.bytes, der.bitString(Buffer.alloc(mebibytes * 1024 * 1024 - 1_000)));
    expect(parseRevocationList(long(64)).size).toBe(0);
    malformed(long(65));
  });

  test("4,000,000 entries are read, one more is not", () => {
    // Dates are looked into when an entry is asked for, so that they may be empty here.
    const content = Buffer.alloc(4_000_001 * 10, Buffer.from([0x30, 0x08, 0x02, 0x04, 1, 0, 0, 0, 0x17, 0x00]));
    for (let n = 0; n < 4_000_001; n += 1) content.writeUInt32BE(0x1000000 + n, n * 10 + 4);
    expect(parseRevocationList(unsigned(content.subarray(0, 40_000_000))).size).toBe(4_000_000);
    malformed(unsigned(content));
  }, 60_000);

  test("a serial of 32 octets is read, of 33 not", () => {
    const serial = (length: number) => Buffer.alloc(length, 0x11);
    expect(parseRevocationList(unsigned(plain(serial(32)))).find(serial(32), issuerName)).toBeDefined();
    malformed(unsigned(plain(serial(33))));
  });

  test("a serial that is listed again and again does not make reading slow", () => {
    const same = Buffer.concat(Array.from({ length: 200_000 }, () => plain(Buffer.of(1))));
    const before = process.threadCpuUsage();
    malformed(unsigned(same));
    const { user, system } = process.threadCpuUsage(before);
    expect((user + system) / 1000).toBeLessThan(500);
  });

  test("a date that is none is told only as none: the entry counts", () => {
    const bytes = unsigned(der.sequence(der.integer(5), der.encode(der.tag.utcTime, Buffer.from("269999999999Z"))));
    expect(parseRevocationList(bytes).find(number(5), issuerName)).toEqual({
      reason: "unspecified",
      since: new Date(0),
    });
  });

  const signedWith = (signature: Uint8Array, ...changed: readonly Uint8Array[]) => {
    const outer = new der.DerCursor(der.readDer(make()).content);
    const [tbs, algorithm] = [outer.next(), outer.next()];
    return der.sequence(changed.length > 0 ? der.sequence(...changed) : tbs.bytes, algorithm.bytes, signature);
  };
  /** With another version, or none. */
  const version = (n?: number) => {
    const fields = new der.DerCursor(new der.DerCursor(der.readDer(make()).content).next().content);
    fields.next(der.tag.integer);
    const rest: Uint8Array[] = [];
    while (!fields.done) rest.push(fields.next().bytes);
    return signedWith(der.bitString(Buffer.of(2)), ...(n === undefined ? [] : [der.integer(n)]), ...rest);
  };

  /** An entry of 133 octets. */
  const long = one(encodeExtension("1.2.3", false, Buffer.alloc(102)));
  test("the frame of a row below is read", () => {
    expect([...long.subarray(0, 3)]).toEqual([0x30, 0x81, long.length - 3]);
    expect(parseRevocationList(unsigned(long)).size).toBe(1);
  });

  test("version 2 is read, and version 1, which is not written down", () => {
    expect([version(1), version()].map((bytes) => parseRevocationList(bytes).size)).toEqual([0, 0]);
    expect(parseRevocationList(signedWith(der.bitString(Buffer.of(2)))).size).toBe(0);
  });

  const bad = (...parts: number[]) => unsigned(Buffer.from(parts));
  test.each<[string, Buffer]>([
    ["an entry that is no SEQUENCE", bad(0x31, 0)],
    ["an empty entry", bad(0x30, 0)],
    ["a serial that is no INTEGER", bad(0x30, 3, 4, 1, 1)],
    ["a serial without a date", bad(0x30, 3, 2, 1, 1)],
    ["a date that is no date", bad(0x30, 5, 2, 1, 1, 4, 0)],
    ["a date that overruns its entry", bad(0x30, 5, 2, 1, 1, 0x17, 7, 0x30, 5, 2, 1, 2, 0x17, 0)],
    ["an entry that overruns the list", bad(0x30, 9, 2, 1, 1, 0x17, 4)],
    ["an indefinite length", bad(0x30, 0x80, 2, 1, 1, 0x17, 0, 0, 0)],
    ["a length of 5 octets", bad(0x30, 0x85, 0, 0, 0, 0, 5, 2, 1, 1, 0x17, 0)],
    ["a length that is not minimal", bad(0x30, 0x81, 5, 2, 1, 1, 0x17, 0)],
    ["a leading zero in a length", unsigned(Buffer.concat([Buffer.of(0x30, 0x82, 0), long.subarray(2)]))],
    ["entry extensions that are none", bad(0x30, 7, 2, 1, 1, 0x17, 0, 5, 0)],
    [
      "an extension twice",
      unsigned(
        Buffer.alloc(0),
        [1, 2].map(() => encodeExtension(crlExtension.crlNumber, false, der.integer(1))),
      ),
    ],
    ["version 3", version(2)],
    ["version 1 that says so", version(0)],
    ["a signature of odd bits", signedWith(der.bitString(Buffer.of(2), 1))],
    ["something behind the entries", unsigned(Buffer.alloc(0), [], [der.sequence(), der.nullValue()])],
    ["a byte behind it", Buffer.concat([make(), Buffer.of(0)])],
    ["nothing", Buffer.alloc(0)],
  ])("%s", (_, bytes) => {
    malformed(bytes);
  });

  test("every truncation is malformed", () => {
    const bytes = make({
      entries: [entry(1, "superseded"), entry(2)],
      delta: 1,
      number: 2,
      scope: { urls: ["http://a.test/"] },
    });
    for (let n = 0; n < bytes.length; n += 1) malformed(bytes.subarray(0, n));
  });

  test("an indirect list that changes its issuer 10,000 times is too much", () => {
    const names = Array.from({ length: 10_000 }, (_, n) => encodeName([[attributeType.commonName, `CA ${n}`]]));
    const entries = names.map((issuer, n) => ({ ...entry(n), issuer }));
    malformed(make({ entries, scope: { indirect: true } }));
    expect(list({ entries: entries.slice(1), scope: { indirect: true } }).size).toBe(9_999);
  });

  test("the names in an indirect list weigh what they take when they are read, and more than a mebibyte is too much", () => {
    const named = (count: number) =>
      Array.from({ length: count }, (_, n) => {
        const name = Array.from({ length: 64 }, (_, m) => [attributeType.commonName, `${n} ${m} ${"x".repeat(80)}`]);
        return { ...entry(n), issuer: encodeName(name as [string, string][]) };
      });
    const some = list({ entries: named(100), scope: { indirect: true } });
    expect(some.weight).toBeGreaterThan(20 * some.der.length);
    malformed(make({ entries: named(180), scope: { indirect: true } }));
  });

  test("of many critical extensions that nobody knows a few are told", () => {
    const odd = (n: number) =>
      der.sequence(der.integer(n), der.time(now), der.sequence(encodeExtension(`1.2.3.${n}`, true, der.nullValue())));
    const bytes = unsigned(Buffer.concat(Array.from({ length: 1_000 }, (_, n) => odd(n))));
    expect(parseRevocationList(bytes).criticalUnknown).toHaveLength(16);
  });
});

test("a list's signature is not tried with ever more keys, and who was found to have signed it stays so", () => {
  const read = list();
  const double = () => makeCa("the same", now, { differences: { subject: ca.certificate.subjectDer } }).certificate;
  expect(read.signedBy(ca.certificate)).toBe(true);
  for (let n = 0; n < 120; n += 1) expect(read.signedBy(double())).toBe(false);
  expect(read.signedBy(ca.certificate)).toBe(true);
  expect(read.reading.signedBy).toHaveLength(96);
});

test("a list whose signer's key cannot be loaded is not signed by it", () => {
  const bytes = Buffer.from(ca.certificate.der);
  const point = bytes.indexOf(ca.certificate.key.keyBits);
  bytes.writeUInt8(bytes.readUInt8(point + 5) ^ 1, point + 5);
  expect(list().signedBy(parseCertificate(bytes))).toBe(false);
});
