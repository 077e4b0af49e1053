import { createReadStream, type Stats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { SuiteError } from "../pki/suite-error.ts";
import { storeFailed } from "../smime/failure.ts";
import { Progress } from "./progress.ts";

/**
 * Tells on the terminal how far it is with a file, or pipe, that somebody named.
 * @throws SuiteError not-found if it cannot be read
 */
export async function shown<T>(
  what: string,
  path: string,
  use: (o: { content: AsyncIterable<Buffer>; isFile: boolean; progress: Progress }) => Promise<T>,
): Promise<T> {
  const found = await statOf(path);
  const progress = new Progress(what, { total: found.size, terminal: process.stderr, now: () => performance.now() });
  try {
    return await use({ content: progress.through(bytesOf(path)), isFile: found.isFile(), progress });
  } finally {
    progress.end();
  }
}

/** Its bytes. Nobody waits for the end of a pipe when no more is wanted. */
export async function* bytesOf(path: string): AsyncGenerator<Buffer> {
  await statOf(path);
  const stream = createReadStream(path, { highWaterMark: 262_144 });
  try {
    for await (const piece of stream) yield piece as Buffer;
  } catch (cause) {
    throw (cause as NodeJS.ErrnoException).syscall === "open" ? unreadable(path, cause) : storeFailed("read", cause);
  }
}

export async function opened(path: string): Promise<FileHandle> {
  return open(path, "r").catch((cause: unknown) => {
    throw unreadable(path, cause);
  });
}

async function statOf(path: string): Promise<Stats> {
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === "ENOENT" ? notThere("there is no such file", path) : unreadable(path, cause);
  });
  if (found.isDirectory()) throw notThere("this is a folder, not a file", path);
  return found;
}

function unreadable(path: string, cause: unknown): SuiteError {
  return notThere("the file cannot be read", path, cause);
}

function notThere(message: string, path: string, cause?: unknown): SuiteError {
  return new SuiteError("not-found", message, { fault: "local", cause, details: { file: path } });
}
