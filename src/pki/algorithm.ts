import { constants, createVerify, sign as cryptoSign, verify as cryptoVerify, type KeyObject } from "node:crypto";
import type { DerElement } from "./der.ts";
import * as der from "./der.ts";
import { digestAlgorithm, keyAlgorithm, mgf1, namedCurve, type Oid, signatureAlgorithm } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";

/** AlgorithmIdentifier (RFC 5280 §4.1.1.2). */
export interface AlgorithmIdentifier {
  readonly oid: Oid;
  /** DER of the parameters; undefined if absent. */
  readonly parameters: Uint8Array | undefined;
  readonly der: Uint8Array;
}

export type Digest = "sha1" | "sha256" | "sha384" | "sha512";

/** "other": a key that nothing here works with (DSA, RSASSA-PSS-only, X25519, unnamed curves). */
export type KeyType = "rsa" | "ec" | "ed25519" | "ed448" | "other";

/** What is allowed. The default is `standardAlgorithms`; only test vectors of 2001 need another. */
export interface AlgorithmPolicy {
  readonly digests: ReadonlySet<Digest>;
  readonly minRsaBits: number;
  readonly maxRsaBits: number;
}

export const standardAlgorithms: AlgorithmPolicy = {
  digests: new Set<Digest>(["sha256", "sha384", "sha512"]),
  minRsaBits: 2048,
  maxRsaBits: 8192,
};

/** How a signature is computed. `digest` is null where the scheme has its own (Ed25519, Ed448). */
export interface SignatureScheme {
  readonly keyType: KeyType;
  readonly digest: Digest | null;
  /** RSASSA-PSS with MGF1 over the same digest; PKCS#1 v1.5 if absent. In octets. */
  readonly pssSaltLength?: number;
}

/** Reads an AlgorithmIdentifier. Throws SuiteError "syntax". */
export function readAlgorithm(element: DerElement): AlgorithmIdentifier {
  const cursor = new der.DerCursor(element);
  const oid = der.readOid(cursor.next(der.tag.oid));
  const parameters = cursor.done ? undefined : cursor.next().bytes;
  cursor.end();
  return { oid, parameters, der: element.bytes };
}

/**
 * The scheme that the identifier names, or undefined if the policy does not allow it or its parameters are not the ones
 * of RFC 4055, RFC 5758, RFC 8410.
 */
export function signatureScheme(
  algorithm: AlgorithmIdentifier,
  policy: AlgorithmPolicy = standardAlgorithms,
): SignatureScheme | undefined {
  const scheme = algorithm.oid === signatureAlgorithm.rsassaPss ? pssScheme(algorithm) : fixedScheme(algorithm);
  if (scheme === undefined) return undefined;
  return scheme.digest === null || policy.digests.has(scheme.digest) ? scheme : undefined;
}

/**
 * Whether `signature` over `data` is by the holder of `publicKey`. False for every algorithm and key that the policy
 * does not allow; never throws.
 */
export function verifySignature(
  algorithm: AlgorithmIdentifier,
  publicKey: KeyObject,
  data: Uint8Array,
  signature: Uint8Array,
  policy: AlgorithmPolicy = standardAlgorithms,
): boolean {
  const scheme = usableScheme(algorithm, publicKey, policy);
  if (scheme === undefined) return false;
  try {
    return cryptoVerify(scheme.digest, data, cryptoKey(publicKey, scheme), signature);
  } catch {
    return false; // OpenSSL throws on some malformed signatures and returns false on others
  }
}

/** Verifies one signature over data that comes in pieces. */
export interface SignatureVerifier {
  update(piece: Uint8Array): void;
  /** Once, at the end; never throws. */
  verify(signature: Uint8Array): boolean;
}

/** As `verifySignature`, piece by piece. Undefined where that would be false, and for Ed25519 and Ed448, which want the data whole. */
export function signatureVerifier(
  algorithm: AlgorithmIdentifier,
  publicKey: KeyObject,
  policy: AlgorithmPolicy = standardAlgorithms,
): SignatureVerifier | undefined {
  const scheme = usableScheme(algorithm, publicKey, policy);
  if (scheme === undefined || scheme.digest === null) return undefined;
  const verifier = createVerify(scheme.digest);
  return {
    update: (piece) => void verifier.update(piece),
    verify: (signature) => {
      try {
        return verifier.verify(cryptoKey(publicKey, scheme), signature);
      } catch {
        return false; // as above
      }
    },
  };
}

/** Whether the key is of a kind and size that may sign or be encrypted to. */
export function publicKeyAllowed(key: KeyObject, policy: AlgorithmPolicy = standardAlgorithms): boolean {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details = {} } = key;
  if (type === "rsa") return rsaAllowed(details.modulusLength ?? 0, Number(details.publicExponent ?? 0n), policy);
  if (type === "ec") return curves.has(details.namedCurve ?? "");
  return type === "ed25519" || type === "ed448";
}

/** A huge exponent is only there to make verifying slow. */
export function rsaAllowed(bits: number, exponent: number, policy: AlgorithmPolicy = standardAlgorithms): boolean {
  const goodExponent = exponent >= 3 && exponent % 2 === 1 && Number.isSafeInteger(exponent);
  return bits >= policy.minRsaBits && bits <= policy.maxRsaBits && goodExponent;
}

/** How RSA keys sign: PKCS #1 v1.5, or RSASSA-PSS with MGF1 and 32 octets of salt. */
export type RsaSignature = "pkcs1" | "pss";

/** What this program signs with this key: ECDSA or RSA with SHA-2, Ed25519, Ed448. `der`: the identifier. */
export function signatureAlgorithmFor(
  privateKey: KeyObject,
  rsaSignature: RsaSignature = "pkcs1",
): SignatureScheme & { readonly der: Buffer } {
  const type = privateKey.asymmetricKeyType;
  if (!publicKeyAllowed(privateKey)) throw unusable(type ?? "secret");
  if (type === "rsa" && rsaSignature === "pss") return { ...rsaScheme("sha256"), pssSaltLength: 32, der: pssSha256() };
  if (type === "rsa") return { ...rsaScheme("sha256"), der: encodeAlgorithm(signatureAlgorithm.sha256WithRsa, true) };
  if (type === "ed25519" || type === "ed448") {
    return { keyType: type, digest: null, der: encodeAlgorithm(signatureAlgorithm[type], false) };
  }
  const curve = curves.get(privateKey.asymmetricKeyDetails?.namedCurve ?? "");
  if (curve === undefined) throw unusable("curve");
  return { ...ecScheme(curve.digest), der: encodeAlgorithm(curve.signature, false) };
}

/** Signs `data` as `signatureAlgorithmFor(privateKey, rsaSignature)` says. */
export function sign(privateKey: KeyObject, data: Uint8Array, rsaSignature: RsaSignature = "pkcs1"): Buffer {
  const scheme = signatureAlgorithmFor(privateKey, rsaSignature);
  return cryptoSign(scheme.digest, data, cryptoKey(privateKey, scheme));
}

/** What a SubjectPublicKeyInfo says without any arithmetic on the key. */
export interface KeyInfo {
  readonly keyType: KeyType;
  /** RSA: bits of the modulus. */
  readonly rsaBits?: number;
  /** RSA: exact below 2^53; what is larger is not allowed anyhow. */
  readonly rsaExponent?: number;
  /** EC: the named curve. */
  readonly curve?: Oid;
  /** Content of the BIT STRING: what key identifiers are computed from. */
  readonly keyBits: Uint8Array;
}

/** Reads a SubjectPublicKeyInfo. Throws SuiteError "syntax"; an unknown kind of key is "other". */
export function readKeyInfo(element: DerElement): KeyInfo {
  const cursor = new der.DerCursor(element);
  const algorithm = readAlgorithm(cursor.next(der.tag.sequence));
  const { bytes: keyBits } = der.readBitString(cursor.next(der.tag.bitString));
  cursor.end();
  switch (algorithm.oid) {
    case keyAlgorithm.rsaEncryption: {
      const numbers = new der.DerCursor(der.readDer(keyBits).content);
      const modulus = der.integerContent(numbers.next(der.tag.integer));
      const rsaExponent = Number(der.readInteger(numbers.next(der.tag.integer)));
      numbers.end();
      // OpenSSL would take it for a positive one, and export another key than the one that was fingerprinted.
      if ((modulus[0] ?? 0) & 0x80) throw new SuiteError("syntax", "negative RSA modulus", { fault: "peer" });
      return { keyType: "rsa", keyBits, rsaBits: bitLength(modulus), rsaExponent };
    }
    case keyAlgorithm.ecPublicKey: {
      const parameters = der.readDer(algorithm.parameters ?? new Uint8Array());
      if (parameters.tag !== der.tag.oid) return { keyType: "other", keyBits };
      const curve = der.readOid(parameters);
      const known = Object.values<Oid>(namedCurve).includes(curve);
      return known ? { keyType: "ec", keyBits, curve } : { keyType: "other", keyBits };
    }
    case keyAlgorithm.ed25519:
      return { keyType: "ed25519", keyBits };
    case keyAlgorithm.ed448:
      return { keyType: "ed448", keyBits };
    default:
      return { keyType: "other", keyBits };
  }
}

/** By the names that `asymmetricKeyDetails` uses. */
const curves: ReadonlyMap<string, { digest: Digest; signature: Oid }> = new Map([
  ["prime256v1", { digest: "sha256", signature: signatureAlgorithm.ecdsaWithSha256 }],
  ["secp384r1", { digest: "sha384", signature: signatureAlgorithm.ecdsaWithSha384 }],
  ["secp521r1", { digest: "sha512", signature: signatureAlgorithm.ecdsaWithSha512 }],
]);

function usableScheme(
  algorithm: AlgorithmIdentifier,
  publicKey: KeyObject,
  policy: AlgorithmPolicy,
): SignatureScheme | undefined {
  const scheme = signatureScheme(algorithm, policy);
  return scheme?.keyType === publicKey.asymmetricKeyType && publicKeyAllowed(publicKey, policy) ? scheme : undefined;
}

const rsaScheme = (digest: Digest): SignatureScheme => ({ keyType: "rsa", digest });
const ecScheme = (digest: Digest): SignatureScheme => ({ keyType: "ec", digest });

const fixedSchemes: ReadonlyMap<Oid, SignatureScheme> = new Map([
  [signatureAlgorithm.sha1WithRsa, rsaScheme("sha1")],
  [signatureAlgorithm.sha256WithRsa, rsaScheme("sha256")],
  [signatureAlgorithm.sha384WithRsa, rsaScheme("sha384")],
  [signatureAlgorithm.sha512WithRsa, rsaScheme("sha512")],
  [signatureAlgorithm.ecdsaWithSha256, ecScheme("sha256")],
  [signatureAlgorithm.ecdsaWithSha384, ecScheme("sha384")],
  [signatureAlgorithm.ecdsaWithSha512, ecScheme("sha512")],
  [signatureAlgorithm.ed25519, { keyType: "ed25519", digest: null }],
  [signatureAlgorithm.ed448, { keyType: "ed448", digest: null }],
]);

const digests: ReadonlyMap<Oid, Digest> = new Map<Oid, Digest>([
  [digestAlgorithm.sha1, "sha1"],
  [digestAlgorithm.sha256, "sha256"],
  [digestAlgorithm.sha384, "sha384"],
  [digestAlgorithm.sha512, "sha512"],
]);

function fixedScheme({ oid, parameters }: AlgorithmIdentifier): SignatureScheme | undefined {
  const scheme = fixedSchemes.get(oid);
  if (parameters === undefined) return scheme; // RFC 4055 §5: absent means NULL
  return scheme?.keyType === "rsa" && isNull(parameters) ? scheme : undefined;
}

/** RSASSA-PSS-params (RFC 4055 §3.1). */
function pssScheme({ parameters }: AlgorithmIdentifier): SignatureScheme | undefined {
  try {
    const cursor = new der.DerCursor(expectSequence(der.readDer(parameters ?? new Uint8Array())));
    const hash = cursor.optional(der.contextConstructed(0));
    const mask = cursor.optional(der.contextConstructed(1));
    const salt = cursor.optional(der.contextConstructed(2));
    const trailer = cursor.optional(der.contextConstructed(3));
    cursor.end();
    const digest = hash === undefined ? "sha1" : readDigest(der.readDer(hash.content));
    const maskDigest = mask === undefined ? "sha1" : readMaskDigest(der.readDer(mask.content));
    const pssSaltLength = salt === undefined ? 20 : der.readSmallInteger(der.readDer(salt.content));
    if (trailer !== undefined && der.readSmallInteger(der.readDer(trailer.content)) !== 1) return undefined;
    if (digest === undefined || maskDigest !== digest || pssSaltLength < 0) return undefined;
    return { keyType: "rsa", digest, pssSaltLength };
  } catch {
    return undefined;
  }
}

/** RSASSA-PSS-params, the trailer by default; here the hashes have parameters, NULL (RFC 4055 §2.1, §3.1). */
function pssSha256(): Buffer {
  const sha256 = encodeAlgorithm(digestAlgorithm.sha256, true);
  const mask = der.sequence(der.oid(mgf1), sha256);
  const parameters = der.sequence(der.explicit(0, sha256), der.explicit(1, mask), der.explicit(2, der.integer(32)));
  return der.sequence(der.oid(signatureAlgorithm.rsassaPss), parameters);
}

function readDigest(element: DerElement): Digest | undefined {
  const { oid, parameters } = readAlgorithm(element);
  return parameters === undefined || isNull(parameters) ? digests.get(oid) : undefined;
}

function readMaskDigest(element: DerElement): Digest | undefined {
  const { oid, parameters } = readAlgorithm(element);
  return oid === mgf1 && parameters !== undefined ? readDigest(der.readDer(parameters)) : undefined;
}

function expectSequence(element: DerElement): Uint8Array {
  if (element.tag !== der.tag.sequence) throw unusable("parameters");
  return element.content;
}

function isNull(parameters: Uint8Array): boolean {
  return parameters.length === 2 && parameters[0] === der.tag.null && parameters[1] === 0;
}

function encodeAlgorithm(algorithm: Oid, withNull: boolean): Buffer {
  return der.sequence(der.oid(algorithm), ...(withNull ? [der.nullValue()] : []));
}

function cryptoKey(key: KeyObject, scheme: SignatureScheme) {
  if (scheme.pssSaltLength === undefined) return { key };
  return { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: scheme.pssSaltLength };
}

function bitLength(modulus: Uint8Array): number {
  const zero = modulus[0] === 0 ? 1 : 0;
  return 8 * (modulus.length - zero) - (Math.clz32(modulus[zero] ?? 0) - 24);
}

function unusable(what: string): SuiteError {
  return new SuiteError("unsupported", "this kind of key cannot be used", { fault: "local", details: { what } });
}
