import type { KeyObject } from "node:crypto";
import { CompactSign, compactVerify, decodeProtectedHeader } from "jose";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type Canonical, canonicalJson, parseCanonical, payloadHash } from "./canonical.ts";

export type SignedType = "sixid-identity" | "sixid-addresses" | "sixid-presence" | "sixid-request" | "sixid-domain";

/** A signer as these objects need one. */
export interface RecordSigner {
  certificate: Certificate;
  chain: readonly Certificate[];
  privateKey: KeyObject;
}

/** Compact JWS (RFC 7515) over canonical JSON. `carry: "x5c"` sends certificate and chain along, `"kid"` only the key's name. */
export async function sign(typ: SignedType, body: Canonical, by: RecordSigner, carry: "x5c" | "kid"): Promise<string> {
  const alg = algorithmOf(by.certificate);
  const named =
    carry === "kid"
      ? { kid: by.certificate.fingerprint }
      : { x5c: [by.certificate, ...by.chain].map((one) => Buffer.from(one.der).toString("base64")) };
  return new CompactSign(Buffer.from(canonicalJson(body), "utf8"))
    .setProtectedHeader({ alg, ...named, typ })
    .sign(by.privateKey);
}

/** A signed object whose form is right and whose signature is still to be judged. */
export interface Unverified {
  jws: string;
  typ: SignedType;
  payload: string;
  body: Canonical;
  /** SHA-256 of the payload, 64 hex digits. */
  hash: string;
  /** Leaf first; empty when the header names a key only. */
  x5c: readonly Certificate[];
  kid: string | undefined;
  alg: string;
}

/**
 * Takes a compact JWS apart: size, three parts, exact header, a listed algorithm, canonical payload.
 * @throws SuiteError record-rejected with `step`
 */
export function readSigned(jws: string, typ: SignedType, maxBytes: number): Unverified {
  if (jws.length > maxBytes * 2) throw rejected("size");
  const parts = jws.split(".");
  if (parts.length !== 3 || parts.some((part) => !isBase64url(part))) throw rejected("three parts");
  let header: Record<string, unknown>;
  try {
    header = decodeProtectedHeader(jws) as Record<string, unknown>;
  } catch (cause) {
    throw rejected("header", cause);
  }
  const expected = typ === "sixid-addresses" || typ === "sixid-presence" ? "alg,kid,typ" : "alg,typ,x5c";
  if (Object.keys(header).sort().join(",") !== expected) throw rejected("header");
  const { alg, x5c, kid } = header;
  if (typeof alg !== "string" || !ALGORITHMS.includes(alg)) throw rejected("algorithm");
  if (header["typ"] !== typ) throw rejected("typ");
  const bytes = Buffer.from(parts[1] ?? "", "base64url");
  if (bytes.length > maxBytes) throw rejected("size");
  let payload: string;
  let body: Canonical;
  try {
    // Fatal: bytes that are no UTF-8 would be replaced, and two different objects would have one hash.
    payload = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    body = parseCanonical(payload);
  } catch (cause) {
    throw rejected("canonical", cause);
  }
  if (kid !== undefined && typeof kid !== "string") throw rejected("header");
  return {
    jws,
    typ,
    payload,
    body,
    hash: payloadHash(payload),
    x5c: certificates(x5c),
    kid: kid as string | undefined,
    alg,
  };
}

/** @throws SuiteError record-rejected unless the key of `certificate` made the signature */
export async function checkSignature(signed: Unverified, certificate: Certificate): Promise<void> {
  if (algorithmOf(certificate) !== signed.alg) throw rejected("algorithm");
  try {
    await compactVerify(signed.jws, certificate.publicKey, { algorithms: [signed.alg] });
  } catch (cause) {
    throw rejected("signature", cause);
  }
}

export function rejected(
  step: string,
  cause?: unknown,
  details: Readonly<Record<string, string | number>> = {},
): SuiteError {
  return new SuiteError("record-rejected", "a signed object of the directory is not acceptable", {
    fault: "service",
    details: { step, ...details },
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The first certificate of an object that carries some. */
export function leafOf(signed: Unverified): Certificate {
  const leaf = signed.x5c[0];
  if (leaf === undefined) throw rejected("header");
  return leaf;
}

const ALGORITHMS = ["ES256", "ES384", "PS256", "Ed25519"];
const MAX_X5C = 9;

function certificates(x5c: unknown): Certificate[] {
  if (x5c === undefined) return [];
  if (!Array.isArray(x5c) || x5c.length === 0 || x5c.length > MAX_X5C) throw rejected("header");
  return x5c.map((one: unknown) => {
    if (typeof one !== "string") throw rejected("header");
    try {
      return parseCertificate(Buffer.from(one, "base64"));
    } catch (cause) {
      throw rejected("certificate", cause);
    }
  });
}

/** The one algorithm for a key: a key that could be used in two ways is used in one. */
function algorithmOf(certificate: Certificate): string {
  const key = keyOf(certificate);
  if (key.asymmetricKeyType === "ec") {
    if (key.asymmetricKeyDetails?.namedCurve === "prime256v1") return "ES256";
    if (key.asymmetricKeyDetails?.namedCurve === "secp384r1") return "ES384";
  }
  if (key.asymmetricKeyType === "rsa") return "PS256";
  if (key.asymmetricKeyType === "ed25519") return "Ed25519";
  throw rejected("algorithm");
}

/** A certificate's key is read when it is first used; one that is none makes the object unacceptable. */
function keyOf(certificate: Certificate): KeyObject {
  try {
    return certificate.publicKey;
  } catch (cause) {
    throw rejected("certificate", cause);
  }
}

/** Strict (RFC 4648 §3.5): one text of the same bytes, no spare bits, no padding. */
function isBase64url(text: string): boolean {
  return text !== "" && Buffer.from(text, "base64url").toString("base64url") === text;
}
