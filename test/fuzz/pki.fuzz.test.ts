import { generateKeyPairSync, randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Certificate, parseCertificate, peerCertificate } from "../../src/pki/certificate.ts";
import { readCertsOnly, writeCertsOnly } from "../../src/pki/certs-only.ts";
import { parseRevocationList } from "../../src/pki/crl.ts";
import { issueRevocationList } from "../../src/pki/crl-issue.ts";
import { makeCsr, parseCsr } from "../../src/pki/csr.ts";
import * as der from "../../src/pki/der.ts";
import { encodeExtension } from "../../src/pki/extension.ts";
import { encodeDirectoryName, encodeDnsName, encodeSmtpUtf8Mailbox, encodeUri } from "../../src/pki/general-name.ts";
import { encodeName } from "../../src/pki/name.ts";
import { ocspStatus, parseOcspResponse } from "../../src/pki/ocsp.ts";
import { issueOcspError, issueOcspResponse } from "../../src/pki/ocsp-issue.ts";
import { encodeCertId, makeOcspRequest, parseOcspRequest, readCertId } from "../../src/pki/ocsp-request.ts";
import { attributeType, extensionType } from "../../src/pki/oid.ts";
import { type PathQuestion, validatePath } from "../../src/pki/path.ts";
import { revocationOf } from "../../src/pki/revocation.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { nearlyDer } from "../support/der-mutation.ts";
import { makeCa, makeEd25519Key, makeTestDomain } from "../support/pki.ts";

const now = new Date("2026-06-01T12:00:00Z");
const later = new Date("2026-06-02T12:00:00Z");
const home = makeTestDomain({ domain: "example.test", now });
const alice = home.person({ identity: "alice@example.test", encryptionKey: "ec" });
const leaf = alice.auth.certificate;
const issuer = home.issuing;

/** The certificate with every extension that is read, in every form; its signature is void. */
function decorated({ certificate }: { certificate: Certificate }): Buffer {
  const outer = new der.DerCursor(der.readDer(certificate.der).content);
  const tbs = new der.DerCursor(outer.next().content);
  const fields: Uint8Array[] = [];
  for (let n = 0; n < 7; n += 1) fields.push(tbs.next().bytes);
  const policies = ["1.2.3", "2.5.29.32.0", "1.2.840.113549"].map((one) => der.sequence(der.oid(one)));
  const relative = der.sequence(der.oid(attributeType.commonName), der.utf8String("Part"));
  const name = encodeName([
    [attributeType.commonName, "Ümlaut"],
    [
      [attributeType.userId, "u"],
      [attributeType.emailAddress, "a@b.test"],
    ],
  ]);
  const points = [
    [der.implicitConstructed(0, der.implicitConstructed(0, encodeUri("http://a.test/"), encodeDirectoryName(name)))],
    [der.implicitConstructed(0, der.implicitConstructed(1, relative)), der.implicitPrimitive(1, Buffer.of(7, 1, 0x80))],
    [der.implicitConstructed(2, encodeDirectoryName(name))],
  ];
  const names = [
    encodeDnsName("a.test"),
    encodeSmtpUtf8Mailbox("ä@b.test"),
    der.implicitPrimitive(7, Buffer.alloc(4)),
    der.implicitPrimitive(8, Buffer.of(42)),
    der.implicitConstructed(0, der.oid("1.2.3"), der.explicit(0, der.nullValue())),
  ];
  const trees = names.map((one) => der.sequence(one));
  const t = extensionType;
  const extensions: readonly (readonly [string, Buffer])[] = [
    [t.subjectAltName, der.sequence(...names)],
    [t.nameConstraints, der.sequence(der.implicitConstructed(0, ...trees), der.implicitConstructed(1, ...trees))],
    [t.crlDistributionPoints, der.sequence(...points.map((one) => der.sequence(...one)))],
    [t.certificatePolicies, der.sequence(...policies)],
    [t.policyMappings, der.sequence(der.sequence(der.oid("1.2.3"), der.oid("1.2.4")))],
    [t.policyConstraints, der.sequence(der.implicitPrimitive(0, Buffer.of(1)), der.implicitPrimitive(1, Buffer.of(2)))],
    [t.inhibitAnyPolicy, der.integer(1)],
    [t.basicConstraints, der.sequence(der.boolean(true), der.integer(3))],
    [t.authorityKeyIdentifier, der.sequence(der.implicitPrimitive(0, Buffer.alloc(20)))],
  ];
  const written = extensions.map(([type, value], n) => encodeExtension(type, n % 2 === 0, value));
  const whole = der.sequence(...fields, der.explicit(3, der.sequence(...written)));
  return der.sequence(whole, outer.next().bytes, outer.next().bytes);
}

const seeds = [
  leaf.der,
  alice.encryption.certificate.der,
  issuer.certificate.der,
  makeCa("Ed", now, { key: makeEd25519Key() }).certificate.der,
  decorated(alice.auth),
  decorated(issuer),
];

/** Values of DER taken so far: all that reads goes through `next`. */
let taken = 0;
const { next } = der.DerCursor.prototype;
der.DerCursor.prototype.next = function (this: der.DerCursor, tag?: number) {
  taken += 1;
  return next.call(this, tag);
};

/** What is thrown has this code, and no more values are read than two an octet. */
function total(code: string, bytes: Uint8Array, run: (bytes: Uint8Array) => void): boolean {
  taken = 0;
  let read = true;
  try {
    run(bytes);
  } catch (thrown) {
    if (!(thrown instanceof SuiteError) || thrown.code !== code || thrown.fault !== "peer") throw thrown;
    read = false;
  }
  expect(taken).toBeLessThanOrEqual(2 * bytes.length + 16);
  return read;
}

/** What was read throws nothing at all when it is used. */
function silent<T>(use: () => T): T {
  try {
    return use();
  } catch (thrown) {
    throw new Error("what was read throws", { cause: thrown });
  }
}

/** Runs over bytes that nearly are one of `from`; both readable and unreadable ones must come up. */
function fuzz(code: string, from: readonly Uint8Array[], run: (bytes: Uint8Array) => void): void {
  for (const seed of from) expect(total(code, seed, run)).toBe(true);
  let read = 0;
  let runs = 0;
  fc.assert(
    fc.property(nearlyDer(from), (bytes) => {
      read += Number(total(code, bytes, run));
      runs += 1;
    }),
    { numRuns: 3_000 },
  );
  expect(read).toBeGreaterThan(30);
  expect(runs - read).toBeGreaterThan(30);
}

const question: Omit<PathQuestion, "leaf"> = {
  candidates: [issuer.certificate],
  anchors: [home.anchor],
  time: now,
  purpose: "peer",
};

const ofIssuer = parseRevocationList(
  issueRevocationList({ issuer, entries: [], number: 1, thisUpdate: now, nextUpdate: later, scope: { reasons: 2 } }),
);

test("a certificate is read or malformed, and what is read can be asked for everything", () => {
  fuzz("certificate-malformed", seeds, (bytes) => {
    const certificate = parseCertificate(bytes);
    silent(() => {
      const { sha256, fingerprint } = peerCertificate(certificate);
      expect([sha256.length, fingerprint.length]).toEqual([64, 64]);
      const ways = [
        validatePath({ ...question, leaf: certificate }),
        validatePath({ ...question, leaf, candidates: [certificate, issuer.certificate] }),
        validatePath({ ...question, leaf, anchors: [{ name: "odd", certificate }], purpose: "any" }),
        validatePath({ ...question, leaf: certificate, anchors: [{ name: "odd", certificate }], purpose: "any" }),
      ];
      const o = { lists: [ofIssuer], signers: [certificate], time: now, graceMs: 0 };
      revocationOf(certificate, issuer.certificate, home.anchor, o);
      revocationOf(leaf, certificate, { name: "odd", certificate }, o);
      for (const way of ways) if (way.ok) for (const one of way.path) expect(one.publicKey.type).toBe("public");
    });
    expect(certificate.der.length).toBeLessThanOrEqual(32 * 1024);
  });
});

test("a chain with any certificate changed is good only with the leaf as it was", () => {
  fc.assert(
    fc.property(nearlyDer([leaf.der, issuer.certificate.der]), fc.boolean(), (bytes, isLeaf) => {
      let odd: Certificate;
      try {
        odd = parseCertificate(bytes);
      } catch {
        return;
      }
      const candidates = [isLeaf ? issuer.certificate : odd];
      const result = validatePath({ ...question, leaf: isLeaf ? odd : leaf, candidates, purpose: "any" });
      if (!result.ok) return;
      const known = [leaf, issuer.certificate, home.root.certificate].map((one) => one.sha256);
      for (const one of result.path) expect(known).toContain(one.sha256);
    }),
    { numRuns: 3_000 },
  );
});

test("a revocation list is read or malformed, and answers", () => {
  const entries = [
    { serial: leaf.serial, since: now, reason: "keyCompromise" as const },
    { serial: Buffer.of(1), since: now, issuer: home.root.certificate.subjectDer },
    { serial: Buffer.of(2), since: now },
  ];
  const common = { issuer, number: 5, thisUpdate: now, nextUpdate: later };
  const lists = [
    issueRevocationList({ ...common, entries: entries.slice(0, 1) }),
    issueRevocationList({ ...common, entries, scope: { indirect: true, urls: ["http://a.test/"], reasons: 6 } }),
    issueRevocationList({ ...common, entries: entries.slice(2), delta: 4, scope: { only: "user" } }),
  ];
  const complete = parseRevocationList(issueRevocationList({ ...common, number: 4, entries: [] }));
  fuzz("certificate-malformed", lists, (bytes) => {
    const list = parseRevocationList(bytes);
    silent(() => {
      list.find(leaf.serial, leaf.issuer);
      list.find(Buffer.of(1), home.root.certificate.subject);
      list.signedBy(issuer.certificate);
      const o = { lists: [list, complete], signers: [issuer.certificate], time: now, graceMs: 0 };
      revocationOf(leaf, issuer.certificate, home.anchor, o);
    });
  });
});

test("an OCSP response is read or malformed, and answers", () => {
  const id = readCertId(der.readDer(encodeCertId(leaf.serial, issuer.certificate, "sha1")));
  const since = { status: "revoked", reason: "superseded", since: now } as const;
  const answers = [
    { id, status: { status: "good" } as const, thisUpdate: now, nextUpdate: later },
    { id, status: since, thisUpdate: now },
  ];
  const common = { signer: issuer, producedAt: now, nonce: randomBytes(32) };
  const responses = [
    issueOcspResponse({ ...common, answers, certificates: [leaf] }),
    issueOcspResponse({ ...common, answers: answers.slice(0, 1) }),
    issueOcspError("tryLater"),
  ];
  fuzz("certificate-malformed", responses, (bytes) => {
    const o = { certificate: leaf, issuer: issuer.certificate, anchor: home.anchor, time: now, graceMs: 0 };
    const response = parseOcspResponse(bytes);
    silent(() => ocspStatus(response, { ...o, nonce: common.nonce }));
  });
});

test("requests and certs-only messages are read or refused", () => {
  const o = { certificate: leaf, issuer: issuer.certificate };
  fuzz(
    "syntax",
    [makeOcspRequest(o), makeOcspRequest({ ...o, nonce: randomBytes(32), hash: "sha256" })],
    parseOcspRequest,
  );
  fuzz("certificate-malformed", [writeCertsOnly([leaf]), writeCertsOnly([leaf, issuer.certificate])], readCertsOnly);
});

test("a certification request is proven or refused", () => {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const request = makeCsr({ privateKey, commonName: "Alice" });
  expect(total("syntax", request, parseCsr)).toBe(true);
  fc.assert(
    fc.property(nearlyDer([request]), (bytes) => {
      if (total("syntax", bytes, parseCsr)) expect(parseCsr(bytes).spki).toEqual(parseCsr(request).spki);
    }),
    { numRuns: 3_000 },
  );
});

test("the DER reader throws nothing but its own error, on any bytes", () => {
  const readers = [
    der.readInteger,
    der.readSmallInteger,
    der.readOid,
    der.readBitString,
    der.readOctetString,
    der.readBoolean,
    der.readString,
    der.readIa5,
    der.readTime,
    der.checkDepth,
  ];
  const attempt = (read: () => unknown): void => {
    try {
      read();
    } catch (thrown) {
      if (!(thrown instanceof SuiteError) || thrown.code !== "syntax") throw thrown;
    }
  };
  const walk = (content: Uint8Array, depth: number): void => {
    const cursor = new der.DerCursor(content);
    while (!cursor.done && depth < 20) {
      const element = cursor.next();
      if (element.bytes.length > content.length) throw new Error("read behind the end");
      for (const read of readers) attempt(() => read(element));
      if (element.tag & 0x20) walk(element.content, depth + 1);
    }
  };
  fc.assert(
    fc.property(nearlyDer(seeds), (bytes) => attempt(() => walk(bytes, 0))),
    { numRuns: 300 },
  );
});
