import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { parseConfig } from "../../src/node/config.ts";
import { openStore } from "../../src/node/domain-store.ts";
import { temporaryFolder } from "../support/openssl.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());
const home = { domain: folder.path };
const file = join(folder.path, "connection");
const shared = { store: { postgres: `file:${file}` } };

test("without a word about it the directory is a file of the home", async () => {
  const store = await openStore({}, home);
  await store.close();
  expect(existsSync(join(folder.path, "directory.db"))).toBe(true);
});

test("the connection string is in a file, whose name is relative to the configuration", () => {
  const { domain } = parseConfig(
    "domain:\n  name: alpha.test\n  store:\n    postgres: file:secret/db\n",
    "/etc/sixtalk/sixtalk.yaml",
  );
  expect(domain?.store).toEqual({ postgres: "file:/etc/sixtalk/secret/db" });
  const bare = "domain:\n  name: alpha.test\n  store:\n    postgres: postgres://u:secret@h/d\n";
  expect(() => parseConfig(bare, "x.yaml")).toThrow(expect.objectContaining({ code: "config-invalid" }));
});

test.each([
  ["no file", undefined],
  ["no connection string", "secret"],
  ["another database's", "mysql://u:secret@h/d"],
])("%s: it says what is wrong, and never what the file holds", async (_name, content) => {
  if (content !== undefined) writeFileSync(file, content);
  const error: unknown = await openStore(shared, home).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "config-invalid" });
  expect(JSON.stringify(error, ["message", "details", "problems"])).not.toContain("secret");
});

test("a database that is not there is store-failed, without its password", async () => {
  writeFileSync(file, "postgres://u:geheim@%2Fnowhere/d\n");
  const error: unknown = await openStore(shared, home).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "store-failed", temporary: true });
  expect(`${String(error)} ${String((error as Error).cause)}`).not.toContain("geheim");
});
