import type { Certificate } from "./certificate.ts";
import type { KeyUsage } from "./extension.ts";
import { extendedKeyUsage, type Oid } from "./oid.ts";

/**
 * What a certificate is to be used for: `peer` TLS 1.3 between persons, either direction; `sign` and `seal` S/MIME;
 * `server` TLS of a domain's service; `any` nothing is asked.
 */
export type Purpose = "peer" | "sign" | "seal" | "server" | "any";

/** Whether a leaf may be used for the purpose, by its own key usages. Total. */
export function allowsPurpose(certificate: Certificate, purpose: Purpose): boolean {
  return allowsExtendedUsage(certificate, purpose) && allowsKeyUsage(certificate, purpose);
}

/** Whether the extended key usage, of a leaf or of a CA above it, admits the purpose. */
export function allowsExtendedUsage(certificate: Certificate, purpose: Purpose): boolean {
  const stated = certificate.extendedKeyUsage;
  if (stated === undefined || purpose === "any") return true;
  // RFC 5924 would refuse a list without sipDomain: here the directory pins the person, not the list.
  return stated.some((usage) => (purpose === "server" ? serverUsages : personUsages).has(usage));
}

const personUsages: ReadonlySet<Oid> = new Set([
  extendedKeyUsage.clientAuth,
  extendedKeyUsage.serverAuth,
  extendedKeyUsage.emailProtection,
  extendedKeyUsage.any,
]);

const serverUsages: ReadonlySet<Oid> = new Set([extendedKeyUsage.serverAuth, extendedKeyUsage.any]);

function allowsKeyUsage(certificate: Certificate, purpose: Purpose): boolean {
  switch (purpose) {
    case "any":
      return true;
    case "peer":
      return canSign(certificate) && states(certificate, "digitalSignature"); // TLS 1.3 signs, with every key
    case "server":
      return (
        canSign(certificate) &&
        states(certificate, "digitalSignature") &&
        certificate.subjectAltNames.some((name) => name.type === "dNSName")
      );
    case "sign":
      return canSign(certificate) && (states(certificate, "digitalSignature") || states(certificate, "nonRepudiation"));
    case "seal":
      if (certificate.keyType === "rsa") return states(certificate, "keyEncipherment");
      return certificate.keyType === "ec" && states(certificate, "keyAgreement");
  }
}

function canSign(certificate: Certificate): boolean {
  return certificate.keyType !== "other";
}

function states(certificate: Certificate, usage: KeyUsage): boolean {
  return certificate.keyUsage === undefined || certificate.keyUsage.has(usage);
}
