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
  const key = randomBytes(cipher.keyBytes); // serves this one time
  const infos = der.set(...recipients.map(({ certificate }) => recipientInfo(certificate, key, algorithms)));
  const { running, identifier } = begin(cipher, key);
  key.fill(0);
  const authenticated = cipher.mode !== "cbc";
  const type = der.oid(authenticated ? contentType.authEnvelopedData : contentType.envelopedData);
  const agreed = recipients.some(({ certificate }) => certificate.keyType !== "rsa");
  // RFC 5652 §6.1: with recipients of version 3, the agreed ones, 2; RFC 5083 §2.1: always 0.
  const version = der.integer(authenticated || !agreed ? 0 : 2);

  const gathered = await gather(content);
  if ("small" in gathered) {
    const ciphertext = Buffer.concat([running.update(gathered.small), running.final()]);
    const encrypted = der.sequence(der.oid(contentType.data), identifier, der.implicitPrimitive(0, ciphertext));
    yield der.sequence(
      type,
      der.explicit(
        0,
        der.sequence(version, infos, encrypted, ...(authenticated ? [der.octetString(running.getAuthTag())] : [])),
      ),
    );
    return;
  }
  yield Buffer.concat([
    opened(der.tag.sequence),
    type,
    opened(der.contextConstructed(0), der.tag.sequence),
    version,
    infos,
    opened(der.tag.sequence),
    der.oid(contentType.data),
    identifier,
    opened(der.contextConstructed(0)),
  ]);
  yield* octetChunks(encrypted(running, gathered.large, cipher.maxBytes));
  yield Buffer.concat([closed(2), ...(authenticated ? [der.octetString(running.getAuthTag())] : []), closed(3)]);
}

/** The cipher under way, and its AlgorithmIdentifier with the fresh nonce. */
function begin(cipher: ContentCipher, key: Buffer): { running: CipherGCM; identifier: Buffer } {
  const iv = randomBytes(cipher.ivBytes);
  if (cipher.mode === "cbc") {
    const identifier = der.sequence(der.oid(cipher.oid), der.octetString(iv));
    return { running: createCipheriv(cipher.name, key, iv) as CipherGCM, identifier };
  }
  // GCMParameters (RFC 5084 §3.2); the DEFAULT of aes-ICVlen is 12.
  const parameters = der.sequence(der.octetString(iv), der.integer(tagBytes));
  const running = createCipheriv(cipher.name as "aes-256-gcm", key, iv, { authTagLength: tagBytes });
  return { running, identifier: der.sequence(der.oid(cipher.oid), parameters) };
}

async function* encrypted(
  running: CipherGCM,
  content: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<Buffer> {
  let size = 0;
  for await (const piece of content) {
    size += piece.length;
    if (size > maxBytes)
      throw new SuiteError("limit-exceeded", "too much for one key", { fault: "local", details: { maxBytes } });
    yield running.update(piece);
  }
  const last = running.final(); // nothing of a stream mode, a block of the others
  if (last.length > 0) yield last;
}
