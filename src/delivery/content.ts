import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { SuiteError } from "../pki/suite-error.ts";
import type { Cut } from "./cut-point.ts";
import type { Database } from "./database.ts";
import type { ContentRef } from "./envelope.ts";
import { type Health, storeFailed } from "./health.ts";
import type { WrittenContent } from "./item-calls.ts";

/** Up to this many bytes, content is a row of the database: one fsync with the row that refers to it. */
export const ROW_BYTES = 65_536;

/** Small chunks are gathered to writes of this size. */
const WRITE_BYTES = 262_144;

/** Files that no row refers to are left alone for so long: they may belong to something that is being stored. */
const ORPHAN_AGE = 3_600_000;

/**
 * Immutable bytes by their SHA-256: rows up to 64 KiB, else files `content/ab/<digest>`, which get their name only when
 * they are complete and synced. What was written is known to the database only once a row refers to it.
 */
export interface ContentStore {
  /** @param kept a file on the same file system in which somebody else keeps the very bytes that are written: it is taken over */
  writer(kept?: string): ContentWriter;
  /** Where others write files that are to be adopted: on the same file system, emptied at start. */
  readonly temporary: string;
  /**
   * Takes over a file that somebody else wrote and hashed.
   * @param moveTo gives it the name, durably; fails with `conflict` if the name is taken
   */
  adopt(ref: ContentRef, moveTo: (path: string) => Promise<void>): Promise<WrittenContent>;
  /** The bytes, from `offset`. The stream fails with `store-failed` if they are gone. */
  open(ref: ContentRef, offset?: number): Readable;
  bytes(ref: ContentRef): Promise<Buffer>;
  /** The file that has the bytes, which never change; nothing if a row has them. */
  pathOf(ref: ContentRef): string | undefined;
  /** Removes the file of content that turned out not to be needed, unless something refers to it. */
  discard(content: WrittenContent): Promise<void>;
}

/** Takes bytes of one content, hashing as they come. Ended by `finish` or `abort`. */
export interface ContentWriter {
  readonly size: number;
  write(chunk: Uint8Array): Promise<void>;
  /** @throws SuiteError store-failed (temporary); nothing is left then */
  finish(): Promise<WrittenContent>;
  abort(): Promise<void>;
}

export interface ContentOptions {
  directory: string;
  database: Database;
  health: Health;
  random: (length: number) => Buffer;
  now: () => Date;
  cut: Cut;
}

/** Opens the content directory, without whatever an earlier run left unfinished. */
export async function openContent(o: ContentOptions): Promise<ContentStore> {
  const temporary = join(o.directory, "tmp");
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true, mode: 0o700 });
  await syncDirectory(o.directory, o.health);
  await removeOrphans(o);
  const place = placer(o);
  return {
    temporary,
    writer: (kept) =>
      kept === undefined
        ? makeWriter(o, () => join(temporary, o.random(16).toString("hex")), place)
        : makeTaker(o, kept, place),
    async adopt(ref, moveTo) {
      await place(ref.digest, async (path) => {
        try {
          await moveTo(path);
        } catch (error) {
          // What has the name has the digest: the same bytes, stored before.
          if (!(error instanceof SuiteError && error.code === "conflict")) throw syncFailure(error, o.health);
        }
      });
      return { digest: ref.digest, size: ref.size };
    },
    open: (ref, offset = 0) => Readable.from(bytesOf(o, ref, offset), { objectMode: false }),
    async bytes(ref) {
      const parts: Buffer[] = [];
      for await (const part of bytesOf(o, ref, 0)) parts.push(part);
      return Buffer.concat(parts);
    },
    pathOf: (ref) => (ref.size > ROW_BYTES ? pathOf(o.directory, ref.digest) : undefined),
    async discard(content) {
      if (content.bytes !== undefined) return;
      const [unreferenced] = await o.database.call("unreferenced", [content.digest]);
      if (unreferenced !== undefined) await rm(pathOf(o.directory, unreferenced), { force: true });
    },
  };
}

function makeWriter(o: ContentOptions, freshPath: () => string, place: Place): ContentWriter {
  const hash = createHash("sha256");
  const gathered: Buffer[] = [];
  let gatheredBytes = 0;
  let size = 0;
  let path: string | undefined;
  let file: FileHandle | undefined;

  const flush = async () => {
    if (gatheredBytes === 0) return;
    path ??= freshPath();
    file ??= await open(path, "wx", 0o600);
    const bytes = Buffer.concat(gathered);
    gathered.length = 0;
    gatheredBytes = 0;
    for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at)).bytesWritten;
  };
  const abort = async () => {
    gathered.length = 0;
    gatheredBytes = 0;
    await file?.close().catch(() => undefined);
    file = undefined;
    if (path !== undefined) await rm(path, { force: true });
    path = undefined;
  };
  /** Nothing half written stays behind, whatever fails. */
  const orAbort = async <T>(step: string, run: () => Promise<T>): Promise<T> => {
    try {
      return await failing(step, run);
    } catch (error) {
      await abort().catch(() => undefined);
      throw error;
    }
  };
  return {
    get size() {
      return size;
    },
    async write(chunk) {
      hash.update(chunk);
      size += chunk.length;
      gathered.push(Buffer.from(chunk)); // a copy: the source may use its memory again
      gatheredBytes += chunk.length;
      if (gatheredBytes >= WRITE_BYTES) await orAbort("write", flush);
    },
    async finish() {
      const digest = hash.digest("hex");
      if (size <= ROW_BYTES) return { digest, size, bytes: Buffer.concat(gathered) };
      return orAbort("write", async () => {
        await flush();
        if (file === undefined || path === undefined) throw new Error("a file was expected");
        o.cut("content.written");
        await syncFile(file, o.health);
        await file.close();
        file = undefined;
        o.cut("content.synced");
        const finished = path;
        await place(digest, (target) => rename(finished, target));
        path = undefined;
        return { digest, size };
      });
    },
    abort,
  };
}

/** Writes nothing but what becomes a row: larger content lies in `path` already, whole when `finish` is called. */
function makeTaker(o: ContentOptions, path: string, place: Place): ContentWriter {
  const hash = createHash("sha256");
  const first: Buffer[] = [];
  let size = 0;
  return {
    get size() {
      return size;
    },
    async write(chunk) {
      hash.update(chunk);
      size += chunk.length;
      if (size <= ROW_BYTES) first.push(Buffer.from(chunk));
      else first.length = 0;
    },
    async finish() {
      const digest = hash.digest("hex");
      if (size <= ROW_BYTES) return { digest, size, bytes: Buffer.concat(first) };
      return failing("write", async () => {
        const file = await open(path, "r+");
        try {
          await syncFile(file, o.health);
        } finally {
          await file.close();
        }
        await place(digest, (target) => rename(path, target));
        return { digest, size };
      });
    },
    abort: () => Promise.resolve(),
  };
}

/** Gives a file its final name by `move` and makes the name durable. */
type Place = (digest: string, move: (path: string) => Promise<void>) => Promise<void>;

function placer(o: ContentOptions): Place {
  const folders = new Map<string, { made: Promise<void>; sync: () => Promise<void> }>();
  const folderOf = (path: string) => {
    let folder = folders.get(path);
    if (folder === undefined) {
      const make = async () => {
        if ((await mkdir(path, { recursive: true, mode: 0o700 })) !== undefined)
          await syncDirectory(o.directory, o.health);
      };
      folder = { made: make(), sync: joined(() => syncDirectory(path, o.health)) };
      folder.made.catch(() => folders.delete(path)); // the next one tries again
      folders.set(path, folder);
    }
    return folder;
  };
  return (digest, move) =>
    failing("rename", async () => {
      const target = pathOf(o.directory, digest);
      const folder = folderOf(dirname(target));
      await folder.made;
      await move(target);
      o.cut("content.renamed");
      await folder.sync();
    });
}

/** At most one run at a time; all who ask while one is under way share the next, which begins after they asked. */
function joined(run: () => Promise<void>): () => Promise<void> {
  let latest: Promise<void> = Promise.resolve();
  let queued: Promise<void> | undefined;
  return () => {
    if (queued === undefined) {
      queued = latest
        .catch(() => undefined)
        .then(() => {
          queued = undefined;
          return run();
        });
      latest = queued;
    }
    return queued;
  };
}

/** @throws SuiteError store-failed; unless the disk is merely full, nothing more is accepted then */
export async function syncFile(file: FileHandle, health: Health): Promise<void> {
  try {
    await file.datasync();
  } catch (error) {
    throw isFull(error) ? storeFailed("fdatasync", error) : health.fail(error, "fdatasync");
  }
}

/** A failure of smime's `moveTo`: after a sync that failed nothing is to be believed of this disk. */
function syncFailure(error: unknown, health: Health): unknown {
  if (!(error instanceof SuiteError) || error.code !== "store-failed" || isFull(error.cause)) return error;
  const step = String(error.details["what"]);
  return step === "fdatasync" || step === "fsync" ? health.fail(error.cause, step) : error;
}

export async function syncDirectory(path: string, health: Health): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } catch (error) {
    throw health.fail(error, "fsync of a directory");
  } finally {
    await directory.close();
  }
}

async function failing<T>(step: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw error instanceof SuiteError ? error : storeFailed(step, error);
  }
}

function isFull(error: unknown): boolean {
  return (
    typeof error === "object" &&
    error !== null &&
    "code" in error &&
    (error.code === "ENOSPC" || error.code === "EDQUOT")
  );
}

async function* bytesOf(o: ContentOptions, ref: ContentRef, offset: number): AsyncGenerator<Buffer> {
  if (ref.size > ROW_BYTES) {
    try {
      yield* createReadStream(pathOf(o.directory, ref.digest), { start: offset, highWaterMark: WRITE_BYTES });
    } catch (error) {
      throw storeFailed("read", error);
    }
    return;
  }
  const bytes = await o.database.call("contentBytes", ref.digest);
  if (bytes === undefined) throw storeFailed("content is missing");
  if (offset < bytes.length) yield Buffer.from(bytes.buffer, bytes.byteOffset + offset, bytes.length - offset);
}

function pathOf(directory: string, digest: string): string {
  return join(directory, digest.slice(0, 2), digest);
}

/** Files whose transaction never came: the process died, or the disk was full, in between. */
async function removeOrphans(o: ContentOptions): Promise<void> {
  const oldest = o.now().getTime() - ORPHAN_AGE;
  for (const folder of await readdir(o.directory)) {
    if (!/^[0-9a-f]{2}$/.test(folder)) continue;
    const names = await readdir(join(o.directory, folder));
    for (const digest of await o.database.call("unreferenced", names)) {
      const path = join(o.directory, folder, digest);
      if ((await stat(path)).mtimeMs < oldest) await rm(path, { force: true });
    }
  }
}
