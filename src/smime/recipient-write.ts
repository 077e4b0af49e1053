import { constants, diffieHellman, generateKeyPairSync, publicEncrypt } from "node:crypto";
import type { Certificate, PeerCertificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import { keyAlgorithm, namedCurve } from "../pki/oid.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { deriveKek, wrapKey } from "./agreement.ts";
import { keyEncryption, oaepSha256Identifier } from "./algorithms.ts";
import type { ProfileAlgorithms } from "./profile.ts";

/** Curves of recipients' keys, by what Node calls them. */
const agreementCurves: ReadonlyMap<string, string> = new Map([
  [namedCurve.p256, "prime256v1"],
  [namedCurve.p384, "secp384r1"],
]);

const maxRecipients = 2000;

/** Throws SuiteError "recipient-unusable" unless there are 1 to 2000 and this program can seal to all of them at this time. */
export function checkRecipients(recipients: readonly PeerCertificate[], now: Date): void {
  if (recipients.length < 1 || recipients.length > maxRecipients) {
    throw new SuiteError("recipient-unusable", "a seal has 1 to 2000 recipients", { fault: "local" });
  }
  for (const recipient of recipients) checkRecipient(recipient, now);
}

/** Throws SuiteError "recipient-unusable" unless this program can seal to the certificate at this time. */
export function checkRecipient(recipient: PeerCertificate, now: Date): void {
  const { certificate, uses, validity } = recipient;
  if (!uses.seal) throw unusable("usage");
  if (now < validity.notBefore || now > validity.notAfter) throw unusable("validity");
  if (certificate.keyType === "rsa") {
    const bits = certificate.key.rsaBits ?? 0;
    if (bits < 2048 || bits > 8192) throw unusable("key size");
  } else if (!agreementCurves.has(certificate.key.curve ?? "")) throw unusable("key type");
}

/** RecipientInfo (RFC 5652 §6.2) that lets the certificate's holder find `contentKey`. */
export function recipientInfo(certificate: Certificate, contentKey: Uint8Array, algorithms: ProfileAlgorithms): Buffer {
  return certificate.keyType === "rsa"
    ? keyTransport(certificate, contentKey, algorithms)
    : keyAgreement(certificate, contentKey, algorithms);
}

/** IssuerAndSerialNumber (RFC 5652 §10.2.4). */
export function issuerAndSerial(certificate: Certificate): Buffer {
  return der.sequence(certificate.issuerDer, der.integer(certificate.serial));
}

/** KeyTransRecipientInfo, version 0: named by issuer and serial number. */
function keyTransport(certificate: Certificate, contentKey: Uint8Array, { transport }: ProfileAlgorithms): Buffer {
  const key = certificate.publicKey;
  const [identifier, encryptedKey] =
    transport === "pkcs1"
      ? [
          der.sequence(der.oid(keyEncryption.rsaesPkcs1), der.nullValue()),
          publicEncrypt({ key, padding: constants.RSA_PKCS1_PADDING }, contentKey),
        ]
      : [
          oaepSha256Identifier(),
          publicEncrypt({ key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha256" }, contentKey),
        ];
  return der.sequence(der.integer(0), issuerAndSerial(certificate), identifier, der.octetString(encryptedKey));
}

/** KeyAgreeRecipientInfo with a fresh ephemeral key (RFC 5753 §3.1). */
function keyAgreement(certificate: Certificate, contentKey: Uint8Array, { wrap }: ProfileAlgorithms): Buffer {
  const curve = agreementCurves.get(certificate.key.curve ?? "") ?? "prime256v1";
  const ephemeral = generateKeyPairSync("ec", { namedCurve: curve });
  // Wrap algorithms have no parameters (RFC 3565 §2.3.2); this DER stands here and in SharedInfo.
  const wrapIdentifier = der.sequence(der.oid(wrap.oid));
  const secret = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: certificate.publicKey });
  const derivation = { function: "x963", digest: "sha256" } as const;
  const kek = deriveKek({ secret, derivation, wrap, wrapIdentifier });
  const originator = der.implicitConstructed(
    1,
    der.sequence(der.oid(keyAlgorithm.ecPublicKey)),
    subjectPublicKey(ephemeral.publicKey.export({ type: "spki", format: "der" })),
  );
  const key = der.sequence(issuerAndSerial(certificate), der.octetString(wrapKey(wrap, kek, contentKey)));
  return der.implicitConstructed(
    1,
    der.integer(3),
    der.explicit(0, originator),
    der.sequence(der.oid(keyEncryption.stdDhSha256Kdf), wrapIdentifier),
    der.sequence(key),
  );
}

/** The BIT STRING in a SubjectPublicKeyInfo. */
function subjectPublicKey(spki: Buffer): Uint8Array {
  const cursor = new der.DerCursor(der.readDer(spki).content);
  cursor.next(der.tag.sequence);
  return cursor.next(der.tag.bitString).bytes;
}

function unusable(what: string): SuiteError {
  return new SuiteError("recipient-unusable", "the recipient's certificate cannot be sealed to", {
    fault: "local",
    details: { what },
  });
}
