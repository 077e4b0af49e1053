import type { ItemId } from "../delivery/envelope.ts";
import type { Store } from "../delivery/store.ts";
import { type Identity, parseIdentity } from "../pki/identity.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import type { Directory } from "../sixid/directory.ts";
import { safeFileName } from "../smime/file-name.ts";
import { inboxFiles, inboxPeers } from "./inbox-files.ts";
import { type OutgoingFile, type OutgoingFiles, outgoingEntry } from "./outgoing-files.ts";
import { segmentsOf, type VirtualPath } from "./path.ts";
import type { Committed, Entry, Source, Tree } from "./tree.ts";

export interface OwnerTreeOptions {
  store: Store;
  outgoing: OutgoingFiles;
  directory: Pick<Directory, "lookup">;
  /** Makes a file durable in the outbox. */
  send(to: Identity, name: string, source: AsyncIterable<Uint8Array>): Promise<ItemId>;
  maxFileBytes: number;
}

/** How long a person that the directory knew counts as known. */
const KNOWN_MS = 300_000;

/** The one file of a peer's folder that is no upload: what became of each. */
const STATUS = ".status";

/** What the owner's programs see: `/inbox/<peer>/` with opened files, `/peers/<user@domain>/` to put files into. */
export class OwnerTree implements Tree {
  readonly #o: OwnerTreeOptions;
  readonly #known = new Map<Identity, number>();

  constructor(o: OwnerTreeOptions) {
    this.#o = o;
  }

  async entry(path: VirtualPath, signal: AbortSignal): Promise<Entry> {
    const place = placeOf(path);
    switch (place.kind) {
      case "root":
        return { name: "/", kind: "folder", perm: "el" };
      case "top":
        return folder(place.top);
      case "inbox-peer": {
        const peers = await inboxPeers(this.#o.store);
        if (!peers.includes(place.peer)) throw notFound();
        return folder(place.peer);
      }
      case "inbox-file":
        return (await inboxFile(this.#o.store, place)).entry;
      case "peer":
        await this.#check(place.peer, signal);
        return folder(place.peer, "cel");
      case "peer-file": {
        if (place.name === STATUS) return statusEntry(await this.#status(place.peer));
        return outgoingEntry(await this.#sent(place));
      }
    }
  }

  async list(path: VirtualPath): Promise<readonly Entry[]> {
    const { store, outgoing } = this.#o;
    const place = placeOf(path);
    switch (place.kind) {
      case "root":
        return [folder("inbox"), folder("peers")];
      case "top":
        return (place.top === "inbox" ? await inboxPeers(store) : await outgoing.peers()).map((peer) => folder(peer));
      case "inbox-peer":
        return (await inboxFiles(store, place.peer)).map(({ entry }) => entry);
      case "peer": {
        const files = await outgoing.of(place.peer);
        const status = await this.#status(place.peer);
        return [...[...files.values()].map(outgoingEntry), ...(files.size === 0 ? [] : [statusEntry(status)])];
      }
      default:
        throw notFound();
    }
  }

  async read(path: VirtualPath, from: number): Promise<Source> {
    const { store } = this.#o;
    const place = placeOf(path);
    if (place.kind === "peer-file" && place.name === STATUS) {
      const text = await this.#status(place.peer);
      return { entry: statusEntry(text), bytes: once(text.subarray(from)) };
    }
    if (place.kind === "peer-file") throw forbidden();
    if (place.kind !== "inbox-file") throw notFound();
    const { entry, item } = await inboxFile(store, place);
    return { entry, bytes: store.openItem(item, from), done: () => store.markSeen(item.id) };
  }

  async mayWrite(path: VirtualPath, signal: AbortSignal): Promise<void> {
    const place = placeOf(path);
    if (place.kind !== "peer-file" || place.name === STATUS) throw forbidden();
    await this.#check(place.peer, signal);
    if (await this.#o.outgoing.isOpen(place.peer, safeFileName(place.name))) {
      throw new SuiteError("conflict", "a file of that name is on its way", { fault: "peer" });
    }
  }

  async write(path: VirtualPath, bytes: AsyncIterable<Uint8Array>): Promise<Committed> {
    const place = placeOf(path);
    if (place.kind !== "peer-file") throw forbidden();
    const item = await this.#o.send(place.peer, place.name, limited(bytes, this.#o.maxFileBytes));
    return { text: `Accepted ${item}` };
  }

  async remove(path: VirtualPath): Promise<void> {
    const place = placeOf(path);
    if (place.kind !== "peer-file" || place.name === STATUS) throw forbidden();
    const file = await this.#sent(place);
    if (!file.open) throw forbidden(); // it has arrived, or has failed: there is nothing to take back
    await this.#o.outgoing.cancel(file, place.peer);
  }

  /** A file as it was put there; its name may have been made harmless. */
  async #sent({ peer, name }: { peer: Identity; name: string }): Promise<OutgoingFile> {
    const file = (await this.#o.outgoing.of(peer)).get(safeFileName(name));
    if (file === undefined) throw notFound();
    return file;
  }

  async #status(peer: Identity): Promise<Buffer> {
    return this.#o.outgoing.status(peer);
  }

  /** Whether there is such a person. A directory that does not answer is no reason to take nothing for somebody. */
  async #check(peer: Identity, signal: AbortSignal): Promise<void> {
    const now = performance.now();
    if (now - (this.#known.get(peer) ?? Number.NEGATIVE_INFINITY) < KNOWN_MS) return;
    try {
      await this.#o.directory.lookup(peer, {}, signal);
      this.#known.set(peer, now);
    } catch (error) {
      if (asSuiteError(error).code !== "directory-unavailable") throw error;
    }
  }
}

type Place =
  | { kind: "root" }
  | { kind: "top"; top: "inbox" | "peers" }
  | { kind: "inbox-peer"; peer: Identity }
  | { kind: "inbox-file"; peer: Identity; name: string }
  | { kind: "peer"; peer: Identity }
  | { kind: "peer-file"; peer: Identity; name: string };

function placeOf(path: VirtualPath): Place {
  const [top, person, name, ...deeper] = segmentsOf(path);
  if (top === undefined) return { kind: "root" };
  if ((top !== "inbox" && top !== "peers") || deeper.length > 0) throw notFound();
  if (person === undefined) return { kind: "top", top };
  const peer = parseIdentity(person);
  if (top === "inbox") return name === undefined ? { kind: "inbox-peer", peer } : { kind: "inbox-file", peer, name };
  return name === undefined ? { kind: "peer", peer } : { kind: "peer-file", peer, name };
}

async function inboxFile(store: Store, place: { peer: Identity; name: string }) {
  const file = (await inboxFiles(store, place.peer)).find(({ entry }) => entry.name === place.name);
  if (file === undefined) throw notFound();
  return file;
}

function folder(name: string, perm = "el"): Entry {
  return { name, kind: "folder", perm };
}

function statusEntry(text: Buffer): Entry {
  return { name: STATUS, kind: "file", size: text.length, perm: "r" };
}

async function* limited(bytes: AsyncIterable<Uint8Array>, most: number): AsyncGenerator<Uint8Array, void, undefined> {
  let size = 0;
  for await (const chunk of bytes) {
    size += chunk.length;
    if (size > most) throw new SuiteError("limit-exceeded", "the file is too large", { fault: "peer" });
    yield chunk;
  }
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer, void, undefined> {
  if (bytes.length > 0) yield bytes;
}

function notFound(): SuiteError {
  return new SuiteError("not-found", "there is nothing of that name", { fault: "peer" });
}

function forbidden(): SuiteError {
  return new SuiteError("forbidden", "this is not to be changed here", { fault: "peer" });
}
