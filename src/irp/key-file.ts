import { closeSync, fdatasyncSync, fsyncSync, linkSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";

/** Temporary name → fdatasync → rename → directory fsync: afterwards there is the old content or the new one, whole. */
export function writeDurably(file: string, content: string | Uint8Array, mode = 0o600): void {
  const temporary = `${file}.new`;
  rmSync(temporary, { force: true });
  const handle = openSync(temporary, "wx", mode);
  try {
    const bytes = typeof content === "string" ? Buffer.from(content, "utf8") : content;
    for (let at = 0; at < bytes.length; ) at += writeSync(handle, bytes, at);
    fdatasyncSync(handle);
  } finally {
    closeSync(handle);
  }
  renameSync(temporary, file);
  syncDirectory(file);
}

/** As `writeDurably`, but never in place of what is there: of two who come at once, one makes it. @returns whether it was made */
export function createDurably(file: string, content: string | Uint8Array, mode = 0o600): boolean {
  const temporary = `${file}.${process.pid}.new`;
  writeDurably(temporary, content, mode);
  try {
    linkSync(temporary, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    rmSync(temporary, { force: true });
  }
  syncDirectory(file);
  return true;
}

/** Makes the name of `file` durable. */
export function syncDirectory(file: string): void {
  const directory = openSync(dirname(file), "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
