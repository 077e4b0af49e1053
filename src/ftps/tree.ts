import type { VirtualPath } from "./path.ts";

/** What a listing tells of one file or folder. */
export interface Entry {
  name: string;
  kind: "file" | "folder";
  /** Bytes of a file; undefined where it is not known without reading it. */
  size?: number;
  modified?: Date;
  /** RFC 3659 §7.5.5. */
  perm: string;
  /** Names these very bytes (RFC 3659 §7.5.2). */
  unique?: string;
  /** The tree's own facts, as `x.state`. */
  facts?: readonly (readonly [string, string])[];
}

/** A file that is read. */
export interface Source {
  entry: Entry;
  bytes: AsyncIterable<Uint8Array>;
  /** All of it has been handed over. */
  done?(): Promise<void>;
}

/** What became of a file that was written: the text of the 226. */
export interface Committed {
  text: string;
}

/** The files that one session sees. All paths are absolute. Everything throws SuiteError: not-found, forbidden, … */
export interface Tree {
  entry(path: VirtualPath, signal: AbortSignal): Promise<Entry>;
  /** Fails with not-found of a file, too: whoever asks has looked. */
  list(path: VirtualPath, signal: AbortSignal): Promise<readonly Entry[]>;
  read(path: VirtualPath, from: number, signal: AbortSignal): Promise<Source>;
  /**
   * Takes a file whole. Resolves only when it is durable; whatever `bytes` throws passes, and then nothing has the name.
   * @param from how much of an unfinished upload stands before `bytes`: at most what `unfinished` says
   */
  write(path: VirtualPath, bytes: AsyncIterable<Uint8Array>, from: number, signal: AbortSignal): Promise<Committed>;
  /** Bytes of an upload that was cut and can go on; without it none can. */
  unfinished?(path: VirtualPath): Promise<number>;
  /** SHA-256, hex, of an unfinished upload; of a file it is taken from what `read` gives. */
  hash?(path: VirtualPath, signal: AbortSignal): Promise<{ size: number; sha256: string } | undefined>;
  /** Checks what `write` would refuse at once, so that it is told before a data connection is used. */
  mayWrite(path: VirtualPath, signal: AbortSignal): Promise<void>;
  remove(path: VirtualPath, signal: AbortSignal): Promise<void>;
}
