import { constants, createPublicKey, diffieHellman, type KeyObject, privateDecrypt, randomBytes } from "node:crypto";
import { type AlgorithmIdentifier, readAlgorithm } from "../pki/algorithm.ts";
import * as der from "../pki/der.ts";
import { keyAlgorithm } from "../pki/oid.ts";
import { deriveKek, unwrapKey } from "./agreement.ts";
import { agreementDigests, keyEncryption, keyWraps, readOaep } from "./algorithms.ts";
import { malformed, unsupported } from "./failure.ts";
import type { CertificateId, OwnKey } from "./keyring.ts";

/** RecipientInfo (RFC 5652 §6.2). "other": key-encryption keys, passwords and what came later. */
export type RecipientInfo =
  | { kind: "transport"; recipients: readonly [EncryptedKey]; algorithm: AlgorithmIdentifier }
  | { kind: "agreement"; recipients: readonly EncryptedKey[]; algorithm: AlgorithmIdentifier; originator: Originator }
  | { kind: "other"; recipients: readonly [] };

export interface EncryptedKey {
  readonly id: CertificateId;
  readonly encryptedKey: Uint8Array;
}

/** The sender's half of a key agreement. `point` is undefined if the key is only named, as static ones are. */
interface Originator {
  readonly point: Uint8Array | undefined;
  readonly ukm: Uint8Array | undefined;
}

/** Reads one RecipientInfo. Throws SuiteError "syntax" or "seal-malformed". */
export function readRecipientInfo(element: der.DerElement): RecipientInfo {
  if (element.tag === der.tag.sequence) return readKeyTransport(new der.DerCursor(element.content));
  if (element.tag === der.contextConstructed(1)) return readKeyAgreement(new der.DerCursor(element.content));
  if ((element.tag & 0xc0) !== 0x80) throw malformed("not a recipient");
  return { kind: "other", recipients: [] };
}

/**
 * Prepares the one private-key operation that opens an envelope. Throws "seal-unsupported" or "seal-malformed" for what
 * everybody can see. The function returned does the operation and never fails: instead of a key that cannot be had it
 * gives a random one of the right length, so that what follows looks the same from outside (RFC 3218 §2.3.2).
 */
export function keyOperation(info: RecipientInfo, key: EncryptedKey, own: OwnKey, keyBytes: number): () => Buffer {
  const decrypt = info.kind === "transport" ? transport(info.algorithm, key, own) : agreement(info, key, own);
  return () => {
    const substitute = randomBytes(keyBytes);
    try {
      const found = decrypt();
      return found.length === keyBytes ? found : substitute;
    } catch {
      return substitute;
    }
  };
}

/** CertificateId in the form of a RecipientIdentifier or SignerIdentifier: IssuerAndSerialNumber or [0] SubjectKeyIdentifier. */
export function readCertificateId(element: der.DerElement): CertificateId {
  if (element.tag === der.contextPrimitive(0)) return { subjectKeyId: element.content };
  if (element.tag !== der.tag.sequence) throw malformed("not a certificate's name");
  return readIssuerAndSerial(element);
}

/** KeyTransRecipientInfo (RFC 5652 §6.2.1). */
function readKeyTransport(cursor: der.DerCursor): RecipientInfo {
  der.readSmallInteger(cursor.next(der.tag.integer)); // version: follows from the identifier
  const id = readCertificateId(cursor.next());
  const algorithm = readAlgorithm(cursor.next(der.tag.sequence));
  const encryptedKey = der.readOctetString(cursor.next(der.tag.octetString));
  cursor.end();
  return { kind: "transport", recipients: [{ id, encryptedKey }], algorithm };
}

/** KeyAgreeRecipientInfo (RFC 5652 §6.2.2). */
function readKeyAgreement(cursor: der.DerCursor): RecipientInfo {
  der.readSmallInteger(cursor.next(der.tag.integer));
  const originator = der.readDer(cursor.next(der.contextConstructed(0)).content);
  const ukm = cursor.optional(der.contextConstructed(1));
  const algorithm = readAlgorithm(cursor.next(der.tag.sequence));
  const keys = new der.DerCursor(cursor.next(der.tag.sequence).content);
  cursor.end();
  const recipients: EncryptedKey[] = [];
  while (!keys.done) recipients.push(readRecipientEncryptedKey(new der.DerCursor(keys.next(der.tag.sequence).content)));
  return {
    kind: "agreement",
    recipients,
    algorithm,
    originator: {
      point: readOriginatorPoint(originator),
      ukm: ukm === undefined ? undefined : der.readOctetString(der.readDer(ukm.content)),
    },
  };
}

function readOriginatorPoint(originator: der.DerElement): Uint8Array | undefined {
  if (originator.tag !== der.contextConstructed(1)) return undefined;
  const cursor = new der.DerCursor(originator.content);
  // RFC 5753 §3.1.1: parameters absent, NULL, or those of the recipient's curve, which decides.
  const algorithm = readAlgorithm(cursor.next(der.tag.sequence));
  const { bytes } = der.readBitString(cursor.next(der.tag.bitString));
  cursor.end();
  return algorithm.oid === keyAlgorithm.ecPublicKey ? bytes : undefined;
}

/** RecipientEncryptedKey: here the key identifier form is a SEQUENCE, rKeyId [0] IMPLICIT RecipientKeyIdentifier. */
function readRecipientEncryptedKey(cursor: der.DerCursor): EncryptedKey {
  const id = cursor.next();
  const encryptedKey = der.readOctetString(cursor.next(der.tag.octetString));
  cursor.end();
  if (id.tag === der.tag.sequence) return { id: readIssuerAndSerial(id), encryptedKey };
  if (id.tag !== der.contextConstructed(0)) throw malformed("not a certificate's name");
  const inner = new der.DerCursor(id.content);
  return { id: { subjectKeyId: der.readOctetString(inner.next(der.tag.octetString)) }, encryptedKey };
}

function readIssuerAndSerial(element: der.DerElement): CertificateId {
  const cursor = new der.DerCursor(element.content);
  const issuer = cursor.next(der.tag.sequence).bytes;
  const serial = der.integerContent(cursor.next(der.tag.integer));
  cursor.end();
  return { issuer, serial };
}

function transport(algorithm: AlgorithmIdentifier, key: EncryptedKey, own: OwnKey): () => Buffer {
  if (own.privateKey.asymmetricKeyType !== "rsa") throw malformed("recipient of another kind than its key");
  if (algorithm.oid !== keyEncryption.rsaesOaep) throw unsupported("key transport");
  const parameters = readOaep(algorithm);
  if (parameters === undefined || parameters.digest !== parameters.maskDigest) throw unsupported("OAEP parameters");
  return () =>
    privateDecrypt(
      {
        key: own.privateKey,
        padding: constants.RSA_PKCS1_OAEP_PADDING,
        oaepHash: parameters.digest,
        ...(parameters.label.length > 0 ? { oaepLabel: parameters.label } : {}),
      },
      key.encryptedKey,
    );
}

function agreement(info: RecipientInfo, key: EncryptedKey, own: OwnKey): () => Buffer {
  if (info.kind !== "agreement" || own.privateKey.asymmetricKeyType !== "ec") {
    throw malformed("recipient of another kind than its key");
  }
  const { originator, algorithm } = info;
  const digest = agreementDigests.get(algorithm.oid);
  const wrapIdentifier = algorithm.parameters;
  if (digest === undefined || wrapIdentifier === undefined) throw unsupported("key agreement");
  const wrap = keyWraps.get(readAlgorithm(der.readDer(wrapIdentifier)).oid);
  const point = originator.point;
  if (wrap === undefined || point === undefined) throw unsupported("key agreement");
  return () => {
    const secret = diffieHellman({ privateKey: own.privateKey, publicKey: pointOn(own, point) });
    const kek = deriveKek({ secret, digest, wrap, wrapIdentifier, ukm: originator.ukm });
    return unwrapKey(wrap, kek, key.encryptedKey);
  };
}

/** A public key on the curve of our own key. Throws if the point is not on it. */
function pointOn(own: OwnKey, point: Uint8Array): KeyObject {
  const algorithm = new der.DerCursor(der.readDer(own.certificate.spki).content).next(der.tag.sequence).bytes;
  const spki = der.sequence(algorithm, der.bitString(point));
  return createPublicKey({ key: spki, format: "der", type: "spki" });
}
