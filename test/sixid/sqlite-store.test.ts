import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { openSqliteStore } from "../../src/sixid/store/sqlite.ts";
import type { DirectoryStore } from "../../src/sixid/store/store.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { storeCompliance } from "./store.compliance.ts";

const folder = temporaryFolder();
const opened: DirectoryStore[] = [];
afterAll(async () => {
  for (const store of opened) await store.close();
  folder[Symbol.dispose]();
});

let files = 0;
const open = (file: string) => {
  const store = openSqliteStore(file);
  opened.push(store);
  return store;
};

describe("SQLite in a file", () => {
  storeCompliance(async () => {
    files += 1;
    const file = join(folder.path, `${files}.db`);
    const store = open(file);
    return {
      store,
      reopened: async () => {
        await store.close();
        return open(file);
      },
    };
  });

  test("two that are open at once see what the other was answered", async () => {
    const file = join(folder.path, "two.db");
    const [one, two] = [open(file), open(file)];
    await one.addUser({ uuid: "u", identity: "a@alpha.test" as never, name: "A" });
    expect(await two.userById("u")).toBeDefined();
    await Promise.all([one.addSession("1", "u", 1), two.addSession("2", "u", 1)]);
    expect([await two.session("1"), await one.session("2")]).toEqual([
      { uuid: "u", expires: 1 },
      { uuid: "u", expires: 1 },
    ]);
  });

  test("one that is closed says so", async () => {
    const store = openSqliteStore(join(folder.path, "closed.db"));
    const last = store.addUser({ uuid: "u", identity: "a@alpha.test" as never, name: "A" });
    await store.close();
    expect(await last).toBe(true); // what was begun before is finished
    await expect(store.addSession("s", "u", 1)).rejects.toMatchObject({ code: "store-failed" });
    await store.close();
  });
});

describe("SQLite in memory", () => {
  storeCompliance(async () => {
    const store = open(":memory:");
    return { store, reopened: async () => store };
  });
});
