import type { KeyObject } from "node:crypto";
import type { Certificate } from "../pki/certificate.ts";

/** How a message names a certificate (RFC 5652 §6.2.1, §5.3): its issuer and serial number, or its key's identifier. */
export type CertificateId =
  | { readonly issuer: Uint8Array; readonly serial: Uint8Array }
  | { readonly subjectKeyId: Uint8Array };

/** A key of our own with the certificate that it was announced by. */
export interface OwnKey {
  readonly certificate: Certificate;
  readonly privateKey: KeyObject;
}

/** Every decryption key that the owner ever had: what was sealed to a former certificate still arrives after a renewal. */
export class Keyring {
  readonly #keys = new Map<string, OwnKey>();

  constructor(keys: Iterable<OwnKey>) {
    for (const key of keys) {
      for (const name of namesOf(key.certificate)) this.#keys.set(name, key);
    }
  }

  find(id: CertificateId): OwnKey | undefined {
    return this.#keys.get(nameOf(id));
  }
}

/** Whether `id` names this certificate. */
export function names(id: CertificateId, certificate: Certificate): boolean {
  return namesOf(certificate).includes(nameOf(id));
}

function namesOf(certificate: Certificate): string[] {
  const { issuerDer: issuer, serial, subjectKeyId } = certificate;
  return [nameOf({ issuer, serial }), ...(subjectKeyId === undefined ? [] : [nameOf({ subjectKeyId })])];
}

function nameOf(id: CertificateId): string {
  return "issuer" in id ? `${hex(id.issuer)}:${hex(id.serial)}` : hex(id.subjectKeyId);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}
