import { hash } from "node:crypto";
import { readAlgorithm } from "./algorithm.ts";
import type { Certificate } from "./certificate.ts";
import type { DerElement } from "./der.ts";
import * as der from "./der.ts";
import { encodeExtension, readExtensionList } from "./extension.ts";
import { digestAlgorithm, type Oid, ocspType } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";

/** Names a certificate by its serial number and hashes of its issuer's name and key (RFC 6960 §4.1.1). */
export interface CertId {
  /** What the hashes are; undefined: none that we compute, so that it names nothing to us. */
  readonly hash: OcspHash | undefined;
  readonly issuerNameHash: Uint8Array;
  readonly issuerKeyHash: Uint8Array;
  /** Content octets of the INTEGER. */
  readonly serial: Uint8Array;
  /** As it stood in the message: what an answer repeats. */
  readonly der: Uint8Array;
}

export type OcspHash = "sha1" | "sha256";

export interface OcspRequest {
  readonly ids: readonly CertId[];
  readonly nonce?: Uint8Array;
  /** Critical extensions that are not understood: such a request is not to be answered but by "malformedRequest". */
  readonly criticalUnknown: readonly Oid[];
}

const maxRequestBytes = 16 * 1024;
const maxIds = 16;
const maxSerialOctets = 32;
/** RFC 9654 §2.1. */
const maxNonceOctets = 128;

/**
 * An unsigned request about one certificate, as DER.
 * @param o.hash SHA-1 if absent: what every responder knows (RFC 5019 §2.1.1); it names, it proves nothing
 * @param o.nonce 32 random octets, if the answer has to be made for this request
 */
export function makeOcspRequest(o: {
  certificate: Certificate;
  issuer: Certificate;
  hash?: OcspHash;
  nonce?: Uint8Array;
}): Buffer {
  const id = encodeCertId(o.certificate.serial, o.issuer, o.hash ?? "sha1");
  const extensions = o.nonce === undefined ? [] : [der.explicit(2, der.sequence(encodeNonce(o.nonce)))];
  return der.sequence(der.sequence(der.sequence(der.sequence(id)), ...extensions));
}

/** Reads a request; a signature on it is passed over. Total: throws nothing but SuiteError "syntax". */
export function parseOcspRequest(bytes: Uint8Array): OcspRequest {
  if (bytes.length > maxRequestBytes) throw malformed("too long");
  const whole = new der.DerCursor(sequenceOf(der.readDer(new Uint8Array(bytes))));
  const cursor = new der.DerCursor(whole.next(der.tag.sequence).content);
  whole.optional(der.contextConstructed(0)); // optionalSignature
  whole.end();
  const version = cursor.optional(der.contextConstructed(0));
  if (version !== undefined && der.readSmallInteger(der.readDer(version.content)) !== 0) throw malformed("version");
  cursor.optional(der.contextConstructed(1)); // requestorName
  const list = new der.DerCursor(cursor.next(der.tag.sequence).content);
  const wrapped = cursor.optional(der.contextConstructed(2));
  cursor.end();

  const criticalUnknown: Oid[] = [];
  const ids: CertId[] = [];
  do {
    if (ids.length === maxIds) throw malformed("too many certificates");
    const one = new der.DerCursor(list.next(der.tag.sequence).content);
    ids.push(readCertId(one.next(der.tag.sequence)));
    const extensions = one.optional(der.contextConstructed(0));
    one.end();
    if (extensions !== undefined) readOcspExtensions(extensions, criticalUnknown);
  } while (!list.done);
  const nonce = wrapped === undefined ? undefined : readOcspExtensions(wrapped, criticalUnknown);
  return { ids, criticalUnknown, ...(nonce === undefined ? {} : { nonce }) };
}

/** Whether the id means the certificate with this serial number below `issuer`. */
export function isCertId(id: CertId, serial: Uint8Array, issuer: Certificate): boolean {
  if (id.hash === undefined || Buffer.compare(id.serial, serial) !== 0) return false;
  return (
    Buffer.compare(id.issuerNameHash, hash(id.hash, issuer.subjectDer, "buffer")) === 0 &&
    Buffer.compare(id.issuerKeyHash, hash(id.hash, issuer.key.keyBits, "buffer")) === 0
  );
}

/** CertID ::= SEQUENCE { hashAlgorithm, issuerNameHash, issuerKeyHash, serialNumber }. Throws SuiteError "syntax". */
export function readCertId(element: DerElement): CertId {
  const cursor = new der.DerCursor(element);
  const algorithm = readAlgorithm(cursor.next(der.tag.sequence));
  const issuerNameHash = der.readOctetString(cursor.next(der.tag.octetString));
  const issuerKeyHash = der.readOctetString(cursor.next(der.tag.octetString));
  const serial = der.integerContent(cursor.next(der.tag.integer));
  cursor.end();
  if (serial.length > maxSerialOctets) throw malformed("serial number too long");
  return { hash: hashes.get(algorithm.oid), issuerNameHash, issuerKeyHash, serial, der: element.bytes };
}

export function encodeCertId(serial: Uint8Array, issuer: Certificate, name: OcspHash): Buffer {
  return der.sequence(
    der.sequence(der.oid(digestAlgorithm[name]), der.nullValue()),
    der.octetString(hash(name, issuer.subjectDer, "buffer")),
    der.octetString(hash(name, issuer.key.keyBits, "buffer")),
    der.integer(serial),
  );
}

/** `[n] EXPLICIT Extensions` of any place in a request or response. @returns the nonce, if there is one */
export function readOcspExtensions(wrapped: DerElement, criticalUnknown: Oid[]): Uint8Array | undefined {
  let nonce: Uint8Array | undefined;
  for (const { type, critical, value } of readExtensionList(der.readDer(wrapped.content))) {
    if (type === ocspType.nonce) nonce = readNonce(value);
    else if (critical) criticalUnknown.push(type);
  }
  return nonce;
}

export function encodeNonce(nonce: Uint8Array): Buffer {
  return encodeExtension(ocspType.nonce, false, der.octetString(nonce));
}

function readNonce(value: Uint8Array): Uint8Array {
  const element = der.readDer(value);
  if (element.tag !== der.tag.octetString) throw malformed("nonce");
  if (element.content.length === 0 || element.content.length > maxNonceOctets) throw malformed("length of the nonce");
  return element.content;
}

const hashes: ReadonlyMap<Oid, OcspHash> = new Map<Oid, OcspHash>([
  [digestAlgorithm.sha1, "sha1"],
  [digestAlgorithm.sha256, "sha256"],
]);

function sequenceOf(element: DerElement): Uint8Array {
  if (element.tag !== der.tag.sequence) throw malformed("not a sequence");
  return element.content;
}

function malformed(what: string): SuiteError {
  return new SuiteError("syntax", "not a well-formed OCSP request", { fault: "peer", details: { what } });
}
