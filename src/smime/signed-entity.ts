import * as der from "../pki/der.ts";
import { contentType, type SignatureDigest, signatureDigests } from "./algorithms.ts";
import { decodeBase64 } from "./base64.ts";
import { BerReader } from "./ber-read.ts";
import { ByteReader, coalesce } from "./byte-reader.ts";
import {
  CanonicalLines,
  contentTypeOf,
  type EntityHead,
  isAmbiguous,
  parseHead,
  readHeadBytes,
  type SplitEntity,
  serializeHead,
  splitEntity,
  transferEncodingOf,
} from "./entity.ts";
import { enterContentInfo, leaveContentInfo } from "./envelope-read.ts";
import { malformed, unsupported } from "./failure.ts";
import { boundaryOf, MultipartReader } from "./multipart.ts";
import { type ContentDigests, ContentHasher, readSignedData, type SignedData } from "./signed-read.ts";
import type { ContentAgain } from "./signed-verify.ts";

/** Takes bytes of an entity in their order; they are its own. */
export type Sink = (piece: Buffer) => Promise<void>;

/** Where the bytes go that somebody wants to keep; they are not verified yet. */
export interface Keep {
  /** `entity`: as it was decrypted, signature and all; `body`: what was signed, without its head. */
  readonly what: "entity" | "body";
  readonly write: Sink;
}

/** A signed entity that was read to its end; the signature is not verified. */
export interface SignedEntity {
  /** Head of what was signed. */
  readonly head: EntityHead;
  readonly signed: SignedData;
  /** What was signed, once more, from what was kept. */
  readonly again: (kept: () => AsyncIterable<Buffer>) => ContentAgain;
}

/**
 * Reads one signed entity from a stream to its end: multipart/signed, application/pkcs7-mime, or a SignedData without
 * MIME around it. Of the last, `entity` keeps what was signed, the body behind the MIME fields of its head: the rest is no
 * entity, and a field of another kind would stand among those that whoever shows the entity writes himself.
 */
export async function readSignedEntity(plaintext: AsyncIterable<Buffer>, keep: Keep): Promise<SignedEntity> {
  const outer = new ByteReader(plaintext);
  await outer.fill(1);
  const bare = outer.view()[0] === der.tag.sequence; // "0", which begins no header field of ours
  const what = bare && keep.what === "entity" ? "whole" : keep.what;
  const consume = (content: AsyncIterable<Buffer>) => readContent(content, { ...keep, what });
  const { content, signed } = bare
    ? await readOpaque(outer.rest(), consume)
    : await readEntity(what === "entity" ? kept(outer.rest(), keep.write) : outer.rest(), keep.what, consume);
  const { head, headBytes } = content;
  const again: SignedEntity["again"] = (keptBytes) => async (consumeAgain) => {
    if (what === "entity") await readEntity(keptBytes(), what, consumeAgain);
    else await consumeAgain(behind(headBytes, keptBytes(), what === "whole" ? mimeHead(head).length : 0));
  };
  return { head, signed, again };
}

/** A MIME entity of one of the signed types. */
async function readEntity<T>(
  stream: AsyncIterable<Buffer>,
  what: Keep["what"],
  consume: Consume<T>,
): Promise<Signed<T>> {
  const reader = new ByteReader(stream);
  const head = parseHead(await readHeadBytes(reader));
  if (isAmbiguous(head)) throw malformed("two types");
  if (what === "entity" && !head.fields.every(isMime)) {
    throw malformed("fields outside the signature"); // whoever shows the entity would show them as if they were signed
  }
  const type = contentTypeOf(head);
  switch (type.value) {
    case "multipart/signed":
      return readClearContent(reader, head, consume, { canonical: false });
    case "application/pkcs7-mime":
    case "application/x-pkcs7-mime":
      return readOpaque(decoded(head, reader.rest()), consume);
    default:
      throw malformed("not signed");
  }
}

/** `first`, and what follows the `skipped` octets of `rest`. */
async function* behind(first: Buffer, rest: AsyncIterable<Buffer>, skipped: number): AsyncGenerator<Buffer> {
  yield first;
  const reader = new ByteReader(rest);
  await reader.fill(skipped);
  reader.take(skipped);
  yield* reader.rest();
}

function isMime({ name }: { readonly name: string }): boolean {
  return /^(?:content-.*|mime-version)$/i.test(name);
}

interface SignedKeep {
  readonly what: "entity" | "body" | "whole";
  readonly write: Sink;
}

/** What is signed and then read by `consume`; the signature is not verified. */
export interface Signed<T> {
  readonly content: T;
  readonly signed: SignedData;
  /** The same with the content's lines ended by CRLF, if that was asked for. */
  readonly canonical?: SignedData;
}

/** Reads what is signed, to its end. */
export type Consume<T> = (content: AsyncIterable<Buffer>) => Promise<T>;

/** ContentInfo with a SignedData around the entity; dispatched on the type inside, never on smime-type. */
async function readOpaque<T>(source: AsyncIterable<Uint8Array>, consume: Consume<T>): Promise<Signed<T>> {
  const ber = new BerReader(new ByteReader(source));
  if ((await enterContentInfo(ber)) !== contentType.signedData) throw unsupported("content inside the envelope");
  return readOpaqueContent(ber, consume);
}

/** The SignedData of an entered ContentInfo, which has its content inside. */
export async function readOpaqueContent<T>(ber: BerReader, consume: Consume<T>): Promise<Signed<T>> {
  let found: { content: T } | undefined;
  const signed = await readSignedData(ber, {
    consume: async (content) => {
      found = { content: await consume(content) };
    },
  });
  await leaveContentInfo(ber);
  if (found === undefined) throw malformed("no content");
  return { content: found.content, signed };
}

/**
 * multipart/signed (RFC 8551 §3.5.3), whose head was read: the first part as it stands, the signature in the second.
 * @param o.canonical also with canonical line ends, which a mail has lost that was kept in a file of lines
 */
export async function readClearContent<T>(
  reader: ByteReader,
  outer: EntityHead,
  consume: Consume<T>,
  o: { canonical: boolean },
): Promise<Signed<T>> {
  const multipart = new MultipartReader(reader, boundaryOf(outer));
  const hasher = new ContentHasher(micalg(outer));
  await multipart.preamble();
  const canonical = o.canonical ? new CanonicalHasher(micalg(outer)) : undefined;
  const part = hasher.through(coalesce(multipart.part()));
  const content = await consume(canonical === undefined ? part : canonical.beside(part));
  const signatureHead = await multipart.head();
  if (!/^application\/(?:x-)?pkcs7-signature$/.test(contentTypeOf(signatureHead).value))
    throw malformed("no signature");
  const ber = new BerReader(new ByteReader(decoded(signatureHead, multipart.part())));
  if ((await enterContentInfo(ber)) !== contentType.signedData) throw unsupported("signature type");
  const signed = await readSignedData(ber, { detached: hasher.digests() });
  await leaveContentInfo(ber);
  await multipart.end();
  return {
    content,
    signed,
    ...(canonical === undefined ? {} : { canonical: { ...signed, content: canonical.digests() } }),
  };
}

/** Hashes what passes as it would be with canonical line ends. */
class CanonicalHasher {
  readonly #lines = new CanonicalLines();
  readonly #hasher: ContentHasher;

  constructor(digests: readonly SignatureDigest[]) {
    this.#hasher = new ContentHasher(digests);
  }

  async *beside(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of source) {
      this.#hasher.update(this.#lines.push(piece));
      yield piece;
    }
  }

  digests(): ContentDigests {
    this.#hasher.update(this.#lines.end());
    return this.#hasher.digests();
  }
}

async function readContent(content: AsyncIterable<Buffer>, keep: SignedKeep): Promise<Omit<SplitEntity, "body">> {
  const { head, headBytes, body } = await splitEntity(content);
  if (keep.what === "whole") await keep.write(mimeHead(head));
  for await (const piece of coalesce(body)) if (keep.what !== "entity") await keep.write(piece);
  return { head, headBytes };
}

function mimeHead({ fields }: EntityHead): Buffer {
  return serializeHead({ fields: fields.filter(isMime) });
}

/** The hashes that `micalg` announces (RFC 8551 §3.5.3.2). It is not signed: without one that is known, all are computed. */
function micalg(head: EntityHead): readonly SignatureDigest[] {
  const named = (contentTypeOf(head).parameters.get("micalg") ?? "")
    .toLowerCase()
    .replaceAll("-", "")
    .split(/[\s,]+/);
  const known = signatureDigests.filter((digest) => named.includes(digest));
  return known.length > 0 ? known : signatureDigests;
}

export function decoded(head: EntityHead, body: AsyncIterable<Buffer>): AsyncIterable<Buffer> {
  switch (transferEncodingOf(head)) {
    case "base64":
      return decodeBase64(body);
    case "binary":
    case "8bit":
    case "7bit":
      return body;
    default:
      throw unsupported("transfer encoding");
  }
}

async function* kept(source: AsyncIterable<Buffer>, write: Sink): AsyncGenerator<Buffer> {
  for await (const piece of source) {
    await write(piece);
    yield piece;
  }
}
