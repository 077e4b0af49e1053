import type { Store, StoredItem } from "../../src/delivery/store.ts";

/** The mail as the owner's programs see it. */
export async function storedText(store: Store, item: StoredItem): Promise<string> {
  return Buffer.concat(await store.openItem(item).toArray()).toString();
}

/** The sealed mail as it came. */
export async function originalText(store: Store, item: StoredItem): Promise<string> {
  return Buffer.concat(await store.openOriginal(item).toArray()).toString();
}
