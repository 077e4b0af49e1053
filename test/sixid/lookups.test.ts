import { expect, test } from "vitest";
import type { Fingerprint } from "../../src/pki/certificate.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import type { Caller } from "../../src/sixid/server/caller.ts";
import { Lookups } from "../../src/sixid/server/lookups.ts";
import { Quotas } from "../../src/sixid/server/quota.ts";
import type { Recursion } from "../../src/sixid/server/recursion.ts";
import { openSqliteStore } from "../../src/sixid/store/sqlite.ts";

const START = 1_796_083_200_000;

/** A directory of one person, asked by a domain that is configured or not. */
function party(listed: boolean) {
  const at = { host: "::1", port: 1 };
  const lookups = new Lookups({
    domain: "alpha.test",
    store: openSqliteStore(":memory:"),
    recursion: {} as Recursion, // nobody asks for others
    federation: { known: () => [{ domain: "beta.test", anchors: [], ...(listed ? { at } : {}) }] },
    quotas: new Quotas(),
    clock: () => new Date(START),
  });
  const outcome = (promise: Promise<unknown>) =>
    promise.then(
      () => "found",
      ({ code }: { code: string }) => code,
    );
  return {
    asPerson: (caller: Caller, key: string) => outcome(lookups.one(caller, key, AbortSignal.timeout(5_000))),
    asDomain: (onBehalfOf: string, key: string) =>
      outcome(
        lookups.recursive(
          { kind: "domain", domain: "beta.test" },
          { key, onBehalfOf: parseIdentity(onBehalfOf), hops: 1, trail: ["beta.test"] },
        ),
      ),
  };
}

const sybil = (n: number): Caller => ({
  kind: "person",
  identity: parseIdentity(`sybil${n}@beta.test`),
  by: "sca",
  fingerprint: "f".repeat(64) as Fingerprint,
});

test.each([
  ["one that is configured", true, 300],
  ["any other", false, 11],
])("what a domain can find out does not grow with the people it makes up: %s", async (_name, listed, most) => {
  const [persons, domain] = [party(listed), party(listed)];
  const told = { persons: 0, domain: 0 };
  for (let n = 0; n < 350; n += 1) {
    if ((await persons.asPerson(sybil(n), `name${n}@alpha.test`)) === "unknown-recipient") told.persons += 1;
    if ((await domain.asDomain(`sybil${n}@beta.test`, `name${n}@alpha.test`)) === "unknown-recipient") told.domain += 1;
  }
  expect(told.persons).toBeLessThanOrEqual(most + 1);
  expect(told).toEqual({ persons: told.domain, domain: told.domain });
  expect(told.domain).toBeGreaterThan(most - 2);
});

test("a domain asks on behalf of its own people alone", async () => {
  expect(await party(true).asDomain("alice@alpha.test", "x@alpha.test")).toBe("forbidden");
});
