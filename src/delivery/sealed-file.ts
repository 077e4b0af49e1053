import { type FileHandle, open, rm } from "node:fs/promises";
import { writeAll } from "../smime/part-file.ts";
import { syncFile } from "./content.ts";
import type { FreeSpace } from "./free-space.ts";
import { type Health, storeFailed } from "./health.ts";
import type { SealedFor, Sealer } from "./seals.ts";

/** Sealed bytes up to this size are kept in memory and made anew by each attempt: nobody resumes them in the middle. */
const MEMORY_BYTES = 65_536;
const WRITE_BYTES = 262_144;
const MAX_PIECES = 512; // writev takes at most IOV_MAX, 1024

export interface FileToSeal {
  /** Of the content. */
  path: string;
  /** Which of its bytes are signed: from `start` up to `end`. */
  start: number;
  end: number;
  /** What is signed before them, with its blank line; empty if the file has its own. */
  head: Uint8Array;
  /** Where the sealed bytes go: a new file, synced. */
  target: string;
}

/**
 * Signs and seals a stretch of a file into a file of its own: the one place where files and their parts are sealed.
 * Leaves nothing when it fails.
 * @returns the signed messageDigest, hex
 */
export async function sealFile(
  { path, start, end, head, target }: FileToSeal,
  o: { seal: Sealer; how: SealedFor; health: Health; space: FreeSpace },
  signal: AbortSignal,
): Promise<string> {
  await o.space.check(end - start);
  await using file = await opened(path, "r", "read");
  await using sealed = await opened(target, "wx", "write");
  try {
    const digest = await o.seal.file({ file, offset: start, size: end - start }, head, sealed, o.how, signal);
    await syncFile(sealed, o.health);
    return digest;
  } catch (error) {
    await rm(target, { force: true });
    throw error;
  }
}

async function opened(path: string, flags: "r" | "wx", step: "read" | "write"): Promise<FileHandle> {
  return open(path, flags, 0o600).catch((error: unknown) => {
    throw storeFailed(step, error);
  });
}

/** Keeps little in memory, and gives it back; writes more to `path`, synced. Leaves nothing when the source fails. */
export async function spool(
  source: AsyncIterable<Uint8Array>,
  path: string,
  health: Health,
): Promise<Buffer | undefined> {
  let gathered: Uint8Array[] = [];
  let bytes = 0;
  let file: FileHandle | undefined;
  let writing: Promise<void> = Promise.resolve();
  /** Begins to write what was gathered, once what came before it is written: meanwhile the next is sealed. */
  const flush = async () => {
    await writing;
    const pieces = gathered;
    gathered = [];
    bytes = 0;
    file ??= await open(path, "wx", 0o600).catch((error: unknown) => {
      throw storeFailed("write", error);
    });
    writing = writeAll(file, pieces).catch((error: unknown) => {
      throw storeFailed("write", error);
    });
    writing.catch(() => undefined); // told by whoever waits next
  };
  try {
    for await (const chunk of source) {
      gathered.push(chunk);
      bytes += chunk.length;
      if (bytes >= WRITE_BYTES || gathered.length >= MAX_PIECES) await flush();
    }
    if (file === undefined && bytes <= MEMORY_BYTES) return Buffer.concat(gathered);
    await flush();
    await writing;
    await syncFile(file as unknown as FileHandle, health);
    return undefined;
  } catch (error) {
    await writing.catch(() => undefined);
    await rm(path, { force: true });
    throw error;
  } finally {
    await (file as FileHandle | undefined)?.close();
  }
}
