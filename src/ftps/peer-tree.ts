import type { Inbox } from "../delivery/inbox.ts";
import type { Fingerprint, PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { segmentsOf, type VirtualPath } from "./path.ts";
import type { Committed, Entry, Source, Tree } from "./tree.ts";

export interface PeerTreeOptions {
  inbox: Inbox;
  owner: Identity;
  peer: { identity: Identity; fingerprint: Fingerprint; certificate: PeerCertificate };
  uploads: PeerUploads;
  maxFileBytes: number;
  clock: () => Date;
}

/** What a peer sees: `/inbox`, into which it puts sealed files, and which lists only what it put there. */
export class PeerTree implements Tree {
  readonly #o: PeerTreeOptions;

  constructor(o: PeerTreeOptions) {
    this.#o = o;
  }

  async entry(path: VirtualPath): Promise<Entry> {
    const [folder, name, ...deeper] = segmentsOf(path);
    if (folder === undefined) return { name: "/", kind: "folder", perm: "el" };
    if (folder !== "inbox" || deeper.length > 0) throw notFound();
    if (name === undefined) return INBOX;
    const upload = this.#o.uploads.of(this.#o.peer.identity).get(name);
    if (upload === undefined) throw notFound();
    return entryOf(name, upload);
  }

  async list(path: VirtualPath): Promise<readonly Entry[]> {
    if (path === "/") return [INBOX];
    if (path !== "/inbox") throw notFound();
    const uploads = this.#o.uploads.of(this.#o.peer.identity);
    return [...uploads].map(([name, upload]) => entryOf(name, upload));
  }

  async read(): Promise<Source> {
    throw forbidden();
  }

  async mayWrite(path: VirtualPath): Promise<void> {
    const [folder, name, ...deeper] = segmentsOf(path);
    if (folder !== "inbox" || name === undefined || deeper.length > 0) throw forbidden();
    if (!/\.p7m$/i.test(name)) throw new SuiteError("not-sealed", "only sealed files are taken", { fault: "peer" });
  }

  async write(path: VirtualPath, bytes: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<Committed> {
    const { inbox, owner, peer, maxFileBytes, uploads, clock } = this.#o;
    let size = 0;
    const counted = async function* (): AsyncGenerator<Uint8Array, void, undefined> {
      for await (const chunk of bytes) {
        size += chunk.length;
        yield chunk;
      }
    };
    const arrival = { kind: "file" as const, peer, to: [owner], source: counted(), maxBytes: maxFileBytes };
    const { digest } = await inbox.receiveSealed(arrival, signal);
    uploads.add(peer.identity, segmentsOf(path).at(-1) ?? "", { size, digest, at: clock() });
    return { text: `Opened ${digest}` };
  }

  async remove(): Promise<void> {
    throw forbidden();
  }
}

interface Upload {
  size: number;
  digest: string;
  at: Date;
}

const LISTED_MS = 86_400_000;
const MOST_LISTED = 1_000;

/** What each peer put into `/inbox` in the last 24 hours, for its listings; what was received is in the store. */
export class PeerUploads {
  readonly #uploads = new Map<Identity, Map<string, Upload>>();
  readonly #clock: () => Date;

  constructor(clock: () => Date) {
    this.#clock = clock;
  }

  /** Oldest first. */
  of(peer: Identity): ReadonlyMap<string, Upload> {
    const uploads = this.#uploads.get(peer) ?? new Map<string, Upload>();
    for (const [name, { at }] of uploads) {
      if (this.#clock().getTime() - at.getTime() < LISTED_MS) break;
      uploads.delete(name);
    }
    if (uploads.size === 0) this.#uploads.delete(peer);
    return uploads;
  }

  add(peer: Identity, name: string, upload: Upload): void {
    const uploads = this.#uploads.get(peer) ?? new Map<string, Upload>();
    this.#uploads.set(peer, uploads);
    uploads.delete(name);
    uploads.set(name, upload);
    const [oldest] = uploads.keys();
    if (uploads.size > MOST_LISTED && oldest !== undefined) uploads.delete(oldest);
  }
}

const INBOX: Entry = { name: "inbox", kind: "folder", perm: "cel" };

function entryOf(name: string, { size, digest, at }: Upload): Entry {
  const facts = [["x.state", "opened"] as const, ["x.digest", digest] as const];
  return { name, kind: "file", size, modified: at, perm: "", unique: digest.slice(0, 32), facts };
}

function notFound(): SuiteError {
  return new SuiteError("not-found", "there is nothing of that name", { fault: "peer" });
}

function forbidden(): SuiteError {
  return new SuiteError("forbidden", "a peer may only put files into /inbox", { fault: "peer" });
}
