import { expect, test } from "vitest";
import { parseIdentity } from "../../src/pki/identity.ts";
import { aliasDigest, parseLookupKey } from "../../src/sixid/lookup-key.ts";
import { type Standing, standingOf, visibleReply } from "../../src/sixid/server/visibility.ts";
import type { Found, Visibility } from "../../src/sixid/store/store.ts";

const bob = parseIdentity("bob@beta.test");
const alias = { kind: "email", value: "b@x.test", salt: "s", digest: "d", verified: "certificate" } as const;
const found = (visibility: Partial<Visibility> = {}, rest: Partial<Found> = {}): Found => ({
  ...{ uuid: "u", identity: bob, status: "active", contact: false },
  visibility: { certificates: "authenticated", addresses: "authenticated", presence: "contacts", ...visibility },
  record: {
    ...{ uuid: "u", identity: "jws", seq: 1, hash: "h" },
    devices: [{ fingerprint: "d", addresses: "a", seq: 1, presence: "p", presenceSeq: 1, seen: 7 }],
  },
  aliases: [alias, { ...alias, kind: "phone", value: "+4930123456", verified: "none" }],
  ...rest,
});
const RANK: Standing[] = ["anonymous", "authenticated", "contact", "owner"];
const LEAST = { public: 0, authenticated: 1, contacts: 2 };

test("each part is seen from its level on and from nowhere below, for every combination", () => {
  let seen = 0;
  for (const certificates of ["public", "authenticated"] as const)
    for (const addresses of ["public", "authenticated", "contacts"] as const)
      for (const presence of ["authenticated", "contacts"] as const)
        for (const [rank, standing] of RANK.entries()) {
          const reply = visibleReply(found({ certificates, addresses, presence }), standing);
          const device = reply?.devices["d"];
          const of = [reply?.identity, device?.addresses, device?.presence, device?.seen];
          const there = rank >= LEAST[certificates];
          const told = [
            there ? "jws" : undefined,
            there && rank >= LEAST[addresses] ? "a" : undefined,
            there && rank >= LEAST[presence] ? "p" : undefined,
            there && rank >= LEAST[addresses] ? 7 : undefined,
          ];
          expect(of, `${certificates} ${addresses} ${presence} from ${standing}`).toEqual(told);
          seen += 1;
        }
  expect(seen).toBe(48);
});

test.each(["blocked", "removed"] as const)("of one who is %s not even he himself sees anything", (status) => {
  for (const standing of RANK)
    expect(visibleReply(found({ certificates: "public" }, { status }), standing)).toBeUndefined();
});

test("who asks is the owner, a contact, somebody, or nobody", () => {
  const alice = parseIdentity("alice@alpha.test");
  expect(standingOf(bob, { identity: bob, contact: false })).toBe("owner");
  expect(standingOf(alice, { identity: bob, contact: true })).toBe("contact");
  expect(standingOf(alice, { identity: bob, contact: false })).toBe("authenticated");
  expect(standingOf(undefined, { identity: bob, contact: true })).toBe("anonymous");
});

test("a stranger is told the alias that he asked by, if it is verified; contacts are told all", () => {
  const told = (standing: Standing, key?: string) =>
    visibleReply(found(), standing, key === undefined ? undefined : parseLookupKey(key))?.aliases;
  expect(told("authenticated")).toBeUndefined();
  expect(told("authenticated", "mailto:b@x.test")).toEqual([["s", "email", "b@x.test"]]);
  expect(told("authenticated", "mailto:c@x.test")).toBeUndefined();
  expect(told("authenticated", "+4930123456")).toBeUndefined();
  for (const near of ["contact", "owner"] as const) expect(told(near)).toHaveLength(2);
});

test.each([
  ["alice@ALPHA.test", "identity", "alice@alpha.test"],
  ["mailto:Alice@alpha.test", "email", "alice@alpha.test"],
  ["+4930123456", "phone", "+4930123456"],
  ["tel:+4930123456", "phone", "+4930123456"],
  ["0193B2C0-0000-7000-8000-000000000000", "uuid", "0193b2c0-0000-7000-8000-000000000000"],
  [`sha256:${"AB".repeat(32)}`, "fingerprint", "ab".repeat(32)],
  ["ab".repeat(32), "fingerprint", "ab".repeat(32)],
])("%s is a key", (text, kind, value) => expect(parseLookupKey(text)).toEqual({ kind, value }));

test.each([
  "",
  "alice",
  "+49 30 123456",
  "+0301234567",
  "+49301",
  "+1234567890123456",
  "0301234567",
  "tel:0301234567",
  "mailto:",
  "a@b@c",
  "%",
  "x".repeat(400),
  "ab".repeat(31),
])("%j is none", (text) => expect(() => parseLookupKey(text)).toThrow(expect.objectContaining({ code: "syntax" })));

test("an alias's digest needs its salt, its kind and its value", () => {
  const one = { kind: "email", value: "b@x.test", salt: "AAAAAAAAAAAAAAAAAAAAAA" } as const;
  const digests = [one, { ...one, salt: "BAAAAAAAAAAAAAAAAAAAAA" }, { ...one, value: "c@x.test" }].map(aliasDigest);
  expect(new Set(digests).size).toBe(3);
  // printf '["AAAAAAAAAAAAAAAAAAAAAA","email","b@x.test"]' | sha256sum
  expect(aliasDigest(one)).toBe("db0c9ed5ac98c7974e4e3efc5dfc0ef63b02a5c1ed6d07eadf7f3caf01867617");
});
