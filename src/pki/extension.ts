import type { DerElement } from "./der.ts";
import * as der from "./der.ts";
import { type DistributionPoint, readDistributionPoint } from "./distribution-point.ts";
import { type GeneralName, readGeneralName, readGeneralNames } from "./general-name.ts";
import { accessMethod, extensionType, type Oid } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";

export type KeyUsage =
  | "digitalSignature"
  | "nonRepudiation"
  | "keyEncipherment"
  | "dataEncipherment"
  | "keyAgreement"
  | "keyCertSign"
  | "cRLSign"
  | "encipherOnly"
  | "decipherOnly";

/** In the order of their bits (RFC 5280 §4.2.1.3). */
export const keyUsageBits: readonly KeyUsage[] = [
  "digitalSignature",
  "nonRepudiation",
  "keyEncipherment",
  "dataEncipherment",
  "keyAgreement",
  "keyCertSign",
  "cRLSign",
  "encipherOnly",
  "decipherOnly",
];

export interface BasicConstraints {
  readonly ca: boolean;
  readonly pathLength?: number;
}

/** RFC 5280 §4.2.1.10. `minimum` is always 0 and `maximum` absent: anything else is refused as malformed. */
export interface NameConstraints {
  readonly permitted: readonly GeneralName[];
  readonly excluded: readonly GeneralName[];
}

/** RFC 5280 §4.2.1.5. */
export interface PolicyMapping {
  readonly issuerDomain: Oid;
  readonly subjectDomain: Oid;
}

/** RFC 5280 §4.2.1.11: after how many certificates below. */
export interface PolicyConstraints {
  readonly requireExplicit?: number;
  readonly inhibitMapping?: number;
}

/** What the known extensions of one certificate say. Absent extension, absent field. */
export interface Extensions {
  keyUsage?: ReadonlySet<KeyUsage>;
  extendedKeyUsage?: readonly Oid[];
  basicConstraints?: BasicConstraints;
  subjectAltNames: readonly GeneralName[];
  nameConstraints?: NameConstraints;
  subjectKeyId?: Uint8Array;
  authorityKeyId?: Uint8Array;
  policies?: readonly Oid[];
  policyMappings?: readonly PolicyMapping[];
  policyConstraints?: PolicyConstraints;
  /** Certificates below this one in which anyPolicy still counts. */
  inhibitAnyPolicy?: number;
  distributionPoints?: readonly DistributionPoint[];
  /** The http and other URLs of the distribution points' full names. */
  crlUrls: readonly string[];
  ocspUrls: readonly string[];
  /** Of an OCSP responder: nobody need ask whether it is revoked itself (RFC 6960 §4.2.2.2.1). */
  ocspNoCheck?: boolean;
  /** Critical extensions that this program cannot process: the path is refused. */
  criticalUnknown: readonly Oid[];
}

const maxExtensions = 64;
const maxSubjectAltNames = 256;
const maxSubtrees = 256;
const maxPolicies = 64;

/** Reads `Extensions ::= SEQUENCE OF Extension`. A duplicate, or a known one that is malformed, is an error. */
export function readExtensions(element: DerElement): Extensions {
  const extensions: Extensions = { subjectAltNames: [], crlUrls: [], ocspUrls: [], criticalUnknown: [] };
  const criticalUnknown: Oid[] = [];
  for (const { type, critical, value } of readExtensionList(element)) {
    const read = readers.get(type);
    if (read !== undefined) read(der.readDer(value), extensions);
    else if (critical) criticalUnknown.push(type);
  }
  extensions.criticalUnknown = criticalUnknown;
  return extensions;
}

export interface Extension {
  readonly type: Oid;
  readonly critical: boolean;
  /** Content of extnValue. */
  readonly value: Uint8Array;
}

/** Reads `SEQUENCE SIZE (1..64) OF Extension`, of whatever carries them; none of them twice. Throws SuiteError "syntax". */
export function readExtensionList(element: DerElement): Extension[] {
  const found: Extension[] = [];
  const seen = new Set<Oid>();
  const cursor = new der.DerCursor(expect(element, der.tag.sequence));
  do {
    const extension = readExtension(cursor.next(der.tag.sequence));
    if (seen.has(extension.type)) throw malformed("duplicate extension");
    if (seen.add(extension.type).size > maxExtensions) throw malformed("too many extensions");
    found.push(extension);
  } while (!cursor.done);
  return found;
}

/** One Extension to write. */
export function encodeExtension(type: Oid, critical: boolean, value: Uint8Array): Buffer {
  const flag = critical ? [der.boolean(true)] : [];
  return der.sequence(der.oid(type), ...flag, der.octetString(value));
}

/** KeyUsage as the shortest BIT STRING (X.690 §11.2.2). */
export function encodeKeyUsage(usages: readonly KeyUsage[]): Buffer {
  const bits = usages.map((usage) => keyUsageBits.indexOf(usage));
  const last = Math.max(...bits);
  const octets = Buffer.alloc((last >> 3) + 1);
  for (const bit of bits) octets[bit >> 3] = (octets[bit >> 3] ?? 0) | (0x80 >> (bit & 7));
  return der.bitString(octets, 7 - (last & 7));
}

function readExtension(element: DerElement): Extension {
  const cursor = new der.DerCursor(element);
  const type = der.readOid(cursor.next(der.tag.oid));
  const flag = cursor.optional(der.tag.boolean);
  const value = der.readOctetString(cursor.next(der.tag.octetString));
  cursor.end();
  return { type, critical: flag !== undefined && der.readBoolean(flag), value };
}

const readers: ReadonlyMap<Oid, (value: DerElement, into: Extensions) => void> = new Map([
  [extensionType.keyUsage, readKeyUsage],
  [extensionType.extendedKeyUsage, readExtendedKeyUsage],
  [extensionType.basicConstraints, readBasicConstraints],
  [extensionType.subjectAltName, readSubjectAltName],
  [extensionType.nameConstraints, readNameConstraints],
  [extensionType.subjectKeyIdentifier, readSubjectKeyIdentifier],
  [extensionType.authorityKeyIdentifier, readAuthorityKeyIdentifier],
  [extensionType.certificatePolicies, readCertificatePolicies],
  [extensionType.policyMappings, readPolicyMappings],
  [extensionType.policyConstraints, readPolicyConstraints],
  [extensionType.inhibitAnyPolicy, readInhibitAnyPolicy],
  [extensionType.crlDistributionPoints, readCrlDistributionPoints],
  [extensionType.authorityInfoAccess, readAuthorityInfoAccess],
  [extensionType.ocspNoCheck, (_, into) => void (into.ocspNoCheck = true)],
]);

function readKeyUsage(value: DerElement, into: Extensions): void {
  const { bytes } = der.readBitString(expect(value, der.tag.bitString));
  into.keyUsage = new Set(keyUsageBits.filter((_, bit) => (bytes[bit >> 3] ?? 0) & (0x80 >> (bit & 7))));
}

function readExtendedKeyUsage(value: DerElement, into: Extensions): void {
  into.extendedKeyUsage = members(value, maxPolicies).map((element) => der.readOid(expect(element, der.tag.oid)));
}

function readBasicConstraints(value: DerElement, into: Extensions): void {
  const cursor = new der.DerCursor(expect(value, der.tag.sequence));
  const flag = cursor.optional(der.tag.boolean);
  const limit = cursor.optional(der.tag.integer);
  cursor.end();
  const ca = flag !== undefined && der.readBoolean(flag);
  if (limit === undefined) {
    into.basicConstraints = { ca };
    return;
  }
  const pathLength = der.readInteger(limit);
  if (pathLength < 0n) throw malformed("negative path length");
  into.basicConstraints = { ca, pathLength: Number(pathLength < 1000n ? pathLength : 1000n) };
}

function readSubjectAltName(value: DerElement, into: Extensions): void {
  into.subjectAltNames = readGeneralNames(expect(value, der.tag.sequence).content, maxSubjectAltNames);
}

function readNameConstraints(value: DerElement, into: Extensions): void {
  const cursor = new der.DerCursor(expect(value, der.tag.sequence));
  const permitted = cursor.optional(der.contextConstructed(0));
  const excluded = cursor.optional(der.contextConstructed(1));
  cursor.end();
  into.nameConstraints = { permitted: readSubtrees(permitted), excluded: readSubtrees(excluded) };
}

function readSubtrees(element: DerElement | undefined): GeneralName[] {
  if (element === undefined) return [];
  return members(element, maxSubtrees).map((subtree) => {
    const cursor = new der.DerCursor(expect(subtree, der.tag.sequence));
    const base = readGeneralName(cursor.next());
    const minimum = cursor.optional(der.contextPrimitive(0)); // an explicit DEFAULT is read
    if (minimum !== undefined && der.readInteger(minimum) !== 0n) throw malformed("subtree with a minimum");
    cursor.end();
    return base;
  });
}

function readSubjectKeyIdentifier(value: DerElement, into: Extensions): void {
  into.subjectKeyId = der.readOctetString(expect(value, der.tag.octetString));
}

function readAuthorityKeyIdentifier(value: DerElement, into: Extensions): void {
  const cursor = new der.DerCursor(expect(value, der.tag.sequence));
  const keyId = cursor.optional(der.contextPrimitive(0));
  cursor.optional(der.contextConstructed(1));
  cursor.optional(der.contextPrimitive(2));
  cursor.end();
  if (keyId !== undefined) into.authorityKeyId = keyId.content;
}

function readCertificatePolicies(value: DerElement, into: Extensions): void {
  into.policies = members(expect(value, der.tag.sequence), maxPolicies).map((element) => {
    const cursor = new der.DerCursor(expect(element, der.tag.sequence));
    return der.readOid(cursor.next(der.tag.oid));
  });
}

function readPolicyMappings(value: DerElement, into: Extensions): void {
  into.policyMappings = members(expect(value, der.tag.sequence), maxPolicies).map((element) => {
    const cursor = new der.DerCursor(expect(element, der.tag.sequence));
    const issuerDomain = der.readOid(cursor.next(der.tag.oid));
    const subjectDomain = der.readOid(cursor.next(der.tag.oid));
    cursor.end();
    return { issuerDomain, subjectDomain };
  });
}

function readPolicyConstraints(value: DerElement, into: Extensions): void {
  const cursor = new der.DerCursor(expect(value, der.tag.sequence));
  const requireExplicit = cursor.optional(der.contextPrimitive(0));
  const inhibitMapping = cursor.optional(der.contextPrimitive(1));
  cursor.end();
  into.policyConstraints = {
    ...(requireExplicit === undefined ? {} : { requireExplicit: skipCerts(requireExplicit) }),
    ...(inhibitMapping === undefined ? {} : { inhibitMapping: skipCerts(inhibitMapping) }),
  };
}

function readInhibitAnyPolicy(value: DerElement, into: Extensions): void {
  into.inhibitAnyPolicy = skipCerts(expect(value, der.tag.integer));
}

/** A number of certificates; more than a path can have is as good as any. */
function skipCerts(element: DerElement): number {
  const count = der.readInteger(element);
  if (count < 0n) throw malformed("negative number of certificates");
  return Number(count < 1000n ? count : 1000n);
}

function readCrlDistributionPoints(value: DerElement, into: Extensions): void {
  into.distributionPoints = members(expect(value, der.tag.sequence), maxPolicies).map((point) =>
    readDistributionPoint(expect(point, der.tag.sequence)),
  );
  into.crlUrls = into.distributionPoints.flatMap(({ fullName = [] }) =>
    fullName.flatMap((name) => (name.type === "uri" ? name.text : [])),
  );
}

function readAuthorityInfoAccess(value: DerElement, into: Extensions): void {
  const urls: string[] = [];
  for (const description of members(expect(value, der.tag.sequence), maxPolicies)) {
    const cursor = new der.DerCursor(expect(description, der.tag.sequence));
    const method = der.readOid(cursor.next(der.tag.oid));
    const location = readGeneralName(cursor.next());
    if (method === accessMethod.ocsp && location.type === "uri") urls.push(location.text);
  }
  into.ocspUrls = urls;
}

/** SEQUENCE SIZE (1..limit). */
function members(element: DerElement, limit: number): DerElement[] {
  const found: DerElement[] = [];
  const cursor = new der.DerCursor(element);
  do {
    if (found.length === limit) throw malformed("too many members");
    found.push(cursor.next());
  } while (!cursor.done);
  return found;
}

function expect(element: DerElement, tag: number): DerElement {
  if (element.tag !== tag) throw malformed("unexpected type");
  return element;
}

function malformed(what: string): SuiteError {
  return new SuiteError("syntax", "not a well-formed extension", { fault: "peer", details: { what } });
}
