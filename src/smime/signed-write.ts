import { createHash, type KeyObject } from "node:crypto";
import { type RsaSignature, sign, signatureAlgorithmFor } from "../pki/algorithm.ts";
import type { Certificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import { contentType, digestIdentifier, type SignatureDigest } from "./algorithms.ts";
import { signedAttributes } from "./attributes.ts";
import { closed, gather, octetChunks, opened } from "./ber-write.ts";
import { issuerAndSerial } from "./recipient-write.ts";

/** Who signs. `chain`: the certificates between the signer's and the root, which go along. */
export interface Signer {
  readonly certificate: Certificate;
  readonly chain: readonly Certificate[];
  readonly privateKey: KeyObject;
  /** Of an RSA key; `pkcs1` unless told. */
  readonly rsaSignature?: RsaSignature;
}

/** The hash that this signer's signatures rest on. */
export function signerDigest(signer: Signer): SignatureDigest {
  const { digest } = signatureAlgorithmFor(signer.privateKey);
  return digest === null || digest === "sha1" ? "sha512" : digest; // RFC 8419 §3.1: Ed25519 goes with SHA-512
}

/**
 * Signs `content` in one pass: ContentInfo with a SignedData that contains it (RFC 5652 §5).
 * @returns the messageDigest
 */
export async function* opaqueSignedData(
  content: AsyncIterable<Uint8Array>,
  signer: Signer,
  now: Date,
): AsyncGenerator<Buffer, Buffer> {
  const digest = signerDigest(signer);
  const hash = createHash(digest);
  const gathered = await gather(content);
  if ("small" in gathered) {
    hash.update(gathered.small);
    const encapsulated = der.sequence(der.oid(contentType.data), der.explicit(0, der.octetString(gathered.small)));
    const messageDigest = hash.digest();
    yield signedData(digest, encapsulated, trailer(signer, digest, messageDigest, now));
    return messageDigest;
  }
  yield beforeContent(signer);
  yield* octetChunks(hashed(gathered.large, hash));
  const messageDigest = hash.digest();
  yield behindContent(signer, messageDigest, now);
  return messageDigest;
}

/** What stands before the chunks of content (OCTET STRINGs) of a SignedData with indefinite lengths. */
export function beforeContent(signer: Signer): Buffer {
  return Buffer.concat([
    opened(der.tag.sequence),
    der.oid(contentType.signedData),
    opened(der.contextConstructed(0), der.tag.sequence),
    der.integer(1),
    der.set(digestIdentifier(signerDigest(signer))),
    opened(der.tag.sequence),
    der.oid(contentType.data),
    opened(der.contextConstructed(0), der.tag.octetString | 0x20),
  ]);
}

/** What follows them. `messageDigest` is by `signerDigest(signer)`. */
export function behindContent(signer: Signer, messageDigest: Uint8Array, now: Date): Buffer {
  return Buffer.concat([closed(3), trailer(signer, signerDigest(signer), messageDigest, now), closed(3)]);
}

/** ContentInfo with a SignedData over content that stands elsewhere. `messageDigest` is by `signerDigest(signer)`. */
export function detachedSignedData(messageDigest: Uint8Array, signer: Signer, now: Date): Buffer {
  const digest = signerDigest(signer);
  return signedData(digest, der.sequence(der.oid(contentType.data)), trailer(signer, digest, messageDigest, now));
}

/** Version 1: the content is id-data, signers are named by issuer and serial number (RFC 5652 §5.1). */
function signedData(digest: SignatureDigest, encapsulated: Buffer, end: Buffer): Buffer {
  const body = der.sequence(der.integer(1), der.set(digestIdentifier(digest)), encapsulated, end);
  return der.sequence(der.oid(contentType.signedData), der.explicit(0, body));
}

/** What follows the content: certificates and signerInfos. */
function trailer(signer: Signer, digest: SignatureDigest, messageDigest: Uint8Array, now: Date): Buffer {
  const certificates = [signer.certificate, ...signer.chain].map((certificate) => certificate.der);
  return Buffer.concat([
    der.implicitConstructed(0, ...certificates.toSorted(Buffer.compare)),
    der.set(signerInfo(signer, digest, messageDigest, now)),
  ]);
}

/** SignerInfo (RFC 5652 §5.3). */
function signerInfo(signer: Signer, digest: SignatureDigest, messageDigest: Uint8Array, now: Date): Buffer {
  const attributes = signedAttributes({ certificate: signer.certificate, messageDigest, now });
  // Signed as a SET OF, stored as [0] IMPLICIT (RFC 5652 §5.4).
  const signature = sign(signer.privateKey, der.encode(der.tag.set, attributes), signer.rsaSignature);
  return der.sequence(
    der.integer(1),
    issuerAndSerial(signer.certificate),
    digestIdentifier(digest),
    der.implicitConstructed(0, attributes),
    signatureAlgorithmFor(signer.privateKey, signer.rsaSignature).der,
    der.octetString(signature),
  );
}

async function* hashed(
  source: AsyncIterable<Uint8Array>,
  hash: ReturnType<typeof createHash>,
): AsyncGenerator<Uint8Array> {
  for await (const piece of source) {
    hash.update(piece);
    yield piece;
  }
}
