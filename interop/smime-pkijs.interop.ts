import { webcrypto } from "node:crypto";
import * as asn1js from "asn1js";
import * as pkijs from "pkijs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { peerCertificate } from "../src/pki/certificate.ts";
import { Keyring } from "../src/smime/keyring.ts";
import { read } from "../src/smime/read.ts";
import { seal } from "../src/smime/seal.ts";
import { temporaryFolder } from "../test/support/openssl.ts";
import { bytesOf, failureOf, Pieces } from "../test/support/smime.ts";
import { type Cast, type Did, makeCast, matrix, type Program, type Role, text } from "./smime-cast.ts";

// A library, over WebCrypto: no RSA v1.5 transport and no AuthEnvelopedData.

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());
let cast: Cast;
beforeAll(async () => {
  cast = await makeCast(folder.path);
});

const buffer = (bytes: Uint8Array) => new Uint8Array(bytes).buffer;
const certificateOf = ({ credentials }: Role) => pkijs.Certificate.fromBER(buffer(credentials.certificate.der));
const pkcs8 = ({ credentials }: Role) => buffer(credentials.privateKey.export({ type: "pkcs8", format: "der" }));

function signingKey(by: Role): Promise<webcrypto.CryptoKey> {
  const rsa = by.credentials.certificate.keyType === "rsa";
  const algorithm = rsa ? { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } : { name: "ECDSA", namedCurve: "P-256" };
  return webcrypto.subtle.importKey("pkcs8", pkcs8(by), algorithm, false, ["sign"]);
}

/** What it did, or what it threw. */
async function tried(make: () => Promise<ArrayBuffer>): Promise<Did> {
  try {
    return { code: 0, said: "", bytes: Buffer.from(await make()) };
  } catch (thrown) {
    return { code: 1, said: String(thrown), bytes: Buffer.alloc(0) };
  }
}

function contentInfo(contentType: string, content: asn1js.Sequence): ArrayBuffer {
  return new pkijs.ContentInfo({ contentType, content }).toSchema().toBER();
}

const attribute = (type: string, value: asn1js.AsnType) => new pkijs.Attribute({ type, values: [value] });

const library: Program = {
  sign: (by) =>
    tried(async () => {
      const certificate = certificateOf(by);
      const digest = await webcrypto.subtle.digest("SHA-256", buffer(text));
      const signedAttrs = new pkijs.SignedAndUnsignedAttributes({
        type: 0,
        attributes: [
          attribute("1.2.840.113549.1.9.3", new asn1js.ObjectIdentifier({ value: pkijs.ContentInfo.DATA })),
          attribute("1.2.840.113549.1.9.5", new asn1js.UTCTime({ valueDate: new Date() })),
          attribute("1.2.840.113549.1.9.4", new asn1js.OctetString({ valueHex: digest })),
        ],
      });
      const { issuer, serialNumber } = certificate;
      const sid = new pkijs.IssuerAndSerialNumber({ issuer, serialNumber });
      const signed = new pkijs.SignedData({
        version: 1,
        encapContentInfo: new pkijs.EncapsulatedContentInfo({
          eContentType: pkijs.ContentInfo.DATA,
          eContent: new asn1js.OctetString({ valueHex: buffer(text) }),
        }),
        signerInfos: [new pkijs.SignerInfo({ version: 1, sid, signedAttrs })],
        certificates: [certificate],
      });
      await signed.sign((await signingKey(by)) as unknown as CryptoKey, 0, "SHA-256");
      return contentInfo(pkijs.ContentInfo.SIGNED_DATA, signed.toSchema(true));
    }),

  verify: ({ opaque }) =>
    tried(async () => {
      const signed = new pkijs.SignedData({ schema: pkijs.ContentInfo.fromBER(buffer(opaque)).content });
      const holds = await signed.verify({ signer: 0, checkChain: false });
      if (holds !== true) throw new Error("does not hold");
      return signed.encapContentInfo.eContent?.getValue() ?? new ArrayBuffer(0);
    }),

  encrypt: (to, cipher) =>
    tried(async () => {
      const enveloped = new pkijs.EnvelopedData();
      enveloped.addRecipientByCertificate(certificateOf(to), { oaepHashAlgorithm: "SHA-256", kdfAlgorithm: "SHA-256" });
      const algorithm = { name: cipher === "cbc" ? "AES-CBC" : "AES-GCM", length: 256 };
      await enveloped.encrypt(algorithm, buffer(text));
      return contentInfo(pkijs.ContentInfo.ENVELOPED_DATA, enveloped.toSchema());
    }),

  decrypt: (sealed, to) =>
    tried(async () => {
      const enveloped = new pkijs.EnvelopedData({ schema: pkijs.ContentInfo.fromBER(buffer(sealed)).content });
      return enveloped.decrypt(0, { recipientCertificate: certificateOf(to), recipientPrivateKey: pkcs8(to) });
    }),
};

describe("pkijs", () => {
  matrix(() => cast, library, {
    sign: { rsa: true, ec: true },
    verify: { rsa: true, ec: true },
    encrypt: { "rsa cbc": true, "rsa gcm": undefined, "ec cbc": true, "ec gcm": undefined },
    decrypt: {
      "rsa cbc": /NotSupportedError: Unrecognized algorithm name/, // RSA v1.5; with OAEP below
      "rsa gcm": /Object's schema was not verified against input data for EnvelopedData/,
      // Where there is no ukm it derives the key with an empty one.
      "ec cbc": /OperationError: The operation failed/,
      "ec gcm": /Object's schema was not verified against input data for EnvelopedData/,
    },
  });

  test("decrypts our CBC to an RSA key that says it reads OAEP", async () => {
    const [to, by] = [cast.recipient.rsa.credentials, cast.signer.rsa.credentials];
    const sealed = seal(new Pieces(text), {
      ...{ signer: by, now: new Date(), recipients: [peerCertificate(to.certificate)], shape: "detached" },
      ...{ profile: "foreign", capabilities: { gcm: false, oaep: true } },
    });
    const { said, bytes } = await library.decrypt(await bytesOf(sealed), cast.recipient.rsa);
    expect([said, bytes.includes(text)]).toEqual(["", true]);
  });

  test("its GCM, in an EnvelopedData and with no tag of its own, is refused by us", async () => {
    for (const to of [cast.recipient.rsa, cast.recipient.ec]) {
      const { bytes } = await library.encrypt(to, "gcm");
      const options = {
        keys: new Keyring([to.credentials]),
        candidates: [],
        directory: folder.path,
        maxBytes: 100_000,
      };
      expect(await failureOf(read(new Pieces(bytes), options))).toMatchObject({
        code: "seal-malformed",
        details: { what: "cipher of another envelope" },
      });
    }
  });
});
