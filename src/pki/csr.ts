import { createPublicKey, type KeyObject } from "node:crypto";
import {
  type KeyInfo,
  publicKeyAllowed,
  readAlgorithm,
  readKeyInfo,
  sign,
  signatureAlgorithmFor,
  verifySignature,
} from "./algorithm.ts";
import { type Fingerprint, fingerprintOfSpki } from "./certificate.ts";
import * as der from "./der.ts";
import { encodeExtension, readExtensionList } from "./extension.ts";
import {
  encodeRfc822Name,
  encodeSipUri,
  encodeSmtpUtf8Mailbox,
  type GeneralName,
  readGeneralNames,
} from "./general-name.ts";
import type { Identity } from "./identity.ts";
import { encodeName, type Name, type RdnTemplate, readName } from "./name.ts";
import { attributeType, extensionType } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";

/** A certification request (RFC 2986) whose signer has proven to hold the private key. Only the key counts: names are hints. */
export interface ParsedCsr {
  readonly der: Uint8Array;
  /** DER of the SubjectPublicKeyInfo. */
  readonly spki: Uint8Array;
  readonly key: KeyInfo;
  readonly publicKey: KeyObject;
  readonly fingerprint: Fingerprint;
  readonly subject: Name;
  /** Content octets of the attributes, as they came. */
  readonly attributes: Uint8Array;
}

/** PKCS #9 extensionRequest. */
const extensionRequest = "1.2.840.113549.1.9.14";
const maxAttributes = 16;

/** The subjectAltNames that a request asks for. @throws SuiteError syntax, certificate-malformed */
export function requestedAltNames(csr: Pick<ParsedCsr, "attributes">): GeneralName[] {
  const cursor = new der.DerCursor(csr.attributes);
  const found: GeneralName[] = [];
  for (let count = 0; !cursor.done; count += 1) {
    if (count === maxAttributes) throw refused("too many attributes");
    const attribute = new der.DerCursor(cursor.next(der.tag.sequence).content);
    const type = der.readOid(attribute.next(der.tag.oid));
    const values = new der.DerCursor(attribute.next(der.tag.set).content);
    if (type !== extensionRequest) continue;
    for (const extension of readExtensionList(values.next(der.tag.sequence)))
      if (extension.type === extensionType.subjectAltName)
        found.push(...readGeneralNames(expectSequence(der.readDer(extension.value)), maxNames));
  }
  return found;
}

const maxNames = 16;
const maxCsrBytes = 16 * 1024;

/**
 * A request, signed as `signatureAlgorithmFor` says.
 * @param o.identity whose certificate it is to be, for a CA that copies names: in the subject, and as subjectAltName in an
 * extensionRequest (RFC 2985 §5.4.2)
 */
export function makeCsr(o: { privateKey: KeyObject; commonName: string; identity?: Identity }): Buffer {
  const spki = createPublicKey(o.privateKey).export({ type: "spki", format: "der" });
  const named = o.identity === undefined ? undefined : namesOf(o.identity);
  const subject = encodeName([[attributeType.commonName, o.commonName], ...(named?.subject ?? [])]);
  const attributes = named === undefined ? [] : [named.request];
  const info = der.sequence(der.integer(0), subject, spki, der.implicitConstructed(0, ...attributes));
  return der.sequence(info, signatureAlgorithmFor(o.privateKey).der, der.bitString(sign(o.privateKey, info)));
}

/** Throws SuiteError "syntax" when it is malformed, its key too weak or its signature not by that key. */
export function parseCsr(bytes: Uint8Array): ParsedCsr {
  if (bytes.length > maxCsrBytes) throw refused("too long");
  try {
    const own = new Uint8Array(bytes);
    const whole = der.readDer(own);
    der.checkDepth(whole);
    const outer = new der.DerCursor(expectSequence(whole));
    const info = outer.next(der.tag.sequence);
    const algorithm = readAlgorithm(outer.next(der.tag.sequence));
    const signature = der.readBitString(outer.next(der.tag.bitString));
    outer.end();
    const cursor = new der.DerCursor(info);
    if (der.readSmallInteger(cursor.next(der.tag.integer)) !== 0) throw refused("version");
    const subject = readName(cursor.next(der.tag.sequence));
    const spki = cursor.next(der.tag.sequence);
    const key = readKeyInfo(spki);
    const attributes = cursor.next(der.contextConstructed(0)); // hints: read where somebody asks for them
    cursor.end();
    const publicKey = createPublicKey({ key: Buffer.from(spki.bytes), format: "der", type: "spki" });
    if (!publicKeyAllowed(publicKey)) throw refused("weak key");
    if (signature.unused !== 0 || !verifySignature(algorithm, publicKey, info.bytes, signature.bytes))
      throw refused("proof of possession");
    const fingerprint = fingerprintOfSpki(spki.bytes);
    return { spki: spki.bytes, key, publicKey, fingerprint, subject, attributes: attributes.content, der: own };
  } catch (cause) {
    throw cause instanceof SuiteError ? cause : refused("key", cause);
  }
}

function namesOf(identity: Identity): { subject: RdnTemplate[]; request: Buffer } {
  const ascii = /^[\x21-\x7e]+$/.test(identity);
  const mail = ascii ? encodeRfc822Name(identity) : encodeSmtpUtf8Mailbox(identity);
  const names = encodeExtension(extensionType.subjectAltName, false, der.sequence(mail, encodeSipUri(identity)));
  return {
    subject: [ascii ? [attributeType.emailAddress, identity] : [attributeType.userId, identity]],
    request: der.sequence(der.oid(extensionRequest), der.set(der.sequence(names))),
  };
}

function expectSequence(element: der.DerElement): Uint8Array {
  if (element.tag !== der.tag.sequence) throw refused("not a sequence");
  return element.content;
}

function refused(what: string, cause?: unknown): SuiteError {
  return new SuiteError("syntax", "not a certification request that can be used", {
    fault: "peer",
    details: { what },
    ...(cause === undefined ? {} : { cause }),
  });
}
