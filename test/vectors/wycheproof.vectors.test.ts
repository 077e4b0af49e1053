import { createPrivateKey, createPublicKey, type KeyObject, privateDecrypt, randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import type { Digest } from "../../src/pki/algorithm.ts";
import type { Certificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { deriveKek, unwrapKey, wrapKey } from "../../src/smime/agreement.ts";
import {
  aes256Wrap,
  type ContentCipher,
  contentCiphers,
  contentType,
  keyEncryption,
  keyWraps,
} from "../../src/smime/algorithms.ts";
import { tagDifference } from "../../src/smime/ghash.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import { decryptOaep } from "../../src/smime/oaep.ts";
import { read } from "../../src/smime/read.ts";
import { keyOperation, readRecipientInfo } from "../../src/smime/recipient-read.ts";
import { sharedFolder } from "../support/shared.ts";
import { failureOf, Pieces } from "../support/smime.ts";

// Attacks on primitives that others collected, each file through the function of ours that uses the primitive: `valid`
// works, `invalid` is refused, `acceptable` is either and crashes nothing.

const folder = sharedFolder("vectors/wycheproof");
const directory = mkdtempSync(join(tmpdir(), "sixtalk-wycheproof-"));
afterAll(() => rmSync(directory, { recursive: true }));
afterEach(() => expect(readdirSync(directory)).toEqual([]));

interface Vector {
  readonly tcId: number;
  readonly comment: string;
  readonly flags: readonly string[];
  readonly result: "valid" | "invalid" | "acceptable";
  /** All else is hex. */
  readonly [name: string]: unknown;
}

interface Group {
  readonly tests: readonly Vector[];
  readonly [name: string]: unknown;
}

/** What becomes of a case: the octets that came out, or "refused". */
type Attempt = (vector: Vector, group: Group) => Buffer | "refused" | Promise<Buffer | "refused">;

const hex = (of: Vector | Group, name: string): Buffer => Buffer.from(String(of[name]), "hex");

/** `wanted`: the field with what a valid case yields. Gives how many cases of each result there were and held. */
async function hold(file: string, wanted: string, attempt: Attempt): Promise<string> {
  const { testGroups } = JSON.parse(readFileSync(join(folder ?? "", file), "utf8")) as { testGroups: Group[] };
  const counts = { valid: 0, invalid: 0, acceptable: 0 };
  for (const group of testGroups) {
    for (const vector of group.tests) {
      const outcome = await attempt(vector, group);
      const name = `${file} ${vector.tcId}: ${vector.comment}`;
      if (vector.result === "valid") expect(outcome, name).toEqual(hex(vector, wanted));
      else if (vector.result === "invalid") expect(outcome, name).toBe("refused");
      else if (outcome !== "refused") expect(outcome, name).toEqual(hex(vector, wanted));
      counts[vector.result] += 1;
    }
  }
  return `${counts.valid} valid, ${counts.invalid} invalid, ${counts.acceptable} acceptable`;
}

function orRefused(attempt: () => Buffer): Buffer | "refused" {
  try {
    return attempt();
  } catch {
    return "refused";
  }
}

const digests: Readonly<Record<string, Digest>> = { "SHA-1": "sha1", "SHA-256": "sha256" };

/** Files that another test uses, and where. */
const elsewhere: Readonly<Record<string, string>> = {
  "ecdsa_secp256r1_sha256_test.json": "test/pki/algorithm.test.ts",
  "ecdsa_secp384r1_sha384_test.json": "test/pki/algorithm.test.ts",
  "rsa_signature_2048_sha256_test.json": "test/pki/algorithm.test.ts",
  "rsa_pss_2048_sha256_mgf1_32_test.json": "test/pki/algorithm.test.ts",
  "pbes2_hmacsha256_aes_256_test.json": "PKCS#12, no part of CMS",
  "pbkdf2_hmacsha256_test.json": "PKCS#12, no part of CMS",
};

const here: Readonly<Record<string, () => Promise<void>>> = {
  async "aes_wrap_test.json"() {
    const wraps = [...keyWraps.values()];
    const held = await hold("aes_wrap_test.json", "msg", (vector, group) => {
      const wrap = wraps.find(({ keyBytes }) => 8 * keyBytes === group["keySize"]);
      if (wrap === undefined) throw new Error("no such key size");
      const [kek, msg, ct] = [hex(vector, "key"), hex(vector, "msg"), hex(vector, "ct")];
      if (vector.result === "valid") expect(wrapKey(wrap, kek, msg)).toEqual(ct);
      return orRefused(() => unwrapKey(wrap, kek, ct));
    });
    expect(held).toBe("36 valid, 126 invalid, 3 acceptable");
  },

  ...Object.fromEntries(
    [
      ["rsa_oaep_2048_sha1_mgf1sha1_test.json", "17 valid, 19 invalid, 0 acceptable"],
      ["rsa_oaep_2048_sha256_mgf1sha1_test.json", "13 valid, 18 invalid, 0 acceptable"],
      ["rsa_oaep_2048_sha256_mgf1sha256_test.json", "18 valid, 19 invalid, 0 acceptable"],
      ["rsa_oaep_3072_sha256_mgf1sha256_test.json", "18 valid, 19 invalid, 0 acceptable"],
    ].map(([file = "", counts]) => [
      file,
      async () => {
        const held = await hold(file, "msg", (vector, group) => {
          const [digest, maskDigest] = [digests[String(group["sha"])], digests[String(group["mgfSha"])]];
          if (digest === undefined || maskDigest === undefined) throw new Error("no such hash");
          const key = createPrivateKey(String(group["privateKeyPem"]));
          const label = hex(vector, "label");
          return orRefused(() => decryptOaep(key, hex(vector, "ct"), { digest, maskDigest, label }));
        });
        expect(held).toBe(counts);
      },
    ]),
  ),

  /** RFC 3218 §2.3.2: no error, but a key of the right length that is not the one inside, another one each time. */
  async "rsa_pkcs1_2048_test.json"() {
    const algorithm = der.sequence(der.oid(keyEncryption.rsaesPkcs1), der.nullValue());
    const held = await hold("rsa_pkcs1_2048_test.json", "msg", (vector, group) => {
      const privateKey = createPrivateKey(String(group["privateKeyPem"]));
      const info = readRecipientInfo(der.readDer(keyTransport(algorithm, hex(vector, "ct"))));
      const length = hex(vector, "msg").length || 32;
      const [first, second] = [openedBy(privateKey, info, length), openedBy(privateKey, info, length)];
      expect([first.length, second.length]).toEqual([length, length]);
      // A message of no octets is no key: there is nothing that it could be a substitute of.
      if (hex(vector, "msg").length === 0 && vector.result === "valid") return Buffer.alloc(0);
      const implicit = implicitly(privateKey, hex(vector, "ct"));
      if (vector.result === "invalid" && implicit?.length !== length) expect(first).not.toEqual(second);
      return first.equals(hex(vector, "msg")) ? first : "refused";
    });
    expect(held).toBe("42 valid, 25 invalid, 0 acceptable");
  },

  "ecdh_secp256r1_test.json": () => agreements("ecdh_secp256r1_test.json", "330 valid, 52 invalid, 230 acceptable"),
  "x25519_asn_test.json": () => agreements("x25519_asn_test.json", "265 valid, 19 invalid, 253 acceptable"),

  /** Nonces of 12 octets alone are read (RFC 5084 §3.2 recommends them): a valid case of another counts as refused. */
  async "aes_gcm_test.json"() {
    let otherNonces = 0;
    const held = await hold("aes_gcm_test.json", "msg", async (vector) => {
      const cipher = cipherOf("gcm", hex(vector, "key"));
      const [iv, ciphertext, tag] = [hex(vector, "iv"), hex(vector, "ct"), hex(vector, "tag")];
      // What was authenticated besides is DER in CMS, not any octets: taken out of the tag here, as `read` puts it in.
      const difference = tagDifference(hex(vector, "key"), ciphertext.length, hex(vector, "aad"));
      const without = tag.map((octet, at) => octet ^ (hex(vector, "aad").length === 0 ? 0 : (difference[at] ?? 0)));
      const parameters = der.sequence(der.octetString(iv), der.integer(tag.length));
      const outcome = await decrypted({ cipher, parameters, key: hex(vector, "key"), ciphertext, tag: without });
      if (iv.length === 12) return outcome;
      expect(outcome).toBe("refused");
      otherNonces += 1;
      return vector.result === "valid" ? hex(vector, "msg") : "refused";
    });
    expect([held, otherNonces]).toEqual(["229 valid, 87 invalid, 0 acceptable", 119]);
  },

  async "aes_cbc_pkcs5_test.json"() {
    const held = await hold("aes_cbc_pkcs5_test.json", "msg", (vector) =>
      decrypted({
        cipher: cipherOf("cbc", hex(vector, "key")),
        parameters: der.octetString(hex(vector, "iv")),
        key: hex(vector, "key"),
        ciphertext: hex(vector, "ct"),
      }),
    );
    expect(held).toBe("72 valid, 144 invalid, 0 acceptable");
  },
};

describe.skipIf(folder === undefined)("wycheproof: what is valid works, what is invalid is refused", () => {
  test.each(Object.entries(here))("%s", (_, run) => run());

  test("no file is left unused", () => {
    const files = [...Object.keys(here), ...Object.keys(elsewhere)].toSorted();
    expect(readdirSync(folder ?? "").toSorted()).toEqual(files);
  });
});

/** KeyTransRecipientInfo for whoever. */
function keyTransport(algorithm: Buffer, encryptedKey: Uint8Array): Buffer {
  return der.sequence(der.integer(0), nobody, algorithm, der.octetString(encryptedKey));
}

const nobody = der.sequence(der.sequence(), der.integer(1));

function openedBy(privateKey: KeyObject, info: ReturnType<typeof readRecipientInfo>, keyBytes: number): Buffer {
  const [key] = info.recipients;
  if (key === undefined) throw new Error("nobody's");
  const spki = createPublicKey(privateKey).export({ type: "spki", format: "der" });
  const certificate = { spki } as unknown as Certificate; // all that is asked of it
  return keyOperation(info, key, { certificate, privateKey }, keyBytes)();
}

/** What OpenSSL gives for a wrong padding: the same octets each time. */
function implicitly(privateKey: KeyObject, encrypted: Uint8Array): Buffer | undefined {
  try {
    return privateDecrypt({ key: privateKey, padding: 1 }, encrypted);
  } catch {
    return undefined;
  }
}

/**
 * Agreement with an originator's key as it stands in a KeyAgreeRecipientInfo: its SubjectPublicKeyInfo with tag [1]. A key is
 * wrapped by what should have been agreed: another secret does not unwrap it.
 */
async function agreements(file: string, counts: string): Promise<void> {
  const wrapIdentifier = der.sequence(der.oid(aes256Wrap.oid));
  const contentKey = randomBytes(32);
  const held = await hold(file, "shared", (vector) => {
    const privateKey = privateKeyOf(vector);
    if (privateKey === undefined) return vector.result === "valid" ? Buffer.alloc(0) : "refused";
    const originatorKey = hex(vector, "public");
    originatorKey[0] = der.contextConstructed(1);
    const kek = deriveKek({
      secret: hex(vector, "shared"),
      derivation: { function: "x963", digest: "sha256" },
      wrap: aes256Wrap,
      wrapIdentifier,
    });
    const recipient = der.implicitConstructed(
      1,
      der.integer(3),
      der.explicit(0, originatorKey),
      der.sequence(der.oid(keyEncryption.stdDhSha256Kdf), wrapIdentifier),
      der.sequence(der.sequence(nobody, der.octetString(wrapKey(aes256Wrap, kek, contentKey)))),
    );
    try {
      const found = openedBy(privateKey, readRecipientInfo(der.readDer(recipient)), 32);
      return found.equals(contentKey) ? hex(vector, "shared") : "refused";
    } catch (thrown) {
      // Before the key is used a fault may be named, but then it is.
      expect(thrown).toBeInstanceOf(SuiteError);
      return "refused";
    }
  });
  expect(held).toBe(counts);
}

/** SEC 1 scalar on P-256, or PKCS#8; undefined if node:crypto does not take it for a key. */
function privateKeyOf(vector: Vector): KeyObject | undefined {
  const given = hex(vector, "private");
  try {
    if (given[0] === der.tag.sequence) return createPrivateKey({ key: given, format: "der", type: "pkcs8" });
    const scalar = Buffer.concat([Buffer.alloc(32), given]).subarray(-32);
    const p256 = der.oid("1.2.840.10045.3.1.7");
    const key = der.sequence(der.integer(1), der.octetString(scalar), der.explicit(0, p256));
    return createPrivateKey({ key, format: "der", type: "sec1" });
  } catch {
    return undefined;
  }
}

function cipherOf(mode: "gcm" | "cbc", key: Buffer): ContentCipher {
  const cipher = [...contentCiphers.values()].find((one) => one.name === `aes-${8 * key.length}-${mode}`);
  if (cipher === undefined) throw new Error("no such cipher");
  return cipher;
}

/** Through `read`: an (Auth)EnvelopedData whose key is wrapped by one that both sides have. */
async function decrypted(o: {
  cipher: ContentCipher;
  parameters: Buffer;
  key: Buffer;
  ciphertext: Buffer;
  tag?: Uint8Array;
}): Promise<Buffer | "refused"> {
  const known = { keyId: Buffer.from("known"), secret: randomBytes(32) };
  const recipient = der.implicitConstructed(
    2,
    der.integer(4),
    der.sequence(der.octetString(known.keyId)),
    der.sequence(der.oid(aes256Wrap.oid)),
    der.octetString(wrapKey(aes256Wrap, known.secret, o.key)),
  );
  const type = o.tag === undefined ? contentType.envelopedData : contentType.authEnvelopedData;
  const body = der.sequence(
    der.integer(o.tag === undefined ? 2 : 0),
    der.set(recipient),
    der.sequence(
      der.oid(contentType.data),
      der.sequence(der.oid(o.cipher.oid), o.parameters),
      der.implicitPrimitive(0, o.ciphertext),
    ),
    ...(o.tag === undefined ? [] : [der.octetString(o.tag)]),
  );
  const message = der.sequence(der.oid(type), der.explicit(0, body));
  const reading = read(new Pieces(message), {
    keys: new Keyring([known]),
    candidates: [],
    directory,
    maxBytes: 1_000_000,
  });
  try {
    await using found = await reading;
    if (found.content === undefined || !("bytes" in found.content)) throw new Error("not in memory");
    return found.content.bytes;
  } catch {
    expect(["seal-unreadable", "seal-unsupported"]).toContain((await failureOf(reading)).code);
    return "refused";
  }
}
