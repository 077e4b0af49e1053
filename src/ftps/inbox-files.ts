import type { Store, StoredItem } from "../delivery/store.ts";
import type { Identity } from "../pki/identity.ts";
import type { Entry } from "./tree.ts";

export interface InboxFile {
  entry: Entry;
  item: StoredItem;
}

/** Whoever sent files, in the order of names. */
export async function inboxPeers(store: Store): Promise<Identity[]> {
  const peers = new Set<Identity>();
  for await (const item of received(store)) peers.add(item.from);
  return [...peers].sort();
}

/** The files of one peer, oldest first: a name that was taken gets ` (2)`, and so keeps it whatever comes later. */
export async function inboxFiles(store: Store, peer: Identity): Promise<InboxFile[]> {
  const items: StoredItem[] = [];
  for await (const item of received(store, peer)) items.push(item);
  const taken = new Set<string>();
  return items.reverse().map((item) => {
    const name = freeName(item.fileName ?? "file", taken);
    taken.add(name);
    return { item, entry: entryOf(item, name) };
  });
}

/** `film.mkv` → `film (2).mkv`. */
export function freeName(name: string, taken: ReadonlySet<string>): string {
  if (!taken.has(name)) return name;
  const dot = name.lastIndexOf(".");
  const [stem, extension] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  for (let number = 2; ; number += 1) {
    const next = `${stem} (${number})${extension}`;
    if (!taken.has(next)) return next;
  }
}

const PAGE = 1_000;

/** Newest first. */
async function* received(store: Store, peer?: Identity): AsyncGenerator<StoredItem, void, undefined> {
  const filter = { box: "inbox" as const, kind: "file" as const, limit: PAGE, ...(peer === undefined ? {} : { peer }) };
  for (let before: number | undefined; ; ) {
    const page = await store.items({ ...filter, ...(before === undefined ? {} : { beforeSeq: before }) });
    yield* page;
    before = page.at(-1)?.seq;
    if (page.length < PAGE) return;
  }
}

function entryOf(item: StoredItem, name: string): Entry {
  const state = item.seenAt === undefined ? "new" : "seen";
  return {
    name,
    kind: "file",
    size: item.size,
    modified: item.at,
    perm: "r",
    unique: item.id,
    facts: [["x.state", state]],
  };
}
