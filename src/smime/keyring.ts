import type { KeyObject } from "node:crypto";
import type { Certificate } from "../pki/certificate.ts";

/** How a message names a certificate (RFC 5652 §6.2.1, §5.3): its issuer and serial number, or its key's identifier. */
export type CertificateId =
  | { readonly issuer: Uint8Array; readonly serial: Uint8Array }
  | { readonly subjectKeyId: Uint8Array };

/** A recipient: a certificate, or a key-encryption key by its identifier. */
export type RecipientId = CertificateId | { readonly keyId: Uint8Array };

/** A symmetric key that was given out beforehand (RFC 5652 §6.2.3). */
export interface KeyEncryptionKey {
  readonly keyId: Uint8Array;
  readonly secret: Uint8Array;
}

/** A key of our own with the certificate that it was announced by. */
export interface OwnKey {
  readonly certificate: Certificate;
  readonly privateKey: KeyObject;
}

/** Every decryption key that the owner ever had: what was sealed to a former certificate still arrives after a renewal. */
export class Keyring {
  readonly #keys = new Map<string, OwnKey | KeyEncryptionKey>();

  constructor(keys: Iterable<OwnKey | KeyEncryptionKey>) {
    for (const key of keys) {
      for (const name of "secret" in key ? [nameOf(key)] : namesOf(key.certificate)) this.#keys.set(name, key);
    }
  }

  find(id: RecipientId): OwnKey | KeyEncryptionKey | undefined {
    return this.#keys.get(nameOf(id));
  }
}

/** Whether `id` names this certificate. */
export function names(id: RecipientId, certificate: Certificate): boolean {
  return namesOf(certificate).includes(nameOf(id));
}

function namesOf(certificate: Certificate): string[] {
  const { issuerDer: issuer, serial, subjectKeyId } = certificate;
  return [nameOf({ issuer, serial }), ...(subjectKeyId === undefined ? [] : [nameOf({ subjectKeyId })])];
}

function nameOf(id: RecipientId): string {
  if ("keyId" in id) return `kek:${hex(id.keyId)}`;
  return "issuer" in id ? `${hex(id.issuer)}:${hex(id.serial)}` : hex(id.subjectKeyId);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}
