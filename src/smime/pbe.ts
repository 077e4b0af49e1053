import { createCipheriv, createDecipheriv, pbkdf2 } from "node:crypto";
import { promisify } from "node:util";
import { type AlgorithmIdentifier, type Digest, readAlgorithm } from "../pki/algorithm.ts";
import * as der from "../pki/der.ts";
import type { Oid } from "../pki/oid.ts";
import { aes256Cbc, type ContentCipher, contentCiphers, noParameters } from "./algorithms.ts";
import type { PassphraseOctets } from "./passphrase.ts";
import { p12Cancelled, p12Malformed, p12Unsupported } from "./pkcs12-failure.ts";
import { derivePkcs12, pkcs12Purpose } from "./pkcs12-kdf.ts";
import { rc2CbcDecrypt } from "./rc2.ts";

/** Password-based algorithms (RFC 8018 appendix C, RFC 7292 appendix C). */
export const pbeAlgorithm = {
  pbes2: "1.2.840.113549.1.5.13",
  pbkdf2: "1.2.840.113549.1.5.12",
  pbmac1: "1.2.840.113549.1.5.14",
  sha1TripleDes: "1.2.840.113549.1.12.1.3",
  sha1Rc2Of128: "1.2.840.113549.1.12.1.5",
  sha1Rc2Of40: "1.2.840.113549.1.12.1.6",
} as const;

const hmacWithSha256 = "1.2.840.113549.2.9";

/** HMACs, as pseudorandom functions and as MACs (RFC 8018 appendix B.1). */
const hmacs: ReadonlyMap<Oid, Digest> = new Map<Oid, Digest>([
  ["1.2.840.113549.2.7", "sha1"],
  [hmacWithSha256, "sha256"],
  ["1.2.840.113549.2.10", "sha384"],
  ["1.2.840.113549.2.11", "sha512"],
]);

/** What is written: passphrases are tried at the cheapest derivation of a file, so all of them have this many rounds. */
export const writtenIterations = 600_000;
const legacyIterations = 2048;
const maxIterations = 10_000_000;
const maxSaltBytes = 1024;

/** How many rounds of derivation one file may still cause, all its parts together. */
export class Effort {
  #left = 100_000_000;

  /** Takes one derivation's rounds off. Throws SuiteError "unsupported" if there are too many of them. */
  take(iterations: bigint): number {
    if (iterations < 1n) throw p12Malformed("iterations");
    if (iterations > maxIterations) throw p12Unsupported(`more than ${maxIterations} iterations`);
    this.#left -= Number(iterations);
    if (this.#left < 0) throw p12Unsupported("too many iterations, all together");
    return Number(iterations);
  }
}

/**
 * The plaintext; undefined if the passphrase, or what was made with it, is wrong. For PBES2 the passphrase's octets are tried as
 * UTF-8 and, if that fails, as a BMPString, which RFC 7292 seems to say and some programs do.
 * @param plausible whether that may be the plaintext: of 256 wrong keys, one gives right padding
 * @throws SuiteError unsupported, syntax
 */
export async function decryptPbe(
  algorithm: AlgorithmIdentifier,
  ciphertext: Uint8Array,
  passphrase: PassphraseOctets,
  effort: Effort,
  plausible: (plain: Buffer) => boolean,
  signal?: AbortSignal,
): Promise<Buffer | undefined> {
  if (algorithm.oid === pbeAlgorithm.pbes2) {
    const { derivation, cipher, iv } = readPbes2(algorithm);
    for (const octets of [passphrase.utf8, passphrase.bmp]) {
      const key = await derivePbkdf2(derivation, octets, cipher.keyBytes, effort, signal);
      const plain = decipher(cipher.name, key, iv, ciphertext);
      if (plain !== undefined && plausible(plain)) return plain;
    }
    return undefined;
  }
  const scheme = pbes1Schemes.get(algorithm.oid);
  if (scheme === undefined) throw p12Unsupported(`encryption ${algorithm.oid}`);
  const { salt, iterations } = readPbes1(algorithm, effort);
  const { key, iv } = await derivePbes1(passphrase, salt, iterations, scheme.keyBytes, signal);
  return scheme.rc2Bits === undefined
    ? decipher("des-ede3-cbc", key, iv, ciphertext)
    : rc2CbcDecrypt(key, scheme.rc2Bits, iv, ciphertext);
}

export interface Encrypted {
  /** DER of the AlgorithmIdentifier. */
  readonly algorithm: Buffer;
  readonly ciphertext: Buffer;
}

export type RandomOctets = (length: number) => Uint8Array;

/** PBES2: AES-256-CBC, PBKDF2 with HMAC-SHA-256. */
export async function encryptPbes2(
  plain: Uint8Array,
  passphrase: PassphraseOctets,
  random: RandomOctets,
  signal?: AbortSignal,
): Promise<Encrypted> {
  const salt = random(16);
  const iv = random(aes256Cbc.ivBytes);
  const derivation = { salt, iterations: BigInt(writtenIterations), keyLength: undefined, digest: "sha256" } as const;
  const key = await derivePbkdf2(derivation, passphrase.utf8, aes256Cbc.keyBytes, new Effort(), signal);
  const algorithm = der.sequence(
    der.oid(pbeAlgorithm.pbes2),
    der.sequence(pbkdf2Sha256(salt), der.sequence(der.oid(aes256Cbc.oid), der.octetString(iv))),
  );
  return { algorithm, ciphertext: encipher(aes256Cbc.name, key, iv, plain) };
}

/** pbeWithSHAAnd3-KeyTripleDES-CBC, for programs that read nothing better. */
export async function encryptTripleDes(
  plain: Uint8Array,
  passphrase: PassphraseOctets,
  random: RandomOctets,
  signal?: AbortSignal,
): Promise<Encrypted> {
  const salt = random(8);
  const { key, iv } = await derivePbes1(passphrase, salt, legacyIterations, 24, signal);
  const parameters = der.sequence(der.octetString(salt), der.integer(legacyIterations));
  const algorithm = der.sequence(der.oid(pbeAlgorithm.sha1TripleDes), parameters);
  return { algorithm, ciphertext: encipher("des-ede3-cbc", key, iv, plain) };
}

/** PBKDF2-params (RFC 8018 appendix A.2). */
export interface Pbkdf2 {
  readonly salt: Uint8Array;
  readonly iterations: bigint;
  readonly keyLength: number | undefined;
  readonly digest: Digest;
}

/** Throws SuiteError "unsupported", "syntax". */
export function readPbkdf2({ oid, parameters }: AlgorithmIdentifier): Pbkdf2 {
  if (oid !== pbeAlgorithm.pbkdf2) throw p12Unsupported(`key derivation ${oid}`);
  const cursor = new der.DerCursor(der.readDer(parameters ?? new Uint8Array()));
  if (cursor.peekTag() !== der.tag.octetString) throw p12Unsupported("salt of another source");
  const salt = saltOf(cursor.next());
  const iterations = der.readInteger(cursor.next(der.tag.integer));
  const length = cursor.optional(der.tag.integer);
  const prf = cursor.optional(der.tag.sequence);
  cursor.end();
  const digest = prf === undefined ? "sha1" : readHmac(readAlgorithm(prf));
  return { salt, iterations, digest, keyLength: length === undefined ? undefined : der.readSmallInteger(length) };
}

/** Throws SuiteError "unsupported". */
export function readHmac(algorithm: AlgorithmIdentifier): Digest {
  const digest = noParameters(algorithm) ? hmacs.get(algorithm.oid) : undefined;
  if (digest === undefined) throw p12Unsupported(`HMAC ${algorithm.oid}`);
  return digest;
}

const pbkdf2Async = promisify(pbkdf2);

/** Aborting ends the waiting; the pool's thread is soon done. @throws SuiteError cancelled, unsupported, syntax */
export async function derivePbkdf2(
  { salt, iterations, keyLength, digest }: Pbkdf2,
  passphrase: Uint8Array,
  length: number,
  effort: Effort,
  signal?: AbortSignal,
): Promise<Buffer> {
  if (keyLength !== undefined && keyLength !== length) throw p12Malformed("key length");
  const derived = pbkdf2Async(passphrase, salt, effort.take(iterations), length, digest);
  if (signal === undefined) return derived;
  if (signal.aborted) throw p12Cancelled(signal);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(p12Cancelled(signal));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([derived, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** The AlgorithmIdentifier of PBKDF2 as this program writes it. */
export function pbkdf2Sha256(salt: Uint8Array, keyLength?: number): Buffer {
  const length = keyLength === undefined ? [] : [der.integer(keyLength)];
  const parts = [der.octetString(salt), der.integer(writtenIterations), ...length, hmacSha256Identifier()];
  return der.sequence(der.oid(pbeAlgorithm.pbkdf2), der.sequence(...parts));
}

export function hmacSha256Identifier(): Buffer {
  return der.sequence(der.oid(hmacWithSha256), der.nullValue());
}

function readPbes2({ parameters }: AlgorithmIdentifier): { derivation: Pbkdf2; cipher: ContentCipher; iv: Uint8Array } {
  const cursor = new der.DerCursor(der.readDer(parameters ?? new Uint8Array()));
  const derivation = readPbkdf2(readAlgorithm(cursor.next(der.tag.sequence)));
  const scheme = readAlgorithm(cursor.next(der.tag.sequence));
  cursor.end();
  const cipher = contentCiphers.get(scheme.oid);
  if (cipher?.mode !== "cbc") throw p12Unsupported(`cipher ${scheme.oid}`);
  const iv = der.readOctetString(der.readDer(scheme.parameters ?? new Uint8Array()));
  if (iv.length !== cipher.ivBytes) throw p12Malformed("initialisation vector");
  return { derivation, cipher, iv };
}

const pbes1Schemes: ReadonlyMap<Oid, { keyBytes: number; rc2Bits?: number }> = new Map([
  [pbeAlgorithm.sha1TripleDes, { keyBytes: 24 }],
  [pbeAlgorithm.sha1Rc2Of128, { keyBytes: 16, rc2Bits: 128 }],
  [pbeAlgorithm.sha1Rc2Of40, { keyBytes: 5, rc2Bits: 40 }],
]);

/** pkcs-12PbeParams (RFC 7292 appendix C). */
function readPbes1({ parameters }: AlgorithmIdentifier, effort: Effort): { salt: Uint8Array; iterations: number } {
  const cursor = new der.DerCursor(der.readDer(parameters ?? new Uint8Array()));
  const salt = saltOf(cursor.next(der.tag.octetString));
  const iterations = effort.take(der.readInteger(cursor.next(der.tag.integer)));
  cursor.end();
  return { salt, iterations };
}

function saltOf(element: der.DerElement): Uint8Array {
  const salt = der.readOctetString(element);
  if (salt.length > maxSaltBytes) throw p12Malformed("salt too long");
  return salt;
}

async function derivePbes1(
  { bmp }: PassphraseOctets,
  salt: Uint8Array,
  iterations: number,
  keyBytes: number,
  signal: AbortSignal | undefined,
) {
  const common = { digest: "sha1", passphrase: bmp, salt, iterations } as const;
  const [key, iv] = await Promise.all([
    derivePkcs12({ ...common, purpose: pkcs12Purpose.key, length: keyBytes }, signal),
    derivePkcs12({ ...common, purpose: pkcs12Purpose.iv, length: 8 }, signal),
  ]);
  return { key, iv };
}

function encipher(name: string, key: Uint8Array, iv: Uint8Array, plain: Uint8Array): Buffer {
  const cipher = createCipheriv(name, key, iv);
  return Buffer.concat([cipher.update(plain), cipher.final()]);
}

function decipher(name: string, key: Uint8Array, iv: Uint8Array, ciphertext: Uint8Array): Buffer | undefined {
  const cipher = createDecipheriv(name, key, iv);
  const plain = cipher.update(ciphertext);
  try {
    return Buffer.concat([plain, cipher.final()]);
  } catch {
    return undefined; // length or padding
  }
}
