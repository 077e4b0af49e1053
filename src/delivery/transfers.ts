import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, link, mkdir, open, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Opened } from "../smime/open.ts";
import { checkTransfer, type Manifest, type PartPlace, partSizeBy } from "../smime/transfer.ts";
import { type ContentStore, ROW_BYTES, syncDirectory, syncFile } from "./content.ts";
import type { Database } from "./database.ts";
import type { ItemId } from "./envelope.ts";
import type { FreeSpace } from "./free-space.ts";
import { type Health, storeFailed } from "./health.ts";
import type { PeerQuota } from "./inbox-calls.ts";
import type { WrittenContent } from "./item-calls.ts";
import type { Timekeeper } from "./time.ts";
import { partsMissing, type TransferRow } from "./transfer-calls.ts";

/** A part whose seal was opened, and who brought it. */
export interface ArrivedPart {
  peer: Identity;
  place: PartPlace;
  opened: Pick<Opened, "signer" | "digest" | "content">;
  quota: PeerQuota;
  maxBytes: number;
}

/**
 * Files that come in parts, each put together in `transfer/<id>.part`. A part is durable there before it is recorded, and
 * recorded before it is acknowledged; the file gets its final name only when a manifest agrees with all of them.
 */
export interface Transfers {
  /**
   * Resolves when the part is durable, also if it was before.
   * @throws SuiteError seal-malformed, seal-too-large, quota-exceeded, store-failed
   */
  takePart(part: ArrivedPart): Promise<void>;
  /**
   * Makes the file content, has it stored by `store`, and clears up behind it.
   * @returns the item, also if the transfer was finished before
   * @throws SuiteError conflict (temporary): parts are missing; seal-malformed: they are not what the manifest says
   */
  takeManifest(
    o: { peer: Identity; manifest: Manifest; opened: Pick<Opened, "signer"> },
    store: (transfer: number, content: WrittenContent) => Promise<{ id: ItemId; duplicate: boolean }>,
  ): Promise<{ id: ItemId; duplicate: boolean }>;
  close(): void;
}

export interface TransfersOptions {
  directory: string;
  database: Database;
  content: ContentStore;
  space: FreeSpace;
  health: Health;
  time: Timekeeper;
}

const DAY = 86_400_000;
/** What did not go on for so long is given up (ftps.md §2.8). */
const UNFINISHED_FOR = 7 * DAY;
/** So long a finished transfer is known, longer than a sender keeps trying. */
const FINISHED_FOR = 35 * DAY;
const LAPSE_EVERY = 6 * 3_600_000;
const COPY_BYTES = 1_048_576;

/** Opens the directory, without what lapsed and without files that nothing knows of. */
export async function openTransfers(o: TransfersOptions): Promise<Transfers> {
  const { directory, database, content, time } = o;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const pathOf = (id: number) => join(directory, `${id}.part`);
  /** Of files whose parts come in their order: what came so far. Lost at a restart; then the file is read once more. */
  const hashes = new Map<number, { hash: Hash; upTo: number }>();
  const one = serial();

  const remove = async (ids: readonly number[]) => {
    for (const id of ids) {
      hashes.delete(id);
      await rm(pathOf(id), { force: true });
    }
  };
  const lapse = async () => {
    const now = time.now().getTime();
    const before = { unfinishedBefore: now - UNFINISHED_FOR, finishedBefore: now - FINISHED_FOR };
    await remove(await database.call("lapseTransfers", before));
  };
  let cancel: () => void = () => undefined;
  const again = () => {
    cancel = time.after(LAPSE_EVERY, () => {
      lapse().then(again, again); // a database that fails tells so elsewhere
    });
  };
  await lapse();
  await removeStrays(directory, database);
  again();

  return {
    close: () => cancel(),
    async takePart({ peer, place, opened, quota, maxBytes }) {
      const size = "path" in opened.content ? opened.content.size : opened.content.bytes.length;
      const partSize = partSizeBy(place, size);
      if (place.total > Math.min(maxBytes, quota.fileBytes)) throw tooLarge(place.total);
      await one(`${peer} ${place.transfer}`, async () => {
        const known = await database.call("transfer", { peer, transfer: place.transfer });
        const there = known?.parts.reduce((sum, part) => sum + part.size, 0) ?? 0;
        if (known?.item === undefined) await o.space.check(place.total - there);
        const [at, signer, digest] = [time.now().getTime(), opened.signer.fingerprint, opened.digest];
        const begun = await database.call("beginPart", { peer, signer, place, partSize, digest, at, quota });
        if (begun.dropped !== undefined) await remove([begun.dropped]);
        if (begun.state !== "wanted") return;
        const { id } = begun;
        if (await hasName(pathOf(id))) {
          await database.call("dropTransfers", [id]);
          await remove([id]);
          throw partsMissing();
        }
        const { offset, part } = place;
        const before = offset === 0 ? createHash("sha256") : hashes.get(id)?.hash;
        const inOrder = offset === 0 || hashes.get(id)?.upTo === offset;
        const hash = inOrder ? before?.copy() : undefined;
        await writeAt(o, pathOf(id), offset, opened.content, hash);
        await database.call("recordPart", { id, part, size, digest, at: time.now().getTime() });
        if (hash !== undefined) hashes.set(id, { hash, upTo: offset + size });
        else if ((hashes.get(id)?.upTo ?? 0) > offset) hashes.delete(id); // what was hashed was written over
      });
    },
    takeManifest: ({ peer, manifest, opened }, store) =>
      one(`${peer} ${manifest.transfer}`, async () => {
        const found = await database.call("transfer", { peer, transfer: manifest.transfer });
        if (found?.item !== undefined) return { id: found.item, duplicate: true };
        if (found === undefined) throw partsMissing();
        if (found.signer !== opened.signer.fingerprint) {
          await database.call("dropTransfers", [found.id]); // the signer has another key now: he sends all again
          await remove([found.id]);
          throw partsMissing();
        }
        if (!checkTransfer(manifest, found.signer, found.parts)) throw partsMissing();
        const written = await finished(content, pathOf(found.id), found, hashes.get(found.id));
        const stored = await store(found.id, written);
        await remove([found.id]);
        return stored;
      }),
  };
}

/**
 * Whether the file is content already: a manifest agreed to it, and we died, or the disk failed, before its item was stored. What
 * was written to it then would be written to that content, which others may have brought, too.
 */
async function hasName(path: string): Promise<boolean> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw storeFailed("stat", error);
  });
  return found !== undefined && found.nlink > 1;
}

/** The whole file as content of the store: linked there under its digest, or read if it is small. */
async function finished(
  content: ContentStore,
  path: string,
  { total: size }: TransferRow,
  known: { hash: Hash; upTo: number } | undefined,
): Promise<WrittenContent> {
  const hash = known?.upTo === size ? known.hash.copy() : createHash("sha256");
  try {
    if (known?.upTo !== size) {
      for await (const chunk of createReadStream(path, { highWaterMark: COPY_BYTES })) hash.update(chunk as Buffer);
    }
    const digest = hash.digest("hex");
    if (size <= ROW_BYTES) return { digest, size, bytes: await readFile(path) };
    return await content.adopt({ digest, size }, async (target) => {
      await link(path, target).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
        throw new SuiteError("conflict", "something has this name already", { fault: "local", cause: error });
      });
    });
  } catch (error) {
    throw error instanceof SuiteError ? error : storeFailed("transfer", error);
  }
}

/** Writes a part at its place, durably. What is there of it is worth nothing until it is recorded. */
async function writeAt(
  o: TransfersOptions,
  path: string,
  offset: number,
  content: Opened["content"],
  hash: Hash | undefined,
): Promise<void> {
  let file: FileHandle | undefined;
  try {
    const isNew = await open(path, "wx", 0o600).then(
      async (made) => {
        await made.close();
        return true;
      },
      (error: NodeJS.ErrnoException) => {
        if (error.code === "EEXIST") return false;
        throw error;
      },
    );
    file = await open(path, "r+");
    let at = offset;
    for await (const chunk of piecesOf(content)) {
      hash?.update(chunk);
      for (let done = 0; done < chunk.length; ) {
        const { bytesWritten } = await file.write(chunk, done, chunk.length - done, at + done);
        if (bytesWritten === 0) throw new Error("nothing written");
        done += bytesWritten;
      }
      at += chunk.length;
    }
    await syncFile(file, o.health);
    if (isNew) await syncDirectory(o.directory, o.health);
  } catch (error) {
    throw error instanceof SuiteError ? error : storeFailed("write", error);
  } finally {
    await file?.close();
  }
}

async function* piecesOf(content: Opened["content"]): AsyncGenerator<Buffer, void, undefined> {
  if ("bytes" in content) yield content.bytes;
  else yield* createReadStream(content.path, { highWaterMark: COPY_BYTES });
}

/** Files of transfers that are over, and transfers whose file is gone. */
async function removeStrays(directory: string, database: Database): Promise<void> {
  const unfinished = await database.call("unfinishedTransfers");
  const wanted = new Set(unfinished.map((id) => `${id}.part`));
  const names = new Set(await readdir(directory));
  for (const name of names) if (!wanted.has(name)) await rm(join(directory, name), { force: true, recursive: true });
  const gone = unfinished.filter((id) => !names.has(`${id}.part`));
  if (gone.length > 0) await database.call("dropTransfers", gone);
}

/** What has one key happens one after the other. */
function serial(): <T>(key: string, run: () => Promise<T>) => Promise<T> {
  const last = new Map<string, Promise<unknown>>();
  return (key, run) => {
    const result = (last.get(key) ?? Promise.resolve()).then(run, run);
    last.set(key, result);
    const over = () => {
      if (last.get(key) === result) last.delete(key);
    };
    result.then(over, over);
    return result;
  };
}

function tooLarge(total: number): SuiteError {
  return new SuiteError("seal-too-large", "the file is too large", { fault: "peer", details: { total } });
}
