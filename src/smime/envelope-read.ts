import { createDecipheriv, type DecipherGCM } from "node:crypto";
import { readAlgorithm } from "../pki/algorithm.ts";
import * as der from "../pki/der.ts";
import type { Oid } from "../pki/oid.ts";
import { type ContentCipher, contentCiphers, contentType } from "./algorithms.ts";
import type { BerReader } from "./ber-read.ts";
import { coalesce } from "./byte-reader.ts";
import { malformed, unsupported } from "./failure.ts";
import { tagDifference } from "./ghash.ts";
import { type RecipientInfo, readRecipientInfo } from "./recipient-read.ts";

const maxRecipients = 2000;
const maxRecipientBytes = 65_536;
const maxUnauthenticatedBytes = 65_536;
const maxAuthenticatedBytes = 65_536;

/** What stands before the ciphertext; anybody can read it. */
export interface EnvelopeHead {
  readonly cipher: ContentCipher;
  readonly iv: Uint8Array;
  /** Behind the ciphertext; 0 in an EnvelopedData, which has none. */
  readonly tagBytes: number;
}

/** Enters a ContentInfo (RFC 5652 §3) and its content; `leaveContentInfo` is the counterpart. */
export async function enterContentInfo(ber: BerReader): Promise<Oid> {
  await ber.enter(der.tag.sequence);
  const type = der.readOid(await ber.element(der.tag.oid));
  await ber.enter(der.contextConstructed(0));
  return type;
}

/** Leaves it; nothing may follow. */
export async function leaveContentInfo(ber: BerReader): Promise<void> {
  await ber.leave();
  await ber.leave();
  await ber.end();
}

/** Whether a content type is one of those with recipients that are read here. */
export function isEnveloped(type: Oid): boolean {
  return type === contentType.envelopedData || type === contentType.authEnvelopedData;
}

/**
 * Reads an EnvelopedData (RFC 5652 §6.1) or AuthEnvelopedData (RFC 5083 §2.1) up to its ciphertext and shows each
 * recipient once: there may be more than memory should hold. Throws SuiteError "seal-malformed", "seal-unsupported" or
 * "syntax".
 */
export async function readEnvelopeHead(
  ber: BerReader,
  type: Oid,
  onRecipient: (recipient: RecipientInfo) => void,
): Promise<EnvelopeHead> {
  await ber.enter(der.tag.sequence);
  der.readSmallInteger(await ber.element(der.tag.integer)); // version
  if ((await ber.peek()) === der.contextConstructed(0)) await ber.skip(1_048_576); // originatorInfo
  await ber.enter(der.tag.set);
  for (let count = 0; (await ber.peek()) !== undefined; count++) {
    if (count >= maxRecipients) throw malformed("too many recipients");
    onRecipient(readRecipientInfo(await ber.element(undefined, maxRecipientBytes)));
  }
  await ber.leave();
  await ber.enter(der.tag.sequence); // EncryptedContentInfo
  const innerType = der.readOid(await ber.element(der.tag.oid));
  const algorithm = readAlgorithm(await ber.element(der.tag.sequence));
  const cipher = contentCiphers.get(algorithm.oid);
  // Of any other type the content would be no entity, and authenticated attributes would be due (RFC 5083 §2.1).
  if (cipher === undefined || innerType !== contentType.data) throw unsupported("content encryption");
  if ((cipher.mode === "cbc") !== (type === contentType.envelopedData)) throw malformed("cipher of another envelope");
  return { cipher, ...readParameters(cipher, algorithm.parameters) };
}

/**
 * Decrypts the ciphertext at which `readEnvelopeHead` left `ber`. What it yields is not authenticated until it has come
 * to its end, which it does only if tag or padding are right and the message ends where it should; of an EnvelopedData
 * it never is.
 */
export async function* decryptContent(ber: BerReader, head: EnvelopeHead, key: Uint8Array): AsyncGenerator<Buffer> {
  const { cipher } = head;
  const decipher = decipherOf(head, key);
  let size = 0;
  for await (const piece of coalesce(ber.octets(der.contextPrimitive(0)))) {
    size += piece.length;
    if (size > cipher.maxBytes) throw malformed("too much for one key");
    const plaintext = decipher.update(piece);
    if (plaintext.length > 0) yield plaintext;
  }
  await ber.leave(); // EncryptedContentInfo
  if (head.tagBytes > 0) decipher.setAuthTag(await readTag(ber, head, key, size));
  const unauthenticated = head.tagBytes > 0 ? der.contextConstructed(2) : der.contextConstructed(1);
  if ((await ber.peek()) === unauthenticated) await ber.skip(maxUnauthenticatedBytes);
  await ber.leave();
  await leaveContentInfo(ber);
  const last = decipher.final();
  if (last.length > 0) yield last;
}

function decipherOf({ cipher, iv, tagBytes: authTagLength }: EnvelopeHead, key: Uint8Array): DecipherGCM {
  switch (cipher.mode) {
    case "cbc":
      return createDecipheriv(cipher.name, key, iv) as DecipherGCM;
    case "chacha20-poly1305":
      return createDecipheriv("chacha20-poly1305", key, iv, { authTagLength });
    case "gcm":
      return createDecipheriv(cipher.name as "aes-256-gcm", key, iv, { authTagLength });
  }
}

/** The tag as it would be without the authenticated attributes, which stand behind what they are authenticated with. */
async function readTag(ber: BerReader, head: EnvelopeHead, key: Uint8Array, size: number): Promise<Buffer> {
  const attributes = await ber.optional(der.contextConstructed(1), maxAuthenticatedBytes);
  const tag = Buffer.from(der.readOctetString(await ber.element(der.tag.octetString)));
  if (attributes === undefined) return tag;
  if (head.cipher.mode !== "gcm") throw unsupported("authenticated attributes");
  const difference = tagDifference(key, size, der.encode(der.tag.set, attributes.content)); // RFC 5083 §2.2
  for (let at = 0; at < tag.length; at += 1) tag[at] = (tag[at] ?? 0) ^ (difference[at] ?? 0);
  return tag;
}

function readParameters(
  cipher: ContentCipher,
  parameters: Uint8Array | undefined,
): { iv: Uint8Array; tagBytes: number } {
  if (parameters === undefined) throw malformed("no parameters");
  const element = der.readDer(parameters);
  const { iv, tagBytes } =
    cipher.mode === "gcm"
      ? readGcmParameters(element)
      : { iv: der.readOctetString(element), tagBytes: cipher.mode === "cbc" ? 0 : 16 };
  if (iv.length !== cipher.ivBytes) throw unsupported("nonce length");
  return { iv, tagBytes };
}

/** GCMParameters (RFC 5084 §3.2). */
function readGcmParameters(element: der.DerElement): { iv: Uint8Array; tagBytes: number } {
  const cursor = new der.DerCursor(element.content);
  const iv = der.readOctetString(cursor.next(der.tag.octetString));
  const length = cursor.optional(der.tag.integer);
  cursor.end();
  const tagBytes = length === undefined ? 12 : der.readSmallInteger(length);
  if (tagBytes < 12 || tagBytes > 16) throw malformed("tag length");
  return { iv, tagBytes };
}
