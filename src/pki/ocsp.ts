import { hash } from "node:crypto";
import {
  type AlgorithmIdentifier,
  type AlgorithmPolicy,
  readAlgorithm,
  standardAlgorithms,
  verifySignature,
} from "./algorithm.ts";
import { type Certificate, parseCertificate } from "./certificate.ts";
import type { DerElement } from "./der.ts";
import * as der from "./der.ts";
import { type CrlReason, crlReasons } from "./distribution-point.ts";
import { type Name, readName, sameName } from "./name.ts";
import { type CertId, isCertId, readCertId, readOcspExtensions } from "./ocsp-request.ts";
import { extendedKeyUsage, type Oid, ocspType } from "./oid.ts";
import { type RevocationCheck, type TrustAnchor, validatePath } from "./path.ts";
import { clockSkewMs, type RevocationStatus } from "./revocation.ts";
import { SuiteError } from "./suite-error.ts";

/** OCSPResponseStatus (RFC 6960 §4.2.1) by code. */
export const ocspResponseStatuses = {
  0: "successful",
  1: "malformedRequest",
  2: "internalError",
  3: "tryLater",
  5: "sigRequired",
  6: "unauthorized",
} as const;

export type OcspResponseStatus = (typeof ocspResponseStatuses)[keyof typeof ocspResponseStatuses];

/** A response as it reads: nothing in it is verified before `ocspStatus`. */
export interface OcspResponse {
  readonly der: Uint8Array;
  readonly status: OcspResponseStatus;
  /** Of a successful one. */
  readonly basic?: BasicOcspResponse;
}

export interface BasicOcspResponse {
  readonly responder: { readonly name: Name } | { readonly keyHash: Uint8Array };
  readonly producedAt: Date;
  readonly answers: readonly OcspAnswer[];
  readonly nonce?: Uint8Array;
  /** Critical extensions of the whole that are not understood: then nothing in it counts. */
  readonly criticalUnknown: readonly Oid[];
  /** Certificates among which the responder's may be. */
  readonly certificates: readonly Certificate[];
  readonly signatureAlgorithm: AlgorithmIdentifier;
  /** What is signed. */
  readonly tbs: Uint8Array;
  readonly signature: Uint8Array;
}

/** SingleResponse. */
export interface OcspAnswer {
  readonly id: CertId;
  readonly status:
    | { readonly status: "good" }
    | { readonly status: "unknown" }
    | { readonly status: "revoked"; readonly reason: CrlReason; readonly since: Date };
  readonly thisUpdate: Date;
  readonly nextUpdate?: Date;
  readonly criticalUnknown: readonly Oid[];
}

export interface OcspQuestion {
  readonly certificate: Certificate;
  /** The certificate above it in its path, which is known to be good. */
  readonly issuer: Certificate;
  readonly anchor: TrustAnchor;
  readonly time: Date;
  /** How long an answer counts past its nextUpdate. */
  readonly graceMs: number;
  readonly algorithms?: AlgorithmPolicy;
  /** What was sent: an answer with another one is not for us. Many responders repeat none (RFC 9654 §2.1). */
  readonly nonce?: Uint8Array;
  /** Asked of a responder to which the issuer delegated, unless its certificate says that nobody need ask. */
  readonly revocation?: RevocationCheck;
}

const maxBytes = 256 * 1024;
const maxAnswers = 64;
const maxCertificates = 8;

/** Reads a response, basic or an error. Total: throws nothing but SuiteError "certificate-malformed". */
export function parseOcspResponse(bytes: Uint8Array): OcspResponse {
  if (bytes.length > maxBytes) throw malformed("too long");
  try {
    return readResponse(new Uint8Array(bytes));
  } catch (cause) {
    if (cause instanceof SuiteError && cause.code === "syntax") throw malformed("syntax", cause);
    throw cause;
  }
}

/**
 * What the response says of the certificate, if it is signed by the certificate's issuer or by whom the issuer itself
 * certified for that (RFC 6960 §3.2, §4.2.2.2); "unknown" if it says nothing that counts. A revocation counts even if the
 * answer is too old. Total.
 */
export function ocspStatus(response: OcspResponse, question: OcspQuestion): RevocationStatus {
  const finding = verifyOcsp(response, question);
  return finding === undefined ? { status: "unknown" } : ocspStatusAt(finding, question);
}

/** What a response says of one certificate, its signature verified: its status at any time is told by `ocspStatusAt`. */
export interface OcspFinding {
  readonly answers: readonly OcspAnswer[];
  /** Who signed it, if not the issuer. */
  readonly delegate: Certificate | undefined;
}

/** Undefined if nothing in the response counts for the certificate. Total. */
export function verifyOcsp({ basic }: OcspResponse, question: OcspQuestion): OcspFinding | undefined {
  const { certificate, issuer, nonce } = question;
  if (basic === undefined || basic.criticalUnknown.length > 0) return undefined;
  if (nonce !== undefined && basic.nonce !== undefined && Buffer.compare(nonce, basic.nonce) !== 0) return undefined;
  const answers = basic.answers.filter(
    ({ id, criticalUnknown }) => criticalUnknown.length === 0 && isCertId(id, certificate.serial, issuer),
  );
  if (answers.length === 0) return undefined;
  const algorithms = question.algorithms ?? standardAlgorithms;
  const signs = (one: Certificate) => isResponder(one, basic.responder) && verifies(one, basic, algorithms);
  if (signs(issuer)) return { answers, delegate: undefined };
  const delegate = basic.certificates.find((one) => isDelegate(one, question) && signs(one));
  return delegate === undefined ? undefined : { answers, delegate };
}

/** Good only if all answers say so and one of them is current; "unknown" if the responder does not know the certificate. */
export function ocspStatusAt({ answers }: OcspFinding, when: Pick<OcspQuestion, "time" | "graceMs">): RevocationStatus {
  for (const { status } of answers) if (status.status === "revoked") return status;
  if (answers.some(({ status }) => status.status === "unknown")) return { status: "unknown" };
  return { status: answers.some((answer) => current(answer, when)) ? "good" : "stale" };
}

function current({ thisUpdate, nextUpdate }: OcspAnswer, { time, graceMs }: Pick<OcspQuestion, "time" | "graceMs">) {
  // Without a nextUpdate there is always something newer (RFC 6960 §4.2.2.1): good for now only.
  const end = nextUpdate?.getTime() ?? thisUpdate.getTime() + clockSkewMs;
  return thisUpdate.getTime() <= time.getTime() + clockSkewMs && time.getTime() <= end + graceMs;
}

/** Certified by the issuer itself, for this and nothing that includes it by the way; within its time. */
function isDelegate(one: Certificate, question: OcspQuestion): boolean {
  const { issuer, anchor, time, algorithms, revocation } = question;
  if (one.extendedKeyUsage?.includes(extendedKeyUsage.ocspSigning) !== true) return false;
  if (one.keyUsage?.has("digitalSignature") === false) return false;
  const result = validatePath({
    leaf: one,
    candidates: [],
    anchors: [{ name: anchor.name, certificate: issuer }],
    time,
    purpose: "any",
    ...(algorithms === undefined ? {} : { algorithms }),
    ...(revocation === undefined || one.ocspNoCheck ? {} : { revocation }),
  });
  return result.ok;
}

function isResponder(one: Certificate, responder: BasicOcspResponse["responder"]): boolean {
  if ("name" in responder) return sameName(one.subject, responder.name);
  return Buffer.compare(hash("sha1", one.key.keyBits, "buffer"), responder.keyHash) === 0;
}

function verifies(one: Certificate, basic: BasicOcspResponse, algorithms: AlgorithmPolicy): boolean {
  try {
    return verifySignature(basic.signatureAlgorithm, one.publicKey, basic.tbs, basic.signature, algorithms);
  } catch {
    return false; // a key that cannot be loaded
  }
}

/** OCSPResponse ::= SEQUENCE { responseStatus, responseBytes [0] EXPLICIT OPTIONAL }. */
function readResponse(bytes: Uint8Array): OcspResponse {
  const cursor = new der.DerCursor(expect(der.readDer(bytes), der.tag.sequence));
  const code = der.readSmallInteger(cursor.next(der.tag.enumerated));
  const wrapped = cursor.optional(der.contextConstructed(0));
  cursor.end();
  const status = ocspResponseStatuses[code as keyof typeof ocspResponseStatuses];
  if (status === undefined) throw malformed("unknown status");
  if (status !== "successful") return { der: bytes, status };
  if (wrapped === undefined) throw malformed("successful without a response");
  const inner = new der.DerCursor(expect(der.readDer(wrapped.content), der.tag.sequence));
  if (der.readOid(inner.next(der.tag.oid)) !== ocspType.basicResponse) throw malformed("unknown type of response");
  const basic = readBasic(der.readDer(der.readOctetString(inner.next(der.tag.octetString))));
  inner.end();
  return { der: bytes, status, basic };
}

/** BasicOCSPResponse ::= SEQUENCE { tbsResponseData, signatureAlgorithm, signature, certs [0] EXPLICIT OPTIONAL }. */
function readBasic(element: DerElement): BasicOcspResponse {
  const outer = new der.DerCursor(expect(element, der.tag.sequence));
  const tbs = outer.next(der.tag.sequence);
  const signatureAlgorithm = readAlgorithm(outer.next(der.tag.sequence));
  const signature = der.readBitString(outer.next(der.tag.bitString));
  const certs = outer.optional(der.contextConstructed(0));
  outer.end();
  if (signature.unused !== 0) throw malformed("signature of odd bits");

  const cursor = new der.DerCursor(tbs);
  const version = cursor.optional(der.contextConstructed(0));
  if (version !== undefined && der.readSmallInteger(der.readDer(version.content)) !== 0) throw malformed("version");
  const responder = readResponder(cursor.next());
  const producedAt = der.readTime(cursor.next(der.tag.generalizedTime));
  const answers = members(cursor.next(der.tag.sequence), maxAnswers).map(readAnswer);
  const wrapped = cursor.optional(der.contextConstructed(1));
  cursor.end();
  const criticalUnknown: Oid[] = [];
  const nonce = wrapped === undefined ? undefined : readOcspExtensions(wrapped, criticalUnknown);
  const list = certs === undefined ? [] : members(der.readDer(certs.content), maxCertificates);
  return {
    responder,
    producedAt,
    answers,
    ...(nonce === undefined ? {} : { nonce }),
    criticalUnknown,
    certificates: list.map(({ bytes }) => parseCertificate(bytes)),
    signatureAlgorithm,
    tbs: tbs.bytes,
    signature: signature.bytes,
  };
}

function readResponder(element: DerElement): BasicOcspResponse["responder"] {
  const inner = der.readDer(element.content);
  if (element.tag === der.contextConstructed(1)) return { name: readName(inner) };
  if (element.tag !== der.contextConstructed(2)) throw malformed("responder");
  return { keyHash: expect(inner, der.tag.octetString) };
}

function readAnswer(element: DerElement): OcspAnswer {
  const cursor = new der.DerCursor(expect(element, der.tag.sequence));
  const id = readCertId(cursor.next(der.tag.sequence));
  const status = readStatus(cursor.next());
  const thisUpdate = der.readTime(cursor.next(der.tag.generalizedTime));
  const next = cursor.optional(der.contextConstructed(0));
  const wrapped = cursor.optional(der.contextConstructed(1));
  cursor.end();
  const criticalUnknown: Oid[] = [];
  if (wrapped !== undefined) readOcspExtensions(wrapped, criticalUnknown);
  const nextUpdate = next === undefined ? {} : { nextUpdate: generalizedTime(der.readDer(next.content)) };
  return { id, status, thisUpdate, ...nextUpdate, criticalUnknown };
}

/** CertStatus ::= CHOICE { good [0] NULL, revoked [1] { revocationTime, [0] EXPLICIT CRLReason }, unknown [2] NULL }. */
function readStatus(element: DerElement): OcspAnswer["status"] {
  if (element.tag === der.contextPrimitive(0)) return { status: "good" };
  if (element.tag === der.contextPrimitive(2)) return { status: "unknown" };
  if (element.tag !== der.contextConstructed(1)) throw malformed("status of a certificate");
  const cursor = new der.DerCursor(element);
  const since = generalizedTime(cursor.next());
  const wrapped = cursor.optional(der.contextConstructed(0));
  cursor.end();
  const code = wrapped === undefined ? 0 : readReason(der.readDer(wrapped.content));
  return { status: "revoked", reason: crlReasons[code as keyof typeof crlReasons] ?? "unspecified", since };
}

function readReason(element: DerElement): number {
  if (element.tag !== der.tag.enumerated) throw malformed("reason");
  return der.readSmallInteger(element);
}

function generalizedTime(element: DerElement): Date {
  if (element.tag !== der.tag.generalizedTime) throw malformed("time");
  return der.readTime(element);
}

/** SEQUENCE OF, at most `limit`. */
function members(element: DerElement, limit: number): DerElement[] {
  const found: DerElement[] = [];
  const cursor = new der.DerCursor(expect(element, der.tag.sequence));
  while (!cursor.done) {
    if (found.length === limit) throw malformed("too many members");
    found.push(cursor.next());
  }
  return found;
}

function expect(element: DerElement, tag: number): Uint8Array {
  if (element.tag !== tag) throw malformed("unexpected type");
  return element.content;
}

function malformed(what: string, cause?: unknown): SuiteError {
  return new SuiteError("certificate-malformed", "not a well-formed OCSP response", {
    fault: "peer",
    details: { what },
    ...(cause === undefined ? {} : { cause }),
  });
}
