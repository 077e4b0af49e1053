import { createHash, type Hash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { constants, type FileHandle, link, open, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { SuiteError } from "../pki/suite-error.ts";
import { storeFailed } from "./failure.ts";

/** Content up to this size never becomes a file of its own accord. */
const memoryLimit = 65_536;
/** Written in portions of at least this size, one while the next is gathered. */
const writeBytes = 1_048_576;
const readBytes = 262_144;
const maxPieces = 512; // writev takes at most IOV_MAX, 1024

export type PartContent = { readonly bytes: Buffer } | { readonly path: string; readonly size: number };

/**
 * Where opened content waits to be verified: in memory up to 64 KiB, above in a file `<random>.part` that only its owner
 * can read. It gets its name by `moveTo` alone; disposing removes what was not moved. Failures are "store-failed".
 */
export class PartFile implements AsyncDisposable {
  readonly #path: string;
  readonly #hash: Hash | undefined;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #size = 0;
  #created = false;
  #file: FileHandle | undefined;
  #writing: Promise<void> = Promise.resolve();
  #digest: string | undefined;
  #state: "writing" | "finished" | "moved" | "gone" = "writing";

  /** @param o.hashed whether `sha256` will be asked for */
  constructor(directory: string, o: { hashed: boolean }) {
    this.#hash = o.hashed ? createHash("sha256") : undefined;
    this.#path = join(directory, `${randomBytes(16).toString("hex")}.part`);
  }

  /** Takes `piece` as its own: it must not change afterwards. */
  async write(piece: Buffer): Promise<void> {
    if (this.#state !== "writing") throw new Error("written after the end");
    this.#hash?.update(piece);
    this.#pending.push(piece);
    this.#pendingBytes += piece.length;
    this.#size += piece.length;
    if (this.#size <= memoryLimit) {
      if (this.#pending.length > maxPieces) this.#pending = [Buffer.concat(this.#pending)];
    } else if (this.#pendingBytes >= writeBytes || this.#pending.length >= maxPieces) await this.#flush();
  }

  /** Ends writing. What does not stay in memory is in the file then, but not yet durable. */
  async finish(): Promise<PartContent> {
    if (this.#size > memoryLimit) {
      await this.#flush();
      await this.#settled();
    } else this.#pending = [Buffer.concat(this.#pending)];
    this.#digest = this.#hash?.digest("hex");
    this.#state = "finished";
    return this.#size > memoryLimit
      ? { path: this.#path, size: this.#size }
      : { bytes: this.#pending[0] ?? Buffer.alloc(0) };
  }

  /** Instead of `write` and `finish`: lets `work` write the file as it likes. It is not hashed, and not yet durable. */
  async fill(work: (file: FileHandle) => Promise<void>): Promise<void> {
    if (this.#state !== "writing" || this.#size > 0) throw new Error("written before it was filled");
    this.#file = await named("create", () => open(this.#path, exclusive, 0o600));
    this.#created = true;
    await work(this.#file);
    this.#state = "finished";
  }

  /** SHA-256 of the content, 64 hex digits; after `finish`. */
  get sha256(): string {
    if (this.#digest === undefined) throw new Error("not finished, or not hashed");
    return this.#digest;
  }

  /** The content once more, after `finish` and before it is moved. */
  async *again(): AsyncGenerator<Buffer> {
    if (this.#state !== "finished") throw new Error("not finished, or moved");
    if (this.#size <= memoryLimit) {
      yield* this.#pending;
      return;
    }
    const file = createReadStream(this.#path, { highWaterMark: readBytes });
    try {
      for await (const piece of file) yield piece as Buffer;
    } catch (cause) {
      throw storeFailed("read", cause);
    }
  }

  /**
   * Gives the content its name, durably: synchronised, linked, the folder synchronised. What has the name already is kept:
   * SuiteError "conflict". `path` lies on the file system of the directory.
   */
  async moveTo(path: string): Promise<void> {
    if (this.#state !== "finished") throw new Error("moved before it was verified, or twice");
    await this.#flush(); // in memory until now
    await this.#settled();
    await named("fdatasync", async () => this.#file?.datasync());
    await this.#close();
    await named("link", async () => link(this.#path, path)); // unlike rename never replaces
    try {
      await named("fsync", () => syncDirectory(dirname(path)));
    } catch (thrown) {
      await unlink(path).catch(() => undefined); // not durable: nobody may take it for stored
      throw thrown;
    }
    this.#state = "moved";
    await unlink(this.#path).catch(() => undefined); // a second name: harmless, removed at the next start
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state === "moved" || this.#state === "gone") return;
    this.#state = "gone";
    this.#pending = [];
    await this.#writing.catch(() => undefined);
    await this.#close();
    if (this.#created) await named("unlink", () => unlink(this.#path));
  }

  /** Starts to write what is pending, after the write before has ended. */
  async #flush(): Promise<void> {
    await this.#settled();
    const pieces = this.#pending;
    if (this.#file === undefined) {
      if (this.#created) return;
      this.#file = await named("create", () => open(this.#path, exclusive, 0o600));
      this.#created = true;
    }
    if (pieces.length === 0) return;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#writing = writeAll(this.#file, pieces);
    this.#writing.catch(() => undefined); // told by whoever waits next
  }

  async #settled(): Promise<void> {
    await named("write", () => this.#writing);
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }
}

const exclusive = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Writes the pieces one behind the other, from where the file stands. Throws what the system says. */
export async function writeAll(file: FileHandle, pieces: readonly Uint8Array[]): Promise<void> {
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const { bytesWritten } = await file.writev(pieces);
  if (bytesWritten === size) return;
  const rest = Buffer.concat(pieces).subarray(bytesWritten); // a short write: the disk is nearly full
  for (let written = 0; written < rest.length; ) {
    const more = await file.write(rest, written);
    if (more.bytesWritten === 0) throw new Error("nothing written");
    written += more.bytesWritten;
  }
}

/** Makes the names in a folder durable. */
async function syncDirectory(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function named<T>(what: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST" && what === "link") {
      throw new SuiteError("conflict", "something has this name already", { fault: "local", cause });
    }
    throw storeFailed(what, cause);
  }
}
