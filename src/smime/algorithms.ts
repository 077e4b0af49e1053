import { type AlgorithmIdentifier, type Digest, readAlgorithm } from "../pki/algorithm.ts";
import * as der from "../pki/der.ts";
import { digestAlgorithm, keyAlgorithm, mgf1, type Oid, signatureAlgorithm } from "../pki/oid.ts";

/** CMS content types (RFC 5652, RFC 5083, RFC 3274). */
export const contentType = {
  data: "1.2.840.113549.1.7.1",
  signedData: "1.2.840.113549.1.7.2",
  envelopedData: "1.2.840.113549.1.7.3",
  compressedData: "1.2.840.113549.1.9.16.1.9",
  authEnvelopedData: "1.2.840.113549.1.9.16.1.23",
} as const;

/** Key encryption algorithms (RFC 4055, RFC 5753). */
export const keyEncryption = {
  rsaesPkcs1: "1.2.840.113549.1.1.1",
  rsaesOaep: "1.2.840.113549.1.1.7",
  pSpecified: "1.2.840.113549.1.1.9",
  stdDhSha256Kdf: "1.3.132.1.11.1",
} as const;

/** A content-encryption algorithm: with a tag behind the ciphertext (RFC 5084, RFC 8103), or block chaining without one. */
export interface ContentCipher {
  readonly name: `aes-${128 | 192 | 256}-gcm` | "chacha20-poly1305" | `aes-${128 | 192 | 256}-cbc` | "des-ede3-cbc";
  readonly mode: "gcm" | "chacha20-poly1305" | "cbc";
  readonly oid: Oid;
  readonly keyBytes: number;
  /** Of the nonce or the initialisation vector. */
  readonly ivBytes: number;
  readonly maxBytes: number;
  /** Read in stored mail only. */
  readonly legacy?: true;
}

/** 2^36 − 32 octets (NIST SP 800-38D §5.2.1.1). */
const maxGcmBytes = 68_719_476_704;

const gcm = (bits: 128 | 192 | 256, last: number): ContentCipher => ({
  name: `aes-${bits}-gcm`,
  mode: "gcm",
  oid: `2.16.840.1.101.3.4.1.${last}`,
  keyBytes: bits / 8,
  ivBytes: 12,
  maxBytes: maxGcmBytes,
});

const cbc = (bits: 128 | 192 | 256, last: number): ContentCipher => ({
  name: `aes-${bits}-cbc`,
  mode: "cbc",
  oid: `2.16.840.1.101.3.4.1.${last}`,
  keyBytes: bits / 8,
  ivBytes: 16,
  maxBytes: Number.MAX_SAFE_INTEGER,
});

export const aes128Gcm = gcm(128, 6);
export const aes256Gcm = gcm(256, 46);
const aes128Cbc = cbc(128, 2);
export const aes256Cbc = cbc(256, 42);

const chacha20Poly1305: ContentCipher = {
  name: "chacha20-poly1305",
  mode: "chacha20-poly1305",
  oid: "1.2.840.113549.1.9.16.3.18",
  keyBytes: 32,
  ivBytes: 12,
  maxBytes: 2 ** 38 - 64, // RFC 8439 §2.8
};

/** 64-bit blocks: after 2^32 of them two alike are likely. */
const tripleDes: ContentCipher = {
  name: "des-ede3-cbc",
  mode: "cbc",
  oid: "1.2.840.113549.3.7",
  keyBytes: 24,
  ivBytes: 8,
  maxBytes: 2 ** 32,
  legacy: true,
};

export const contentCiphers: ReadonlyMap<Oid, ContentCipher> = new Map(
  [aes128Gcm, gcm(192, 26), aes256Gcm, chacha20Poly1305, aes128Cbc, cbc(192, 22), aes256Cbc, tripleDes].map(
    (cipher) => [cipher.oid, cipher],
  ),
);

/** AES key wrap (RFC 3394, RFC 3565). */
export interface KeyWrap {
  readonly name: "aes128-wrap" | "aes192-wrap" | "aes256-wrap";
  readonly oid: Oid;
  readonly keyBytes: number;
}

export const aes128Wrap: KeyWrap = { name: "aes128-wrap", oid: "2.16.840.1.101.3.4.1.5", keyBytes: 16 };
export const aes256Wrap: KeyWrap = { name: "aes256-wrap", oid: "2.16.840.1.101.3.4.1.45", keyBytes: 32 };

export const keyWraps: ReadonlyMap<Oid, KeyWrap> = new Map([
  [aes128Wrap.oid, aes128Wrap],
  ["2.16.840.1.101.3.4.1.25", { name: "aes192-wrap", oid: "2.16.840.1.101.3.4.1.25", keyBytes: 24 }],
  [aes256Wrap.oid, aes256Wrap],
]);

/** How the key-encryption key comes from an agreed secret: X9.63 (RFC 5753 §7.1.4) or HKDF (RFC 8418 §2.2). */
export interface Derivation {
  readonly function: "x963" | "hkdf";
  readonly digest: Digest;
}

const x963 = (digest: Digest): Derivation => ({ function: "x963", digest });
const hkdf = (digest: Digest): Derivation => ({ function: "hkdf", digest });

/** dhSinglePass-stdDH, by its derivation. */
export const derivations: ReadonlyMap<Oid, Derivation> = new Map([
  ["1.3.133.16.840.63.0.2", x963("sha1")],
  [keyEncryption.stdDhSha256Kdf, x963("sha256")],
  ["1.3.132.1.11.2", x963("sha384")],
  ["1.3.132.1.11.3", x963("sha512")],
  ["1.2.840.113549.1.9.16.3.19", hkdf("sha256")],
  ["1.2.840.113549.1.9.16.3.20", hkdf("sha384")],
  ["1.2.840.113549.1.9.16.3.21", hkdf("sha512")],
]);

/** Hashes that a signature may rest on. */
export type SignatureDigest = "sha256" | "sha384" | "sha512";
export const signatureDigests: readonly SignatureDigest[] = ["sha256", "sha384", "sha512"];

const digestNames: ReadonlyMap<Oid, Digest> = new Map<Oid, Digest>([
  [digestAlgorithm.sha1, "sha1"],
  [digestAlgorithm.sha256, "sha256"],
  [digestAlgorithm.sha384, "sha384"],
  [digestAlgorithm.sha512, "sha512"],
]);

export function digestOf(algorithm: AlgorithmIdentifier): Digest | undefined {
  return noParameters(algorithm) ? digestNames.get(algorithm.oid) : undefined;
}

export function signatureDigestOf(algorithm: AlgorithmIdentifier): SignatureDigest | undefined {
  const digest = digestOf(algorithm);
  return digest === "sha1" ? undefined : digest;
}

/** RFC 5754 §2: parameters absent or NULL. */
export function noParameters({ parameters }: AlgorithmIdentifier): boolean {
  return parameters === undefined || (parameters.length === 2 && parameters[0] === der.tag.null);
}

export function digestIdentifier(digest: SignatureDigest): Buffer {
  return der.sequence(der.oid(digestAlgorithm[digest]));
}

/** `rsaEncryption` names no hash (RFC 5652 leaves it to digestAlgorithm, and OpenSSL writes it so): the joint algorithm. */
export function jointSignatureAlgorithm(
  signature: AlgorithmIdentifier,
  digest: SignatureDigest,
): AlgorithmIdentifier | undefined {
  if (signature.oid !== keyAlgorithm.rsaEncryption) return signature;
  if (!noParameters(signature)) return undefined;
  const oid = {
    sha256: signatureAlgorithm.sha256WithRsa,
    sha384: signatureAlgorithm.sha384WithRsa,
    sha512: signatureAlgorithm.sha512WithRsa,
  }[digest];
  return { oid, parameters: undefined, der: der.sequence(der.oid(oid)) };
}

export interface OaepParameters {
  readonly digest: Digest;
  readonly maskDigest: Digest;
  readonly label: Uint8Array;
}

/** RSAES-OAEP-params (RFC 4055 §4.1); undefined if they name what is not known here. Throws SuiteError "syntax". */
export function readOaep(algorithm: AlgorithmIdentifier): OaepParameters | undefined {
  if (algorithm.parameters === undefined) return { digest: "sha1", maskDigest: "sha1", label: new Uint8Array() };
  const cursor = new der.DerCursor(der.readDer(algorithm.parameters).content);
  const hash = cursor.optional(der.contextConstructed(0));
  const mask = cursor.optional(der.contextConstructed(1));
  const source = cursor.optional(der.contextConstructed(2));
  cursor.end();
  const digest = hash === undefined ? "sha1" : digestOf(readAlgorithm(der.readDer(hash.content)));
  const maskDigest = mask === undefined ? "sha1" : maskDigestOf(readAlgorithm(der.readDer(mask.content)));
  const label = source === undefined ? new Uint8Array() : labelOf(readAlgorithm(der.readDer(source.content)));
  return digest && maskDigest && label ? { digest, maskDigest, label } : undefined;
}

function maskDigestOf(mask: AlgorithmIdentifier): Digest | undefined {
  if (mask.oid !== mgf1 || mask.parameters === undefined) return undefined;
  return digestOf(readAlgorithm(der.readDer(mask.parameters)));
}

function labelOf(source: AlgorithmIdentifier): Uint8Array | undefined {
  if (source.oid !== keyEncryption.pSpecified || source.parameters === undefined) return undefined;
  const label = der.readOctetString(der.readDer(source.parameters));
  return label.length <= 1024 ? label : undefined;
}

/** RSAES-OAEP with SHA-256 as hash and as MGF1's, no label. */
export function oaepSha256Identifier(): Buffer {
  const sha256 = digestIdentifier("sha256");
  const mask = der.sequence(der.oid(mgf1), sha256);
  return der.sequence(der.oid(keyEncryption.rsaesOaep), der.sequence(der.explicit(0, sha256), der.explicit(1, mask)));
}
