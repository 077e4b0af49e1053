import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { State } from "../../src/node/state.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { temporaryFolder } from "../support/tmp.ts";

test("what cannot be written is told as the store's failure, and nothing of it stays", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "state.db");
  const state = new State(path);
  const other = new DatabaseSync(path);
  try {
    other.exec("create trigger full before insert on contacts begin select raise(abort, 'disk is full'); end");
    const bob = parseIdentity("bob@beta.test");
    expect(() => state.addContact(bob, "Bob", new Date())).toThrow(
      expect.objectContaining({ code: "store-failed", temporary: true }),
    );
    expect(state.contacts()).toEqual([]);
    other.exec("drop trigger full");
    expect(state.addContact(bob, "Bob", new Date())).toBe(true);
  } finally {
    other.close();
    state.close();
  }
});
