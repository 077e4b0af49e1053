import { describe, expect, test } from "vitest";
import { type Identity, parseIdentity } from "../../src/pki/identity.ts";
import type { Change, DirectoryStore, NewRequest, RequestLimits } from "../../src/sixid/store/store.ts";

/** What a test works on; `another`: a second process's view of the same directory. */
export interface StoreUnderTest {
  store: DirectoryStore;
  /** The same after it was closed and opened again. */
  reopened(): Promise<DirectoryStore>;
}

const NO_LIMITS: RequestLimits = { windowMs: 1_000, perAsker: 99, perDomain: 99, total: 99, pending: 99 };

/** What every store of the directory does, whatever database it stands on. `make` gives an empty one for each test. */
export function storeCompliance(make: () => Promise<StoreUnderTest>): void {
  let people = 0;
  const person = async (store: DirectoryStore, name = "A") => {
    people += 1;
    const identity = parseIdentity(`p${people}@alpha.test`);
    const uuid = `u${people}`;
    expect(await store.addUser({ uuid, identity, name })).toBe(true);
    return { uuid, identity };
  };
  const published = async (store: DirectoryStore, devices: readonly string[] = ["d"]) => {
    const made = await person(store);
    expect(await store.putIdentity(made.uuid, { seq: 1, hash: `h-${made.uuid}`, jws: "j1", devices }, "")).toBe(
      "stored",
    );
    return { ...made, hash: `h-${made.uuid}` };
  };
  const part = (seq: number, jws = `a${seq}`) => ({ seq, jws, seen: 7 });

  describe("people", () => {
    test("an identity and a uuid are given once", async () => {
      const { store } = await make();
      const { uuid, identity } = await person(store);
      expect(await store.addUser({ uuid: "other", identity, name: "B" })).toBe(false);
      expect(await store.addUser({ uuid, identity: parseIdentity("other@alpha.test"), name: "B" })).toBe(false);
      const user = { uuid, identity, name: "A", status: "active", roles: [], failures: 0, retryAt: 0 };
      expect(await store.user(identity)).toEqual(user);
      expect(await store.userById(uuid)).toEqual(user);
      expect(await store.user(parseIdentity("nobody@alpha.test"))).toBeUndefined();
    });

    test("are listed in order, by pages, and by a part of the identity or the name in any case", async () => {
      const { store } = await make();
      for (const [local, name] of [
        ["carol", "C%r_l"],
        ["alice", "Alice Example"],
        ["bob", "Bob \u00c4"],
      ] as const)
        await store.addUser({ uuid: local, identity: parseIdentity(`${local}@alpha.test`), name });
      const names = async (filter?: Parameters<DirectoryStore["users"]>[0]) =>
        (await store.users(filter)).map(({ uuid }) => uuid);
      expect(await names()).toEqual(["alice", "bob", "carol"]);
      expect(await names({ limit: 2 })).toEqual(["alice", "bob"]);
      expect(await names({ after: parseIdentity("bob@alpha.test") })).toEqual(["carol"]);
      expect(await names({ match: "EXAMPLE" })).toEqual(["alice"]);
      expect(await names({ match: "%r_" })).toEqual(["carol"]);
      expect(await names({ match: "_" })).toEqual(["carol"]);
    });

    test("a status or a password that is set ends the sessions; a name or a role does not", async () => {
      const { store } = await make();
      const { uuid } = await person(store);
      await store.addSession("s", uuid, 99);
      await store.setUser(uuid, { name: "New", roles: ["admin", "officer"] }, 1);
      expect(await store.session("s")).toEqual({ uuid, expires: 99 });
      expect(await store.userById(uuid)).toMatchObject({ name: "New", roles: ["admin", "officer"] });
      await store.setUser(uuid, { status: "blocked" }, 1);
      expect(await store.session("s")).toBeUndefined();
      await store.setUser(uuid, { status: "active" }, 1);
      await store.addSession("s", uuid, 99);
      await store.setPassword(uuid, "phc");
      expect(await store.session("s")).toBeUndefined();
      expect(await store.userById(uuid)).toMatchObject({ password: "phc", status: "active" });
    });

    test("of one who is removed the name is left, which nobody gets, and his hashes; what he told is gone", async () => {
      const { store } = await make();
      const { uuid, identity, hash } = await published(store);
      await store.putAddresses(uuid, "d", part(1));
      await store.setContacts(uuid, [identity]);
      await store.setUser(uuid, { status: "removed" }, 1);
      expect(await store.find({ kind: "identity", value: identity })).toBeUndefined();
      expect(await store.users()).toEqual([]);
      expect(await store.addUser({ uuid: "other", identity, name: "B" })).toBe(false);
      expect(await store.chain(uuid, 1, 9)).toEqual([{ seq: 1, hash }]);
      expect(await store.contacts(uuid)).toEqual([]);
    });

    test("failures are counted where they are told, invitations used once or for the same again", async () => {
      const { store } = await make();
      const { uuid, identity } = await person(store);
      await store.setFailures(uuid, 6, 1_796_083_200_123);
      expect(await store.user(identity)).toMatchObject({ failures: 6, retryAt: 1_796_083_200_123 });
      await store.addInvitation("i", { identity, expires: 5 });
      expect(await store.invitation("i")).toEqual({ identity, expires: 5 });
      expect(await store.useInvitation("i", "csr", 3)).toBe(true);
      expect(await store.useInvitation("i", "another", 4)).toBe(false);
      expect(await store.useInvitation("i", "csr", 4)).toBe(true);
      expect(await store.invitation("i")).toEqual({ identity, expires: 5, usedAt: 3 });
      expect(await store.useInvitation("none", "csr", 4)).toBe(false);
    });

    test("sessions end one by one, or all of a person", async () => {
      const { store } = await make();
      const { uuid } = await person(store);
      const other = await person(store);
      for (const [hash, of] of [
        ["1", uuid],
        ["2", uuid],
        ["3", uuid],
        ["4", other.uuid],
      ] as const)
        await store.addSession(hash, of, 9);
      await store.removeSession("1");
      const left = async () => (await Promise.all(["1", "2", "3", "4"].map((one) => store.session(one)))).map(Boolean);
      expect(await left()).toEqual([false, true, true, true]);
      await store.removeSessionsOf(uuid);
      expect(await left()).toEqual([false, false, false, true]);
    });
  });

  describe("the identity object", () => {
    test.each<[string, number, string]>([
      ["the first with a predecessor", 1, "h0"],
      ["the second before the first", 2, ""],
      ["sequence 0", 0, ""],
    ])("%s is stale", async (_name, seq, previous) => {
      const { store } = await make();
      const { uuid } = await person(store);
      expect(await store.putIdentity(uuid, { seq, hash: "h", jws: "j", devices: [] }, previous)).toBe("stale");
      expect(await store.record(uuid)).toBeUndefined();
    });

    test("of two that follow the same one, at once, one is stored", async () => {
      const { store } = await make();
      const { uuid, hash } = await published(store);
      const next = (n: number) => ({ seq: 2, hash: `next${n}`, jws: `next${n}`, devices: ["d"] });
      const outcomes = await Promise.all([1, 2, 3, 4].map((n) => store.putIdentity(uuid, next(n), hash)));
      expect(outcomes.toSorted()).toEqual(["stale", "stale", "stale", "stored"]);
      expect(await store.record(uuid)).toMatchObject({ hash: `next${outcomes.indexOf("stored") + 1}` });
    });

    test("the last 32 are kept, and the hashes of all", async () => {
      const it = await make();
      const { uuid } = await person(it.store);
      for (let seq = 1; seq <= 40; seq += 1) {
        const next = { seq, hash: `h${seq}`, jws: `j${seq}`, devices: [] };
        expect(await it.store.putIdentity(uuid, next, seq === 1 ? "" : `h${seq - 1}`)).toBe("stored");
      }
      const store = await it.reopened();
      expect(await store.record(uuid)).toEqual({ uuid, identity: "j40", seq: 40, hash: "h40", devices: [] });
      const chain = await store.chain(uuid, 1, 99);
      expect(chain.map(({ hash }) => hash)).toEqual(Array.from({ length: 40 }, (_, n) => `h${n + 1}`));
      expect(chain.filter(({ jws }) => jws !== undefined).map(({ seq }) => seq)).toEqual(
        Array.from({ length: 32 }, (_, n) => n + 9),
      );
      expect(await store.chain(uuid, 39, 1)).toEqual([{ seq: 39, hash: "h39", jws: "j39" }]);
    });

    test("a device that the next one leaves out is forgotten; another's stays", async () => {
      const { store } = await make();
      const { uuid, hash } = await published(store, ["d", "e"]);
      await store.putAddresses(uuid, "d", part(1));
      await store.putAddresses(uuid, "e", part(1));
      await store.putIdentity(uuid, { seq: 2, hash: "h2", jws: "j2", devices: ["e"] }, hash);
      expect((await store.record(uuid))?.devices.map(({ fingerprint }) => fingerprint)).toEqual(["e"]);
    });
  });

  describe("a device", () => {
    test("tells addresses and presence apart, each by rising sequence", async () => {
      const { store } = await make();
      const { uuid } = await published(store);
      expect(await store.putAddresses(uuid, "d", part(5))).toBe("stored");
      for (const seq of [5, 4]) expect(await store.putAddresses(uuid, "d", part(seq, "old"))).toBe("stale");
      expect(await store.putPresence(uuid, "d", { seq: 2, jws: "p2", seen: 8 })).toBe("stored");
      expect(await store.putPresence(uuid, "d", part(2, "old"))).toBe("stale");
      const devices = [{ fingerprint: "d", addresses: "a5", seq: 5, presence: "p2", presenceSeq: 2, seen: 8 }];
      expect((await store.record(uuid))?.devices).toEqual(devices);
      expect(await store.putAddresses(uuid, "d", part(1_796_083_200_123))).toBe("stored");
    });

    test("of many announcements at once the highest stays", async () => {
      const { store } = await make();
      const { uuid } = await published(store);
      const order = Array.from({ length: 100 }, (_, n) => ((n * 37) % 100) + 1);
      await Promise.all(order.map((seq) => store.putAddresses(uuid, "d", part(seq))));
      expect((await store.record(uuid))?.devices).toMatchObject([{ addresses: "a100", seq: 100 }]);
    });

    test("that is revoked is silent for good, even if a later object lists it", async () => {
      const { store } = await make();
      const { uuid, hash } = await published(store, ["d", "e"]);
      await store.putAddresses(uuid, "d", part(1));
      await store.dropDevice(uuid, "d");
      expect((await store.record(uuid))?.devices).toEqual([]);
      await store.putIdentity(uuid, { seq: 2, hash: "h2", jws: "j2", devices: ["e"] }, hash);
      await store.putIdentity(uuid, { seq: 3, hash: "h3", jws: "j3", devices: ["d", "e"] }, "h2");
      expect(await store.putAddresses(uuid, "d", part(2))).toBe("stale");
      expect(await store.putPresence(uuid, "d", part(2))).toBe("stale");
      expect(await store.revokedDevices(uuid)).toEqual(["d"]);
      expect(await store.find({ kind: "fingerprint", value: "d" })).toBeUndefined();
    });
  });

  describe("a person is found", () => {
    test("by identity, uuid and a device's fingerprint, with everything of one moment", async () => {
      const { store } = await make();
      const { uuid, identity, hash } = await published(store);
      await store.putAddresses(uuid, "d", part(1));
      const found = {
        ...{ uuid, identity, status: "active", contact: false, aliases: [] },
        visibility: { certificates: "authenticated", addresses: "authenticated", presence: "contacts" },
        record: {
          uuid,
          identity: "j1",
          seq: 1,
          hash,
          devices: [{ fingerprint: "d", addresses: "a1", seq: 1, seen: 7 }],
        },
      };
      expect(await store.find({ kind: "identity", value: identity })).toEqual(found);
      expect(await store.find({ kind: "uuid", value: uuid })).toEqual(found);
      expect(await store.find({ kind: "fingerprint", value: "d" })).toEqual(found);
      for (const kind of ["identity", "uuid", "fingerprint", "email", "phone"] as const)
        expect(await store.find({ kind, value: "nobody" })).toBeUndefined();
    });

    test("not before there is an object; and when he is blocked, as one who is", async () => {
      const { store } = await make();
      const { identity } = await person(store);
      expect(await store.find({ kind: "identity", value: identity })).toBeUndefined();
      const other = await published(store);
      await store.setUser(other.uuid, { status: "blocked" }, 1);
      expect(await store.find({ kind: "identity", value: other.identity })).toMatchObject({ status: "blocked" });
    });

    test("as a contact of those whom he names, until he names others", async () => {
      const { store } = await make();
      const { uuid, identity } = await published(store);
      const [bob, carol] = [parseIdentity("bob@beta.test"), parseIdentity("carol@beta.test")];
      await store.setContacts(uuid, [bob, bob]);
      const asked = async (asker?: Identity) =>
        (await store.find({ kind: "identity", value: identity }, asker))?.contact;
      expect([await asked(bob), await asked(carol), await asked()]).toEqual([true, false, false]);
      await store.setContacts(uuid, [carol]);
      expect([await asked(bob), await asked(carol)]).toEqual([false, true]);
      expect(await store.contacts(uuid)).toEqual([carol]);
    });

    test("with the visibility that he set", async () => {
      const { store } = await make();
      const { uuid, identity } = await published(store);
      const visibility = { certificates: "public", addresses: "contacts", presence: "authenticated" } as const;
      await store.setVisibility(uuid, visibility);
      expect(await store.visibility(uuid)).toEqual(visibility);
      expect(await store.find({ kind: "identity", value: identity })).toMatchObject({ visibility });
      expect(await store.visibility("nobody")).toBeUndefined();
    });
  });

  describe("an alias", () => {
    const alias = (value: string, certified = true) => ({
      ...{ kind: "email" as const, value, salt: "s", digest: `d-${value}`, certified },
    });

    test("finds whose certificate names it; who merely claims it is not found", async () => {
      const { store } = await make();
      const { uuid } = await published(store);
      await store.putAliases(uuid, [alias("a@x.test"), alias("b@x.test", false)]);
      const found = await store.find({ kind: "email", value: "a@x.test" });
      expect(found).toMatchObject({ uuid, aliases: [{ verified: "certificate" }, { verified: "none" }] });
      expect(await store.find({ kind: "email", value: "b@x.test" })).toBeUndefined();
      expect(await store.find({ kind: "phone", value: "a@x.test" })).toBeUndefined();
    });

    test("is one person's: the second who is certified for it is not found by it", async () => {
      const { store } = await make();
      const [one, two] = [await published(store), await published(store)];
      await store.putAliases(one.uuid, [alias("a@x.test")]);
      await store.putAliases(two.uuid, [alias("a@x.test")]);
      expect(await store.find({ kind: "email", value: "a@x.test" })).toMatchObject({ uuid: one.uuid });
      await store.putAliases(one.uuid, []);
      await store.putAliases(two.uuid, [alias("a@x.test")]);
      expect(await store.find({ kind: "email", value: "a@x.test" })).toMatchObject({ uuid: two.uuid });
    });

    test("goes to whom the administrator gives it, before and after he tells it, and away from others", async () => {
      const { store } = await make();
      const [one, two] = [await published(store), await published(store)];
      await store.putAliases(one.uuid, [alias("a@x.test")]);
      await store.grantAlias(two.uuid, "email", "a@x.test");
      expect(await store.find({ kind: "email", value: "a@x.test" })).toBeUndefined();
      await store.putAliases(two.uuid, [alias("a@x.test", false)]);
      await store.putAliases(one.uuid, [alias("a@x.test")]);
      expect(await store.find({ kind: "email", value: "a@x.test" })).toMatchObject({ uuid: two.uuid });
      await store.grantAlias(one.uuid, "email", "a@x.test");
      expect(await store.find({ kind: "email", value: "a@x.test" })).toMatchObject({ uuid: one.uuid });
      expect((await store.aliases(one.uuid)).map(({ verified }) => verified)).toEqual(["authority"]);
    });

    test("whose digest the next object leaves out is forgotten", async () => {
      const { store } = await make();
      const { uuid, hash } = await published(store);
      await store.putAliases(uuid, [alias("a@x.test"), alias("b@x.test")]);
      const next = { seq: 2, hash: "h2", jws: "j2", devices: [], aliases: ["d-b@x.test"] };
      await store.putIdentity(uuid, next, hash);
      expect((await store.aliases(uuid)).map(({ value }) => value)).toEqual(["b@x.test"]);
    });
  });

  test("what fails half-way is taken back as a whole, and told to nobody", async () => {
    const { store } = await make();
    const { uuid } = await published(store);
    const alias = (value: string) =>
      ({ kind: "email", value, salt: "s", digest: `d-${value}`, certified: true }) as const;
    await store.putAliases(uuid, [alias("a@x.test")]);
    const told: Change[] = [];
    const off = store.changes((change) => void told.push(change));
    const twice = [alias("b@x.test"), alias("b@x.test")];
    await expect(store.putAliases(uuid, twice)).rejects.toMatchObject({ code: "store-failed" });
    off();
    expect((await store.aliases(uuid)).map(({ value }) => value)).toEqual(["a@x.test"]);
    expect(told).toEqual([]);
  });

  test("held roots are counted by signer, found by age, and taken away", async () => {
    const { store } = await make();
    const { uuid } = await published(store);
    const root = (id: string, received: number, signer = id) => ({ id, uuid, signer, jws: `j-${id}`, received });
    expect(await store.putRoot(root("1", 10), 2)).toBe(true);
    expect(await store.putRoot(root("2", 20), 2)).toBe(true);
    expect(await store.putRoot(root("2", 30), 2)).toBe(true); // the same again: its time stays
    expect(await store.putRoot(root("3", 30), 2)).toBe(false);
    expect(await store.putRoot(root("4", 40, "1"), 2)).toBe(true); // instead of that signer's first
    expect((await store.roots(uuid)).map(({ id, received }) => [id, received])).toEqual([
      ["2", 20],
      ["4", 40],
    ]);
    expect(await store.rootsUntil(20)).toEqual([root("2", 20)]);
    await store.removeRoot("2");
    expect(await store.rootsUntil(99)).toEqual([root("4", 40, "1")]);
  });

  test("a request is counted and kept as its limits allow, the last one of an asker, until it expires", async () => {
    const { store } = await make();
    const { uuid, identity } = await person(store);
    const from = parseIdentity("x@beta.test");
    const ask = (hash: string, next: Partial<NewRequest> = {}, limits: Partial<RequestLimits> = {}) => {
      const request = { hash, from, signer: hash, to: identity, owner: uuid, at: 100, expires: 200, jws: `j-${hash}` };
      return store.putRequest({ ...request, ...next }, { ...NO_LIMITS, ...limits });
    };
    expect(await ask("1")).toEqual({ outcome: "kept" });
    expect(await ask("1")).toEqual({ outcome: "repeated" });
    expect(await ask("2", { signer: "1" })).toEqual({ outcome: "too-many", limit: "pair", retryAt: 1_100 });
    expect(await ask("2")).toEqual({ outcome: "kept" });
    expect(await store.requestsOf(uuid, 150)).toEqual([{ id: "2", jws: "j-2" }]);
    expect(await store.requestsOf(uuid, 200)).toEqual([]);
    expect(await ask("3", { owner: undefined })).toEqual({ outcome: "noted" });
    expect(await ask("4", {}, { perAsker: 3 })).toMatchObject({ limit: "asker" });
    expect(await ask("4", {}, { perDomain: 3 })).toMatchObject({ limit: "domain" });
    expect(await ask("4", {}, { perDomain: Number.POSITIVE_INFINITY, total: 3 })).toMatchObject({ limit: "total" });
    expect(await ask("4", { from: parseIdentity("y@beta.test") }, { pending: 1 })).toEqual({ outcome: "noted" });
    expect(await ask("5", { at: 1_100, expires: 1_200 }, { perAsker: 1 })).toEqual({ outcome: "kept" }); // the window is over
    await store.removeRequest(uuid, "5");
    expect(await store.requestsOf(uuid, 150)).toEqual([]);
  });

  test("a change is told once it is there to be read, before the writer hears of it; what changed nothing is not", async () => {
    const { store } = await make();
    const { uuid, hash } = await published(store);
    const told: (Change & { seq: number | undefined })[] = [];
    const reading: Promise<void>[] = [];
    const off = store.changes((change) => {
      reading.push(store.record(uuid).then((record) => void told.push({ ...change, seq: record?.devices[0]?.seq })));
    });
    const put = store.putAddresses(uuid, "d", part(3)).then(() => expect(reading).toHaveLength(1));
    await put;
    await store.putAddresses(uuid, "d", part(3));
    await store.putIdentity(uuid, { seq: 2, hash: "h2", jws: "j2", devices: ["d"] }, hash);
    await Promise.all(reading); // what is written next could be read already
    off();
    await store.putAddresses(uuid, "d", part(4));
    expect(told).toEqual([
      { uuid, what: "record", seq: 3 },
      { uuid, what: "record", seq: 3 },
    ]);
  });

  test("what fails is store-failed, temporary; nothing of it is written, and what came along with it is", async () => {
    const { store } = await make();
    const { uuid } = await person(store);
    const outcomes = await Promise.allSettled([
      store.addSession("good", uuid, 1),
      store.addSession("bad", "nobody", 1),
      store.putIdentity("nobody", { seq: 1, hash: "h", jws: "j", devices: [] }, ""),
      store.addSession("better", uuid, 1),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "rejected", "fulfilled"]);
    for (const outcome of outcomes)
      if (outcome.status === "rejected")
        expect(outcome.reason).toMatchObject({ code: "store-failed", temporary: true });
    expect((await store.session("better"))?.uuid).toBe(uuid);
    expect(await store.session("bad")).toBeUndefined();
    expect(await store.record("nobody")).toBeUndefined();
  });

  test("backups: the newest ones are kept under rising versions, a code stays until there is another, and they go with the person", async () => {
    const { store } = await make();
    const { uuid } = await person(store);
    expect(await store.putBackup(uuid, { at: 1, bytes: "one", recovery: "code" }, 3)).toBe(1);
    const versions = await Promise.all(
      ["two", "three", "four"].map((bytes, n) => store.putBackup(uuid, { at: n + 2, bytes }, 3)),
    );
    expect(versions.toSorted()).toEqual([2, 3, 4]);
    expect(await store.putBackup(uuid, { at: 5, bytes: "five", recovery: "other" }, 3)).toBe(5);
    expect((await store.backups(uuid)).map(({ version, recovery }) => [version, recovery])).toEqual([
      [5, "other"],
      [4, "code"],
      [3, "code"],
    ]);
    expect(await store.backup(uuid, 5)).toEqual({ version: 5, at: 5, bytes: "five", recovery: "other" });
    expect(await store.backup(uuid, 2)).toBeUndefined();
    await store.setUser(uuid, { status: "removed" }, 6);
    expect(await store.backups(uuid)).toEqual([]);
  });

  test("of backups handed out so many are counted as may be, within a time, also of many at once; each is told", async () => {
    const { store } = await make();
    const { uuid } = await person(store);
    let told = 0;
    const off = store.changes(({ what }) => void (told += what === "backup" ? 1 : 0));
    const noted = await Promise.all(Array.from({ length: 8 }, (_, n) => store.noteDownload(uuid, 100 + n, 0, 5)));
    expect(noted.filter(Boolean)).toHaveLength(5);
    expect(await store.noteDownload(uuid, 200, 90, 5)).toBe(false);
    expect(await store.noteDownload(uuid, 300, 200, 5)).toBe(true);
    off();
    expect(told).toBe(6);
  });

  test("what was answered is there after it was opened again", async () => {
    const it = await make();
    const { uuid, identity } = await published(it.store);
    await Promise.all(Array.from({ length: 200 }, (_, n) => it.store.addSession(`s${n}`, uuid, n)));
    const store = await it.reopened();
    expect(await store.find({ kind: "identity", value: identity })).toBeDefined();
    for (const n of [0, 77, 199]) expect(await store.session(`s${n}`)).toEqual({ uuid, expires: n });
  });
}
