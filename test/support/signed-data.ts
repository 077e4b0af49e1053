import { createHash } from "node:crypto";
import { sign, signatureAlgorithmFor } from "../../src/pki/algorithm.ts";
import * as der from "../../src/pki/der.ts";
import { digestAlgorithm } from "../../src/pki/oid.ts";
import { contentType } from "../../src/smime/algorithms.ts";
import { issuerAndSerial } from "../../src/smime/recipient-write.ts";
import type { TestCredentials } from "./pki.ts";

/** An attribute of CMS, its values as they are given. */
export function attribute(oid: string, ...values: Buffer[]): Buffer {
  return der.sequence(der.oid(oid), der.encode(0x31, ...values));
}

/** OCTET STRING with the SHA-256 of it. */
export function digestOf(content: Uint8Array): Buffer {
  return der.octetString(createHash("sha256").update(content).digest());
}

/** messageDigest. */
export function digestAttribute(content: Uint8Array): Buffer {
  return attribute("1.2.840.113549.1.9.4", digestOf(content));
}

/** Somebody's signature over `content`; `attributes`: what he really signed. */
export function signerInfo(by: TestCredentials, content: Uint8Array, attributes?: Buffer): Buffer {
  const type = attribute("1.2.840.113549.1.9.3", der.oid(contentType.data));
  const signed = attributes ?? Buffer.concat([type, digestAttribute(content)]);
  return der.sequence(
    der.integer(1),
    issuerAndSerial(by.certificate),
    der.sequence(der.oid(digestAlgorithm.sha256)),
    der.implicitConstructed(0, signed),
    signatureAlgorithmFor(by.privateKey).der,
    der.octetString(sign(by.privateKey, der.encode(0x31, signed))),
  );
}

/** ContentInfo with a SignedData around `content`, put together of whatever is given. */
export function signedDataOf(content: Uint8Array, infos: Buffer[], certificates: readonly Uint8Array[]): Buffer {
  const body = der.sequence(
    der.integer(1),
    der.encode(0x31, der.sequence(der.oid(digestAlgorithm.sha256))),
    der.sequence(der.oid(contentType.data), der.explicit(0, der.octetString(content))),
    der.implicitConstructed(0, ...certificates),
    der.encode(0x31, ...infos),
  );
  return der.sequence(der.oid(contentType.signedData), der.explicit(0, body));
}
