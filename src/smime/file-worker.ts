import { createHash } from "node:crypto";
import { fstatSync, readSync, writevSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import type { EncryptJob, FileJob, FileResult, HashJob } from "./file-job.ts";
import { octetHeaderBytes, segmentBytes, segmentHeader, segmentOf } from "./file-layout.ts";
import { StretchCipher } from "./ghash.ts";

/** Plaintext of one segment; each job uses it again. */
const plain = Buffer.allocUnsafeSlow(segmentBytes);

class Failed extends Error {
  readonly what: "read" | "write" | "changed" | "stopped";

  constructor(what: "read" | "write" | "changed" | "stopped", cause?: unknown) {
    super(what, { cause });
    this.what = what;
  }
}

function run(job: FileJob): FileResult {
  try {
    return job.kind === "hash" ? { ok: true, octets: hash(job) } : { ok: true, octets: encrypt(job) };
  } catch (error) {
    if (error instanceof Failed) return { ok: false, what: error.what, reason: String(error.cause ?? "") };
    throw error;
  } finally {
    plain.fill(0); // a thread that has nothing to do keeps nobody's secrets
    if (job.kind === "encrypt") job.key.fill(0); // a copy of the one that its envelope has
  }
}

/** The hash of what stands before the file's bytes, and of these. */
function hash({ digest, before, file, stop }: HashJob): Buffer {
  const running = createHash(digest).update(before);
  for (let at = 0; at < file.size; at += segmentBytes) {
    if (Atomics.load(stop, 0) !== 0) throw new Failed("stopped");
    const piece = plain.subarray(0, Math.min(segmentBytes, file.size - at));
    readFully(file.descriptor, piece, file.offset + at);
    running.update(piece);
  }
  return running.digest();
}

/** Encrypts whole segments to where they belong. @returns the tag of nothing, with their ciphertext as additional data */
function encrypt(job: EncryptJob): Buffer {
  const { key, nonce, layout, file, target, from, count, stop } = job;
  const cipher = new StretchCipher(key, nonce, (from * segmentBytes) / 16);
  for (let index = from; index < from + count; index += 1) {
    if (Atomics.load(stop, 0) !== 0) throw new Failed("stopped");
    const { before, at, size } = segmentOf(layout, index);
    plain.set(before);
    readFully(file.descriptor, plain.subarray(before.length, before.length + size), file.offset + at);
    const ciphertext = cipher.update(plain);
    writeFully(target.descriptor, ciphertext, target.offset + index * (octetHeaderBytes + segmentBytes));
    // Freed now, not when it is collected: the next one gets memory that is mapped already.
    (ciphertext.buffer as ArrayBuffer).transfer(0);
  }
  return cipher.tag();
}

function readFully(descriptor: number, into: Buffer, at: number): void {
  for (let have = 0; have < into.length; ) {
    let got: number;
    try {
      got = readSync(descriptor, into, have, into.length - have, at + have);
    } catch (cause) {
      throw new Failed("read", cause);
    }
    if (got === 0) throw new Failed("changed", `${fstatSync(descriptor).size} bytes are left`);
    have += got;
  }
}

function writeFully(descriptor: number, ciphertext: Buffer, at: number): void {
  let left = [segmentHeader, ciphertext];
  try {
    for (let done = 0; left.length > 0; ) {
      let written = writevSync(descriptor, left, at + done);
      if (written === 0) throw new Error("nothing written");
      done += written;
      left = left.flatMap((piece) => {
        const skipped = Math.min(written, piece.length);
        written -= skipped;
        return skipped < piece.length ? [piece.subarray(skipped)] : [];
      });
    }
  } catch (cause) {
    throw new Failed("write", cause);
  }
}

parentPort?.on("message", (job: FileJob) => parentPort?.postMessage(run(job)));
