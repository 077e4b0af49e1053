import { createHash, type Hash } from "node:crypto";
import { type AlgorithmIdentifier, readAlgorithm } from "../pki/algorithm.ts";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import { contentType, type SignatureDigest, signatureDigestOf, signatureDigests } from "./algorithms.ts";
import { readSignedAttributes, type SignedAttributes } from "./attributes.ts";
import type { BerReader } from "./ber-read.ts";
import { malformed, unsupported } from "./failure.ts";
import type { CertificateId } from "./keyring.ts";
import { readCertificateId } from "./recipient-read.ts";

const maxDigestAlgorithms = 4;
const maxCertificates = 64;
const maxCertificateBytes = 65_536;
const maxCrlBytes = 16_777_216;
const maxSigners = 16;
const maxSignerBytes = 262_144;
/** Longest content that is kept for a signature without signed attributes. */
const maxSmallBytes = 1_048_576;
const beginBytes = 64;

/** A SignedData that was read to its end; nothing in it is verified. */
export interface SignedData {
  readonly content: ContentDigests;
  readonly certificates: readonly Certificate[];
  readonly signers: readonly SignerInfo[];
}

/** What is known of content that has passed. */
export interface ContentDigests {
  /** By each hash that was computed. */
  readonly digests: ReadonlyMap<SignatureDigest, Buffer>;
  readonly size: number;
  /** The first 64 octets, or all if there are fewer. */
  readonly begin: Buffer;
  /** Itself, if it has at most 1 MiB: signatures without signed attributes are over the octets, not over their hash. */
  readonly small: Buffer | undefined;
}

/** RFC 5652 §5.3. */
export interface SignerInfo {
  readonly id: CertificateId;
  readonly digest: SignatureDigest | undefined;
  /** Undefined: the signature is over the content itself (RFC 5652 §5.4). */
  readonly attributes: SignedAttributes | undefined;
  /** As signed: DER of the SET OF. */
  readonly signed: Uint8Array | undefined;
  readonly algorithm: AlgorithmIdentifier;
  readonly signature: Uint8Array;
}

/** The content of a detached signature by its hashes, or who takes the content that is inside. */
export type SignedContent =
  | { detached: ContentDigests }
  | { consume: (content: AsyncIterable<Buffer>) => Promise<void> };

/** Reads the SignedData (RFC 5652 §5.1) inside an entered ContentInfo. */
export async function readSignedData(ber: BerReader, content: SignedContent): Promise<SignedData> {
  await ber.enter(der.tag.sequence);
  der.readSmallInteger(await ber.element(der.tag.integer)); // version
  const hashes = await readDigestAlgorithms(ber);
  await ber.enter(der.tag.sequence); // EncapsulatedContentInfo
  if (der.readOid(await ber.element(der.tag.oid)) !== contentType.data) throw unsupported("signed content type");
  const found = await readContent(ber, hashes, content);
  await ber.leave();
  const certificates = await readCertificates(ber);
  if ((await ber.peek()) === der.contextConstructed(1)) await ber.skip(maxCrlBytes);
  const signers = await readSigners(ber);
  await ber.leave();
  return { content: found, certificates, signers };
}

/** Hashes a stream that passes. */
export class ContentHasher {
  readonly #hashes: ReadonlyMap<SignatureDigest, Hash>;
  #small: Buffer[] | undefined = [];
  #begin: Buffer = Buffer.alloc(0);
  #size = 0;

  constructor(digests: readonly SignatureDigest[]) {
    this.#hashes = new Map(digests.map((digest) => [digest, createHash(digest)]));
  }

  async *through(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of source) {
      this.update(piece);
      yield piece;
    }
  }

  update(piece: Buffer): void {
    for (const hash of this.#hashes.values()) hash.update(piece);
    if (this.#size < beginBytes) this.#begin = Buffer.concat([this.#begin, piece.subarray(0, beginBytes - this.#size)]);
    this.#size += piece.length;
    if (this.#size > maxSmallBytes) this.#small = undefined;
    this.#small?.push(piece);
  }

  digests(): ContentDigests {
    return {
      digests: new Map(Array.from(this.#hashes, ([digest, hash]) => [digest, hash.digest()])),
      size: this.#size,
      begin: this.#begin,
      small: this.#small === undefined ? undefined : Buffer.concat(this.#small),
    };
  }
}

/** None named (RFC 5652 §5.1 allows it): any may turn up in a SignerInfo. */
async function readDigestAlgorithms(ber: BerReader): Promise<readonly SignatureDigest[]> {
  const set = new der.DerCursor((await ber.element(der.tag.set)).content);
  const found = new Set<SignatureDigest>();
  let count = 0;
  for (; !set.done; count++) {
    if (count >= maxDigestAlgorithms) throw malformed("too many digest algorithms");
    const digest = signatureDigestOf(readAlgorithm(set.next(der.tag.sequence)));
    if (digest !== undefined) found.add(digest);
  }
  return count === 0 ? signatureDigests : [...found];
}

async function readContent(
  ber: BerReader,
  hashes: readonly SignatureDigest[],
  content: SignedContent,
): Promise<ContentDigests> {
  const inside = (await ber.peek()) !== undefined;
  if ("detached" in content) {
    if (inside) throw malformed("content inside a detached signature");
    return content.detached;
  }
  if (!inside) throw malformed("no content");
  await ber.enter(der.contextConstructed(0));
  const hasher = new ContentHasher(hashes);
  const stream = hasher.through(ber.octets(der.tag.octetString));
  await content.consume(stream);
  if (!(await stream.next()).done) throw malformed("content was not read to its end");
  await ber.leave();
  return hasher.digests();
}

/** CertificateSet: X.509 certificates; attribute certificates and what does not parse are passed over. */
async function readCertificates(ber: BerReader): Promise<Certificate[]> {
  const certificates: Certificate[] = [];
  if ((await ber.peek()) !== der.contextConstructed(0)) return certificates;
  await ber.enter(der.contextConstructed(0));
  for (let count = 0; (await ber.peek()) !== undefined; count++) {
    if (count >= maxCertificates) throw malformed("too many certificates");
    const element = await ber.element(undefined, maxCertificateBytes);
    const certificate = element.tag === der.tag.sequence ? certificateOrNone(element.bytes) : undefined;
    if (certificate !== undefined) certificates.push(certificate);
  }
  await ber.leave();
  return certificates;
}

function certificateOrNone(bytes: Uint8Array): Certificate | undefined {
  try {
    return parseCertificate(bytes);
  } catch {
    return undefined;
  }
}

async function readSigners(ber: BerReader): Promise<SignerInfo[]> {
  const signers: SignerInfo[] = [];
  await ber.enter(der.tag.set);
  for (let count = 0; (await ber.peek()) !== undefined; count++) {
    if (count >= maxSigners) throw malformed("too many signers");
    signers.push(readSignerInfo(await ber.element(der.tag.sequence, maxSignerBytes)));
  }
  await ber.leave();
  return signers;
}

/** SignerInfo (RFC 5652 §5.3). */
function readSignerInfo(element: der.DerElement): SignerInfo {
  const cursor = new der.DerCursor(element.content);
  der.readSmallInteger(cursor.next(der.tag.integer)); // version: follows from the identifier
  const id = readCertificateId(cursor.next());
  const digest = signatureDigestOf(readAlgorithm(cursor.next(der.tag.sequence)));
  const attributes = cursor.optional(der.contextConstructed(0));
  const algorithm = readAlgorithm(cursor.next(der.tag.sequence));
  const signature = der.readOctetString(cursor.next(der.tag.octetString));
  cursor.optional(der.contextConstructed(1)); // unsignedAttrs
  cursor.end();
  return {
    id,
    digest,
    attributes: attributes === undefined ? undefined : readSignedAttributes(attributes.content),
    // RFC 5652 §5.4: signed with the tag of SET OF
    signed: attributes === undefined ? undefined : der.encode(der.tag.set, attributes.content),
    algorithm,
    signature,
  };
}
