import { type CipherGCM, createCipheriv, randomBytes } from "node:crypto";
import type { PeerCertificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type ContentCipher, contentType } from "./algorithms.ts";
import { closed, gather, octetChunks, opened } from "./ber-write.ts";
import type { ProfileAlgorithms } from "./profile.ts";
import { recipientInfo } from "./recipient-write.ts";

const tagBytes = 16;

/**
 * Encrypts `content` for all recipients, in one pass: ContentInfo with AuthEnvelopedData (RFC 5083), or, if the cipher has
 * no tag, EnvelopedData (RFC 5652 §6).
 */
export async function* envelopedData(
  content: AsyncIterable<Uint8Array>,
  recipients: readonly PeerCertificate[],
  algorithms: ProfileAlgorithms,
): AsyncGenerator<Buffer> {
  const { content: cipher } = algorithms;
  const begun = beginEnvelope(recipients, algorithms);
  const running = cipherOf(cipher, begun);
  begun.key.fill(0);
  const tag = () => (cipher.mode === "cbc" ? undefined : running.getAuthTag());

  const gathered = await gather(content);
  if ("small" in gathered) {
    const ciphertext = Buffer.concat([running.update(gathered.small), running.final()]);
    yield begun.whole(ciphertext, tag());
    return;
  }
  yield begun.before;
  yield* octetChunks(encrypted(running, gathered.large, cipher.maxBytes));
  yield begun.behind(tag());
}

/** A key that serves this one time, wrapped for the recipients, and the bytes around what it encrypts. */
export interface BegunEnvelope {
  readonly key: Buffer;
  /** Nonce or initialisation vector. */
  readonly iv: Buffer;
  /** What stands before the chunks of ciphertext (OCTET STRINGs) where lengths are indefinite. */
  readonly before: Buffer;
  /** What follows them. */
  behind(tag: Buffer | undefined): Buffer;
  /** All of it in DER, around a ciphertext that is known. */
  whole(ciphertext: Buffer, tag: Buffer | undefined): Buffer;
}

export function beginEnvelope(recipients: readonly PeerCertificate[], algorithms: ProfileAlgorithms): BegunEnvelope {
  const { content: cipher } = algorithms;
  const key = randomBytes(cipher.keyBytes);
  const iv = randomBytes(cipher.ivBytes);
  const infos = der.set(...recipients.map(({ certificate }) => recipientInfo(certificate, key, algorithms)));
  // GCMParameters (RFC 5084 §3.2); the DEFAULT of aes-ICVlen is 12.
  const parameters =
    cipher.mode === "cbc" ? der.octetString(iv) : der.sequence(der.octetString(iv), der.integer(tagBytes));
  const identifier = der.sequence(der.oid(cipher.oid), parameters);
  const authenticated = cipher.mode !== "cbc";
  const type = der.oid(authenticated ? contentType.authEnvelopedData : contentType.envelopedData);
  const agreed = recipients.some(({ certificate }) => certificate.keyType !== "rsa");
  // RFC 5652 §6.1: with recipients of version 3, the agreed ones, 2; RFC 5083 §2.1: always 0.
  const version = der.integer(authenticated || !agreed ? 0 : 2);
  const end = (tag: Buffer | undefined) => (tag === undefined ? [] : [der.octetString(tag)]);
  return {
    key,
    iv,
    before: Buffer.concat([
      opened(der.tag.sequence),
      type,
      opened(der.contextConstructed(0), der.tag.sequence),
      version,
      infos,
      opened(der.tag.sequence),
      der.oid(contentType.data),
      identifier,
      opened(der.contextConstructed(0)),
    ]),
    behind: (tag) => Buffer.concat([closed(2), ...end(tag), closed(3)]),
    whole(ciphertext, tag) {
      const content = der.sequence(der.oid(contentType.data), identifier, der.implicitPrimitive(0, ciphertext));
      return der.sequence(type, der.explicit(0, der.sequence(version, infos, content, ...end(tag))));
    },
  };
}

function cipherOf(cipher: ContentCipher, { key, iv }: { key: Buffer; iv: Buffer }): CipherGCM {
  if (cipher.mode === "cbc") return createCipheriv(cipher.name, key, iv) as CipherGCM;
  return createCipheriv(cipher.name as "aes-256-gcm", key, iv, { authTagLength: tagBytes });
}

async function* encrypted(
  running: CipherGCM,
  content: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<Buffer> {
  let size = 0;
  for await (const piece of content) {
    size += piece.length;
    if (size > maxBytes) throw tooMuch(maxBytes);
    yield running.update(piece);
  }
  const last = running.final(); // nothing of a stream mode, a block of the others
  if (last.length > 0) yield last;
}

export function tooMuch(maxBytes: number): SuiteError {
  return new SuiteError("limit-exceeded", "too much for one key", { fault: "local", details: { maxBytes } });
}
