import type { Certificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import type { Oid } from "../pki/oid.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { contentType, signatureDigests } from "./algorithms.ts";
import { decodeBase64 } from "./base64.ts";
import { BerReader } from "./ber-read.ts";
import { ByteReader, coalesce } from "./byte-reader.ts";
import { decompressContent } from "./compressed.ts";
import { CanonicalLines, contentTypeOf, type EntityHead, isAmbiguous, parseHead, readHeadBytes } from "./entity.ts";
import { decryptContent, enterContentInfo, isEnveloped, leaveContentInfo, readEnvelopeHead } from "./envelope-read.ts";
import { malformed, unreadable, unsupported } from "./failure.ts";
import type { Keyring } from "./keyring.ts";
import { matchRecipient, notForUs } from "./open.ts";
import { type PartContent, PartFile } from "./part-file.ts";
import { keyOperation } from "./recipient-read.ts";
import { SealedInput, untilAborted } from "./sealed-input.ts";
import { decoded, readClearContent, readOpaqueContent, type Signed } from "./signed-entity.ts";
import { type ContentDigests, ContentHasher, readSignedData, type SignedData } from "./signed-read.ts";
import { type ContentAgain, type VerifiedSignature, verifySignatures } from "./signed-verify.ts";

export interface ReadOptions {
  readonly keys: Keyring;
  /** Certificates known from elsewhere, which a signature may leave out. */
  readonly candidates: readonly Certificate[];
  /** What a detached signature is over, from its beginning; asked for twice if the signature can only be verified so. */
  readonly detached?: () => AsyncIterable<Uint8Array>;
  /** Where content above 64 KiB waits. */
  readonly directory: string;
  readonly maxBytes: number;
}

/** One layer around the content. */
export type Layer =
  | {
      readonly kind: "encrypted";
      readonly cipher: string /** Whether a change would have been noticed. */;
      readonly authenticated: boolean;
    }
  | { readonly kind: "compressed" }
  | {
      readonly kind: "signed";
      /** Those that hold. Whose they are, and whether that is to be believed, is not judged. */
      readonly signatures: readonly VerifiedSignature[];
      /** How many stand there. */
      readonly signers: number;
      readonly certificates: readonly Certificate[];
    };

/** What was read, of whatever protection. Disposing it removes what was not moved. */
export interface Read extends AsyncDisposable {
  /** Outermost first. */
  readonly layers: readonly Layer[];
  /** `sealed`: encrypted around a signature that holds; the last two say nothing of who wrote it. */
  readonly protection: "sealed" | "signed" | "encrypted" | "none";
  /** What is inside all layers, untouched; undefined if it stands elsewhere. */
  readonly content: PartContent | undefined;
  /** Gives the content a name, durably. SuiteError "conflict" if the name is taken, "store-failed". */
  moveTo(path: string): Promise<void>;
}

const maxLayers = 6;
const maxEnvelopes = 2;
const maxCompressions = 1;
/** Longest head that an entity may have for being looked into. */
const maxHeadBytes = 65_536;

/**
 * Reads S/MIME of any shape: a CMS object in DER, BER or PEM, or a MIME entity around one, layer within layer (signed,
 * encrypted, compressed, triple wrapped) down to what is none of these. Nothing is judged but whether it holds together: a
 * signature that does not is missing in its layer. Throws as `open` what is wrong before a key is used; whatever comes after
 * that is "seal-unreadable".
 */
export async function read(source: AsyncIterable<Uint8Array>, o: ReadOptions, signal?: AbortSignal): Promise<Read> {
  const input = new SealedInput(source, o.maxBytes, signal);
  const part = new PartFile(o.directory, { hashed: false });
  const reading = new Reading(o, part, signal);
  try {
    const found = await reading.outermost(new ByteReader(input));
    const content = o.detached === undefined ? await part.finish() : undefined;
    const layers = await verified(found, o, reading.content);
    return {
      layers,
      protection: protectionOf(layers),
      content,
      moveTo: (path) => part.moveTo(path),
      [Symbol.asyncDispose]: () => part[Symbol.asyncDispose](),
    };
  } catch (thrown) {
    await part[Symbol.asyncDispose]().catch(() => undefined); // the first failure is the one to tell
    if (thrown instanceof ContentLost) throw thrown.cause;
    if (input.failure !== undefined) throw input.failure.thrown;
    if (thrown instanceof SuiteError && thrown.code === "store-failed") throw thrown;
    if (reading.usedKey) {
      await input.drain();
      throw unreadable(thrown);
    }
    if (thrown instanceof SuiteError && thrown.code !== "syntax") throw thrown;
    throw malformed("structure", thrown);
  } finally {
    await input.close();
  }
}

function protectionOf(layers: readonly Layer[]): Read["protection"] {
  const holds = (layer: Layer) => layer.kind === "signed" && layer.signatures.length > 0;
  // Whoever signs around somebody's ciphertext does not stand for what is in it: the signature has to be inside.
  const encrypted = layers.findLastIndex(({ kind }) => kind === "encrypted");
  if (encrypted < 0) return layers.some(holds) ? "signed" : "none";
  return layers.slice(encrypted).some(holds) ? "sealed" : "encrypted";
}

/** A layer that was read; a signature's is not verified. */
type FoundLayer =
  | Exclude<Layer, { kind: "signed" }>
  | { readonly kind: "signed"; readonly signed: SignedData; readonly canonical?: SignedData };

/** What the signature is over could not be read: nothing that the one who made it could have a hand in. */
class ContentLost extends Error {}

/** @param again the innermost content */
async function verified(
  found: readonly FoundLayer[],
  { candidates }: ReadOptions,
  again: () => AsyncIterable<Uint8Array>,
): Promise<Layer[]> {
  const octets = () => new ByteReader(again()).rest();
  const layers: Layer[] = [];
  for (const [n, layer] of found.entries()) {
    if (layer.kind !== "signed") {
      layers.push(layer);
      continue;
    }
    const { signed, canonical } = layer;
    const isInnermost = n === found.length - 1; // what is signed around other layers is not kept
    let signatures = await verifySignatures(signed, candidates, isInnermost ? thatMayFail(octets) : undefined);
    if (signatures.length === 0 && canonical !== undefined) {
      const lines = thatMayFail(() => inCanonicalLines(octets()));
      signatures = await verifySignatures(canonical, candidates, isInnermost ? lines : undefined);
    }
    layers.push({ kind: "signed", signatures, signers: signed.signers.length, certificates: signed.certificates });
  }
  return layers;
}

function thatMayFail(content: () => AsyncIterable<Buffer>): ContentAgain {
  return async (consume) => {
    try {
      await consume(content());
    } catch (cause) {
      throw new ContentLost("the content cannot be read again", { cause });
    }
  };
}

async function* inCanonicalLines(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const lines = new CanonicalLines();
  for await (const piece of source) yield lines.push(piece);
  yield lines.end();
}

/** Goes into layer after layer; each method gives the layers from its own on, outermost first. */
class Reading {
  usedKey = false;
  readonly #o: ReadOptions;
  readonly #part: PartFile;
  readonly #signal: AbortSignal | undefined;
  /** Whether it came as a MIME entity, which then is around entities only (RFC 8551 §3.1). */
  #mail = false;
  #layers = 0;
  #envelopes = 0;
  #compressions = 0;

  constructor(o: ReadOptions, part: PartFile, signal: AbortSignal | undefined) {
    this.#o = o;
    this.#part = part;
    this.#signal = signal;
  }

  /** What is inside all layers, as far as it was kept, or what the detached signature is over. */
  readonly content = (): AsyncIterable<Uint8Array> =>
    untilAborted(this.#o.detached === undefined ? this.#part.again() : this.#o.detached(), this.#signal);

  async outermost(reader: ByteReader): Promise<readonly FoundLayer[]> {
    this.#mail = (await smimeHead(reader)) !== undefined;
    const layers = await this.#entity((await isPem(reader)) ? new ByteReader(pemBody(reader)) : reader);
    if (layers.length === 0) throw malformed("neither signed nor encrypted");
    return layers;
  }

  /** An entity, a CMS object, or octets that are neither: those are the content. */
  async #entity(reader: ByteReader): Promise<readonly FoundLayer[]> {
    if (await beginsLikeCms(reader)) return this.#object(reader);
    const head = await smimeHead(reader);
    if (head === undefined) {
      for await (const piece of coalesce(reader.rest())) await this.#part.write(piece);
      return [];
    }
    await readHeadBytes(reader);
    if (contentTypeOf(head).value !== "multipart/signed")
      return this.#object(new ByteReader(decoded(head, reader.rest())));
    this.#enter();
    return this.#signed(
      await readClearContent(reader, head, (content) => this.#entity(new ByteReader(content)), { canonical: true }),
    );
  }

  /** A ContentInfo, by the type that it names. */
  async #object(reader: ByteReader): Promise<readonly FoundLayer[]> {
    this.#enter();
    const ber = new BerReader(reader);
    const type = await enterContentInfo(ber);
    if (isEnveloped(type)) return this.#envelope(ber, type);
    if (type === contentType.compressedData) {
      this.#compressions += 1;
      if (this.#compressions > maxCompressions) throw malformed("compressed twice");
      return [{ kind: "compressed" }, ...(await this.#through(decompressContent(ber, this.#o.maxBytes)))];
    }
    if (type !== contentType.signedData) throw unsupported("content type");
    if (this.#o.detached === undefined)
      return this.#signed(await readOpaqueContent(ber, (content) => this.#entity(new ByteReader(content))));
    const signed = await readSignedData(ber, { detached: await digestsOf(this.content) });
    await leaveContentInfo(ber);
    return this.#signed({ content: [], signed });
  }

  async #envelope(ber: BerReader, type: Oid): Promise<readonly FoundLayer[]> {
    this.#envelopes += 1;
    if (this.#envelopes > maxEnvelopes) throw malformed("too many envelopes");
    let found: ReturnType<typeof matchRecipient>;
    const head = await readEnvelopeHead(ber, type, (recipient) => {
      found ??= matchRecipient(recipient, this.#o.keys);
    });
    if (found === undefined) throw notForUs();
    const contentKey = keyOperation(found.info, found.key, found.own, head.cipher.keyBytes);
    this.usedKey = true;
    const authenticated = head.tagBytes > 0;
    const inner = await this.#through(decryptContent(ber, head, contentKey()), async (reader) => {
      // One wrong key in 256 gives octets whose padding looks right.
      if (this.#mail && !authenticated && !(await beginsLikeEntity(reader))) throw malformed("no entity");
    });
    return [{ kind: "encrypted", cipher: head.cipher.name, authenticated }, ...inner];
  }

  /** What a layer yields is read to its end, where it shows whether all of it holds. */
  async #through(
    content: AsyncGenerator<Buffer>,
    check: (reader: ByteReader) => Promise<void> = async () => {},
  ): Promise<readonly FoundLayer[]> {
    const reader = new ByteReader(content);
    await check(reader);
    const inner = await this.#entity(reader);
    if (!(await content.next()).done) throw malformed("trailing bytes");
    return inner;
  }

  #signed({ content: inner, ...signed }: Signed<readonly FoundLayer[]>): readonly FoundLayer[] {
    return [{ kind: "signed", ...signed }, ...inner];
  }

  #enter(): void {
    this.#layers += 1;
    if (this.#layers > maxLayers) throw malformed("too many layers");
  }
}

/** Object identifiers of PKCS, below which all content types of CMS are: 1.2.840.113549.1. */
const PKCS = Buffer.from("2a864886f70d01", "hex");

/** Whether a ContentInfo may stand there: a SEQUENCE that begins with an object identifier of PKCS. */
async function beginsLikeCms(reader: ByteReader): Promise<boolean> {
  await reader.fill(24);
  const view = reader.view();
  const first = view[1] ?? 0;
  const oid = 2 + (first > 0x80 ? first & 0x7f : 0);
  return (
    view[0] === der.tag.sequence &&
    view[oid] === der.tag.oid &&
    view.subarray(oid + 2, oid + 2 + PKCS.length).equals(PKCS)
  );
}

/** Whether what stands there may be an entity: a header field, the blank line of one without any, or CMS in place of one. */
async function beginsLikeEntity(reader: ByteReader): Promise<boolean> {
  await reader.fill(1_024);
  const begin = reader.view().subarray(0, 1_024).toString("latin1");
  return /^(?:\r?\n|[\x21-\x39\x3b-\x7e]+[ \t]*:)/.test(begin) || (await beginsLikeCms(reader));
}

/** The head of an S/MIME entity, not taken; undefined for any other and for what is none. */
async function smimeHead(reader: ByteReader): Promise<EntityHead | undefined> {
  for (let wanted = 1_024; ; wanted *= 2) {
    const more = await reader.fill(wanted);
    const end = /\r?\n\r?\n/.exec(reader.view().subarray(0, wanted).toString("latin1"));
    if (end === null) {
      if (more && wanted < maxHeadBytes) continue;
      return undefined;
    }
    try {
      const head = parseHead(reader.view().subarray(0, end.index + end[0].length));
      return isSmime(head) ? head : undefined;
    } catch {
      return undefined; // no head, then
    }
  }
}

function isSmime(head: EntityHead): boolean {
  if (isAmbiguous(head)) return false; // what another program takes for the type is not what would be verified here
  const { value, parameters } = contentTypeOf(head);
  if (/^application\/(?:x-)?pkcs7-mime$/.test(value)) return true;
  return (
    value === "multipart/signed" && /^application\/(?:x-)?pkcs7-signature$/i.test(parameters.get("protocol") ?? "")
  );
}

async function digestsOf(content: () => AsyncIterable<Uint8Array>): Promise<ContentDigests> {
  const hasher = new ContentHasher(signatureDigests);
  await thatMayFail(() => new ByteReader(content()).rest())(async (pieces) => {
    for await (const _piece of hasher.through(pieces));
  });
  return hasher.digests();
}

const PEM_BEGIN = /^-----BEGIN (?:CMS|PKCS7|PKCS #7 SIGNED DATA)-----\r?\n/;

async function isPem(reader: ByteReader): Promise<boolean> {
  await reader.fill(64);
  return PEM_BEGIN.test(reader.view().subarray(0, 64).toString("latin1"));
}

/** What stands between the lines of dashes (RFC 7468 §8, §9). */
async function* pemBody(reader: ByteReader): AsyncGenerator<Buffer> {
  reader.take(reader.view().indexOf("\n") + 1);
  yield* decodeBase64(upToDash(reader.rest()));
}

async function* upToDash(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for await (const piece of source) {
    const end = piece.indexOf("-");
    if (end < 0) yield piece;
    else {
      yield piece.subarray(0, end);
      return;
    }
  }
  throw malformed("PEM without an end");
}
