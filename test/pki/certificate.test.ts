import { X509Certificate } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Certificate,
  fingerprintOf,
  parseCertificate,
  parseFingerprint,
  peerCertificate,
} from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { encodeExtension } from "../../src/pki/extension.ts";
import { encodeDnsName, encodeRfc822Name, encodeSmtpUtf8Mailbox, encodeUri } from "../../src/pki/general-name.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { type CertificateTemplate, issueCertificate } from "../../src/pki/issue.ts";
import { encodeName } from "../../src/pki/name.ts";
import { attributeType, extendedKeyUsage, extensionType } from "../../src/pki/oid.ts";
import { pemToDer } from "../../src/pki/pem.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { allowsPurpose, type Purpose } from "../../src/pki/usage.ts";
import { authTemplate, makeEcKey, makeEd25519Key, makeTestDomain, rsaKeyOf } from "../support/pki.ts";
import { sharedFolder } from "../support/shared.ts";

const home = makeTestDomain({ domain: "example.test" });
const alice = home.person({ identity: "alice@example.test", name: "Alice Smith", organisation: "Example Ltd" });

function leaf(differences: Partial<CertificateTemplate>, key = makeEcKey()): Certificate {
  const template = authTemplate(parseIdentity("alice@example.test"), home.now, home.issuing, key);
  return parseCertificate(issueCertificate({ ...template, ...differences }, home.issuing.privateKey));
}

test("a certificate reads as Node's own reader has it", () => {
  const { certificate } = alice.auth;
  const judge = new X509Certificate(certificate.der);
  expect(certificate.sha256).toBe(judge.fingerprint256.replaceAll(":", "").toLowerCase());
  expect(Buffer.from(certificate.serial).toString("hex")).toBe(judge.serialNumber.toLowerCase());
  expect(certificate.validity).toEqual({ notBefore: judge.validFromDate, notAfter: judge.validToDate });
  expect(certificate.publicKey.equals(judge.publicKey)).toBe(true);
  expect(certificate.fingerprint).toBe(fingerprintOf(judge.publicKey));
  expect(certificate.fingerprint).toBe(fingerprintOf(alice.auth.privateKey));
  expect(certificate.extendedKeyUsage).toEqual(judge.keyUsage); // Node calls EKU keyUsage
  expect([...(certificate.keyUsage ?? [])]).toEqual(["digitalSignature"]);
  expect(certificate.basicConstraints).toBeUndefined();
  expect(home.issuing.certificate.basicConstraints).toEqual({ ca: true, pathLength: 0 });
  expect(certificate.authorityKeyId).toEqual(home.issuing.certificate.subjectKeyId);
});

test("a certificate keeps its own copy of the bytes", () => {
  const bytes = Buffer.from(alice.auth.certificate.der);
  const copy = parseCertificate(bytes);
  bytes.fill(0);
  expect(copy.sha256).toBe(alice.auth.certificate.sha256);
  expect(copy.subjectDer).toEqual(alice.auth.certificate.subjectDer);
});

describe("who a certificate says it is", () => {
  const subject = (...rdns: Parameters<typeof encodeName>[0]) => ({ subject: encodeName(rdns), subjectAltNames: [] });

  test("a person has a name, an organisation and one identity", () => {
    const peer = peerCertificate(alice.auth.certificate);
    expect(peer.identities).toEqual([{ identity: "alice@example.test", source: "rfc822Name" }]);
    expect(peer).toMatchObject({ commonName: "Alice Smith", organisation: "Example Ltd", named: true });
  });

  test.each<[string, Partial<CertificateTemplate>, [string, string][]]>([
    [
      "rfc822Name before emailAddress, each once",
      {
        subject: encodeName([
          [attributeType.emailAddress, "b@x.test"],
          [attributeType.emailAddress, "A@x.test"],
        ]),
        subjectAltNames: [encodeRfc822Name("a@X.test")],
      },
      [
        ["a@x.test", "rfc822Name"],
        ["b@x.test", "emailAddress"],
      ],
    ],
    ["UID as user@domain", subject([attributeType.userId, "Alice@x.test"]), [["alice@x.test", "uid"]]],
    ["a UID that is only a word is none", subject([attributeType.userId, "alice"]), []],
    [
      "SmtpUTF8Mailbox",
      { subject: encodeName([]), subjectAltNames: [encodeSmtpUtf8Mailbox("用户@x.test")] },
      [["用户@x.test", "smtpUtf8"]],
    ],
    [
      "sip: URI with a user",
      { subject: encodeName([]), subjectAltNames: [encodeUri("sip:alice@x.test")] },
      [["alice@x.test", "sipUri"]],
    ],
    [
      "sip: URI with an escape",
      { subject: encodeName([]), subjectAltNames: [encodeUri("sip:a%2Bb@x.test")] },
      [["a+b@x.test", "sipUri"]],
    ],
    ["sip: URI of a whole domain is none", { subject: encodeName([]), subjectAltNames: [encodeUri("sip:x.test")] }, []],
    [
      "sip: URI with a password is none",
      { subject: encodeName([]), subjectAltNames: [encodeUri("sip:a:b@x.test")] },
      [],
    ],
    [
      "an escaped @ does not make another domain",
      { subject: encodeName([]), subjectAltNames: [encodeUri("sip:a%40evil.test@x.test")] },
      [],
    ],
    ["an escaped host is none", { subject: encodeName([]), subjectAltNames: [encodeUri("sip:a@x%2Etest")] }, []],
    ["the common name is none", subject([attributeType.commonName, "alice@x.test"]), []],
    ["two @ are none", { subject: encodeName([]), subjectAltNames: [encodeRfc822Name("a@b@x.test")] }, []],
  ])("%s", (_, differences, identities) => {
    const peer = peerCertificate(leaf(differences));
    expect(peer.identities.map(({ identity, source }) => [identity, source])).toEqual(identities);
  });

  test("a NUL in rfc822Name is no identity", () => {
    const cut = der.implicitPrimitive(1, Buffer.from("alice@example.test\0.evil.test"));
    expect(peerCertificate(leaf({ subject: encodeName([]), subjectAltNames: [cut] })).identities).toEqual([]);
  });

  test.each<[string, string | undefined, boolean]>([
    ["Alice", "Alice", true],
    ["alice@x.test", "alice@x.test", false],
    ["Al\nice\u202e", "Al ice", true],
    ["\u200b", undefined, false],
  ])("common name %j is shown as %j, names a person: %s", (text, shown, named) => {
    const peer = peerCertificate(leaf({ subject: encodeName([[attributeType.commonName, text]]) }));
    expect([peer.commonName, peer.named]).toEqual([shown, named]);
  });
});

describe("what a certificate may be used for (peer, sign, seal)", () => {
  const all = [extendedKeyUsage.clientAuth, extendedKeyUsage.serverAuth, extendedKeyUsage.emailProtection];
  const rsa = rsaKeyOf("usage");
  const row = (keyUsage: CertificateTemplate["keyUsage"], extended: readonly string[], key = makeEcKey()) =>
    leaf({ keyUsage, extendedKeyUsage: extended }, key);
  test.each<[string, Certificate, [boolean, boolean, boolean]]>([
    [
      "RSA digitalSignature + keyEncipherment, EKU of the set",
      row(["digitalSignature", "keyEncipherment"], all, rsa),
      [true, true, true],
    ],
    [
      "RSA digitalSignature + keyEncipherment, no EKU",
      row(["digitalSignature", "keyEncipherment"], [], rsa),
      [true, true, true],
    ],
    ["EC digitalSignature + keyAgreement", row(["digitalSignature", "keyAgreement"], all), [true, true, true]],
    ["EC keyEncipherment does not seal", row(["digitalSignature", "keyEncipherment"], all), [true, true, false]],
    ["RSA keyAgreement does not seal", row(["digitalSignature", "keyAgreement"], all, rsa), [true, true, false]],
    [
      "clientAuth only, digitalSignature",
      row(["digitalSignature"], [extendedKeyUsage.clientAuth]),
      [true, true, false],
    ],
    ["emailProtection only", row(["digitalSignature"], [extendedKeyUsage.emailProtection]), [true, true, false]],
    ["serverAuth only", row(["digitalSignature"], [extendedKeyUsage.serverAuth]), [true, true, false]],
    ["anyExtendedKeyUsage", row(["digitalSignature"], [extendedKeyUsage.any]), [true, true, false]],
    ["RSA keyEncipherment only", row(["keyEncipherment"], all, rsa), [false, false, true]],
    ["nonRepudiation only", row(["nonRepudiation"], all), [false, true, false]],
    ["Ed25519", row(["digitalSignature", "keyAgreement"], all, makeEd25519Key()), [true, true, false]],
    ["codeSigning only", row(["digitalSignature"], [extendedKeyUsage.codeSigning], rsa), [false, false, false]],
    ["sipDomain only", row(["digitalSignature"], [extendedKeyUsage.sipDomain]), [false, false, false]],
  ])("%s", (_, certificate, [peer, sign, seal]) => {
    expect(peerCertificate(certificate).uses).toEqual({ peer, sign, seal });
  });

  test.each<[string, Partial<CertificateTemplate>, boolean]>([
    [
      "serverAuth and a dNSName",
      { extendedKeyUsage: [extendedKeyUsage.serverAuth], subjectAltNames: [encodeDnsName("x.test")] },
      true,
    ],
    ["serverAuth without a dNSName", { extendedKeyUsage: [extendedKeyUsage.serverAuth] }, false],
    [
      "clientAuth and a dNSName",
      { extendedKeyUsage: [extendedKeyUsage.clientAuth], subjectAltNames: [encodeDnsName("x.test")] },
      false,
    ],
  ])("server: %s: %s", (_, differences, allowed) => {
    expect(allowsPurpose(leaf(differences), "server")).toBe(allowed);
  });

  test("with no key usage at all every purpose is open to an RSA key", () => {
    const own = parseCertificate(withoutExtensions(leaf({}, rsa)));
    for (const purpose of ["peer", "sign", "seal", "any"] satisfies Purpose[])
      expect(allowsPurpose(own, purpose)).toBe(true);
  });
});

/** Version 1, with a signature that is none: `parseCertificate` does not look. */
function withoutExtensions(certificate: Certificate): Buffer {
  const { serial, signatureAlgorithm, issuerDer, subjectDer, validity, spki } = certificate;
  const window = der.sequence(der.time(validity.notBefore), der.time(validity.notAfter));
  const tbs = der.sequence(der.integer(serial), signatureAlgorithm.der, issuerDer, window, subjectDer, spki);
  return der.sequence(tbs, signatureAlgorithm.der, der.bitString(Buffer.alloc(8)));
}

function withExtensions(...extensions: Uint8Array[]): Buffer {
  const { serial, signatureAlgorithm, issuerDer, subjectDer, validity, spki } = alice.auth.certificate;
  const window = der.sequence(der.time(validity.notBefore), der.time(validity.notAfter));
  const body = [der.integer(serial), signatureAlgorithm.der, issuerDer, window, subjectDer, spki];
  const tbs = der.sequence(der.explicit(0, der.integer(2)), ...body, der.explicit(3, der.sequence(...extensions)));
  return der.sequence(tbs, signatureAlgorithm.der, der.bitString(Buffer.alloc(8)));
}

describe("a malformed certificate is refused", () => {
  const unknown = (n: number, critical = false) => encodeExtension(`1.2.3.${n}`, critical, der.nullValue());
  const names = (count: number) =>
    encodeExtension(
      extensionType.subjectAltName,
      false,
      der.sequence(...Array.from({ length: count }, () => encodeDnsName("a"))),
    );
  const nested = (depth: number): Buffer => (depth === 0 ? der.nullValue() : der.sequence(nested(depth - 1)));
  const subtree = (...parts: Uint8Array[]) =>
    encodeExtension(
      extensionType.nameConstraints,
      true,
      der.sequence(der.implicitConstructed(0, der.sequence(...parts))),
    );

  test("the frame that the rows below use is itself read", () => {
    const many = Array.from({ length: 64 }, (_, n) => unknown(n));
    expect(parseCertificate(withExtensions(...many)).criticalUnknown).toEqual([]);
    expect(parseCertificate(withExtensions(unknown(1, true), unknown(2))).criticalUnknown).toEqual(["1.2.3.1"]);
    expect(parseCertificate(withExtensions(names(256))).subjectAltNames).toHaveLength(256);
    expect(() => parseCertificate(withSubject(nested(10)))).not.toThrow();
    expect(parseCertificate(withExtensions(subtree(encodeDnsName("a")))).nameConstraints?.permitted).toHaveLength(1);
  });

  const whole = Buffer.from(alice.auth.certificate.der);
  test.each<[string, Uint8Array]>([
    ["nothing", new Uint8Array()],
    ["a byte behind", Buffer.concat([whole, Buffer.of(0)])],
    ["33 KiB", Buffer.concat([whole, Buffer.alloc(33 * 1024)])],
    ["a duplicate extension", withExtensions(unknown(1), unknown(1))],
    ["65 extensions", withExtensions(...Array.from({ length: 65 }, (_, n) => unknown(n)))],
    ["no extension in the list", withExtensions()],
    ["257 names", withExtensions(names(257))],
    ["no name", withExtensions(names(0))],
    ["nesting 17 deep", withSubject(nested(11))],
    ["a subtree with a minimum", withExtensions(subtree(encodeDnsName("a"), der.implicitPrimitive(0, Buffer.of(1))))],
    ["a subtree with a maximum", withExtensions(subtree(encodeDnsName("a"), der.implicitPrimitive(1, Buffer.of(1))))],
    ["key usage that is an INTEGER", withExtensions(encodeExtension(extensionType.keyUsage, true, der.integer(1)))],
    [
      "a negative path length",
      withExtensions(
        encodeExtension(extensionType.basicConstraints, true, der.sequence(der.boolean(true), der.integer(-1))),
      ),
    ],
    ["a serial number of 33 octets", leafWithSerial(33)],
  ])("%s", (_, bytes) => {
    expect(() => parseCertificate(bytes)).toThrow(
      expect.objectContaining({ code: "certificate-malformed", fault: "peer" }),
    );
  });

  test("a serial number of 32 octets is read", () => {
    expect(parseCertificate(leafWithSerial(32)).serial).toHaveLength(32);
  });

  test("cut anywhere it is refused", () => {
    for (let length = 0; length < whole.length; length++) {
      expect(() => parseCertificate(whole.subarray(0, length))).toThrow(SuiteError);
    }
  });

  test("with any octet changed it is read or refused, nothing else", () => {
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
        const bytes = Buffer.from(whole);
        bytes[at] = (bytes[at] ?? 0) ^ mask;
        readWhole(bytes);
      }),
      { numRuns: 3000 },
    );
  });

  test("spliced with random octets it is read or refused, nothing else", () => {
    fc.assert(
      fc.property(fc.nat(whole.length), fc.nat(20), fc.uint8Array({ maxLength: 20 }), (at, removed, put) => {
        readWhole(Buffer.concat([whole.subarray(0, at), put, whole.subarray(at + removed)]));
      }),
      { numRuns: 1000 },
    );
  });

  test("a key that cannot be loaded is found when it is asked for", () => {
    const bytes = Buffer.from(whole);
    const point = bytes.indexOf(alice.auth.certificate.key.keyBits);
    bytes.writeUInt8(bytes.readUInt8(point + 1) ^ 1, point + 1); // leaves the curve
    const certificate = parseCertificate(bytes);
    expect(() => certificate.publicKey).toThrow(expect.objectContaining({ code: "certificate-malformed" }));
  });
});

function leafWithSerial(octets: number): Buffer {
  const template = authTemplate(parseIdentity("a@example.test"), home.now, home.issuing, makeEcKey());
  return issueCertificate({ ...template, serial: Buffer.alloc(octets, 1) }, home.issuing.privateKey);
}

/** The value of the subject's one attribute lies at depth 6. */
function withSubject(value: Uint8Array): Buffer {
  const subject = der.sequence(der.set(der.sequence(der.oid(attributeType.title), value)));
  const template = authTemplate(parseIdentity("a@example.test"), home.now, home.issuing, makeEcKey());
  return issueCertificate({ ...template, subject }, home.issuing.privateKey);
}

function readWhole(bytes: Uint8Array): void {
  try {
    const certificate = parseCertificate(bytes);
    peerCertificate(certificate);
    void certificate.publicKey;
  } catch (error) {
    expect(error).toBeInstanceOf(SuiteError);
  }
}

test("a fingerprint is 64 hex digits, with or without its prefix", () => {
  const digits = "AB".repeat(32);
  expect(parseFingerprint(`sha256:${digits}`)).toBe(digits.toLowerCase());
  expect(parseFingerprint(digits)).toBe(digits.toLowerCase());
  for (const bad of ["", digits.slice(1), `${digits}0`, `sha1:${digits}`, `${digits}\n`]) {
    expect(() => parseFingerprint(bad)).toThrow(SuiteError);
  }
});

const examples = sharedFolder("vectors/examples-cms/certs-and-keys");

test.skipIf(examples === undefined)("the certificates of RFC 9216 are understood", () => {
  const read = (file: string) => {
    const pem = readFileSync(join(examples ?? "", file), "latin1");
    return peerCertificate(parseCertificate(pemToDer(pem, "CERTIFICATE")[0] ?? new Uint8Array()));
  };
  const files = readdirSync(examples ?? "").filter((file) => file.endsWith(".crt"));
  const table = Object.fromEntries(
    files.map((file) => {
      const { identities, certificate, uses } = read(file);
      return [file, [identities[0]?.identity, certificate.keyType, uses.sign, uses.seal]];
    }),
  );
  expect(table).toEqual({
    "lamps-alice.crt": ["alice@smime.example", "rsa", true, false],
    "lamps-bob.encrypt.crt": ["bob@smime.example", "rsa", false, true],
    "lamps-carlos.crt": ["carlos@smime.example", "ed25519", true, false],
    "lamps-dana.encrypt.crt": ["dana@smime.example", "other", false, false],
  });
});
