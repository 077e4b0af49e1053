import type { Inbox } from "../delivery/inbox.ts";
import type { Store } from "../delivery/store.ts";
import type { OpenedObject } from "../delivery/transfer-calls.ts";
import type { Fingerprint, PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Dropbox } from "./dropbox.ts";
import { segmentsOf, type VirtualPath } from "./path.ts";
import type { Committed, Entry, Source, Tree } from "./tree.ts";

export interface PeerTreeOptions {
  inbox: Inbox;
  store: Pick<Store, "opened">;
  dropbox: Dropbox;
  owner: Identity;
  peer: { identity: Identity; fingerprint: Fingerprint; certificate: PeerCertificate };
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
    const [opened] = await this.#o.store.opened(this.#o.peer.identity, { name });
    if (opened !== undefined) {
      // We died after it was taken: nobody sends it again, so nothing else would remove it for a week.
      await this.#o.dropbox.remove(this.#o.peer.identity, name).catch(() => undefined);
      return openedEntry(opened);
    }
    const size = await this.#o.dropbox.size(this.#o.peer.identity, name);
    if (size === undefined) throw notFound();
    return { name, kind: "file", size, perm: "adw", facts: [["x.state", "partial"]] };
  }

  async list(path: VirtualPath): Promise<readonly Entry[]> {
    if (path === "/") return [INBOX];
    if (path !== "/inbox") throw notFound();
    const since = new Date(this.#o.clock().getTime() - LISTED_MS);
    const opened = await this.#o.store.opened(this.#o.peer.identity, { since, limit: MOST_LISTED });
    return opened.reverse().map(openedEntry);
  }

  async read(): Promise<Source> {
    throw forbidden();
  }

  async mayWrite(path: VirtualPath): Promise<void> {
    const [folder, name, ...deeper] = segmentsOf(path);
    if (folder !== "inbox" || name === undefined || deeper.length > 0) throw forbidden();
    if (!/\.p7m$/i.test(name)) throw new SuiteError("not-sealed", "only sealed files are taken", { fault: "peer" });
  }

  async write(
    path: VirtualPath,
    bytes: AsyncIterable<Uint8Array>,
    from: number,
    signal: AbortSignal,
  ): Promise<Committed> {
    const { inbox, dropbox, owner, peer, maxFileBytes: maxBytes } = this.#o;
    const name = nameOf(path);
    return dropbox.receive({
      ...{ peer: peer.identity, name, from, bytes },
      async take(source, file) {
        const arrival = { kind: "file" as const, peer, to: [owner], source, maxBytes, object: name, file };
        const { digest } = await inbox.receiveSealed(arrival, signal);
        return { text: `Opened ${digest}` };
      },
    });
  }

  async unfinished(path: VirtualPath): Promise<number> {
    return (await this.#o.dropbox.size(this.#o.peer.identity, nameOf(path))) ?? 0;
  }

  async hash(path: VirtualPath, signal: AbortSignal): Promise<{ size: number; sha256: string } | undefined> {
    return this.#o.dropbox.hash(this.#o.peer.identity, nameOf(path), signal);
  }

  /** An upload that was cut may be given up. */
  async remove(path: VirtualPath): Promise<void> {
    const [folder, name, ...deeper] = segmentsOf(path);
    const { dropbox, peer } = this.#o;
    if (folder !== "inbox" || name === undefined || deeper.length > 0) throw forbidden();
    if ((await dropbox.size(peer.identity, name)) === undefined) throw forbidden();
    await dropbox.remove(peer.identity, name);
  }
}

const LISTED_MS = 86_400_000;
const MOST_LISTED = 1_000;

const INBOX: Entry = { name: "inbox", kind: "folder", perm: "cel" };

function openedEntry({ name, size, digest, at }: OpenedObject): Entry {
  const facts = [["x.state", "opened"] as const, ["x.digest", digest] as const];
  return { name, kind: "file", size, modified: new Date(at), perm: "", unique: digest.slice(0, 32), facts };
}

function nameOf(path: VirtualPath): string {
  return segmentsOf(path).at(-1) ?? "";
}

function notFound(): SuiteError {
  return new SuiteError("not-found", "there is nothing of that name", { fault: "peer" });
}

function forbidden(): SuiteError {
  return new SuiteError("forbidden", "a peer may only put files into /inbox", { fault: "peer" });
}
