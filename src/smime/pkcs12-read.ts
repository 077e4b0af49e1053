import { createPrivateKey, type KeyObject } from "node:crypto";
import { type AlgorithmIdentifier, readAlgorithm } from "../pki/algorithm.ts";
import { type Certificate, fingerprintOf, parseCertificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import type { Oid } from "../pki/oid.ts";
import { type PassphraseOctets, passphraseOctets } from "./passphrase.ts";
import { decryptPbe, Effort } from "./pbe.ts";
import { octetsOf, p12Type, readAuthSafe, readPfx, readSafeContents, readTyped, type SafeBag } from "./pkcs12-bags.ts";
import { asP12Failure, p12Malformed, p12WrongPassphrase } from "./pkcs12-failure.ts";
import { verifyMac } from "./pkcs12-mac.ts";

/** A private key and its certificates, in the file's order; without any if the file has none for it. */
export interface Pkcs12Key {
  readonly privateKey: KeyObject;
  readonly certificates: readonly Certificate[];
  readonly friendlyName?: string;
}

export interface Pkcs12 {
  /** In the file's order. */
  readonly keys: readonly Pkcs12Key[];
  /** Those of nobody's key here: the chain. */
  readonly certificates: readonly Certificate[];
  /** What else is kept secret, by what it is. */
  readonly secrets: readonly { readonly type: Oid; readonly value: Uint8Array }[];
}

const maxFileBytes = 4_194_304;

/**
 * Reads a PKCS#12 file (RFC 7292) that is protected by a passphrase: its MAC first, and nothing else unless that holds. BER is
 * taken. Derivations run beside the event loop; one has at most 10 million rounds.
 * @param maxBytes of the file; 4 MiB unless told
 * @throws SuiteError auth-failed if the passphrase is wrong (or the file damaged: the MAC tells no more), syntax, unsupported, cancelled
 */
export async function readPkcs12(
  bytes: Uint8Array,
  passphrase: string,
  maxBytes = maxFileBytes,
  signal?: AbortSignal,
): Promise<Pkcs12> {
  if (bytes.length > maxBytes) throw p12Malformed("too long");
  try {
    const octets = passphraseOctets(passphrase);
    const effort = new Effort();
    const { authSafe, macData } = await readPfx(bytes);
    if (!(await verifyMac(macData, authSafe, octets, effort, signal))) throw p12WrongPassphrase();
    const bags: SafeBag[] = [];
    for (const safe of await readAuthSafe(authSafe)) {
      const contents =
        "contents" in safe ? safe.contents : await opened(safe.algorithm, safe.ciphertext, octets, effort, signal);
      await readSafeContents(contents, bags);
    }
    return await sorted(bags, octets, effort, signal);
  } catch (thrown) {
    throw asP12Failure(thrown);
  }
}

async function opened(
  algorithm: AlgorithmIdentifier,
  ciphertext: Uint8Array,
  passphrase: PassphraseOctets,
  effort: Effort,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const isSequence = (plain: Buffer) => plain[0] === der.tag.sequence;
  const plain = await decryptPbe(algorithm, ciphertext, passphrase, effort, isSequence, signal);
  if (plain === undefined) throw p12Malformed("a part cannot be decrypted"); // though the passphrase is right
  return plain;
}

async function sorted(
  bags: readonly SafeBag[],
  passphrase: PassphraseOctets,
  effort: Effort,
  signal: AbortSignal | undefined,
): Promise<Pkcs12> {
  const keys: { privateKey: KeyObject; friendlyName: string | undefined }[] = [];
  const certificates: Certificate[] = [];
  const secrets: { type: Oid; value: Uint8Array }[] = [];
  for (const { type, value, friendlyName } of bags) {
    if (type === p12Type.keyBag) keys.push({ privateKey: loadKey(value.bytes), friendlyName });
    else if (type === p12Type.shroudedKeyBag)
      keys.push({ privateKey: loadKey(await unshrouded(value, passphrase, effort, signal)), friendlyName });
    else if (type === p12Type.certBag) certificates.push(...certificateIn(value));
    else if (type === p12Type.secretBag) {
      const { type: secret, content } = readTyped(value);
      secrets.push({ type: secret, value: content.bytes });
    } // a CRL, or what is not known: passed over
  }
  const taken = new Set<Certificate>();
  const withCertificates = keys.map(({ privateKey, friendlyName }) => {
    const fingerprint = fingerprintOf(privateKey);
    const own = certificates.filter((one) => one.fingerprint === fingerprint); // a localKeyID would only claim it
    for (const one of own) taken.add(one);
    return { privateKey, certificates: own, ...(friendlyName === undefined ? {} : { friendlyName }) };
  });
  return { keys: withCertificates, certificates: certificates.filter((one) => !taken.has(one)), secrets };
}

/** EncryptedPrivateKeyInfo (RFC 5958 §3). */
async function unshrouded(
  value: der.DerElement,
  passphrase: PassphraseOctets,
  effort: Effort,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const cursor = new der.DerCursor(value);
  const algorithm = readAlgorithm(cursor.next(der.tag.sequence));
  const ciphertext = octetsOf(cursor.next(), der.tag.octetString);
  cursor.end();
  return opened(algorithm, ciphertext, passphrase, effort, signal);
}

function certificateIn(value: der.DerElement): Certificate[] {
  const { type, content } = readTyped(value);
  return type === p12Type.x509Certificate ? [parseCertificate(octetsOf(content, der.tag.octetString))] : [];
}

function loadKey(pkcs8: Uint8Array): KeyObject {
  try {
    const key = createPrivateKey({ key: Buffer.from(pkcs8), format: "der", type: "pkcs8" });
    fingerprintOf(key); // which fails for some that load
    return key;
  } catch (cause) {
    throw p12Malformed("a private key cannot be loaded", cause);
  }
}
