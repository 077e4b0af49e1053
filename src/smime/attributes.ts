import { hash } from "node:crypto";
import { readAlgorithm } from "../pki/algorithm.ts";
import type { Certificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import type { Oid } from "../pki/oid.ts";
import {
  aes128Gcm,
  aes256Gcm,
  aes256Wrap,
  contentType,
  digestOf,
  keyEncryption,
  oaepSha256Identifier,
} from "./algorithms.ts";
import { malformed } from "./failure.ts";
import type { Capabilities } from "./profile.ts";

const maxCapabilities = 128;

const attributeType = {
  contentType: "1.2.840.113549.1.9.3",
  messageDigest: "1.2.840.113549.1.9.4",
  signingTime: "1.2.840.113549.1.9.5",
  smimeCapabilities: "1.2.840.113549.1.9.15",
  signingCertificateV2: "1.2.840.113549.1.9.16.2.47",
} as const;

/** What the signer signed together with the content (RFC 5652 §11, RFC 5035). */
export interface SignedAttributes {
  readonly contentType: Oid;
  readonly messageDigest: Uint8Array;
  readonly signingTime?: Date;
  /** What the signer's program reads. */
  readonly capabilities?: Capabilities;
  /** The certificate that the signer meant. */
  readonly signingCertificate?: { readonly digest: "sha1" | "sha256" | "sha384" | "sha512"; readonly hash: Uint8Array };
}

/** Reads the members of SignedAttributes. Each attribute that matters stands once, with one value. */
export function readSignedAttributes(members: Uint8Array): SignedAttributes {
  const values = new Map<Oid, Uint8Array>();
  const cursor = new der.DerCursor(members);
  while (!cursor.done) {
    const attribute = new der.DerCursor(cursor.next(der.tag.sequence).content);
    const type = der.readOid(attribute.next(der.tag.oid));
    const set = attribute.next(der.tag.set).content;
    attribute.end();
    if (values.has(type)) throw malformed("attribute twice");
    values.set(type, set);
  }
  const type = values.get(attributeType.contentType);
  const digest = values.get(attributeType.messageDigest);
  if (type === undefined || digest === undefined) throw malformed("attribute missing"); // RFC 5652 §5.3
  const time = values.get(attributeType.signingTime);
  const certificate = values.get(attributeType.signingCertificateV2);
  const capabilities = values.get(attributeType.smimeCapabilities);
  return {
    contentType: der.readOid(der.readDer(type)),
    messageDigest: der.readOctetString(der.readDer(digest)),
    ...(time === undefined ? {} : { signingTime: der.readTime(der.readDer(time)) }),
    ...(certificate === undefined ? {} : { signingCertificate: readSigningCertificate(certificate) }),
    ...(capabilities === undefined ? {} : { capabilities: readCapabilities(capabilities) }),
  };
}

/** Whether the attributes let this certificate be the signer's: they need not name one. */
export function meantCertificate({ signingCertificate }: SignedAttributes, certificate: Certificate): boolean {
  if (signingCertificate === undefined) return true;
  const { digest, hash: expected } = signingCertificate;
  return Buffer.compare(hash(digest, certificate.der, "buffer"), expected) === 0;
}

/** The members of SignedAttributes, sorted as DER wants. */
export function signedAttributes(o: { certificate: Certificate; messageDigest: Uint8Array; now: Date }): Buffer {
  return Buffer.concat(
    [
      attribute(attributeType.contentType, der.oid(contentType.data)),
      attribute(attributeType.signingTime, der.time(o.now)),
      attribute(attributeType.messageDigest, der.octetString(o.messageDigest)),
      attribute(attributeType.signingCertificateV2, signingCertificateV2(o.certificate)),
      attribute(attributeType.smimeCapabilities, smimeCapabilities()),
    ].toSorted(Buffer.compare),
  );
}

function attribute(type: Oid, value: Uint8Array): Buffer {
  return der.sequence(der.oid(type), der.set(value));
}

/** SigningCertificateV2 (RFC 5035 §4) with SHA-256, its DEFAULT; issuer and serial stand in the SignerInfo already. */
function signingCertificateV2(certificate: Certificate): Buffer {
  const certHash = der.octetString(hash("sha256", certificate.der, "buffer"));
  return der.sequence(der.sequence(der.sequence(certHash)));
}

/** SMIMECapabilities (RFC 8551 §2.5.2): what this program opens, best first; AES without parameters. */
function smimeCapabilities(): Buffer {
  return der.sequence(
    der.sequence(der.oid(aes256Gcm.oid)),
    der.sequence(der.oid(aes128Gcm.oid)),
    der.sequence(der.oid(keyEncryption.stdDhSha256Kdf), der.sequence(der.oid(aes256Wrap.oid))),
    oaepSha256Identifier(),
  );
}

/** Of SMIMECapabilities (RFC 8551 §2.5.2) what the choice of algorithms depends on. */
function readCapabilities(value: Uint8Array): Capabilities {
  const cursor = new der.DerCursor(der.readDer(value).content);
  const oids = new Set<Oid>();
  while (!cursor.done) {
    if (oids.size === maxCapabilities) throw malformed("too many capabilities");
    oids.add(der.readOid(new der.DerCursor(cursor.next(der.tag.sequence).content).next(der.tag.oid)));
  }
  return { gcm: oids.has(aes256Gcm.oid), oaep: oids.has(keyEncryption.rsaesOaep) };
}

/** The first ESSCertIDv2 is the signer's certificate (RFC 5035 §3). */
function readSigningCertificate(value: Uint8Array): NonNullable<SignedAttributes["signingCertificate"]> {
  const certs = new der.DerCursor(der.readDer(value).content).next(der.tag.sequence);
  const id = new der.DerCursor(new der.DerCursor(certs.content).next(der.tag.sequence).content);
  const algorithm = id.optional(der.tag.sequence);
  const digest = algorithm === undefined ? "sha256" : digestOf(readAlgorithm(algorithm));
  if (digest === undefined) throw malformed("unknown hash of the signer's certificate");
  return { digest, hash: der.readOctetString(id.next(der.tag.octetString)) };
}
