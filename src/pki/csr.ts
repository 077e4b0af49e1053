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
import { encodeName, type Name, readName } from "./name.ts";
import { attributeType } from "./oid.ts";
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
}

const maxCsrBytes = 16 * 1024;

/** A request without attributes, signed as `signatureAlgorithmFor` says. */
export function makeCsr(o: { privateKey: KeyObject; commonName: string }): Buffer {
  const spki = createPublicKey(o.privateKey).export({ type: "spki", format: "der" });
  const subject = encodeName([[attributeType.commonName, o.commonName]]);
  const info = der.sequence(der.integer(0), subject, spki, der.implicitConstructed(0));
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
    cursor.next(der.contextConstructed(0)); // attributes: nobody asks for them
    cursor.end();
    const publicKey = createPublicKey({ key: Buffer.from(spki.bytes), format: "der", type: "spki" });
    if (!publicKeyAllowed(publicKey)) throw refused("weak key");
    if (signature.unused !== 0 || !verifySignature(algorithm, publicKey, info.bytes, signature.bytes))
      throw refused("proof of possession");
    return { spki: spki.bytes, key, publicKey, fingerprint: fingerprintOfSpki(spki.bytes), subject, der: own };
  } catch (cause) {
    throw cause instanceof SuiteError ? cause : refused("key", cause);
  }
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
