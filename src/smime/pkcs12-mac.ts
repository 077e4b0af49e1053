import { createHmac, timingSafeEqual } from "node:crypto";
import { type Digest, readAlgorithm } from "../pki/algorithm.ts";
import * as der from "../pki/der.ts";
import { digestAlgorithm } from "../pki/oid.ts";
import { digestOf } from "./algorithms.ts";
import type { PassphraseOctets } from "./passphrase.ts";
import {
  derivePbkdf2,
  type Effort,
  hmacSha256Identifier,
  pbeAlgorithm,
  pbkdf2Sha256,
  type RandomOctets,
  readHmac,
  readPbkdf2,
  writtenIterations,
} from "./pbe.ts";
import { p12Malformed, p12Unsupported } from "./pkcs12-failure.ts";
import { derivePkcs12, pkcs12Purpose } from "./pkcs12-kdf.ts";

const legacyIterations = 2048;
const digestBytes: Record<Digest, number> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 };

/**
 * Whether `content`, the authSafe, was written by somebody who knew the passphrase.
 * @param macData MacData (RFC 7292 §4) with the derivation of its appendix B, or PBMAC1 (RFC 9579)
 * @throws SuiteError unsupported, syntax, cancelled
 */
export async function verifyMac(
  macData: der.DerElement,
  content: Uint8Array,
  passphrase: PassphraseOctets,
  effort: Effort,
  signal?: AbortSignal,
): Promise<boolean> {
  const cursor = new der.DerCursor(macData);
  const info = new der.DerCursor(cursor.next(der.tag.sequence));
  const salt = der.readOctetString(cursor.next(der.tag.octetString));
  const count = cursor.optional(der.tag.integer);
  cursor.end();
  const algorithm = readAlgorithm(info.next(der.tag.sequence));
  const expected = der.readOctetString(info.next(der.tag.octetString));
  info.end();
  const same = (digest: Digest, key: Uint8Array) => {
    const mac = createHmac(digest, key).update(content).digest();
    return mac.length === expected.length && timingSafeEqual(mac, expected);
  };

  if (algorithm.oid === pbeAlgorithm.pbmac1) {
    const { derivation, digest, length } = readPbmac1(algorithm.parameters);
    // §6 wants the BMPString; the vectors of appendix A, and OpenSSL, have UTF-8.
    for (const octets of [passphrase.utf8, passphrase.bmp])
      if (same(digest, await derivePbkdf2(derivation, octets, length, effort, signal))) return true;
    return false;
  }
  const digest = digestOf(algorithm);
  if (digest === undefined) throw p12Unsupported(`MAC ${algorithm.oid}`);
  if (salt.length > 1024) throw p12Malformed("salt too long");
  const iterations = count === undefined ? 1n : der.readInteger(count);
  // An empty passphrase is two zero octets to some, nothing to others.
  for (const bmp of passphrase.bmp.length === 2 ? [passphrase.bmp, new Uint8Array()] : [passphrase.bmp]) {
    const parameters = { digest, salt, iterations: effort.take(iterations), passphrase: bmp };
    const key = await derivePkcs12({ ...parameters, purpose: pkcs12Purpose.mac, length: digestBytes[digest] }, signal);
    if (same(digest, key)) return true;
  }
  return false;
}

/** MacData with HMAC-SHA-256, or HMAC-SHA-1 for old programs, by the derivation of RFC 7292 appendix B. */
export async function macByPkcs12(
  digest: "sha1" | "sha256",
  content: Uint8Array,
  { bmp }: PassphraseOctets,
  random: RandomOctets,
  signal?: AbortSignal,
): Promise<Buffer> {
  const salt = random(digest === "sha1" ? 8 : 16);
  const iterations = digest === "sha1" ? legacyIterations : writtenIterations;
  const parameters = { digest, salt, iterations, passphrase: bmp, length: digestBytes[digest] };
  const key = await derivePkcs12({ ...parameters, purpose: pkcs12Purpose.mac }, signal);
  const mac = createHmac(digest, key).update(content).digest();
  const algorithm = der.sequence(der.oid(digestAlgorithm[digest]), der.nullValue());
  const info = der.sequence(algorithm, der.octetString(mac));
  return der.sequence(info, der.octetString(salt), der.integer(iterations));
}

/** MacData with PBMAC1: PBKDF2 and HMAC, both with SHA-256 (RFC 9579). */
export async function macByPbmac1(
  content: Uint8Array,
  { utf8 }: PassphraseOctets,
  random: RandomOctets,
  effort: Effort,
  signal?: AbortSignal,
): Promise<Buffer> {
  const salt = random(16);
  const derivation = { salt, iterations: BigInt(writtenIterations), keyLength: 32, digest: "sha256" } as const;
  const mac = createHmac("sha256", await derivePbkdf2(derivation, utf8, 32, effort, signal))
    .update(content)
    .digest();
  const parameters = der.sequence(pbkdf2Sha256(salt, 32), hmacSha256Identifier());
  const info = der.sequence(der.sequence(der.oid(pbeAlgorithm.pbmac1), parameters), der.octetString(mac));
  return der.sequence(info, der.octetString(Buffer.from("not used"))); // a salt should be there (§4)
}

/** PBMAC1-params (RFC 8018 appendix A.5); the key length has to be named (RFC 9579 §5). */
function readPbmac1(parameters: Uint8Array | undefined) {
  const cursor = new der.DerCursor(der.readDer(parameters ?? new Uint8Array()));
  const derivation = readPbkdf2(readAlgorithm(cursor.next(der.tag.sequence)));
  const digest = readHmac(readAlgorithm(cursor.next(der.tag.sequence)));
  cursor.end();
  const { keyLength: length = 0 } = derivation;
  if (length < 20 || length > 1024) throw p12Malformed("key length"); // §9: short ones are guessed
  if (digest === "sha1") throw p12Unsupported("PBMAC1 with SHA-1"); // §7
  return { derivation, digest, length };
}
