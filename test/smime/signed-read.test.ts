import { createHash, randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { sign, signatureAlgorithmFor } from "../../src/pki/algorithm.ts";
import { parseCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { issueCertificate } from "../../src/pki/issue.ts";
import { digestAlgorithm } from "../../src/pki/oid.ts";
import { asSuiteError } from "../../src/pki/suite-error.ts";
import { contentType } from "../../src/smime/algorithms.ts";
import { signedAttributes } from "../../src/smime/attributes.ts";
import { BerReader } from "../../src/smime/ber-read.ts";
import { ByteReader } from "../../src/smime/byte-reader.ts";
import { enterContentInfo, leaveContentInfo } from "../../src/smime/envelope-read.ts";
import { issuerAndSerial } from "../../src/smime/recipient-write.ts";
import { ContentHasher, readSignedData } from "../../src/smime/signed-read.ts";
import { verifySignatures } from "../../src/smime/signed-verify.ts";
import { detachedSignedData } from "../../src/smime/signed-write.ts";
import { authTemplate, makeEcKey, makeTestDomain, type TestCredentials } from "../support/pki.ts";
import { bytesOf, Pieces } from "../support/smime.ts";

const domain = makeTestDomain({ domain: "example.test" });
const alice = domain.person({ identity: "alice@example.test" }).auth;
const carol = domain.person({ identity: "carol@example.test" }).auth;
const content = Buffer.from("signed content");
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest();
const digestId = (oid: string) => der.sequence(der.oid(oid));

const attribute = (oid: string, ...values: Buffer[]) => der.sequence(der.oid(oid), der.set(...values));
const typeAttribute = (oid: string = contentType.data) => attribute("1.2.840.113549.1.9.3", der.oid(oid));
const digestAttribute = (bytes = sha256(content)) => attribute("1.2.840.113549.1.9.4", der.octetString(bytes));
const attributesOf = (...attributes: Buffer[]) => Buffer.concat(attributes.toSorted(Buffer.compare));
const standard = attributesOf(typeAttribute(), digestAttribute());

function signerInfo(
  o: { attributes?: Buffer; by?: TestCredentials; digest?: string; sid?: Buffer; stored?: Buffer } = {},
) {
  const {
    attributes = standard,
    by = alice,
    digest = digestAlgorithm.sha256,
    sid = issuerAndSerial(by.certificate),
  } = o;
  return der.sequence(
    der.integer(1),
    sid,
    digestId(digest),
    o.stored ?? der.implicitConstructed(0, attributes),
    signatureAlgorithmFor(by.privateKey).der,
    der.octetString(sign(by.privateKey, der.encode(0x31, attributes))),
  );
}

function signedData(
  infos: Buffer[],
  o: { certificates?: Uint8Array[]; digests?: Buffer[]; type?: string } = {},
): Buffer {
  const {
    certificates = [alice.certificate.der],
    digests = [digestId(digestAlgorithm.sha256)],
    type = contentType.data,
  } = o;
  const body = der.sequence(
    der.integer(1),
    der.encode(0x31, ...digests),
    der.sequence(der.oid(type), der.explicit(0, der.octetString(content))),
    ...(certificates.length > 0 ? [der.implicitConstructed(0, ...certificates)] : []),
    der.encode(0x31, ...infos),
  );
  return der.sequence(der.oid(contentType.signedData), der.explicit(0, body));
}

/** Common names of those whose signature holds, or the error's code. */
async function verified(bytes: Buffer, candidates = [] as TestCredentials[]): Promise<string[] | string> {
  try {
    const ber = new BerReader(new ByteReader(new Pieces(bytes, 7)));
    await enterContentInfo(ber);
    const consume = async (stream: AsyncIterable<Buffer>) => {
      expect(await bytesOf(stream)).toEqual(content);
    };
    const signed = await readSignedData(ber, { consume });
    await leaveContentInfo(ber);
    const found = await verifySignatures(
      signed,
      candidates.map(({ certificate }) => certificate),
    );
    return found.map(({ certificate }) => nameOf(certificate.sha256));
  } catch (thrown) {
    return asSuiteError(thrown).code;
  }
}

const nameOf = (hash: string) =>
  new Map([
    [alice.certificate.sha256, "alice"],
    [carol.certificate.sha256, "carol"],
  ]).get(hash) ?? "somebody";

describe("a SignedData put together by hand", () => {
  test("holds with the least attributes", async () => {
    expect(await verified(signedData([signerInfo()]))).toEqual(["alice"]);
  });

  test("the attributes that we write hold", async () => {
    const attributes = signedAttributes({
      certificate: alice.certificate,
      messageDigest: sha256(content),
      now: domain.now,
    });
    expect(await verified(signedData([signerInfo({ attributes })]))).toEqual(["alice"]);
  });

  test.each([
    ["a digest of other content", attributesOf(typeAttribute(), digestAttribute(sha256(Buffer.from("other"))))],
    ["a digest that is too short", attributesOf(typeAttribute(), digestAttribute(sha256(content).subarray(0, 31)))],
    ["another content type", attributesOf(typeAttribute(contentType.signedData), digestAttribute())],
    [
      "another signer's certificate named",
      attributesOf(
        typeAttribute(),
        digestAttribute(),
        attribute(
          "1.2.840.113549.1.9.16.2.47",
          der.sequence(der.sequence(der.sequence(der.octetString(sha256(carol.certificate.der))))),
        ),
      ),
    ],
  ])("does not hold: %s", async (_, attributes) => {
    expect(await verified(signedData([signerInfo({ attributes })]))).toEqual([]);
  });

  test.each([
    ["no messageDigest", typeAttribute()],
    ["no contentType", digestAttribute()],
    ["messageDigest twice", attributesOf(typeAttribute(), digestAttribute(), digestAttribute())],
    [
      "messageDigest with two values",
      attributesOf(
        typeAttribute(),
        attribute("1.2.840.113549.1.9.4", der.octetString(sha256(content)), der.octetString(sha256(content))),
      ),
    ],
    [
      "an unknown hash in signingCertificateV2",
      attributesOf(
        typeAttribute(),
        digestAttribute(),
        attribute(
          "1.2.840.113549.1.9.16.2.47",
          der.sequence(der.sequence(der.sequence(digestId("1.2.3"), der.octetString(content)))),
        ),
      ),
    ],
  ])("is malformed: %s", async (_, attributes) => {
    expect(["seal-malformed", "syntax"]).toContain(await verified(signedData([signerInfo({ attributes })])));
  });

  test("attributes stored with lengths that are not minimal hold as they were signed", async () => {
    const long = Buffer.concat([
      Buffer.of(0xa0, 0x82),
      Buffer.of(standard.length >> 8, standard.length & 0xff),
      standard,
    ]);
    const indefinite = Buffer.concat([Buffer.of(0xa0, 0x80), standard, Buffer.alloc(2)]);
    for (const stored of [long, indefinite])
      expect(await verified(signedData([signerInfo({ stored })]))).toEqual(["alice"]);
  });

  test("attributes that were changed after signing do not hold", async () => {
    const stored = der.implicitConstructed(
      0,
      attributesOf(typeAttribute(), digestAttribute(), attribute("1.2.3", der.nullValue())),
    );
    expect(await verified(signedData([signerInfo({ stored })]))).toEqual([]);
  });

  test("the certificates that we write are a SET OF in DER's order, whatever the chain's", async () => {
    const chain = [domain.issuing.certificate, carol.certificate];
    for (const order of [chain, chain.toReversed()]) {
      const bytes = detachedSignedData(sha256(content), { ...alice, chain: order }, domain.now);
      const places = [alice.certificate, ...chain].map(({ der }) => ({ der, at: bytes.indexOf(der) }));
      const written = places.toSorted((a, b) => a.at - b.at).map(({ der }) => der);
      expect(written).toEqual(written.toSorted(Buffer.compare));
    }
  });

  test("SHA-1 does not count, neither announced nor used", async () => {
    const sha1 = createHash("sha1").update(content).digest();
    const info = signerInfo({
      attributes: attributesOf(typeAttribute(), digestAttribute(sha1)),
      digest: digestAlgorithm.sha1,
    });
    expect(await verified(signedData([info], { digests: [digestId(digestAlgorithm.sha1)] }))).toEqual([]);
    expect(await verified(signedData([info], { digests: [] }))).toEqual([]);
  });

  test("no hash announced: each is computed; another announced: the signature cannot hold", async () => {
    expect(await verified(signedData([signerInfo()], { digests: [] }))).toEqual(["alice"]);
    expect(await verified(signedData([signerInfo()], { digests: [digestId(digestAlgorithm.sha512)] }))).toEqual([]);
  });

  test("several signers are told apart; one that fails does not harm the other", async () => {
    const certificates = [alice.certificate.der, carol.certificate.der];
    const forged = signerInfo({ by: { ...carol, privateKey: alice.privateKey } });
    expect(await verified(signedData([signerInfo(), signerInfo({ by: carol })], { certificates }))).toEqual([
      "alice",
      "carol",
    ]);
    expect(await verified(signedData([forged, signerInfo()], { certificates }))).toEqual(["alice"]);
  });

  test("a certificate that is not inside is taken from the candidates, also by its key identifier", async () => {
    expect(await verified(signedData([signerInfo()], { certificates: [] }))).toEqual([]);
    expect(await verified(signedData([signerInfo()], { certificates: [] }), [carol, alice])).toEqual(["alice"]);
    const sid = der.implicitPrimitive(0, alice.certificate.subjectKeyId ?? Buffer.alloc(0));
    expect(await verified(signedData([signerInfo({ sid })]))).toEqual(["alice"]);
  });

  test("of two certificates of one name the one whose key signed counts", async () => {
    const template = authTemplate(
      domain.person({ identity: "alice@example.test" }).identity,
      domain.now,
      domain.issuing,
      makeEcKey(),
    );
    const twin = parseCertificate(
      issueCertificate({ ...template, serial: alice.certificate.serial }, domain.issuing.privateKey),
    );
    expect(await verified(signedData([signerInfo()], { certificates: [twin.der, alice.certificate.der] }))).toEqual([
      "alice",
    ]);
  });

  test("attribute certificates and unreadable certificates are passed over", async () => {
    const certificates = [
      der.implicitConstructed(1, der.integer(1)),
      der.sequence(der.integer(1)),
      alice.certificate.der,
    ];
    expect(await verified(signedData([signerInfo()], { certificates }))).toEqual(["alice"]);
  });

  test.each([
    ["17 signers", signedData(Array.from({ length: 17 }, () => signerInfo()))],
    ["65 certificates", signedData([signerInfo()], { certificates: Array(65).fill(alice.certificate.der) })],
    ["5 digest algorithms", signedData([signerInfo()], { digests: Array(5).fill(digestId(digestAlgorithm.sha256)) })],
    [
      "a certificate of 70 KiB",
      signedData([signerInfo()], { certificates: [der.sequence(der.octetString(randomBytes(70_000)))] }),
    ],
  ])("is malformed: %s", async (_, bytes) => {
    expect(await verified(bytes)).toBe("seal-malformed");
  });

  test("no signer at all is nobody's signature", async () => {
    expect(await verified(signedData([]))).toEqual([]);
  });

  test("another content type is named as not read", async () => {
    expect(await verified(signedData([signerInfo()], { type: "1.2.3" }))).toBe("seal-unsupported");
  });
});

describe("a signature without signed attributes", () => {
  const bare = (over: Uint8Array) =>
    der.sequence(
      der.integer(1),
      issuerAndSerial(alice.certificate),
      digestId(digestAlgorithm.sha256),
      signatureAlgorithmFor(alice.privateKey).der,
      der.octetString(sign(alice.privateKey, over)),
    );

  test("is over the content itself", async () => {
    expect(await verified(signedData([bare(content)]))).toEqual(["alice"]);
    expect(await verified(signedData([bare(Buffer.concat([content, Buffer.of(0)]))]))).toEqual([]);
    expect(await verified(signedData([signerInfo({ stored: Buffer.alloc(0) })]))).toEqual([]); // over the attributes
  });

  test("is not believed over octets that are signed attributes: somebody's signature over those would hold for them", async () => {
    const attributes = der.encode(0x31, attributesOf(typeAttribute(), digestAttribute()));
    for (const [over, expected] of [
      [attributes, []],
      [Buffer.concat([attributes, Buffer.of(0)]), ["alice"]],
      [der.encode(0x31, typeAttribute()), ["alice"]],
    ] as const) {
      const hasher = new ContentHasher(["sha256"]);
      await bytesOf(hasher.through(new Pieces(over)));
      const body = der.sequence(
        der.integer(1),
        der.encode(0x31, digestId(digestAlgorithm.sha256)),
        der.sequence(der.oid(contentType.data)),
        der.implicitConstructed(0, alice.certificate.der),
        der.encode(0x31, bare(over)),
      );
      const ber = new BerReader(new ByteReader(new Pieces(body)));
      const signed = await readSignedData(ber, { detached: hasher.digests() });
      expect((await verifySignatures(signed, [])).map(({ certificate }) => nameOf(certificate.sha256))).toEqual(
        expected,
      );
    }
  });
});
