import { createReadStream } from "node:fs";
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import type { Database } from "./database.ts";

const READ_BYTES = 262_144;

/** The bytes of one attempt: the same at each `open`, and in the next attempt if the transfer is the same. */
export interface SealedCopy {
  /** 32 hex digits; another seal of the same thing has another. */
  transfer: string;
  size: number;
  /** Kept from an earlier attempt, which may have sent some of it. */
  again?: true;
  open(offset?: number): Readable;
}

/** Whose bytes: a row's, sealed to the certificate of this SHA-256 (hex). */
export interface CopyKey {
  row: number;
  certificate: string;
  /** Of a file in parts, whose transfer is decided elsewhere: which object of it. */
  of?: { transfer: string; object: number | "manifest" };
}

/**
 * Writes sealed bytes to a new file, durably, or gives them back if they are few. Leaves nothing when it fails.
 * @param path that the file gets
 */
export type MakeCopy = (path: string) => Promise<Buffer | undefined>;

/**
 * Sealed bytes while they are sent, as `attempt/<row>.<certificate>.<transfer>`, of parts with `.<number>` behind it.
 * Sealing is randomised: a transfer that was cut can go on only with the same sealed bytes, so they stay until they were
 * acknowledged, their row is final, or its recipient has a new certificate.
 */
export interface SealedCopies {
  copyOf(key: CopyKey, make: MakeCopy): Promise<SealedCopy>;
  /** All of a row, or one object of it. */
  discard(row: number, object?: number | "manifest"): Promise<void>;
}

/** Opens the directory, without the copies of rows that are final and without those that were not finished. */
export async function openSealedCopies(o: {
  directory: string;
  database: Database;
  random: (length: number) => Buffer;
}): Promise<SealedCopies> {
  const { directory } = o;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const kept = new Map<number, Kept[]>();
  const remember = (copy: Kept) => kept.set(copy.row, [...(kept.get(copy.row) ?? []), copy]);
  for (const name of await readdir(directory)) {
    const found = parseName(name);
    if (found === undefined) await rm(join(directory, name), { force: true });
    else remember(found);
  }
  const discard: SealedCopies["discard"] = async (row, object) => {
    const copies = kept.get(row) ?? [];
    const left = object === undefined ? [] : copies.filter((copy) => copy.object !== labelOf(object));
    if (left.length === 0) kept.delete(row);
    else kept.set(row, left);
    for (const copy of copies) if (!left.includes(copy)) await rm(join(directory, copy.name), { force: true });
  };
  const rows = [...kept.keys()];
  const still = new Set(await o.database.call("openRows", rows));
  for (const row of rows) if (!still.has(row)) await discard(row);

  return {
    discard,
    async copyOf({ row, certificate, of }, make) {
      const object = of === undefined ? "" : labelOf(of.object);
      const isSame = (copy: Kept) =>
        copy.certificate === certificate && (of === undefined || copy.transfer === of.transfer);
      const earlier = kept.get(row)?.find((copy) => copy.object === object && isSame(copy));
      if (earlier !== undefined) return { ...(await fileCopy(directory, earlier)), again: true };
      if (kept.get(row)?.some((copy) => !isSame(copy) || copy.object === object) === true) await discard(row);
      const transfer = of?.transfer ?? o.random(16).toString("hex");
      const unfinished = join(directory, `${row}.${transfer}${object}.part`);
      const memory = await make(unfinished);
      if (memory !== undefined) return memoryCopy(transfer, memory);
      const copy: Kept = { row, certificate, transfer, object, name: `${row}.${certificate}.${transfer}${object}` };
      await rename(unfinished, join(directory, copy.name)); // a lost name only means sealing again: no fsync of the folder
      remember(copy);
      return fileCopy(directory, copy);
    },
  };
}

interface Kept {
  row: number;
  certificate: string;
  transfer: string;
  /** With the dot before it; empty if it is all. */
  object: string;
  name: string;
}

function labelOf(object: number | "manifest"): string {
  return `.${String(object).padStart(4, "0")}`;
}

function parseName(name: string): Kept | undefined {
  const match = /^(\d{1,15})\.([0-9a-f]{64})\.([0-9a-f]{32})((?:\.\d{4}|\.manifest)?)$/.exec(name);
  if (match === null) return undefined;
  const [, row = "", certificate = "", transfer = "", object = ""] = match;
  return { row: Number(row), certificate, transfer, object, name };
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
    open: (offset = 0) => createReadStream(path, { start: offset, highWaterMark: READ_BYTES }),
  };
}
