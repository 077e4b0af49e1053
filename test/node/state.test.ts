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

/** As version 1 wrote it. */
const VERSION_1 = `
  create table contacts (identity text primary key, name text not null, added_at integer not null) strict;
  create table trust_entries (list text not null, entry text not null, added_at integer not null, primary key (list, entry)) strict;
  create table pins (identity text primary key, pin text not null) strict;
  create table requests (
    from_identity text primary key, name text not null, text text not null, received_at integer not null, state text not null,
    fingerprint text not null, organisation text, issuer text not null
  ) strict;
  create table sent_requests (to_identity text primary key, sent_at integer not null) strict;
  create table app_passwords (
    id text primary key, label text not null, sha256 text not null, ha1_sha256 text not null, ha1_md5 text not null, created_at integer not null
  ) strict;
  create table domain_anchors (domain text not null, der blob not null, primary key (domain, der)) strict;
  pragma user_version = 1;
`;

function inDatabase<T>(path: string, use: (database: DatabaseSync) => T): T {
  const database = new DatabaseSync(path);
  try {
    return use(database);
  } finally {
    database.close();
  }
}

/** All columns of all tables, whatever the text that made them. */
function columns(path: string): unknown[] {
  const sql =
    "select t.name as of, c.* from sqlite_schema t, pragma_table_xinfo(t.name) c where t.type = 'table' order by 1, 2";
  return inDatabase(path, (database) => database.prepare(sql).all());
}

test("a state that version 1 wrote is brought to the present one: of a decision the day of the request is the day", async () => {
  await using folder = await temporaryFolder();
  const [path, fresh] = [join(folder.path, "state.db"), join(folder.path, "fresh.db")];
  inDatabase(path, (database) => {
    database.exec(VERSION_1);
    const insert = database.prepare("insert into requests values (?, 'Somebody', 'hello', ?, ?, 'f', null, 'beta')");
    insert.run("bob@beta.test", 1_000, "rejected");
    insert.run("carol@beta.test", 2_000, "pending");
    database.exec("insert into contacts values ('dora@beta.test', 'Dora', 1)");
  });
  const state = new State(path);
  expect(state.requests()).toMatchObject([
    { from: "bob@beta.test", state: "rejected", decidedAt: new Date(1_000) },
    { from: "carol@beta.test", state: "pending" },
  ]);
  expect(state.requests()[1]).not.toHaveProperty("decidedAt");
  expect(state.contacts()).toEqual([{ identity: "dora@beta.test", name: "Dora" }]);
  state.close();
  new State(fresh).close();
  expect(columns(path)).toEqual(columns(fresh));
  new State(path).close(); // and once more, as it is now
});

test("a state of a newer version is not touched", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "state.db");
  new State(path).close();
  inDatabase(path, (database) => database.exec("pragma user_version = 99"));
  expect(() => new State(path)).toThrow(expect.objectContaining({ code: "store-failed", details: { version: 99 } }));
});

test("a request takes the place of that person's former one, and is news unless that was still pending", async () => {
  await using folder = await temporaryFolder();
  const state = new State(join(folder.path, "state.db"));
  const from = parseIdentity("bob@beta.test");
  const asks = (text: string, organisation?: string) =>
    state.addRequest({
      ...{ from, name: "Bob", text, receivedAt: new Date(5), state: "pending", fingerprint: text, issuer: "beta" },
      ...(organisation === undefined ? {} : { organisation }),
    });
  expect([asks("first", "Old Ltd"), asks("second")]).toEqual([true, false]);
  expect(state.decideRequest(from, "rejected", new Date(7))).toBe(true);
  expect(state.requests()).toMatchObject([{ text: "second", state: "rejected", decidedAt: new Date(7) }]);
  expect(asks("third")).toBe(true);
  expect(state.requests()).toEqual([
    {
      from,
      name: "Bob",
      text: "third",
      receivedAt: new Date(5),
      state: "pending",
      fingerprint: "third",
      issuer: "beta",
    },
  ]);
  expect(state.decideRequest(parseIdentity("carol@beta.test"), "rejected", new Date(7))).toBe(false);
  state.close();
});

test("of what people's programs read the word that was signed last counts", async () => {
  await using folder = await temporaryFolder();
  const state = new State(join(folder.path, "state.db"));
  const bob = parseIdentity("bob@beta.test");
  expect(state.capabilitiesOf(bob)).toBeUndefined();
  state.rememberCapabilities(bob, { gcm: true, oaep: false }, new Date(2_000));
  state.rememberCapabilities(bob, { gcm: false, oaep: false }, new Date(1_000));
  expect(state.capabilitiesOf(bob)).toEqual({ gcm: true, oaep: false });
  state.rememberCapabilities(bob, { gcm: false, oaep: true }, new Date(3_000));
  expect(state.capabilitiesOf(bob)).toEqual({ gcm: false, oaep: true });
  state.close();
});
