import { createHash, type KeyObject } from "node:crypto";
import { readKeyInfo, sign, signatureAlgorithmFor } from "./algorithm.ts";
import type { Certificate } from "./certificate.ts";
import * as der from "./der.ts";
import { encodeExtension, encodeKeyUsage, type KeyUsage } from "./extension.ts";
import { accessMethod, extensionType, type Oid } from "./oid.ts";
import type { Window } from "./time.ts";

/** Who signs: a CA certificate and its key. */
export interface Issuer {
  certificate: Certificate;
  privateKey: KeyObject;
}

/** All that stands in a certificate (RFC 5280 §4.1), but the signature. */
export interface CertificateTemplate {
  /** Unsigned; RFC 5280 §4.1.2.2 wants it above 0 and at most 20 octets as written. */
  serial: Uint8Array;
  /** DER of the Names. */
  issuer: Uint8Array;
  subject: Uint8Array;
  validity: Window;
  /** DER of the SubjectPublicKeyInfo. */
  spki: Uint8Array;
  keyUsage: readonly KeyUsage[];
  extendedKeyUsage: readonly Oid[];
  /** Encoded GeneralNames. */
  subjectAltNames: readonly Uint8Array[];
  ca?: { pathLength?: number };
  /** Encoded GeneralNames that a CA may certify within. */
  permitted?: readonly Uint8Array[];
  /** Key identifier of the issuer; absent for a self-signed root. */
  authorityKeyId?: Uint8Array;
  crlUrl?: string;
  ocspUrl?: string;
  /** For an OCSP responder: nobody need ask whether it is revoked itself, since it lives shortly. */
  ocspNoCheck?: boolean;
}

/** Signs a certificate, version 3. Leaves have no basicConstraints: absent means that they are no CA. */
export function issueCertificate(template: CertificateTemplate, privateKey: KeyObject): Buffer {
  const algorithm = signatureAlgorithmFor(privateKey).der;
  const tbs = der.sequence(
    der.explicit(0, der.integer(2)),
    der.unsignedInteger(template.serial),
    algorithm,
    template.issuer,
    der.sequence(der.time(template.validity.notBefore), der.time(template.validity.notAfter)),
    template.subject,
    template.spki,
    der.explicit(3, der.sequence(...extensions(template))),
  );
  return der.sequence(tbs, algorithm, der.bitString(sign(privateKey, tbs)));
}

/** SHA-1 of the key's bits, as RFC 5280 §4.2.1.2 (1) has it: a name, not a proof. */
export function keyIdentifier(spki: Uint8Array): Buffer {
  return createHash("sha1")
    .update(readKeyInfo(der.readDer(spki)).keyBits)
    .digest();
}

function extensions(template: CertificateTemplate): Buffer[] {
  const { ca, keyUsage, extendedKeyUsage, subjectAltNames, permitted, authorityKeyId, crlUrl, ocspUrl } = template;
  const made: Buffer[] = [];
  if (ca !== undefined) {
    const length = ca.pathLength === undefined ? [] : [der.integer(ca.pathLength)];
    made.push(encodeExtension(extensionType.basicConstraints, true, der.sequence(der.boolean(true), ...length)));
  }
  made.push(encodeExtension(extensionType.keyUsage, true, encodeKeyUsage(keyUsage)));
  if (extendedKeyUsage.length > 0) {
    made.push(encodeExtension(extensionType.extendedKeyUsage, false, der.sequence(...extendedKeyUsage.map(der.oid))));
  }
  if (subjectAltNames.length > 0)
    made.push(encodeExtension(extensionType.subjectAltName, false, der.sequence(...subjectAltNames)));
  if (permitted !== undefined && permitted.length > 0) {
    const trees = permitted.map((name) => der.sequence(name));
    made.push(encodeExtension(extensionType.nameConstraints, true, der.sequence(der.implicitConstructed(0, ...trees))));
  }
  made.push(encodeExtension(extensionType.subjectKeyIdentifier, false, der.octetString(keyIdentifier(template.spki))));
  if (authorityKeyId !== undefined) {
    made.push(
      encodeExtension(
        extensionType.authorityKeyIdentifier,
        false,
        der.sequence(der.implicitPrimitive(0, authorityKeyId)),
      ),
    );
  }
  if (crlUrl !== undefined) {
    const point = der.implicitConstructed(
      0,
      der.implicitConstructed(0, der.implicitPrimitive(6, Buffer.from(crlUrl, "latin1"))),
    );
    made.push(encodeExtension(extensionType.crlDistributionPoints, false, der.sequence(der.sequence(point))));
  }
  if (ocspUrl !== undefined) {
    const access = der.sequence(der.oid(accessMethod.ocsp), der.implicitPrimitive(6, Buffer.from(ocspUrl, "latin1")));
    made.push(encodeExtension(extensionType.authorityInfoAccess, false, der.sequence(access)));
  }
  if (template.ocspNoCheck) made.push(encodeExtension(extensionType.ocspNoCheck, false, der.nullValue()));
  return made;
}
