import { constants, createPublicKey, diffieHellman, type KeyObject, privateDecrypt, randomBytes } from "node:crypto";
import { type AlgorithmIdentifier, readAlgorithm } from "../pki/algorithm.ts";
import * as der from "../pki/der.ts";
import { keyAlgorithm, type Oid } from "../pki/oid.ts";
import { deriveKek, unwrapKey } from "./agreement.ts";
import { derivations, keyEncryption, keyWraps, noParameters, readOaep } from "./algorithms.ts";
import { malformed, unsupported } from "./failure.ts";
import type { CertificateId, KeyEncryptionKey, OwnKey, RecipientId } from "./keyring.ts";
import { decryptOaep } from "./oaep.ts";

/** RecipientInfo (RFC 5652 §6.2). "other": passwords and what came later. */
export type RecipientInfo =
  | { kind: "kek"; recipients: readonly [EncryptedKey]; algorithm: AlgorithmIdentifier }
  | { kind: "transport"; recipients: readonly [EncryptedKey]; algorithm: AlgorithmIdentifier }
  | { kind: "agreement"; recipients: readonly EncryptedKey[]; algorithm: AlgorithmIdentifier; originator: Originator }
  | { kind: "other"; recipients: readonly [] };

export interface EncryptedKey {
  readonly id: RecipientId;
  readonly encryptedKey: Uint8Array;
}

/** The sender's half of a key agreement. `key` is undefined if it is only named, as static ones are. */
interface Originator {
  readonly key: OriginatorKey | undefined;
  readonly ukm: Uint8Array | undefined;
}

interface OriginatorKey {
  readonly point: Uint8Array;
  /** Of its curve. */
  readonly parameters: Uint8Array | undefined;
}

const agreementKeys: readonly Oid[] = [keyAlgorithm.ecPublicKey, keyAlgorithm.x25519, keyAlgorithm.x448];

/** Reads one RecipientInfo. Throws SuiteError "syntax" or "seal-malformed". */
export function readRecipientInfo(element: der.DerElement): RecipientInfo {
  if (element.tag === der.tag.sequence) return readKeyTransport(new der.DerCursor(element.content));
  if (element.tag === der.contextConstructed(1)) return readKeyAgreement(new der.DerCursor(element.content));
  if (element.tag === der.contextConstructed(2)) return readKeyEncryptionKey(new der.DerCursor(element.content));
  if ((element.tag & 0xc0) !== 0x80) throw malformed("not a recipient");
  return { kind: "other", recipients: [] };
}

/**
 * Prepares the one private-key operation that opens an envelope. Throws "seal-unsupported" or "seal-malformed" for what
 * everybody can see. The function returned does the operation and never fails: instead of a key that cannot be had it
 * gives a random one of the right length, so that what follows looks the same from outside (RFC 3218 §2.3.2).
 */
export function keyOperation(
  info: RecipientInfo,
  key: EncryptedKey,
  own: OwnKey | KeyEncryptionKey,
  keyBytes: number,
): () => Buffer {
  const decrypt =
    "secret" in own
      ? keyEncryptionKey(info, key, own)
      : info.kind === "transport"
        ? transport(info.algorithm, key, own)
        : agreement(info, key, own);
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
      key: readOriginatorKey(originator),
      ukm: ukm === undefined ? undefined : der.readOctetString(der.readDer(ukm.content)),
    },
  };
}

/** KEKRecipientInfo (RFC 5652 §6.2.3); when the key was given out and what else is said of it is passed over. */
function readKeyEncryptionKey(cursor: der.DerCursor): RecipientInfo {
  der.readSmallInteger(cursor.next(der.tag.integer));
  const kekId = new der.DerCursor(cursor.next(der.tag.sequence).content);
  const keyId = der.readOctetString(kekId.next(der.tag.octetString));
  const algorithm = readAlgorithm(cursor.next(der.tag.sequence));
  const encryptedKey = der.readOctetString(cursor.next(der.tag.octetString));
  cursor.end();
  return { kind: "kek", recipients: [{ id: { keyId }, encryptedKey }], algorithm };
}

function readOriginatorKey(originator: der.DerElement): OriginatorKey | undefined {
  if (originator.tag !== der.contextConstructed(1)) return undefined;
  const cursor = new der.DerCursor(originator.content);
  const algorithm = readAlgorithm(cursor.next(der.tag.sequence));
  const { bytes: point } = der.readBitString(cursor.next(der.tag.bitString));
  cursor.end();
  const parameters = noParameters(algorithm) ? undefined : algorithm.parameters;
  return agreementKeys.includes(algorithm.oid) ? { point, parameters } : undefined;
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
  const { privateKey } = own;
  if (privateKey.asymmetricKeyType !== "rsa") throw malformed("recipient of another kind than its key");
  if (algorithm.oid === keyEncryption.rsaesPkcs1) {
    // A wrong padding gives random octets, of random length: OpenSSL's implicit rejection.
    return () => privateDecrypt({ key: privateKey, padding: constants.RSA_PKCS1_PADDING }, key.encryptedKey);
  }
  if (algorithm.oid !== keyEncryption.rsaesOaep) throw unsupported("key transport");
  const parameters = readOaep(algorithm);
  if (parameters === undefined) throw unsupported("OAEP parameters");
  return () => decryptOaep(privateKey, key.encryptedKey, parameters);
}

function agreement(info: RecipientInfo, key: EncryptedKey, own: OwnKey): () => Buffer {
  if (info.kind !== "agreement" || !["ec", "x25519", "x448"].includes(own.privateKey.asymmetricKeyType ?? "")) {
    throw malformed("recipient of another kind than its key");
  }
  const { originator, algorithm } = info;
  const derivation = derivations.get(algorithm.oid);
  const wrapIdentifier = algorithm.parameters;
  if (derivation === undefined || wrapIdentifier === undefined) throw unsupported("key agreement");
  const wrap = keyWraps.get(readAlgorithm(der.readDer(wrapIdentifier)).oid);
  const { key: theirs, ukm } = originator;
  if (wrap === undefined || theirs === undefined) throw unsupported("key agreement");
  const curve = curveOf(own);
  // RFC 5753 §3.1.1: absent, NULL, or those of the recipient's curve.
  if (theirs.parameters !== undefined && Buffer.compare(theirs.parameters, curve.parameters ?? none) !== 0) {
    throw malformed("key on another curve");
  }
  return () => {
    const secret = diffieHellman({ privateKey: own.privateKey, publicKey: pointOn(curve, theirs.point) });
    const kek = deriveKek({ secret, derivation, wrap, wrapIdentifier, ukm });
    return unwrapKey(wrap, kek, key.encryptedKey);
  };
}

function keyEncryptionKey(info: RecipientInfo, key: EncryptedKey, own: KeyEncryptionKey): () => Buffer {
  const wrap = info.kind === "kek" ? keyWraps.get(info.algorithm.oid) : undefined;
  if (wrap === undefined || wrap.keyBytes !== own.secret.length) throw unsupported("key wrap");
  return () => unwrapKey(wrap, own.secret, key.encryptedKey);
}

const none = new Uint8Array();

/** Algorithm and parameters of our own key. */
function curveOf({ certificate }: OwnKey): AlgorithmIdentifier {
  return readAlgorithm(new der.DerCursor(der.readDer(certificate.spki).content).next(der.tag.sequence));
}

/** A public key on a curve. Throws if the point is not on it. */
function pointOn(curve: AlgorithmIdentifier, point: Uint8Array): KeyObject {
  const spki = der.sequence(curve.der, der.bitString(point));
  return createPublicKey({ key: spki, format: "der", type: "spki" });
}
