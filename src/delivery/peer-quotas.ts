import type { Identity } from "../pki/identity.ts";
import type { SuiteError } from "../pki/suite-error.ts";
import type { Database } from "./database.ts";
import type { Kind } from "./envelope.ts";
import { type PeerQuota, type PeerUsage, quotaExceeded } from "./inbox-calls.ts";

const GIB = 1024 ** 3;
const QUOTA: PeerQuota = { items: 2_000, bytes: 2 * GIB, fileBytes: 100 * GIB };

/** What each peer may still bring today. */
export class PeerQuotas {
  readonly quota: PeerQuota;
  readonly #database: Database;
  readonly #now: () => number;
  /** Of each peer: what is coming, of which nobody knows yet how much it will be. */
  readonly #coming = new Map<Identity, Set<Coming>>();
  /** Of each peer: what is being stored, and is not in its account yet. */
  readonly #storing = new Map<Identity, Set<Room>>();

  constructor(o: { database: Database; now: () => number; quota?: Partial<PeerQuota> }) {
    this.quota = { ...QUOTA, ...o.quota };
    this.#database = o.database;
    this.#now = o.now;
  }

  /** Whether anything of this kind may come, and how many bytes. @throws SuiteError quota-exceeded */
  async left(peer: Identity, kind: Kind): Promise<PeerUsage & { left: number }> {
    const { quota } = this;
    const usage = await this.#database.call("usage", { peer, at: this.#now() });
    const isFile = kind === "file";
    // What is to come of files that were begun is counted already, and may come.
    const left = isFile ? quota.fileBytes - usage.fileBytes + usage.expected : quota.bytes - usage.bytes;
    if (usage.items >= quota.items) throw quotaExceeded(peer, "items");
    if (left <= 0) throw quotaExceeded(peer, isFile ? "file-bytes" : "bytes");
    return { ...usage, left };
  }

  /**
   * Counts what comes, until it is disposed of.
   * @returns with `bytes`, what has come of it, and of what began before it, counts alike and still comes: so the first goes through
   */
  coming(peer: Identity, kind: Kind, written: { readonly size: number }): Disposable & { readonly bytes: number } {
    const mine = { isFile: kind === "file", written };
    const all = this.#coming.get(peer) ?? new Set();
    this.#coming.set(peer, all.add(mine));
    return {
      get bytes() {
        const order = [...all];
        const alike = order.slice(0, order.indexOf(mine) + 1).filter(({ isFile }) => isFile === mine.isFile);
        return alike.reduce((sum, one) => sum + one.written.size, 0);
      },
      [Symbol.dispose]: () => {
        all.delete(mine);
        if (all.size === 0) this.#coming.delete(peer);
      },
    };
  }

  /**
   * Keeps room for one thing while `store` puts it in place and into the account: what gets a final name and is refused then
   * would lie on the disk, and be counted nowhere.
   * @throws SuiteError quota-exceeded before `store` has begun
   */
  async keptFor<T>(o: { peer: Identity; kind: Kind; bytes: number }, store: () => Promise<T>): Promise<T> {
    const { peer, kind, bytes } = o;
    const mine = { isFile: kind === "file", bytes };
    const storing = this.#storing.get(peer) ?? new Set();
    const others = [...storing];
    this.#storing.set(peer, storing.add(mine));
    try {
      const usage = await this.#database.call("usage", { peer, at: this.#now() });
      const { isFile } = mine;
      const alike = others.filter((room) => room.isFile === isFile);
      const wanted = alike.reduce((sum, room) => sum + room.bytes, bytes);
      if (usage.items + others.length + 1 > this.quota.items) throw quotaExceeded(peer, "items");
      if (isFile && usage.fileBytes + wanted > this.quota.fileBytes) throw quotaExceeded(peer, "file-bytes");
      if (!isFile && usage.bytes + wanted > this.quota.bytes) throw quotaExceeded(peer, "bytes");
      return await store();
    } finally {
      storing.delete(mine);
      if (storing.size === 0) this.#storing.delete(peer);
    }
  }
}

/** Which quota it was that was exceeded. */
export function quotaOf(error: SuiteError): "items" | "bytes" | "file-bytes" {
  const what = error.details["what"];
  return what === "items" || what === "file-bytes" ? what : "bytes";
}

interface Coming {
  readonly isFile: boolean;
  readonly written: { readonly size: number };
}

interface Room {
  readonly isFile: boolean;
  readonly bytes: number;
}
