import { createDecipheriv } from "node:crypto";
import { readAlgorithm } from "../pki/algorithm.ts";
import * as der from "../pki/der.ts";
import type { Oid } from "../pki/oid.ts";
import { type AeadCipher, aeadCiphers, contentType } from "./algorithms.ts";
import type { BerReader } from "./ber-read.ts";
import { coalesce } from "./byte-reader.ts";
import { malformed, unsupported } from "./failure.ts";
import { type RecipientInfo, readRecipientInfo } from "./recipient-read.ts";

const maxRecipients = 2000;
const maxRecipientBytes = 65_536;
const maxUnauthenticatedBytes = 65_536;

/** What stands before the ciphertext; anybody can read it. */
export interface EnvelopeHead {
  readonly cipher: AeadCipher;
  readonly nonce: Uint8Array;
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

/**
 * Reads an AuthEnvelopedData (RFC 5083 §2.1) up to its ciphertext and shows each recipient once: there may be more than
 * memory should hold. Throws SuiteError "seal-malformed", "seal-unsupported" or "syntax".
 */
export async function readEnvelopeHead(
  ber: BerReader,
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
  const cipher = aeadCiphers.get(algorithm.oid);
  // Any other type would oblige authenticated attributes (RFC 5083 §2.1).
  if (cipher === undefined || innerType !== contentType.data) throw unsupported("content encryption");
  return { cipher, ...readGcmParameters(algorithm.parameters) };
}

/**
 * Decrypts the ciphertext at which `readEnvelopeHead` left `ber`. What it yields is not authenticated until it has come
 * to its end, which it does only if the tag is right and the message ends where it should.
 */
export async function* decryptContent(ber: BerReader, head: EnvelopeHead, key: Uint8Array): AsyncGenerator<Buffer> {
  const decipher = createDecipheriv(head.cipher.name, key, head.nonce, { authTagLength: head.tagBytes });
  let size = 0;
  for await (const piece of coalesce(ber.octets(der.contextPrimitive(0)))) {
    size += piece.length;
    if (size > head.cipher.maxBytes) throw malformed("too much for one key");
    yield decipher.update(piece);
  }
  await ber.leave(); // EncryptedContentInfo
  if ((await ber.peek()) === der.contextConstructed(1)) throw unsupported("authenticated attributes");
  decipher.setAuthTag(der.readOctetString(await ber.element(der.tag.octetString)));
  if ((await ber.peek()) === der.contextConstructed(2)) await ber.skip(maxUnauthenticatedBytes);
  await ber.leave(); // AuthEnvelopedData
  await leaveContentInfo(ber);
  decipher.final();
}

/** GCMParameters (RFC 5084 §3.2). */
function readGcmParameters(parameters: Uint8Array | undefined): { nonce: Uint8Array; tagBytes: number } {
  if (parameters === undefined) throw malformed("no parameters");
  const cursor = new der.DerCursor(der.readDer(parameters).content);
  const nonce = der.readOctetString(cursor.next(der.tag.octetString));
  const length = cursor.optional(der.tag.integer);
  cursor.end();
  const tagBytes = length === undefined ? 12 : der.readSmallInteger(length);
  if (tagBytes < 12 || tagBytes > 16) throw malformed("tag length");
  if (nonce.length !== 12) throw unsupported("nonce length");
  return { nonce, tagBytes };
}
