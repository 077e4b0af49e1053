import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { writeAll } from "../smime/part-file.ts";
import type { Database } from "./database.ts";
import { type Health, storeFailed } from "./health.ts";

/** Sealed bytes up to this size are kept in memory and made anew by each attempt: nobody resumes them in the middle. */
const MEMORY_BYTES = 65_536;
const WRITE_BYTES = 262_144;
const MAX_PIECES = 512; // writev takes at most IOV_MAX, 1024

/** The bytes of one attempt: the same at each `open`, and in the next attempt if the transfer is the same. */
export interface SealedCopy {
  /** 32 hex digits; another seal of the same thing has another. */
  transfer: string;
  size: number;
  open(offset?: number): Readable;
}

/**
 * Sealed bytes while they are sent, as `attempt/<row>.<certificate>.<transfer>`. Sealing is randomised: a transfer that was
 * cut can go on only with the same sealed bytes, so they stay until their row is final or its recipient has a new certificate.
 */
export interface SealedCopies {
  /** @param certificate SHA-256 of the certificate it is sealed to, hex */
  copyOf(row: number, certificate: string, seal: () => AsyncIterable<Uint8Array>): Promise<SealedCopy>;
  discard(row: number): Promise<void>;
}

/** Opens the directory, without the copies of rows that are final and without those that were not finished. */
export async function openSealedCopies(o: {
  directory: string;
  database: Database;
  health: Health;
  random: (length: number) => Buffer;
}): Promise<SealedCopies> {
  const { directory } = o;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const kept = new Map<number, Kept>();
  for (const name of await readdir(directory)) {
    const found = parseName(name);
    if (found === undefined) await rm(join(directory, name), { force: true });
    else kept.set(found.row, found);
  }
  const rows = [...kept.keys()];
  const still = new Set(await o.database.call("openRows", rows));
  const discard = async (row: number) => {
    const copy = kept.get(row);
    kept.delete(row);
    if (copy !== undefined) await rm(join(directory, copy.name), { force: true });
  };
  for (const row of rows) if (!still.has(row)) await discard(row);

  return {
    discard,
    async copyOf(row, certificate, seal) {
      const earlier = kept.get(row);
      if (earlier?.certificate === certificate) return fileCopy(directory, earlier);
      await discard(row);
      const transfer = o.random(16).toString("hex");
      const unfinished = join(directory, `${row}.${transfer}.part`);
      const written = await spool(seal(), unfinished, o.health);
      if (written.memory !== undefined) return memoryCopy(transfer, written.memory);
      const copy: Kept = { row, certificate, transfer, name: `${row}.${certificate}.${transfer}` };
      await rename(unfinished, join(directory, copy.name)); // a lost name only means sealing again: no fsync of the folder
      kept.set(row, copy);
      return fileCopy(directory, copy);
    },
  };
}

interface Kept {
  row: number;
  certificate: string;
  transfer: string;
  name: string;
}

function parseName(name: string): Kept | undefined {
  const match = /^(\d{1,15})\.([0-9a-f]{64})\.([0-9a-f]{32})$/.exec(name);
  if (match === null) return undefined;
  const [, row = "", certificate = "", transfer = ""] = match;
  return { row: Number(row), certificate, transfer, name };
}

function memoryCopy(transfer: string, bytes: Buffer): SealedCopy {
  return {
    transfer,
    size: bytes.length,
    open: (offset = 0) => Readable.from([bytes.subarray(offset)], { objectMode: false }),
  };
}

async function fileCopy(directory: string, copy: Kept): Promise<SealedCopy> {
  const path = join(directory, copy.name);
  const { size } = await stat(path);
  return {
    transfer: copy.transfer,
    size,
    open: (offset = 0) => createReadStream(path, { start: offset, highWaterMark: WRITE_BYTES }),
  };
}

/** Keeps little in memory, writes more to `path`, synced. Leaves nothing when the source fails. */
async function spool(source: AsyncIterable<Uint8Array>, path: string, health: Health): Promise<{ memory?: Buffer }> {
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
    if (file === undefined && bytes <= MEMORY_BYTES) return { memory: Buffer.concat(gathered) };
    await flush();
    await writing;
    await (file as FileHandle | undefined)?.datasync().catch((error: unknown) => {
      throw health.fail(error, "fdatasync");
    });
    return {};
  } catch (error) {
    await writing.catch(() => undefined);
    await rm(path, { force: true });
    throw error;
  } finally {
    await (file as FileHandle | undefined)?.close();
  }
}
