import { type KeyObject, randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Certificate, parseCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { encodeExtension } from "../../src/pki/extension.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { type CertificateTemplate, type Issuer, issueCertificate } from "../../src/pki/issue.ts";
import { type OcspQuestion, ocspResponseStatuses, ocspStatus, parseOcspResponse } from "../../src/pki/ocsp.ts";
import { issueOcspError, issueOcspResponse, type OcspAnswerTemplate } from "../../src/pki/ocsp-issue.ts";
import { encodeCertId, isCertId, makeOcspRequest, parseOcspRequest, readCertId } from "../../src/pki/ocsp-request.ts";
import { extendedKeyUsage, ocspType } from "../../src/pki/oid.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { openssl, pemFiles, temporaryFolder } from "../support/openssl.ts";
import { authTemplate, makeCa, makeEcKey, makeTestDomain, rsaKeyOf } from "../support/pki.ts";

const now = new Date(Math.floor(Date.now() / 1000) * 1000);
const hour = 3_600_000;
const at = (ms: number) => new Date(now.getTime() + ms);
const home = makeTestDomain({ domain: "example.test", now });
const alice = home.person({ identity: "alice@example.test" });
const bob = home.person({ identity: "bob@example.test" });
const ca = home.issuing;
const id = (of: Certificate = alice.auth.certificate, hash: "sha1" | "sha256" = "sha1") =>
  readCertId(der.readDer(encodeCertId(of.serial, ca.certificate, hash)));

/** A responder below `issuer`; by default one that our CA delegated to. */
function responder(differences: Partial<CertificateTemplate> = {}, issuer: Issuer = ca, key: KeyObject = makeEcKey()) {
  const template = authTemplate(parseIdentity("ocsp@example.test"), now, issuer, key);
  const made = { ...template, extendedKeyUsage: [extendedKeyUsage.ocspSigning], ...differences };
  return { certificate: parseCertificate(issueCertificate(made, issuer.privateKey)), privateKey: key };
}

const good: OcspAnswerTemplate = { id: id(), status: { status: "good" }, thisUpdate: at(-hour), nextUpdate: at(hour) };
const revoked: OcspAnswerTemplate["status"] = { status: "revoked", reason: "keyCompromise", since: at(-2 * hour) };

function respond(o: Partial<Parameters<typeof issueOcspResponse>[0]> = {}): Buffer {
  return issueOcspResponse({ signer: ca, answers: [good], producedAt: now, ...o });
}

function ask(response: Uint8Array, differences: Partial<OcspQuestion> = {}): string {
  const { certificate } = alice.auth;
  const question = { certificate, issuer: ca.certificate, anchor: home.anchor, time: now, graceMs: 0 };
  const found = ocspStatus(parseOcspResponse(response), { ...question, ...differences });
  return found.status === "revoked" ? `revoked ${found.reason} ${found.since.toISOString()}` : found.status;
}

describe("openssl reads what we write", () => {
  test.each(["sha1", "sha256"] as const)("a request with %s and a nonce", async (hash) => {
    using folder = temporaryFolder();
    const file = join(folder.path, "request.der");
    const nonce = randomBytes(32);
    const { certificate } = alice.auth;
    writeFileSync(file, makeOcspRequest({ certificate, issuer: ca.certificate, hash, nonce }));
    const { output, code } = await openssl(["ocsp", "-reqin", file, "-req_text"]);
    expect(code).toBe(0);
    expect(output).toContain(`Hash Algorithm: ${hash}`);
    expect(output).toContain(Buffer.from(certificate.serial).toString("hex").toUpperCase());
    expect(output).toContain(nonce.toString("hex").toUpperCase());
  });

  const delegate = responder();
  test.each<[string, Partial<Parameters<typeof issueOcspResponse>[0]>, RegExp]>([
    ["good, by the CA", {}, /: good/],
    ["revoked", { answers: [{ ...good, status: revoked }] }, /: revoked.*Reason: keyCompromise.*Revocation Time/s],
    ["unknown", { answers: [{ ...good, status: { status: "unknown" } }] }, /: unknown/],
    ["good, by a delegate", { signer: delegate, certificates: [delegate.certificate] }, /: good/],
    ["good, by its SHA-256 name", { answers: [{ ...good, id: id(undefined, "sha256") }] }, /: good/],
  ])("a response: %s", async (_, differences, expected) => {
    using folder = temporaryFolder();
    const file = join(folder.path, "response.der");
    writeFileSync(file, respond(differences));
    writeFileSync(join(folder.path, "root.pem"), derToPem(home.root.certificate.der, "CERTIFICATE"));
    const pem = pemFiles(folder.path, "alice", alice.auth);
    const sha256 = _.includes("SHA-256") ? ["-sha256"] : [];
    const { output, code } = await openssl([
      ...["ocsp", "-respin", file, "-issuer", pem.chain, ...sha256, "-cert", pem.certificate],
      ...["-CAfile", join(folder.path, "root.pem")],
    ]);
    expect(output).toContain("Response verify OK");
    expect(output).toMatch(expected);
    expect(code).toBe(0);
  });

  test("openssl refuses the response of a delegate that is none", async () => {
    using folder = temporaryFolder();
    const file = join(folder.path, "response.der");
    const stranger = responder({ extendedKeyUsage: [extendedKeyUsage.clientAuth] });
    writeFileSync(file, respond({ signer: stranger, certificates: [stranger.certificate] }));
    writeFileSync(join(folder.path, "root.pem"), derToPem(home.root.certificate.der, "CERTIFICATE"));
    const pem = pemFiles(folder.path, "alice", alice.auth);
    const args = ["-issuer", pem.chain, "-cert", pem.certificate, "-CAfile", join(folder.path, "root.pem")];
    expect((await openssl(["ocsp", "-respin", file, ...args])).output).toContain("Response Verify Failure");
  });
});

describe("we read what openssl writes", () => {
  test.each([[[], "sha1"] as const, [["-sha256"], "sha256"] as const])("a request %o", async (option, hash) => {
    using folder = temporaryFolder();
    const file = join(folder.path, "request.der");
    const pem = pemFiles(folder.path, "alice", alice.auth);
    await openssl(["ocsp", "-issuer", pem.chain, ...option, "-cert", pem.certificate, "-nonce", "-reqout", file]);
    const request = parseOcspRequest(readFileSync(file));
    expect(request.ids.map((one) => one.hash)).toEqual([hash]);
    const [one] = request.ids;
    expect(one && isCertId(one, alice.auth.certificate.serial, ca.certificate)).toBe(true);
    expect(one && isCertId(one, bob.auth.certificate.serial, ca.certificate)).toBe(false);
    expect(one && isCertId(one, alice.auth.certificate.serial, home.root.certificate)).toBe(false);
    expect(request.nonce?.length).toBeGreaterThanOrEqual(16);
    expect(request.criticalUnknown).toEqual([]);
  });

  const delegates: [string, () => Issuer][] = [
    ["the CA", () => ca],
    ["a delegate", () => responder()],
    ["a delegate with an RSA key", () => responder({}, ca, rsaKeyOf("responder"))],
  ];
  test.each(delegates)("the answers of openssl's responder, signed by %s", async (_, make) => {
    using folder = temporaryFolder();
    const file = (name: string) => join(folder.path, name);
    const signer = make();
    const pem = pemFiles(folder.path, "signer", { ...signer, chain: [ca.certificate] });
    const text = (date: Date) =>
      `${date
        .toISOString()
        .replace(/\.\d+Z$|[-:T]/g, "")
        .slice(2)}Z`;
    const serial = (one: Certificate) => Buffer.from(one.serial).toString("hex").toUpperCase();
    const lines = [
      ["V", text(at(24 * hour)), "", serial(alice.auth.certificate), "unknown", "/CN=Alice"],
      ["R", text(at(24 * hour)), `${text(at(-hour))},superseded`, serial(bob.auth.certificate), "unknown", "/CN=Bob"],
    ];
    writeFileSync(file("index.txt"), lines.map((line) => `${line.join("\t")}\n`).join(""));
    const answer = async (certificate: Certificate, nonce: Buffer) => {
      writeFileSync(file("q.der"), makeOcspRequest({ certificate, issuer: ca.certificate, nonce }));
      await openssl([
        ...["ocsp", "-index", file("index.txt"), "-CA", pem.chain, "-rsigner", pem.certificate, "-rkey", pem.key],
        ...["-reqin", file("q.der"), "-respout", file("a.der"), "-ndays", "1"],
      ]);
      return readFileSync(file("a.der"));
    };
    const nonce = randomBytes(32);
    const time = new Date();
    const ofAlice = await answer(alice.auth.certificate, nonce);
    expect(ask(ofAlice, { nonce, time })).toBe("good");
    expect(ask(ofAlice, { nonce: randomBytes(32), time })).toBe("unknown");
    const { certificate } = bob.auth;
    expect(ask(ofAlice, { certificate, time })).toBe("unknown");
    const ofBob = await answer(certificate, nonce);
    expect(ask(ofBob, { certificate, nonce, time })).toBe(`revoked superseded ${at(-hour).toISOString()}`);
    const stranger = await answer(home.domainServer().certificate, nonce);
    expect(ask(stranger, { certificate, time })).toBe("unknown");
  });
});

describe("who may answer", () => {
  const signedBy = (signer: Issuer, certificates: readonly Certificate[] = [signer.certificate]) =>
    ask(respond({ signer, certificates }));
  const other = makeTestDomain({ domain: "example.test", now });

  test("the issuer, and its delegate if it brings its certificate", () => {
    expect(signedBy(ca, [])).toBe("good");
    const delegate = responder();
    expect(signedBy(delegate)).toBe("good");
    expect(signedBy(delegate, [])).toBe("unknown");
    expect(signedBy(delegate, [bob.auth.certificate, delegate.certificate])).toBe("good");
  });

  test.each<[string, () => Issuer]>([
    ["the root, which did not issue it", () => home.root],
    ["a person below the issuer", () => ({ ...bob.auth })],
    ["the holder himself", () => ({ ...alice.auth })],
    ["a delegate of the root", () => responder({}, home.root)],
    ["a delegate of another CA of the same name", () => responder({}, other.issuing)],
    ["another CA of the same name", () => other.issuing],
    ["one for any extended usage", () => responder({ extendedKeyUsage: [extendedKeyUsage.any] })],
    ["one without extended usage", () => responder({ extendedKeyUsage: [] })],
    ["one that may not sign", () => responder({ keyUsage: ["keyEncipherment"] })],
    ["one past its time", () => responder({ validity: { notBefore: at(-2 * hour), notAfter: at(-hour) } })],
    [
      "one whose name the CA may not certify",
      () => ({
        ...responder({ ...authTemplate(parseIdentity("ocsp@elsewhere.test"), now, ca, makeEcKey()) }),
      }),
    ],
    ["one with another key than its certificate has", () => ({ ...responder(), privateKey: makeEcKey() })],
  ])("not %s", (_, make) => {
    expect(signedBy(make())).toBe("unknown");
  });

  test("nobody but the responder that is named: a signature of the issuer under another's name is none", () => {
    const named = { certificate: bob.auth.certificate, privateKey: ca.privateKey };
    expect(ask(respond({ signer: named, certificates: [] }))).toBe("unknown");
    expect(ask(respond({ signer: named, certificates: [bob.auth.certificate] }))).toBe("unknown");
  });

  test("a delegate is asked about, unless its certificate says that nobody need", () => {
    const asked: string[] = [];
    const revocation = (one: Certificate) => {
      asked.push(one.sha256);
      return "revoked" as const;
    };
    const [delegate, unasked] = [responder(), responder({ ocspNoCheck: true })];
    const answer = (signer: Issuer) => ask(respond({ signer, certificates: [signer.certificate] }), { revocation });
    expect(answer(delegate)).toBe("unknown");
    expect(answer(unasked)).toBe("good");
    expect(asked).toEqual([delegate.certificate.sha256]);
  });

  test("any changed octet of what is signed makes it worthless", () => {
    const response = respond();
    const { tbs } = parseOcspResponse(response).basic ?? { tbs: new Uint8Array() };
    const start = response.indexOf(tbs);
    expect(start).toBeGreaterThan(0);
    for (let n = start; n < response.length; n += 1) {
      const bytes = Buffer.from(response);
      bytes.writeUInt8(bytes.readUInt8(n) ^ 0x04, n);
      let found: string;
      try {
        found = ask(bytes);
      } catch {
        continue;
      }
      expect(found, `octet ${n}`).toBe("unknown");
    }
  });
});

describe("what counts", () => {
  const answer = (differences: Partial<OcspAnswerTemplate>) => respond({ answers: [{ ...good, ...differences }] });
  test.each<[string, Partial<OcspAnswerTemplate>, Partial<OcspQuestion>, string]>([
    ["now", {}, {}, "good"],
    ["the last moment", {}, { time: at(hour) }, "good"],
    ["a moment later", {}, { time: at(hour + 1) }, "stale"],
    ["within the grace", {}, { time: at(2 * hour), graceMs: hour }, "good"],
    ["behind the grace", {}, { time: at(2 * hour + 1), graceMs: hour }, "stale"],
    ["made a little in the future", { thisUpdate: at(240_000) }, {}, "good"],
    ["made in the future", { thisUpdate: at(301_000) }, {}, "stale"],
    [
      "revoked, though too old",
      { status: revoked },
      { time: at(9 * hour) },
      `revoked keyCompromise ${at(-2 * hour).toISOString()}`,
    ],
    ["unknown to the responder", { status: { status: "unknown" } }, {}, "unknown"],
    ["by a name of SHA-256", { id: id(undefined, "sha256") }, {}, "good"],
    ["about another certificate", { id: id(bob.auth.certificate) }, {}, "unknown"],
    ["about a certificate of another issuer", {}, { issuer: home.root.certificate }, "unknown"],
  ])("%s: %s", (_, differences, question, expected) => {
    expect(ask(answer(differences), question)).toBe(expected);
  });

  test("without a nextUpdate it is good for the moment only", () => {
    const { nextUpdate: _, ...open } = good;
    const response = (thisUpdate: Date) => respond({ answers: [{ ...open, thisUpdate }] });
    expect(ask(response(at(-300_000)))).toBe("good");
    expect(ask(response(at(-301_000)))).toBe("stale");
  });

  test("of several answers about one certificate a revocation counts, wherever it stands", () => {
    const both = [good, { ...good, status: revoked }];
    for (const answers of [both, both.toReversed()]) expect(ask(respond({ answers }))).toMatch(/^revoked/);
    const doubt = [good, { ...good, status: { status: "unknown" as const } }];
    expect(ask(respond({ answers: doubt }))).toBe("unknown");
    const others = [{ ...good, id: id(bob.auth.certificate), status: revoked }, good];
    expect(ask(respond({ answers: others }))).toBe("good");
  });

  test("another nonce is not for us, none is", () => {
    const nonce = randomBytes(32);
    expect(ask(respond({ nonce }), { nonce })).toBe("good");
    expect(ask(respond({ nonce: randomBytes(32) }), { nonce })).toBe("unknown");
    expect(ask(respond(), { nonce })).toBe("good");
  });

  test.each(["whole", "answer"])("a critical extension of the %s that is not known makes it worthless", (place) => {
    const parsed = parseOcspResponse(respond());
    const { basic } = parsed;
    if (basic === undefined) throw new Error("no response");
    const criticalUnknown = ["1.2.3"];
    const answers = basic.answers.map((one) => ({ ...one, criticalUnknown }));
    const odd = place === "whole" ? { ...basic, criticalUnknown } : { ...basic, answers };
    const question = { certificate: alice.auth.certificate, issuer: ca.certificate, anchor: home.anchor, time: now };
    expect(ocspStatus({ ...parsed, basic: odd }, { ...question, graceMs: 0 })).toEqual({ status: "unknown" });
  });

  test.each(Object.values(ocspResponseStatuses).filter((status) => status !== "successful"))(
    "an error says nothing: %s",
    async (status) => {
      using folder = temporaryFolder();
      const file = join(folder.path, "error.der");
      writeFileSync(file, issueOcspError(status));
      expect(parseOcspResponse(issueOcspError(status)).status).toBe(status);
      expect(ask(issueOcspError(status))).toBe("unknown");
      const shown = { malformedRequest: "malformedrequest", tryLater: "trylater" }[status as string] ?? status;
      const { output } = await openssl(["ocsp", "-respin", file, "-noverify"]);
      expect(output.toLowerCase()).toContain(shown.toLowerCase());
    },
  );
});

describe("limits and malformed input", () => {
  const malformed = (bytes: Uint8Array, code: string, parse: (bytes: Uint8Array) => unknown) =>
    expect(() => parse(bytes)).toThrow(expect.objectContaining({ code, fault: "peer", temporary: false }));

  test("64 answers are read, 65 not; 8 certificates, not 9", () => {
    const answers = (count: number) => respond({ answers: Array.from({ length: count }, () => good) });
    expect(parseOcspResponse(answers(64)).basic?.answers).toHaveLength(64);
    malformed(answers(65), "certificate-malformed", parseOcspResponse);
    const certificates = (count: number) =>
      respond({ certificates: Array.from({ length: count }, () => bob.auth.certificate) });
    expect(parseOcspResponse(certificates(8)).basic?.certificates).toHaveLength(8);
    malformed(certificates(9), "certificate-malformed", parseOcspResponse);
    // What an error brings along is passed over, so that only its length counts.
    const late = der.encode(der.tag.enumerated, Buffer.of(3));
    const padded = (octets: number) => der.sequence(late, der.explicit(0, Buffer.alloc(octets)));
    expect(parseOcspResponse(padded(255 * 1024)).status).toBe("tryLater");
    malformed(padded(256 * 1024), "certificate-malformed", parseOcspResponse);
  });

  const request = (ids: readonly Uint8Array[], extensions: readonly Uint8Array[] = []) =>
    der.sequence(
      der.sequence(
        der.sequence(...ids.map((one) => der.sequence(one))),
        ...(extensions.length === 0 ? [] : [der.explicit(2, der.sequence(...extensions))]),
      ),
    );

  test("16 certificates are asked for, not 17 and not none", () => {
    const ids = (count: number) => Array.from({ length: count }, () => id().der);
    expect(parseOcspRequest(request(ids(16))).ids).toHaveLength(16);
    malformed(request(ids(17)), "syntax", parseOcspRequest);
    malformed(request([]), "syntax", parseOcspRequest);
    const from = (octets: number) =>
      der.sequence(der.sequence(der.explicit(1, Buffer.alloc(octets)), der.sequence(der.sequence(id().der))));
    expect(parseOcspRequest(from(15 * 1024)).ids).toHaveLength(1);
    malformed(from(16 * 1024), "syntax", parseOcspRequest);
  });

  test.each([
    [1, true],
    [128, true],
    [0, false],
    [129, false],
  ])("a nonce of %i octets: %s", (length, read) => {
    const value = encodeExtension(ocspType.nonce, false, der.octetString(Buffer.alloc(length)));
    const bytes = request([id().der], [value]);
    if (read) expect(parseOcspRequest(bytes).nonce).toHaveLength(length);
    else malformed(bytes, "syntax", parseOcspRequest);
  });

  test("a critical extension that is not known is told, one that is not critical passed over", () => {
    const odd = (critical: boolean) => encodeExtension("1.2.3", critical, der.nullValue());
    expect(parseOcspRequest(request([id().der], [odd(true)])).criticalUnknown).toEqual(["1.2.3"]);
    expect(parseOcspRequest(request([id().der], [odd(false)])).criticalUnknown).toEqual([]);
  });

  test("an id names the issuer by both, its name and its key", () => {
    const { serial } = alice.auth.certificate;
    const renamed = makeCa("Renamed", now, { key: ca.privateKey });
    const rekeyed = makeTestDomain({ domain: "example.test", now }).issuing;
    expect([renamed, rekeyed, ca].map((one) => isCertId(id(), serial, one.certificate))).toEqual([false, false, true]);
    expect(isCertId({ ...id(), hash: undefined }, serial, ca.certificate)).toBe(false);
  });

  test("every truncation of a response and of a request is malformed", () => {
    const response = respond();
    for (let n = 0; n < response.length; n += 1)
      malformed(response.subarray(0, n), "certificate-malformed", parseOcspResponse);
    const { certificate } = alice.auth;
    const asked = makeOcspRequest({ certificate, issuer: ca.certificate, nonce: randomBytes(32) });
    for (let n = 0; n < asked.length; n += 1) malformed(asked.subarray(0, n), "syntax", parseOcspRequest);
  });

  test("a signature of odd bits is malformed", () => {
    const { tbs, signatureAlgorithm } = parseOcspResponse(respond()).basic ?? {};
    if (tbs === undefined || signatureAlgorithm === undefined) throw new Error("no response");
    const basic = (unused: number) => der.sequence(tbs, signatureAlgorithm.der, der.bitString(Buffer.of(2), unused));
    const response = (unused: number) => {
      const bytes = der.sequence(der.oid(ocspType.basicResponse), der.octetString(basic(unused)));
      return der.sequence(der.encode(der.tag.enumerated, Buffer.of(0)), der.explicit(0, bytes));
    };
    expect(ask(response(0))).toBe("unknown");
    malformed(response(1), "certificate-malformed", parseOcspResponse);
  });

  test("an unknown status, a successful response without content and one of another type are malformed", () => {
    const status = (code: number) => der.encode(der.tag.enumerated, Buffer.of(code));
    malformed(der.sequence(status(4)), "certificate-malformed", parseOcspResponse);
    malformed(der.sequence(status(0)), "certificate-malformed", parseOcspResponse);
    const other = der.explicit(0, der.sequence(der.oid("1.2.3"), der.octetString(Buffer.alloc(0))));
    malformed(der.sequence(status(0), other), "certificate-malformed", parseOcspResponse);
  });
});
