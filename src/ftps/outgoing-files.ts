import type { ItemId, Receipt, ReceiptState } from "../delivery/envelope.ts";
import type { Outbox } from "../delivery/outbox.ts";
import type { Store, StoredItem } from "../delivery/store.ts";
import type { Identity } from "../pki/identity.ts";
import { splitEntity } from "../smime/entity.ts";
import type { Entry } from "./tree.ts";

/** A file that was put into a peer's folder: the newest of its name. */
export interface OutgoingFile {
  id: ItemId;
  name: string;
  /** Without the head that is signed with it. */
  size: number;
  at: Date;
  status: ReceiptState;
  /** Not final yet. */
  open: boolean;
}

const PAGE = 1_000;
const MOST_REMEMBERED = 10_000;

/** What the owner's files on their way to a peer look like in the peer's folder. */
export class OutgoingFiles {
  readonly #store: Store;
  readonly #outbox: Outbox;
  /** Bytes of the head by the digest of the entity, which never changes. */
  readonly #heads = new Map<string, number>();
  /** Names of items, which never change either. */
  readonly #names = new Map<ItemId, string>();

  constructor(store: Store, outbox: Outbox) {
    this.#store = store;
    this.#outbox = outbox;
  }

  /** Whoever was sent files, in the order of names. */
  async peers(): Promise<Identity[]> {
    const items = await this.#store.items({ box: "sent", kind: "file", limit: PAGE });
    return [...new Set(items.flatMap(({ to }) => to))].sort();
  }

  /** By name; of several of one name the newest. */
  async of(peer: Identity): Promise<Map<string, OutgoingFile>> {
    const files = new Map<string, OutgoingFile>();
    const receipts = new Map(
      (await this.#outbox.receipts()).filter(({ to }) => to === peer).map((one) => [one.item, one]),
    );
    for (const item of await this.#store.items({ box: "sent", kind: "file", peer, limit: PAGE })) {
      const name = item.fileName ?? item.title;
      if (files.has(name)) continue;
      const receipt = receipts.get(item.id) ?? (await this.#receipt(item.id, peer));
      if (receipt !== undefined) files.set(name, await this.#file(item, name, receipt.status));
    }
    return files;
  }

  /** Whether a file of this name is on its way: asked before each upload, so it looks at no more than what is open. */
  async isOpen(peer: Identity, name: string): Promise<boolean> {
    for (const { item, to } of await this.#outbox.receipts({ open: true })) {
      if (to === peer && (await this.#nameOf(item)) === name) return true;
    }
    return false;
  }

  /** A line for each file: state, name. */
  async status(peer: Identity): Promise<Buffer> {
    const lines = [...(await this.of(peer)).values()].map((file) => {
      const facts = factsOf(file.status).map(([fact, value]) => `${fact.slice(2)}=${value}`);
      return `${file.at.toISOString()} ${facts.join(" ")} size=${file.size} ${file.name}\n`;
    });
    return Buffer.from(lines.join(""));
  }

  cancel(file: OutgoingFile, peer: Identity): Promise<void> {
    return this.#outbox.cancel(file.id, peer);
  }

  async #nameOf(id: ItemId): Promise<string> {
    const known = this.#names.get(id);
    if (known !== undefined) return known;
    const { kind, fileName, title } = await this.#store.item(id);
    const name = kind === "file" ? (fileName ?? title) : "";
    if (this.#names.size >= MOST_REMEMBERED) this.#names.clear();
    this.#names.set(id, name);
    return name;
  }

  async #receipt(item: ItemId, peer: Identity): Promise<Receipt | undefined> {
    return (await this.#outbox.receipts({ item })).find(({ to }) => to === peer);
  }

  async #file(item: StoredItem, name: string, status: ReceiptState): Promise<OutgoingFile> {
    const size = item.size - (await this.#headBytes(item));
    const open = status.state === "queued" || status.state === "sending" || status.state === "held";
    return { id: item.id, name, size, at: item.at, status, open };
  }

  async #headBytes({ content }: StoredItem): Promise<number> {
    const known = this.#heads.get(content.digest);
    if (known !== undefined) return known;
    const { headBytes, body } = await splitEntity(this.#store.openContent(content));
    await body.return(undefined);
    if (this.#heads.size >= MOST_REMEMBERED) this.#heads.clear();
    this.#heads.set(content.digest, headBytes.length);
    return headBytes.length;
  }
}

export function outgoingEntry(file: OutgoingFile): Entry {
  return {
    name: file.name,
    kind: "file",
    size: file.size,
    modified: file.at,
    perm: file.open ? "d" : "w",
    unique: file.id,
    facts: factsOf(file.status),
  };
}

function factsOf(status: ReceiptState): (readonly [string, string])[] {
  const state = ["x.state", status.state] as const;
  switch (status.state) {
    case "sending":
      return [state, ["x.sent", String(status.sentBytes)], ["x.total", String(status.totalBytes)]];
    case "held":
    case "failed":
      return [state, ["x.reason", status.reason]];
    case "queued":
      return [state, ...(status.why === undefined ? [] : [["x.reason", status.why] as const])];
    case "delivered":
      return [state];
  }
}
