import { createCipheriv, randomBytes } from "node:crypto";
import type { PeerCertificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { contentType } from "./algorithms.ts";
import { closed, gather, octetChunks, opened } from "./ber-write.ts";
import { algorithmsOf, type Profile } from "./profile.ts";
import { recipientInfo } from "./recipient-write.ts";

const tagBytes = 16;

/** Encrypts `content` for all recipients: ContentInfo with AuthEnvelopedData (RFC 5083), in one pass. */
export async function* authEnvelopedData(
  content: AsyncIterable<Uint8Array>,
  recipients: readonly PeerCertificate[],
  profile: Profile,
): AsyncGenerator<Buffer> {
  const algorithms = algorithmsOf(profile);
  const { name, oid, keyBytes, nonceBytes, maxBytes } = algorithms.content;
  const key = randomBytes(keyBytes); // serves this one time
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv(name, key, nonce, { authTagLength: tagBytes });
  const infos = der.set(...recipients.map(({ certificate }) => recipientInfo(certificate, key, algorithms)));
  key.fill(0);
  // GCMParameters (RFC 5084 §3.2); the DEFAULT of aes-ICVlen is 12.
  const algorithm = der.sequence(der.oid(oid), der.sequence(der.octetString(nonce), der.integer(tagBytes)));

  const gathered = await gather(content);
  if ("small" in gathered) {
    const ciphertext = Buffer.concat([cipher.update(gathered.small), cipher.final()]);
    const encrypted = der.sequence(der.oid(contentType.data), algorithm, der.implicitPrimitive(0, ciphertext));
    const body = der.sequence(der.integer(0), infos, encrypted, der.octetString(cipher.getAuthTag()));
    yield der.sequence(der.oid(contentType.authEnvelopedData), der.explicit(0, body));
    return;
  }
  yield Buffer.concat([
    opened(der.tag.sequence),
    der.oid(contentType.authEnvelopedData),
    opened(der.contextConstructed(0), der.tag.sequence),
    der.integer(0),
    infos,
    opened(der.tag.sequence),
    der.oid(contentType.data),
    algorithm,
    opened(der.contextConstructed(0)),
  ]);
  yield* octetChunks(encrypted(cipher, gathered.large, maxBytes));
  yield Buffer.concat([closed(2), der.octetString(cipher.getAuthTag()), closed(3)]);
}

async function* encrypted(
  cipher: ReturnType<typeof createCipheriv>,
  content: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<Buffer> {
  let size = 0;
  for await (const piece of content) {
    size += piece.length;
    if (size > maxBytes)
      throw new SuiteError("limit-exceeded", "too much for one key", { fault: "local", details: { maxBytes } });
    yield cipher.update(piece);
  }
  cipher.final(); // a stream mode: nothing is left
}
