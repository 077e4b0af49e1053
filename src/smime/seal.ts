import { createHash, randomBytes } from "node:crypto";
import type { PeerCertificate } from "../pki/certificate.ts";
import { encodeBase64 } from "./base64.ts";
import { canonicalLines, type EntityHead, headerField, serializeHead } from "./entity.ts";
import { envelopedData } from "./envelope-write.ts";
import { algorithmsOf, type Capabilities, type Profile } from "./profile.ts";
import { checkRecipients } from "./recipient-write.ts";
import { untilAborted } from "./sealed-input.ts";
import { detachedSignedData, opaqueSignedData, type Signer, signerDigest } from "./signed-write.ts";

export interface SealOptions {
  readonly signer: Signer;
  /** Signing time. */
  readonly now: Date;
  /** 1–2000; whoever seals for himself, too, is one of them. */
  readonly recipients: readonly PeerCertificate[];
  readonly profile: Profile;
  /** Of all recipients, where the profile is `foreign`. */
  readonly capabilities?: Capabilities;
  /** `detached`: multipart/signed, for mail; `opaque`: application/pkcs7-mime in binary, for files. */
  readonly shape: "detached" | "opaque";
  /** Head of the entity, `source` being its body. Left out: `source` is the whole entity, head first. */
  readonly head?: EntityHead;
}

/**
 * Signs, then encrypts: yields the binary DER (above 1 MiB BER) of an AuthEnvelopedData, or by profile EnvelopedData, around a signed entity, in one
 * pass and constant memory. With `detached`, every line end of the entity is made CRLF first. Throws, when first pulled,
 * SuiteError "recipient-unusable"; what the source throws passes.
 */
export async function* seal(
  source: AsyncIterable<Uint8Array>,
  o: SealOptions,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  checkRecipients(o.recipients, o.now);
  const body = untilAborted(source, signal);
  const entity = o.head === undefined ? body : preceded(serializeHead(o.head), body);
  const signed = o.shape === "detached" ? clearSigned(canonicalLines(entity), o) : opaqueSigned(entity, o);
  yield* envelopedData(signed, o.recipients, algorithmsOf(o.profile, o.capabilities));
}

/** multipart/signed (RFC 8551 §3.5.3). */
async function* clearSigned(entity: AsyncIterable<Uint8Array>, o: SealOptions): AsyncGenerator<Uint8Array> {
  const digest = signerDigest(o.signer);
  const boundary = `sixtalk-${randomBytes(18).toString("hex")}`;
  const micalg = digest.replace("sha", "sha-");
  yield Buffer.from(
    'Content-Type: multipart/signed; protocol="application/pkcs7-signature";\r\n' +
      ` micalg=${micalg}; boundary="${boundary}"\r\n\r\n--${boundary}\r\n`,
  );
  const hash = createHash(digest);
  for await (const piece of entity) {
    hash.update(piece);
    yield piece;
  }
  const signature = serializeHead({
    fields: [
      headerField("Content-Type", 'application/pkcs7-signature; name="smime.p7s"'),
      headerField("Content-Transfer-Encoding", "base64"),
      headerField("Content-Disposition", 'attachment; filename="smime.p7s"'),
    ],
  });
  yield Buffer.concat([Buffer.from(`\r\n--${boundary}\r\n`), signature]);
  yield* encodeBase64(only(detachedSignedData(hash.digest(), o.signer, o.now)));
  yield Buffer.from(`\r\n--${boundary}--\r\n`);
}

/** application/pkcs7-mime; smime-type=signed-data (RFC 8551 §3.5.2), not encoded: the envelope takes any octets. */
async function* opaqueSigned(entity: AsyncIterable<Uint8Array>, o: SealOptions): AsyncGenerator<Uint8Array> {
  yield opaqueEntityHead();
  yield* opaqueSignedData(entity, o.signer, o.now);
}

/** The head of the entity that is an opaque signature. */
export function opaqueEntityHead(): Buffer {
  return serializeHead({
    fields: [
      headerField("Content-Type", 'application/pkcs7-mime; smime-type=signed-data; name="smime.p7m"'),
      headerField("Content-Transfer-Encoding", "binary"),
    ],
  });
}

async function* preceded(first: Buffer, rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield first;
  yield* rest;
}

async function* only(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}
