import type { FileHandle } from "node:fs/promises";
import type { PeerCertificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { beginEnvelope, envelopedData, tooMuch } from "./envelope-write.ts";
import { cancelled, storeFailed } from "./failure.ts";
import { type FileLayout, octetHeaderBytes, segmentBytes, segmentCount, segmentOf } from "./file-layout.ts";
import { joinedTag, type Stretch, StretchCipher } from "./ghash.ts";
import { writeAll } from "./part-file.ts";
import { algorithmsOf, type Capabilities, type Profile, type ProfileAlgorithms } from "./profile.ts";
import { checkRecipients } from "./recipient-write.ts";
import { opaqueEntityHead } from "./seal.ts";
import { untilAborted } from "./sealed-input.ts";
import { beforeContent, behindContent, opaqueSignedData, type Signer, signerDigest } from "./signed-write.ts";
import type { Threads } from "./threads.ts";

/** Part of a file, open for reading, that nobody changes meanwhile. */
export interface FileRange {
  readonly file: FileHandle;
  readonly offset: number;
  readonly size: number;
}

export interface SealFileOptions {
  readonly signer: Signer;
  /** Signing time. */
  readonly now: Date;
  /** 1–2000; whoever seals for himself, too, is one of them. */
  readonly recipients: readonly PeerCertificate[];
  readonly profile: Profile;
  /** Of all recipients, where the profile is `foreign`. */
  readonly capabilities?: Capabilities;
  /** Stands before the file in what is signed: the head of an entity, serialised. */
  readonly before?: Uint8Array;
  /** Whether the SignedData stands in a MIME entity, as S/MIME has it, or by itself in the envelope, as CMS tools do it. */
  readonly mime: boolean;
  readonly threads: Threads;
  /** How many bytes of the file are done. */
  readonly progress?: (bytes: number) => void;
}

/** Smaller ones are done before a thread has begun. */
const threadedBytes = 4_194_304;
const segmentsPerJob = 16;
/** A head that leaves room for the file in the first segment. */
const maxBeforeBytes = 131_072;
const streamBytes = 262_144;
const maxPieces = 512; // writev takes at most IOV_MAX, 1024

/**
 * Signs a file, then encrypts it, into a file that is empty: the DER or BER of an AuthEnvelopedData (by profile EnvelopedData)
 * around the SignedData. Large ones by several threads, if the cipher lets them. What was written is not synchronised.
 * @returns the signed messageDigest
 * @throws SuiteError "recipient-unusable", "source-changed", "store-failed", "cancelled"
 */
export async function sealFile(
  source: FileRange,
  target: FileHandle,
  o: SealFileOptions,
  signal?: AbortSignal,
): Promise<Buffer> {
  checkRecipients(o.recipients, o.now);
  const algorithms = algorithmsOf(o.profile, o.capabilities);
  const outside = o.mime ? opaqueEntityHead() : Buffer.alloc(0);
  const before = o.before ?? new Uint8Array();
  if (isThreaded(source, algorithms) && before.length <= maxBeforeBytes) {
    const chunk = before.length === 0 ? [] : [der.octetString(before)];
    const layout = { before: Buffer.concat([outside, beforeContent(o.signer), ...chunk]), chunked: true };
    const signed = { signer: o.signer, before, now: o.now };
    return unchanged(source.file, () => encryptByThreads(source, target, { ...o, algorithms, layout, signed }, signal));
  }
  const signed = opaqueSignedData(joined(before, bytesOf(source, o.progress)), o.signer, o.now);
  let messageDigest: Buffer = Buffer.alloc(0);
  const entity = async function* () {
    if (outside.length > 0) yield outside;
    messageDigest = yield* signed;
  };
  await unchanged(source.file, () => stream(envelopedData(entity(), o.recipients, algorithms), target, signal));
  return messageDigest;
}

/** Encrypts a file as it is: for what its owner's program has signed. Otherwise as `sealFile`. */
export async function encryptFile(
  source: FileRange,
  target: FileHandle,
  o: Omit<SealFileOptions, "signer" | "before" | "mime">,
  signal?: AbortSignal,
): Promise<void> {
  checkRecipients(o.recipients, o.now);
  const algorithms = algorithmsOf(o.profile, o.capabilities);
  if (isThreaded(source, algorithms)) {
    const layout = { before: new Uint8Array(), chunked: false };
    await unchanged(source.file, () => encryptByThreads(source, target, { ...o, algorithms, layout }, signal));
    return;
  }
  const content = bytesOf(source, o.progress);
  await unchanged(source.file, () => stream(envelopedData(content, o.recipients, algorithms), target, signal));
}

function isThreaded({ size }: FileRange, { content }: ProfileAlgorithms): boolean {
  return content.mode === "gcm" && size >= threadedBytes;
}

interface ThreadedOptions {
  readonly recipients: readonly PeerCertificate[];
  readonly algorithms: ProfileAlgorithms;
  readonly layout: FileLayout;
  /** Who signs, what stands before the file in what is signed, and when. */
  readonly signed?: { readonly signer: Signer; readonly before: Uint8Array; readonly now: Date };
  readonly threads: Threads;
  readonly progress?: (bytes: number) => void;
}

/**
 * GCM is counter mode with a linear hash: a stretch can be encrypted by itself from where its counter begins, and the
 * stretches' hashes be joined at the end (NIST SP 800-38D §6.4, §7.1). The file is read twice, to hash and to encrypt it.
 * @returns the signed messageDigest; empty if nothing is signed
 */
async function encryptByThreads(
  { file, offset, size }: FileRange,
  target: FileHandle,
  { recipients, algorithms, layout, signed, threads, progress = () => {} }: ThreadedOptions,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const count = segmentCount(layout, size);
  // What no segment contains, signature and all, is less than two.
  if ((count + 2) * segmentBytes > algorithms.content.maxBytes) throw tooMuch(algorithms.content.maxBytes);
  const { key, iv: nonce, before, behind } = beginEnvelope(recipients, algorithms);
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const halt = () => void Atomics.store(stop, 0, 1);
  const content = { descriptor: file.fd, offset, size };
  const stretches: Stretch[] = [];
  const encryptAll = async () => {
    let next = 0;
    let done = 0;
    const lane = async () => {
      while (next < count) {
        const from = next;
        const some = Math.min(segmentsPerJob, count - from);
        next += some;
        const into = { descriptor: target.fd, offset: before.length };
        const job = {
          kind: "encrypt",
          key,
          nonce,
          layout,
          file: content,
          target: into,
          from,
          count: some,
          stop,
        } as const;
        stretches[from / segmentsPerJob] = { bytes: some * segmentBytes, tag: await threads.run(job) };
        done += some * segmentBytes;
        progress(Math.min(done, size));
      }
    };
    await allEnded(Array.from({ length: threads.count + 1 }, lane), halt);
  };
  const hash = async () => {
    if (signed === undefined) return Buffer.alloc(0);
    const digest = signerDigest(signed.signer);
    return threads.run({ kind: "hash", digest, before: signed.before, file: content, stop });
  };
  signal?.addEventListener("abort", halt, { once: true });
  try {
    if (signal?.aborted) throw cancelled(signal);
    await writeAt(target, before, 0);
    const hashing = hash();
    await allEnded([hashing, encryptAll()], halt);
    const messageDigest = await hashing;
    const end = signed === undefined ? Buffer.alloc(0) : behindContent(signed.signer, messageDigest, signed.now);
    const last = Buffer.concat([await remainder(layout, { file, offset, size }, count), end]);
    const ciphertext = encryptStretch({ key, nonce, firstBlock: (count * segmentBytes) / 16 }, last, stretches);
    const tag = joinedTag(key, nonce, stretches);
    const rest = last.length === 0 ? [behind(tag)] : [der.octetString(ciphertext), behind(tag)];
    await writeAt(target, Buffer.concat(rest), before.length + count * (octetHeaderBytes + segmentBytes));
    progress(size);
    return messageDigest;
  } catch (thrown) {
    throw signal?.aborted ? cancelled(signal) : thrown;
  } finally {
    signal?.removeEventListener("abort", halt);
    key.fill(0);
  }
}

/** As Promise.all, but all have ended when it returns or throws: they use files that are closed then. */
async function allEnded(jobs: readonly Promise<unknown>[], halt: () => void): Promise<void> {
  const outcome = Promise.all(jobs); // fails with what failed first: the others were only halted
  outcome.catch(halt);
  await Promise.allSettled(jobs);
  await outcome;
}

function encryptStretch(
  o: { key: Uint8Array; nonce: Uint8Array; firstBlock: number },
  plain: Buffer,
  stretches: Stretch[],
): Buffer {
  const cipher = new StretchCipher(o.key, o.nonce, o.firstBlock);
  const ciphertext = cipher.update(plain);
  stretches.push({ bytes: plain.length, tag: cipher.tag() });
  return ciphertext;
}

/** What of the file no segment contains. */
async function remainder(layout: FileLayout, { file, offset, size }: FileRange, count: number): Promise<Buffer> {
  const { at } = segmentOf(layout, count);
  if (at === size) return Buffer.alloc(0);
  const rest = Buffer.alloc(size - at);
  for (let have = 0; have < rest.length; ) {
    const { bytesRead } = await named("read", file.read(rest, have, rest.length - have, offset + at + have));
    if (bytesRead === 0) throw changed();
    have += bytesRead;
  }
  return layout.chunked ? der.octetString(rest) : rest;
}

async function* bytesOf({ file, offset, size }: FileRange, progress?: (bytes: number) => void): AsyncGenerator<Buffer> {
  for (let at = 0; at < size; ) {
    const piece = Buffer.allocUnsafe(Math.min(streamBytes, size - at));
    const { bytesRead } = await named("read", file.read(piece, 0, piece.length, offset + at));
    if (bytesRead === 0) throw changed();
    yield piece.subarray(0, bytesRead);
    at += bytesRead;
    progress?.(at);
  }
}

async function* joined(first: Uint8Array, rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  if (first.length > 0) yield first;
  yield* rest;
}

async function stream(
  source: AsyncIterable<Uint8Array>,
  target: FileHandle,
  signal: AbortSignal | undefined,
): Promise<void> {
  let pieces: Uint8Array[] = [];
  let bytes = 0;
  let writing: Promise<void> = Promise.resolve();
  const flush = async () => {
    await named("write", writing);
    writing = writeAll(target, pieces);
    writing.catch(() => {}); // told by whoever waits next
    pieces = [];
    bytes = 0;
  };
  try {
    for await (const piece of untilAborted(source, signal)) {
      pieces.push(piece);
      bytes += piece.length;
      if (bytes >= streamBytes || pieces.length >= maxPieces) await flush();
    }
    if (pieces.length > 0) await flush();
  } finally {
    await named("write", writing);
  }
}

async function writeAt(target: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await named("write", target.write(bytes, done, bytes.length - done, at + done));
    if (bytesWritten === 0) throw storeFailed("write", new Error("nothing written"));
    done += bytesWritten;
  }
}

async function named<T>(what: string, action: Promise<T>): Promise<T> {
  try {
    return await action;
  } catch (cause) {
    throw storeFailed(what, cause);
  }
}

/** Fails if somebody wrote to the file meanwhile; another name, or one less, does not count. */
async function unchanged<T>(file: FileHandle, work: () => Promise<T>): Promise<T> {
  const version = async () => {
    const { size, mtimeNs } = await named("stat", file.stat({ bigint: true }));
    return `${size} ${mtimeNs}`;
  };
  const found = await version();
  const made = await work();
  if ((await version()) !== found) throw changed();
  return made;
}

function changed(): SuiteError {
  return new SuiteError("source-changed", "the file was changed while it was read", { fault: "local" });
}
