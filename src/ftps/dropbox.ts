import { createHash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { storeFailed } from "../delivery/health.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { writeAll } from "../smime/part-file.ts";

/** An upload in a peer's dropbox. */
export interface Upload<T> {
  /** Whose, and under which name. */
  peer: string;
  name: string;
  /** How many bytes of an earlier one are to stand before these. */
  from: number;
  bytes: AsyncIterable<Uint8Array>;
  /** Gets all bytes from the first; `file` has them too, whole once they have ended, and may be moved away. */
  take(all: AsyncIterable<Uint8Array>, file: string): Promise<T>;
}

/**
 * Sealed objects while they come. One whose connection was cut is kept, so that its sender can go on behind the last byte
 * that is here; one that was taken or refused is not. A newer upload of the same object ends the older.
 */
export interface Dropbox {
  /** Bytes of an unfinished upload. */
  size(peer: string, name: string): Promise<number | undefined>;
  /** SHA-256 of them, hex. */
  hash(peer: string, name: string, signal: AbortSignal): Promise<{ size: number; sha256: string } | undefined>;
  /** @throws SuiteError conflict (temporary) if fewer bytes than `from` are here; what `bytes` and `take` throw */
  receive<T>(upload: Upload<T>): Promise<T>;
  remove(peer: string, name: string): Promise<void>;
}

/** Limits of ftps.md §2.8. */
const MOST_UNFINISHED = 64;
const MOST_BYTES = 100 * 1024 ** 3;
/** One peer's share of what is free on the disk: what waits here is in nobody's account. */
const FREE_SHARE = 8;
const KEPT_MS = 7 * 86_400_000;
const SWEPT_EVERY_MS = 3_600_000;
const MOST_HASHED = 1_000;
const WRITE_BYTES = 262_144;
const MAX_PIECES = 512; // writev takes at most IOV_MAX, 1024
const READ_BYTES = 1_048_576;

export async function openDropbox(o: {
  directory: string;
  clock: () => Date;
  /** Bytes on the disk. */
  free?: () => Promise<number>;
}): Promise<Dropbox> {
  const { directory, clock, free = () => freeBytes(directory) } = o;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  /** Uploads under way, by their files. */
  const running = new Map<string, { cut: () => void; ended: Promise<void> }>();
  /** What was told of files as they were then, so that asking again costs nothing. */
  const hashed = new Map<string, { size: number; mtimeMs: number; sha256: string }>();
  const hashing = atMost(2);
  /** One peer has one hash at a time: it may take a while, and others wait for theirs. */
  const turnOf = new Map<string, ReturnType<typeof atMost>>();
  const folderOf = (peer: string) => join(directory, digestOf(peer));
  const fileOf = (peer: string, name: string) => join(folderOf(peer), digestOf(name));

  /** Those of one peer that wait, the oldest first, without what has lain too long. */
  const waiting = async (folder: string): Promise<{ path: string; mtimeMs: number; size: number }[]> => {
    const files = [];
    for (const name of await readdir(folder)) {
      const path = join(folder, name);
      if (running.has(path)) continue;
      const { mtimeMs, size } = await stat(path).catch(() => ({ mtimeMs: 0, size: 0 })); // gone meanwhile
      if (clock().getTime() - mtimeMs < KEPT_MS) files.push({ path, mtimeMs, size });
      else await rm(path, { force: true });
    }
    return files.sort((one, other) => one.mtimeMs - other.mtimeMs);
  };
  /** Makes room for so many more: the oldest go. */
  const clear = async (folder: string, more: number) => {
    const files = await waiting(folder);
    let bytes = files.reduce((sum, { size }) => sum + size, 0);
    const most = Math.min(MOST_BYTES, bytes === 0 ? 0 : ((await free()) + bytes) / FREE_SHARE);
    for (let left = files.length; left + more > MOST_UNFINISHED || bytes > most; left -= 1) {
      const oldest = files.shift();
      if (oldest === undefined) break;
      bytes -= oldest.size;
      if (!running.has(oldest.path)) await rm(oldest.path, { force: true });
    }
  };
  let swept = Number.NEGATIVE_INFINITY;
  /** What has lain too long goes, also that of peers who do not come any more. */
  const sweep = async () => {
    const now = clock().getTime();
    if (Math.abs(now - swept) < SWEPT_EVERY_MS) return;
    swept = now;
    const peers = await readdir(directory, { withFileTypes: true });
    for (const peer of peers) if (peer.isDirectory()) await waiting(join(directory, peer.name)); // no link is followed
  };
  await sweep();

  const size = async (peer: string, name: string) => (await statOf(fileOf(peer, name)))?.size;

  const receiveInto = async <T>(path: string, { from, bytes, take }: Upload<T>, cut: AbortSignal): Promise<T> => {
    const file = await begin(path, from);
    const box = new Box(path, file, from, bytes, cut);
    let keep = false;
    try {
      return await take(box.all(), path);
    } catch (error) {
      keep = box.wasCut || asSuiteError(error).code === "cancelled";
      throw error;
    } finally {
      await box.close(keep);
      if (!keep) await rm(path, { force: true });
    }
  };

  return {
    size,
    hash(peer, name, signal) {
      const turn = turnOf.get(peer) ?? atMost(1);
      turnOf.set(peer, turn);
      const told = async () => {
        const path = fileOf(peer, name);
        const found = await statOf(path);
        if (found === undefined) return undefined;
        const { size, mtimeMs } = found;
        const known = hashed.get(path);
        if (known?.size === size && known.mtimeMs === mtimeMs) return { size, sha256: known.sha256 };
        const sha256 = await hashOf(path, size, signal);
        if (hashed.size >= MOST_HASHED) hashed.clear();
        hashed.set(path, { size, mtimeMs, sha256 });
        return { size, sha256 };
      };
      return turn(() => hashing(told));
    },
    async receive(upload) {
      const { peer, name } = upload;
      const path = fileOf(peer, name);
      for (let other = running.get(path); other !== undefined; other = running.get(path)) {
        other.cut();
        await other.ended;
      }
      const cut = new AbortController();
      const ended = Promise.withResolvers<void>();
      running.set(path, { cut: () => cut.abort(), ended: ended.promise });
      try {
        await mkdir(folderOf(peer), { recursive: true, mode: 0o700 });
        await sweep();
        await clear(folderOf(peer), 1);
        return await receiveInto(path, upload, cut.signal);
      } finally {
        running.delete(path);
        ended.resolve();
        await clear(folderOf(peer), 0).catch(() => undefined); // tried again before the next
      }
    },
    async remove(peer, name) {
      const path = fileOf(peer, name);
      if (running.has(path)) throw new SuiteError("busy", "this is being uploaded", { fault: "peer", temporary: true });
      await rm(path, { force: true });
    },
  };
}

async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}

async function hashOf(path: string, size: number, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  if (size > 0) {
    for await (const chunk of createReadStream(path, { end: size - 1, highWaterMark: READ_BYTES })) {
      if (signal.aborted)
        throw new SuiteError("cancelled", "nobody waits for it any more", { fault: "peer", temporary: true });
      hash.update(chunk as Buffer);
    }
  }
  return hash.digest("hex");
}

/** So many run at once; the others wait for their turn. */
function atMost(count: number): <T>(run: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let free = count;
  return async (run) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await run();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next();
    }
  };
}

/** Bytes on their way to whoever takes them, written down as they pass. */
class Box {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #from: number;
  readonly #bytes: AsyncIterable<Uint8Array>;
  readonly #cut: AbortSignal;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #writing: Promise<void> = Promise.resolve();
  wasCut = false;

  constructor(path: string, file: FileHandle, from: number, bytes: AsyncIterable<Uint8Array>, cut: AbortSignal) {
    this.#path = path;
    this.#file = file;
    this.#from = from;
    this.#bytes = bytes;
    this.#cut = cut;
  }

  /** What is here already, then what comes. */
  async *all(): AsyncGenerator<Uint8Array, void, undefined> {
    if (this.#from > 0)
      yield* createReadStream(this.#path, { end: this.#from - 1, highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>;
    for await (const chunk of this.#coming()) {
      this.#pending.push(chunk);
      this.#pendingBytes += chunk.length;
      if (this.#pendingBytes >= WRITE_BYTES || this.#pending.length >= MAX_PIECES) await this.#flush();
      yield chunk;
    }
    await this.#flush();
    await this.#writing;
  }

  async #flush(): Promise<void> {
    await this.#writing;
    const pieces = this.#pending;
    this.#pending = [];
    this.#pendingBytes = 0;
    if (pieces.length === 0) return;
    this.#writing = writeAll(this.#file, pieces).catch((error: unknown) => {
      throw storeFailed("write", error);
    });
    this.#writing.catch(() => undefined); // told by whoever waits next
  }

  /** @param keep what was written is to be found here again */
  async close(keep: boolean): Promise<void> {
    try {
      if (!keep) return await this.#writing.catch(() => undefined);
      await this.#flush();
      await this.#writing;
      await this.#file.datasync();
    } catch {
      // Less is here than came; the sender is told how much, and what of it is the same.
    } finally {
      await this.#file.close();
    }
  }

  /** What the connection brings, until it, or a newer one, cuts this. */
  async *#coming(): AsyncGenerator<Uint8Array, void, undefined> {
    const source = this.#bytes[Symbol.asyncIterator]();
    const { promise: superseded, reject } = Promise.withResolvers<never>();
    superseded.catch(() => undefined);
    const cut = () =>
      reject(new SuiteError("cancelled", "a newer upload goes on instead", { fault: "peer", temporary: true }));
    if (this.#cut.aborted) cut();
    this.#cut.addEventListener("abort", cut, { once: true });
    try {
      for (;;) {
        const next = await Promise.race([source.next(), superseded]);
        if (next.done === true) return;
        yield next.value;
      }
    } catch (error) {
      this.wasCut = true;
      throw error;
    } finally {
      this.#cut.removeEventListener("abort", cut);
      // One that waits for bytes answers only when they come: nobody waits for that.
      const closing = source.return?.();
      closing?.catch(() => undefined);
      if (!this.wasCut) await closing;
    }
  }
}

/** The file, standing behind `from` bytes. */
async function begin(path: string, from: number): Promise<FileHandle> {
  try {
    if (from === 0) {
      await rm(path, { force: true });
      return await open(path, "ax", 0o600);
    }
    const file = await open(path, constants.O_WRONLY | constants.O_APPEND);
    const { size } = await file.stat();
    if (size >= from) {
      await file.truncate(from);
      return file;
    }
    await file.close();
    throw fewer();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") throw fewer();
    throw error instanceof SuiteError ? error : storeFailed("open", error);
  }
}

function fewer(): SuiteError {
  return new SuiteError("conflict", "fewer bytes are here than that", { fault: "peer", temporary: true });
}

async function statOf(path: string): Promise<{ size: number; mtimeMs: number } | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw storeFailed("stat", error);
  }
}

function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
