import { createPublicKey, hash, type KeyObject } from "node:crypto";
import { type AlgorithmIdentifier, type KeyInfo, type KeyType, readAlgorithm, readKeyInfo } from "./algorithm.ts";
import { shownText } from "./character-string.ts";
import * as der from "./der.ts";
import type { DistributionPoint } from "./distribution-point.ts";
import {
  type Extensions,
  type KeyUsage,
  type NameConstraints,
  type PolicyConstraints,
  type PolicyMapping,
  readExtensions,
} from "./extension.ts";
import type { GeneralName } from "./general-name.ts";
import { type Identity, parseIdentity } from "./identity.ts";
import { attributeTexts, type Name, readName } from "./name.ts";
import { attributeType, type Oid } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";
import type { Window } from "./time.ts";
import { allowsPurpose } from "./usage.ts";

/** SHA-256 of a SubjectPublicKeyInfo, 64 lower-case hex digits: names a key, hence a device. */
export type Fingerprint = string & { readonly __brand: "Fingerprint" };

/** An X.509 certificate as it reads: nothing in it is verified. Immutable; its bytes are its own copy. */
export interface Certificate {
  readonly der: Uint8Array;
  /** SHA-256 of `der`, 64 lower-case hex digits. */
  readonly sha256: string;
  readonly fingerprint: Fingerprint;
  /** DER of the SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
  /** Made when first asked for. Throws SuiteError "certificate-malformed" if the key is none that can be loaded. */
  readonly publicKey: KeyObject;
  readonly keyType: KeyType;
  readonly key: KeyInfo;
  /** Content octets of the INTEGER, two's complement. */
  readonly serial: Uint8Array;
  readonly issuer: Name;
  readonly subject: Name;
  /** The DER of the names, for whoever has to repeat them octet by octet. */
  readonly issuerDer: Uint8Array;
  readonly subjectDer: Uint8Array;
  readonly validity: Window;
  readonly signatureAlgorithm: AlgorithmIdentifier;
  /** Whether the signed and the unsigned copy of the algorithm are the same octets (RFC 5280 §4.1.1.2). */
  readonly algorithmsAgree: boolean;
  /** What is signed. */
  readonly tbs: Uint8Array;
  readonly signature: Uint8Array;
  readonly keyUsage?: ReadonlySet<KeyUsage>;
  readonly extendedKeyUsage?: readonly Oid[];
  readonly basicConstraints?: { readonly ca: boolean; readonly pathLength?: number };
  readonly nameConstraints?: NameConstraints;
  readonly subjectAltNames: readonly GeneralName[];
  readonly subjectKeyId?: Uint8Array;
  readonly authorityKeyId?: Uint8Array;
  readonly policies?: readonly Oid[];
  readonly policyMappings?: readonly PolicyMapping[];
  readonly policyConstraints?: PolicyConstraints;
  readonly inhibitAnyPolicy?: number;
  readonly distributionPoints?: readonly DistributionPoint[];
  readonly crlUrls: readonly string[];
  readonly ocspUrls: readonly string[];
  readonly ocspNoCheck?: boolean;
  /** Critical extensions that this program cannot process. */
  readonly criticalUnknown: readonly Oid[];
}

/** Where in the certificate an identity stands, the preferred place first. */
export type IdentitySource = "rfc822Name" | "smtpUtf8" | "emailAddress" | "uid" | "sipUri";

/** What a certificate says about a person or device. */
export interface PeerCertificate {
  readonly certificate: Certificate;
  readonly der: Uint8Array;
  readonly sha256: string;
  readonly fingerprint: Fingerprint;
  /** In the order of preference, each identity once. Empty if none of its names is an identity. */
  readonly identities: readonly { readonly identity: Identity; readonly source: IdentitySource }[];
  /** Cleaned for showing, at most 128 characters. */
  readonly commonName?: string;
  readonly organisation?: string;
  /** Whether the common name names a person: it is there, and is no mail address. */
  readonly named: boolean;
  readonly validity: Window;
  readonly crlUrls: readonly string[];
  readonly ocspUrls: readonly string[];
  readonly uses: { readonly peer: boolean; readonly sign: boolean; readonly seal: boolean };
}

const maxCertificateBytes = 32 * 1024;
const maxSerialOctets = 32;

/** Reads one certificate, no byte more. Total: throws nothing but SuiteError "certificate-malformed". */
export function parseCertificate(bytes: Uint8Array): Certificate {
  if (bytes.length > maxCertificateBytes) throw malformed("too long");
  try {
    return readCertificate(new Uint8Array(bytes));
  } catch (cause) {
    if (cause instanceof SuiteError) throw malformed("syntax", cause);
    throw cause;
  }
}

/** Who the certificate says it is. Total: a name that is no identity is passed over. */
export function peerCertificate(certificate: Certificate): PeerCertificate {
  const commonName = firstShown(certificate.subject, attributeType.commonName);
  const organisation = firstShown(certificate.subject, attributeType.organizationName);
  return {
    certificate,
    der: certificate.der,
    sha256: certificate.sha256,
    fingerprint: certificate.fingerprint,
    identities: identitiesIn(certificate),
    ...(commonName ? { commonName } : {}),
    ...(organisation ? { organisation } : {}),
    named: commonName !== undefined && commonName !== "" && !commonName.includes("@"),
    validity: certificate.validity,
    crlUrls: certificate.crlUrls,
    ocspUrls: certificate.ocspUrls,
    uses: {
      peer: allowsPurpose(certificate, "peer"),
      sign: allowsPurpose(certificate, "sign"),
      seal: allowsPurpose(certificate, "seal"),
    },
  };
}

function firstShown(name: Name, type: Oid): string | undefined {
  const [text] = attributeTexts(name, type);
  return text === undefined ? undefined : shownText(text);
}

/** The identities that names say, the preferred place first. */
export function identitiesIn({
  subject,
  subjectAltNames,
}: Pick<Certificate, "subject" | "subjectAltNames">): PeerCertificate["identities"] {
  const found = new Map<string, { identity: Identity; source: IdentitySource }>();
  const add = (source: IdentitySource, text: string) => {
    if (found.has(text)) return; // one address in several places is the rule: it is read once
    const identity = identityOrNone(text);
    if (identity !== undefined && !found.has(identity)) found.set(identity, { identity, source });
  };
  for (const name of subjectAltNames) if (name.type === "rfc822Name") add("rfc822Name", name.text);
  for (const name of subjectAltNames) if (name.type === "smtpUtf8Mailbox") add("smtpUtf8", name.text);
  for (const text of attributeTexts(subject, attributeType.emailAddress)) add("emailAddress", text);
  for (const text of attributeTexts(subject, attributeType.userId)) add("uid", text);
  for (const name of subjectAltNames)
    if (name.type === "uri") for (const text of sipUser(name.text)) add("sipUri", text);
  return [...found.values()];
}

/** `sip:user@host` or `sips:user@host`: what stands between. A URI without user speaks for a domain, not a person. */
function sipUser(uri: string): string[] {
  const [, user, host] = /^sips?:([^@:;?]+)@([^@:;?]+)$/i.exec(uri) ?? [];
  if (user === undefined || host === undefined) return [];
  try {
    return [`${decodeURIComponent(user)}@${host}`];
  } catch {
    return [];
  }
}

function identityOrNone(text: string): Identity | undefined {
  try {
    return parseIdentity(text);
  } catch {
    return undefined;
  }
}

/** Throws SuiteError "syntax" unless the text is 64 hex digits, with or without `sha256:` before them. */
export function parseFingerprint(text: string): Fingerprint {
  const match = /^(?:sha256:)?([0-9a-f]{64})$/i.exec(text);
  if (match?.[1] === undefined) throw new SuiteError("syntax", "not a fingerprint", { fault: "peer" });
  return match[1].toLowerCase() as Fingerprint;
}

/** Of a public key, or of the public part of a private one (through `createPublicKey`, at the caller's). */
export function fingerprintOf(publicKey: KeyObject): Fingerprint {
  const key = publicKey.type === "private" ? createPublicKey(publicKey) : publicKey;
  return fingerprintOfSpki(key.export({ type: "spki", format: "der" }));
}

export function fingerprintOfSpki(spki: Uint8Array): Fingerprint {
  return hash("sha256", spki, "hex") as Fingerprint;
}

/** Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signature } (RFC 5280 §4.1). */
function readCertificate(bytes: Uint8Array): Certificate {
  const whole = der.readDer(bytes);
  if (whole.tag !== der.tag.sequence) throw malformed("not a sequence");
  der.checkDepth(whole);
  const outer = new der.DerCursor(whole);
  const tbs = outer.next(der.tag.sequence);
  const signatureAlgorithm = readAlgorithm(outer.next(der.tag.sequence));
  const signature = der.readBitString(outer.next(der.tag.bitString));
  outer.end();
  if (signature.unused !== 0) throw malformed("signature of odd bits");

  const cursor = new der.DerCursor(tbs);
  const version = readVersion(cursor.optional(der.contextConstructed(0)));
  const serial = der.integerContent(cursor.next(der.tag.integer));
  if (serial.length > maxSerialOctets) throw malformed("serial number too long");
  const innerAlgorithm = cursor.next(der.tag.sequence).bytes;
  const issuer = readName(cursor.next(der.tag.sequence));
  const validity = readValidity(cursor.next(der.tag.sequence));
  const subject = readName(cursor.next(der.tag.sequence));
  const spki = cursor.next(der.tag.sequence);
  const key = readKeyInfo(spki);
  cursor.optional(der.contextPrimitive(1)); // issuerUniqueID
  cursor.optional(der.contextPrimitive(2)); // subjectUniqueID
  const wrapped = cursor.optional(der.contextConstructed(3));
  cursor.end();
  if (wrapped !== undefined && version !== 2) throw malformed("extensions before version 3");
  const extensions = wrapped === undefined ? undefined : readExtensions(der.readDer(wrapped.content));

  return Object.assign(new Keys(bytes, spki.bytes), {
    key,
    keyType: key.keyType,
    serial,
    issuer,
    subject,
    issuerDer: issuer.der,
    subjectDer: subject.der,
    validity,
    signatureAlgorithm,
    algorithmsAgree: Buffer.compare(innerAlgorithm, signatureAlgorithm.der) === 0,
    tbs: tbs.bytes,
    signature: signature.bytes,
    ...(extensions ?? noExtensions),
  });
}

const noExtensions: Extensions = { subjectAltNames: [], crlUrls: [], ocspUrls: [], criticalUnknown: [] };

/** What costs something, computed when first asked for. On a prototype: all certificates are of one shape, and quick to read. */
class Keys {
  readonly der: Uint8Array;
  readonly spki: Uint8Array;
  #sha256: string | undefined;
  #fingerprint: Fingerprint | undefined;
  #publicKey: KeyObject | undefined;

  constructor(bytes: Uint8Array, spki: Uint8Array) {
    this.der = bytes;
    this.spki = spki;
  }

  get sha256(): string {
    return (this.#sha256 ??= hash("sha256", this.der, "hex"));
  }

  get fingerprint(): Fingerprint {
    return (this.#fingerprint ??= fingerprintOfSpki(this.spki));
  }

  get publicKey(): KeyObject {
    return (this.#publicKey ??= loadKey(this.spki));
  }
}

function loadKey(spki: Uint8Array): KeyObject {
  try {
    return createPublicKey({ key: Buffer.from(spki), format: "der", type: "spki" });
  } catch (cause) {
    throw malformed("public key", cause);
  }
}

function readVersion(wrapped: der.DerElement | undefined): number {
  if (wrapped === undefined) return 0;
  const cursor = new der.DerCursor(wrapped);
  const version = der.readSmallInteger(cursor.next(der.tag.integer));
  cursor.end();
  if (version < 0 || version > 2) throw malformed("unknown version");
  return version;
}

function readValidity(element: der.DerElement): Window {
  const cursor = new der.DerCursor(element);
  const notBefore = der.readTime(cursor.next());
  const notAfter = der.readTime(cursor.next());
  cursor.end();
  return { notBefore, notAfter };
}

function malformed(what: string, cause?: unknown): SuiteError {
  return new SuiteError("certificate-malformed", "not a well-formed certificate", {
    fault: "peer",
    details: { what },
    ...(cause === undefined ? {} : { cause }),
  });
}
