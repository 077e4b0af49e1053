import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, describe, expect, test } from "vitest";
import { parseIdentity } from "../../src/pki/identity.ts";
import { Accounts } from "../../src/sixid/server/accounts.ts";
import { openSqliteStore } from "../../src/sixid/store/sqlite.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { VirtualTime } from "../support/virtual-time.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());
const alice = parseIdentity("alice@alpha.test");
const DAY = 86_400_000;

/** As the first version made it, with one person. */
const FIRST_VERSION = `
  create table users (
    uuid text primary key, identity text not null unique, name text not null, status text not null default 'active',
    password text, failures integer not null default 0, retry_at integer not null default 0
  ) strict;
  create table invitations (hash text primary key, identity text not null, expires integer not null, used_at integer) strict;
  create table sessions (hash text primary key, uuid text not null references users(uuid), expires integer not null) strict;
  create index sessions_of on sessions(uuid);
  create table identities (
    uuid text not null references users(uuid), seq integer not null, hash text not null, jws text, primary key (uuid, seq)
  ) strict;
  create table addresses (
    uuid text not null references users(uuid), device text not null, seq integer not null, jws text not null,
    seen integer not null, primary key (uuid, device)
  ) strict;
  insert into users (uuid, identity, name) values ('u', 'alice@alpha.test', 'A');
  insert into identities values ('u', 1, 'h1', 'first'), ('u', 2, 'h2', 'second');
  insert into addresses values ('u', 'd', 3, 'where', 4);
  pragma user_version = 1;
`;

function party() {
  const time = new VirtualTime();
  const store = openSqliteStore(":memory:");
  const accounts = new Accounts({ store, domain: "alpha.test", clock: time.now, random: randomBytes });
  return { time, store, accounts };
}

describe("an invitation's code", () => {
  test("is 80 bits in Crockford's base32, and kept as a hash only", async () => {
    const file = join(folder.path, "codes.db");
    const store = openSqliteStore(file);
    const accounts = new Accounts({ store, domain: "alpha.test", clock: () => new Date(), random: randomBytes });
    const { code } = await accounts.invite(alice, "Alice");
    await store.close();
    expect(code).toMatch(/^(?:[0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}$/);
    const database = new DatabaseSync(file);
    expect(JSON.stringify(database.prepare("select * from invitations").all())).not.toContain(code);
    database.close();
  });

  test("may be typed small, without dashes, with O for 0 and I or L for 1", async () => {
    const { store, time } = party();
    const accounts = new Accounts({
      store,
      domain: "alpha.test",
      clock: time.now,
      random: (length) => (length === 10 ? Buffer.from("00443214c74254b635cf", "hex") : randomBytes(length)),
    });
    const { code } = await accounts.invite(alice, "Alice");
    expect(code).toBe("0123-4567-89AB-CDEF");
    for (const typed of [
      code,
      code.toLowerCase(),
      code.replaceAll("-", ""),
      " O123 4567 89ab cdef",
      "OI23456789ABCDEF",
      "oL23-4567-89AB-CDEF",
    ])
      expect(await accounts.authenticateCode("alice", typed)).toMatchObject({ identity: alice });
  });

  test("is good for 7 days; used, for a day more, for the answer may have been lost", async () => {
    const { accounts, time } = party();
    const { code, expires } = await accounts.invite(alice, "Alice");
    expect(expires.getTime() - time.now().getTime()).toBe(7 * DAY);
    time.advance(7 * DAY - 1);
    expect(await accounts.authenticateCode("alice", code)).toMatchObject({ identity: alice });
    time.advance(1);
    await expect(accounts.authenticateCode("alice", code)).rejects.toMatchObject({ code: "auth-failed" });
    const second = await accounts.invite(alice, "Alice");
    const redeem = (use: string) => accounts.redeem(alice, second.code, use);
    expect([await redeem("one CSR"), await redeem("another"), await redeem("one CSR")]).toEqual([true, false, true]);
    time.advance(DAY - 1);
    expect(await accounts.authenticateCode("alice", second.code)).toMatchObject({ identity: alice });
    time.advance(1);
    await expect(accounts.authenticateCode("alice", second.code)).rejects.toMatchObject({ code: "auth-failed" });
  });

  test("is one person's: another's name with it opens nothing", async () => {
    const { accounts } = party();
    const { code } = await accounts.invite(alice, "Alice");
    await accounts.invite(parseIdentity("bob@alpha.test"), "Bob");
    for (const user of ["bob", "bob@alpha.test", "alice@beta.test", "nobody", "", "a@b@c"])
      await expect(accounts.authenticateCode(user, code)).rejects.toMatchObject({
        code: "auth-failed",
        message: "wrong user, password or code",
      });
    expect(await accounts.redeem(parseIdentity("bob@alpha.test"), code, "CSR")).toBe(false);
  });

  test("is not given for another domain's people", async () => {
    await expect(party().accounts.invite(parseIdentity("x@beta.test"), "X")).rejects.toMatchObject({
      code: "identity-invalid",
    });
  });

  test("a second invitation is for the same account, with the first name", async () => {
    const { accounts } = party();
    await accounts.invite(alice, "Alice");
    const first = await accounts.find(alice);
    await accounts.invite(alice, "Mallory");
    expect(await accounts.find(alice)).toEqual(first);
    expect(first?.uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });
});

test("from the fifth failure on each doubles the wait, to 15 minutes; a success ends it, waiting counts nothing", async () => {
  const { accounts, time } = party();
  const { code } = await accounts.invite(alice, "Alice");
  const waits: number[] = [];
  for (let n = 0; n < 18; n += 1) {
    await expect(accounts.authenticateCode("alice", "WRONG")).rejects.toMatchObject({ code: "auth-failed" });
    const waiting = await accounts
      .authenticateCode("alice", "WRONG")
      .catch((error: { code: string; details: { retrySeconds?: number } }) => error);
    const seconds = "details" in waiting ? (waiting.details.retrySeconds ?? 0) : 0;
    if (seconds === 0)
      n += 1; // before the fifth the second attempt was a failure, too
    else waits.push(seconds);
    time.advance(seconds * 1000);
  }
  expect(waits).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900].slice(0, waits.length));
  expect(waits.length).toBeGreaterThan(11);
  expect(await accounts.authenticateCode("alice", code)).toMatchObject({ identity: alice });
  await expect(accounts.authenticateCode("alice", "WRONG")).rejects.toMatchObject({ code: "auth-failed" });
  expect(await accounts.authenticateCode("alice", code)).toMatchObject({ identity: alice });
});

test("a token lives for 15 minutes, and dies with the password", async () => {
  const { accounts, time } = party();
  await accounts.invite(alice, "Alice");
  const account = (await accounts.find(alice)) ?? { uuid: "", identity: alice, name: "", roles: [] };
  const one = await accounts.openSession(account);
  time.advance(15 * 60_000 - 1);
  expect(await accounts.session(one.token)).toBe(account.uuid);
  time.advance(1);
  expect(await accounts.session(one.token)).toBeUndefined();
  const two = await accounts.openSession(account);
  await accounts.setPassword(account.uuid, "another password");
  expect(await accounts.session(two.token)).toBeUndefined();
  expect(await accounts.session("")).toBeUndefined();
});

test("a password is compared in NFC", async () => {
  const { accounts } = party();
  await accounts.invite(alice, "Alice");
  const { uuid = "" } = (await accounts.find(alice)) ?? {};
  await accounts.setPassword(uuid, "Gr\u00fc\u00dfe aus Ulm");
  expect(await accounts.authenticatePassword("alice", "Gru\u0308\u00dfe aus Ulm")).toMatchObject({ identity: alice });
  await expect(accounts.authenticatePassword("alice", "Grusse aus Ulm")).rejects.toMatchObject({ code: "auth-failed" });
});

describe("the store", () => {
  test("keeps the last 32 objects and all hashes; what was answered is there after reopening", async () => {
    const file = join(folder.path, "objects.db");
    const store = openSqliteStore(file);
    await store.addUser({ uuid: "u", identity: alice, name: "A" });
    for (let seq = 1; seq <= 40; seq += 1)
      expect(
        await store.putIdentity(
          "u",
          { seq, hash: `h${seq}`, jws: `j${seq}`, devices: [] },
          seq === 1 ? "" : `h${seq - 1}`,
        ),
      ).toBe("stored");
    await store.close();
    const again = openSqliteStore(file);
    expect(await again.record("u")).toMatchObject({ seq: 40, hash: "h40", identity: "j40" });
    await again.close();
    const database = new DatabaseSync(file);
    expect(database.prepare("select count(*) as n, count(jws) as kept from identities").get()).toMatchObject({
      n: 40,
      kept: 32,
    });
    database.close();
  });

  test.each<[string, number, string]>([
    ["the first with a predecessor", 1, "h0"],
    ["the second before the first", 2, ""],
    ["sequence 0", 0, ""],
  ])("%s is stale", async (_name, seq, previous) => {
    const { store } = party();
    await store.addUser({ uuid: "u", identity: alice, name: "A" });
    expect(await store.putIdentity("u", { seq, hash: "h", jws: "j", devices: [] }, previous)).toBe("stale");
    expect(await store.record("u")).toBeUndefined();
  });

  test("one of a newer version is not touched", () => {
    const file = join(folder.path, "newer.db");
    const database = new DatabaseSync(file);
    database.exec("pragma user_version = 99");
    database.close();
    expect(() => openSqliteStore(file)).toThrow(
      expect.objectContaining({ code: "store-failed", details: { version: 99 } }),
    );
  });

  test("one of the first version keeps what it has, and takes requests from now on", async () => {
    const file = join(folder.path, "first.db");
    const database = new DatabaseSync(file);
    database.exec(FIRST_VERSION);
    database.close();
    const store = openSqliteStore(file);
    expect(await store.user(alice)).toMatchObject({ name: "A", roles: [] });
    const devices = [{ fingerprint: "d", addresses: "where", seq: 3, seen: 4 }];
    expect(await store.record("u")).toEqual({ uuid: "u", identity: "second", seq: 2, hash: "h2", devices });
    expect(await store.visibility("u")).toMatchObject({ presence: "contacts" });
    const request = { hash: "h", from: alice, signer: "s", to: alice, owner: "u", at: 1, expires: 2, jws: "j" };
    const limits = { windowMs: 1, perAsker: 1, perDomain: 1, total: 1, pending: 1 };
    expect(await store.putRequest(request, limits)).toEqual({ outcome: "kept" });
    await store.close();
  });

  test("a failing disk is store-failed, temporary, and nothing is half written", async () => {
    const { store } = party();
    await expect(store.addSession("h", "nobody", 1)).rejects.toMatchObject({ code: "store-failed", temporary: true });
    await expect(store.putIdentity("nobody", { seq: 1, hash: "h", jws: "j", devices: [] }, "")).rejects.toMatchObject({
      code: "store-failed",
    });
    await store.addUser({ uuid: "u", identity: alice, name: "A" });
    expect(await store.putIdentity("u", { seq: 1, hash: "h", jws: "j", devices: [] }, "")).toBe("stored");
  });
});
