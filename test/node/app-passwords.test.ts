import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { AppPasswords } from "../../src/node/app-passwords.ts";
import { State } from "../../src/node/state.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { temporaryFolder } from "../support/openssl.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());
let state: State;
let access: AppPasswords;
let n = 0;
beforeEach(() => {
  state = new State(join(folder.path, `${(n += 1)}.db`));
  access = new AppPasswords(state, parseIdentity("alice@alpha.test"));
  return () => state.close();
});
const create = (label = "phone", random = randomBytes) => access.create(label, new Date(), random);

describe("an app password", () => {
  test("opens under the owner's name, in each of its spellings, until it is removed", () => {
    const { id, password } = create();
    for (const user of ["alice", "alice@alpha.test", "Alice@ALPHA.test"])
      expect(access.verify(user, password)).toBe(id);
    expect(access.remove(id)).toBe(true);
    expect(access.verify("alice", password)).toBeUndefined();
    expect([access.remove(id), access.ha1s("SHA-256")]).toEqual([false, []]);
  });

  test.each<[string, (password: string) => [string, string]]>([
    ["under another name", (password) => ["bob", password]],
    ["under another domain", (password) => ["alice@beta.test", password]],
    ["under no name", (password) => ["", password]],
    ["in capitals", (password) => ["alice", password.toUpperCase()]],
    ["with a space behind it", (password) => ["alice", `${password} `]],
    ["left empty", () => ["alice", ""]],
  ])("does not open %s", (_name, made) => {
    expect(access.verify(...made(create().password))).toBeUndefined();
  });

  test("is 26 characters that cannot be misread, and none twice", () => {
    const made = Array.from({ length: 50 }, () => create().password);
    for (const password of made) expect(password).toMatch(/^[abcdefghijkmnopqrstuvwxyz2-9]{26}$/);
    expect(new Set(made).size).toBe(50);
  });

  test("takes each character equally often: bytes beyond the alphabet's multiple are passed over", () => {
    const counts = new Map<string, number>();
    let byte = 0;
    let ids = 0;
    const id = () => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE((ids += 1));
      return bytes;
    };
    const all = (length: number) => (length === 4 ? id() : Buffer.from(Array.from({ length }, () => byte++ & 0xff)));
    for (let made = 0; made < 200; made += 1)
      for (const one of create("x", all).password) counts.set(one, (counts.get(one) ?? 0) + 1);
    expect(counts.size).toBe(33);
    expect(Math.max(...counts.values()) / Math.min(...counts.values())).toBeLessThan(1.08);
  });

  test("gives HA1 as RFC 8760 computes it, by both hashes, and is itself nowhere in the list", () => {
    const { id, password } = create();
    const ha1 = (hash: string) => createHash(hash).update(`alice:alpha.test:${password}`).digest("hex");
    expect(access.ha1s("SHA-256")).toEqual([{ id, ha1: ha1("sha256") }]);
    expect(access.ha1s("MD5")).toEqual([{ id, ha1: ha1("md5") }]);
    expect(JSON.stringify(access.list())).not.toContain(password);
    expect(access.list()).toMatchObject([{ id, label: "phone" }]);
  });

  test("one does not stand in for another", () => {
    const one = create("a");
    const two = create("b");
    expect([access.verify("alice", one.password), access.verify("alice", two.password)]).toEqual([one.id, two.id]);
    access.remove(one.id);
    expect([access.verify("alice", one.password), access.verify("alice", two.password)]).toEqual([undefined, two.id]);
  });
});
