import { CompactSign } from "jose";
import { expect, test } from "vitest";
import { makeIdentity } from "../../src/sixid/announce.ts";
import { leadsTo } from "../../src/sixid/chain.ts";
import type { Pin } from "../../src/sixid/pins.ts";
import { verifyIdentity } from "../../src/sixid/verify.ts";
import { hashOf, history, ownOf, payloadOf } from "../support/directory.ts";
import { makeTestDomain, type TestCredentials } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const bob = alpha.person({ identity: "bob@alpha.test", encryptionKey: "ec" });
const second = alpha.person({ identity: "bob@alpha.test", encryptionKey: "ec" });
const uuid = "0193b2c0-0000-7000-8000-000000000001";
const one = ownOf(bob, uuid);
const both = ownOf(bob, uuid, [second.auth]);
const other = ownOf(second, uuid);
/** Bob's device adds a second, which then goes on alone. */
const objects = await history([
  { own: one, by: bob.auth },
  { own: both, by: bob.auth },
  { own: { ...both, name: "B" }, by: bob.auth },
  { own: other, by: second.auth },
]);
const chain = objects.map((jws, n) => ({ seq: n + 1, hash: hashOf(jws), jws }));
const last = await verifyIdentity(objects.at(-1) ?? "", bob.identity, { anchors: [alpha.anchor], now: new Date() });
const pin = { uuid, seq: 1, hash: chain[0]?.hash ?? "", devices: [bob.auth.certificate.fingerprint] } as unknown as Pin;
const between = chain.slice(1, 3);
const changed = (at: number, jws: string | undefined) =>
  between.map((step, n) =>
    n === at ? { seq: step.seq, hash: step.hash, ...(jws === undefined ? {} : { jws }) } : step,
  );

test("a chain of which each step was signed by a device that the one before lists leads to the record", async () => {
  expect(await leadsTo(pin, last, between)).toBe(true);
});

const [, jwsOfTwo = ""] = objects;
const forged = () => {
  const [head, , signature] = jwsOfTwo.split(".");
  const payload = payloadOf(jwsOfTwo).replace('"label":"test"', '"label":"tesT"');
  return [head, Buffer.from(payload).toString("base64url"), signature].join(".");
};
const elsewhere = await history([
  { own: { ...one, name: "X" }, by: bob.auth },
  { own: both, by: bob.auth },
]);
const byThief = await history([
  { own: one, by: bob.auth },
  { own: other, by: second.auth },
]);

/** A step that says a listed device signed it, and lists the thief, who goes on from there as the record does. */
async function stolen(x5c: TestCredentials): Promise<boolean> {
  const payload = payloadOf(jwsOfTwo);
  const jws = await new CompactSign(Buffer.from(payload, "utf8"))
    .setProtectedHeader({
      ...{ alg: "ES256", typ: "sixid-identity" },
      x5c: [x5c.certificate, ...x5c.chain].map(({ der }) => Buffer.from(der).toString("base64")),
    })
    .sign(second.auth.privateKey);
  const next = await makeIdentity(other, { seq: 2, hash: hashOf(jws) }, second.auth, new Date());
  const record = await verifyIdentity(next, bob.identity, { anchors: [alpha.anchor], now: new Date() });
  return leadsTo(pin, record, [{ seq: 2, hash: hashOf(jws), jws }]);
}

test("a thief's step in the name of a listed device leads nowhere, by whosever certificate", async () => {
  expect(await stolen(bob.auth)).toBe(false);
  expect(await stolen(second.auth)).toBe(false);
});

test.each<[string, Parameters<typeof leadsTo>[2], Partial<Pin>]>([
  ["nothing between", [], {}],
  ["a step that is missing", between.slice(1), {}],
  ["a step that is not kept any more", changed(0, undefined), {}],
  ["a step whose signature is another's", changed(0, forged()), {}],
  ["a step that follows another object", changed(0, elsewhere[1]), {}],
  ["a step by a device that nobody listed", changed(0, byThief[1]), {}],
  ["a step that is nonsense", changed(1, "nonsense"), {}],
  ["steps in another order", [...between].reverse(), {}],
  ["another person's pin", between, { uuid: "0193b2c0-0000-7000-8000-000000000002" }],
  ["a pin on another object", between, { hash: "0".repeat(64) }],
  ["a pin on other devices", between, { devices: [] }],
])("%s leads nowhere", async (_name, steps, other) => {
  expect(await leadsTo({ ...pin, ...other }, last, steps)).toBe(false);
});
