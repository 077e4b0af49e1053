import { expect, test } from "vitest";
import { AuthorityPool } from "../../src/peertls-core/candidate-pool.ts";
import { type Certificate, parseCertificate } from "../../src/pki/certificate.ts";
import { makeCa } from "../support/pki.ts";

const now = new Date();
const names = ["Red", "Green", "Blue", "Red"] as const;
/** Two of them are of one name and of different keys. */
const [red, green, blue, otherRed] = names.map((name) => makeCa(name, now).certificate) as [
  Certificate,
  Certificate,
  Certificate,
  Certificate,
];
const letters = new Map([
  ["r", red],
  ["g", green],
  ["b", blue],
  ["o", otherRed],
]);

/** Adds one after the other. */
function poolOf(most: number, added: string): AuthorityPool {
  const pool = new AuthorityPool(most);
  for (const letter of added) pool.add(letters.get(letter) as Certificate);
  return pool;
}

/** Who is found, by name: all reds, then the green, then the blue one. */
function found(pool: AuthorityPool): string {
  return [red, green, blue]
    .flatMap(({ subject }) => [...pool.named(subject.key)])
    .map((one) => [...letters].find(([, certificate]) => certificate.sha256 === one.sha256)?.[0])
    .join("");
}

test.each<[string, number, string, string]>([
  ["none is found in an empty pool", 3, "", ""],
  ["each is found by its own name and no other", 3, "gb", "gb"],
  ["two of one name are both found", 3, "rog", "rog"],
  ["as many stay as there may be", 3, "rgb", "rgb"],
  ["with one more the first goes", 3, "rgbo", "ogb"],
  ["with one more the first goes, of whatever name", 2, "rgo", "og"],
  ["of two of one name the second stays when the first goes", 2, "rog", "og"],
  ["one that comes again counts once", 2, "rrrg", "rg"],
  ["one that comes again comes last: another goes for the next", 2, "rgrb", "rb"],
  ["one that comes again comes last among those of its name", 3, "ror", "or"],
  ["one that went is not there, and may come again", 1, "rgr", "r"],
  ["a pool of none keeps none", 0, "rg", ""],
])("%s", (_, most, added, expected) => {
  expect(found(poolOf(most, added))).toBe(expected);
});

test("looking for one keeps nobody longer: what counts is when it was put there", () => {
  const pool = poolOf(2, "rg");
  for (let n = 0; n < 10; n += 1) expect([...pool.named(red.subject.key)]).toEqual([red]);
  pool.add(blue);
  expect(found(pool)).toBe("gb");
});

test("the same bytes read anew take the place of those read before", () => {
  const pool = poolOf(2, "r");
  const anew = parseCertificate(red.der);
  pool.add(anew);
  const [only, ...others] = pool.named(red.subject.key);
  expect(only).toBe(anew);
  expect(others).toEqual([]);
});

test("a name is compared as names are, not as it is written", () => {
  const [shouted, plain] = [makeCa("SOME  Authority", now), makeCa("some authority", now)];
  const pool = new AuthorityPool(2);
  pool.add(shouted.certificate);
  expect([...pool.named(plain.certificate.subject.key)]).toEqual([shouted.certificate]);
});

test("of many that came, as many as there may be are kept, the last ones, name by name", () => {
  const all = Array.from({ length: 40 }, (_, n) => makeCa(`CA ${n % 7}`, now).certificate);
  const pool = new AuthorityPool(10);
  for (const one of all) pool.add(one);
  const keys = new Set(all.map(({ subject }) => subject.key));
  const kept = [...keys].flatMap((key) => [...pool.named(key)]).map(({ sha256 }) => sha256);
  expect(kept.toSorted()).toEqual(
    all
      .slice(-10)
      .map(({ sha256 }) => sha256)
      .toSorted(),
  );
});
