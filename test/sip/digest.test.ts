import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import type { OwnerAccess } from "../../src/delivery/owner-access.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { Digest } from "../../src/sip/digest.ts";
import { parseAuthParameters } from "../../src/sip/headers.ts";
import { VirtualTime } from "../support/virtual-time.ts";
import { authorization, hashed } from "./digest-client.ts";
import { request } from "./request.ts";

const realm = "a.test";
const user = "alice";

function access(passwords: Record<string, string>): OwnerAccess {
  return {
    owner: parseIdentity("alice@a.test"),
    realm,
    verify: () => undefined,
    ha1s: (algorithm) =>
      Object.entries(passwords).map(([id, password]) => ({
        id,
        ha1: hashed(algorithm, `${user}:${realm}:${password}`),
      })),
  } as OwnerAccess;
}

function party(passwords: Record<string, string> = { phone: "p1", desk: "p2" }) {
  const time = new VirtualTime();
  const digest = new Digest(access(passwords), randomBytes, time.now);
  const challenge = (flow = "UDP ::1 1", stale = false) => digest.challenge(flow, stale);
  const nonce = (flow = "UDP ::1 1") =>
    parseAuthParameters(challenge(flow)[0]?.value ?? "").parameters.get("nonce") ?? "";
  const check = (
    o: Partial<Parameters<typeof authorization>[0]> & { nonce: string },
    flow = "UDP ::1 1",
    method = "REGISTER",
  ) => {
    const header = authorization({
      user,
      realm,
      password: "p1",
      method: "REGISTER",
      uri: "sip:a.test",
      nc: 1,
      algorithm: "SHA-256",
      ...o,
    });
    return digest.check(request({ method, headers: { authorization: header } }), flow);
  };
  return { time, digest, challenge, nonce, check };
}

describe("the hashes are those of RFC 7616 §3.9.1", () => {
  const given = {
    user: "Mufasa",
    realm: "http-auth@example.org",
    password: "Circle of Life",
    method: "GET",
    uri: "/dir/index.html",
    nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    nc: 1,
  };
  test.each(["MD5", "SHA-256"] as const)(
    "and the server checks by the same rule for %s, with a nonce of its own",
    (algorithm) => {
      const ha1s: OwnerAccess["ha1s"] = (asked) => [
        { id: "lion", ha1: hashed(asked, `Mufasa:${given.realm}:Circle of Life`) },
      ];
      const digest = new Digest({ ...access({}), realm: given.realm, ha1s }, randomBytes, new VirtualTime().now);
      const nonce = parseAuthParameters(digest.challenge("f", false)[0]?.value ?? "").parameters.get("nonce") ?? "";
      const header = authorization({ ...given, nonce, algorithm });
      expect(digest.check(request({ method: "GET", headers: { authorization: header } }), "f")).toEqual({
        ok: true,
        app: "lion",
      });
    },
  );
});

describe("a challenge", () => {
  test("offers SHA-256 first, then MD5, with auth and one nonce", () => {
    const offers = party()
      .challenge()
      .map(({ value }) => parseAuthParameters(value).parameters);
    expect(offers.map((one) => [one.get("algorithm"), one.get("qop"), one.get("realm"), one.has("stale")])).toEqual([
      ["SHA-256", "auth", realm, false],
      ["MD5", "auth", realm, false],
    ]);
    expect(new Set(offers.map((one) => one.get("nonce"))).size).toBe(1);
  });

  test("has a nonce of its own each time", () => {
    const { nonce } = party();
    expect(new Set(Array.from({ length: 50 }, () => nonce())).size).toBe(50);
  });

  test("says stale when the password was not the trouble", () => {
    expect(party().challenge("f", true)[0]?.value).toContain("stale=true");
  });
});

describe("a proof", () => {
  test.each(["SHA-256", "MD5"] as const)("by %s names the app whose password it is", (algorithm) => {
    const { check, nonce } = party();
    expect(check({ nonce: nonce(), algorithm })).toEqual({ ok: true, app: "phone" });
    expect(check({ nonce: nonce(), algorithm, password: "p2" })).toEqual({ ok: true, app: "desk" });
  });

  test.each<[string, (one: ReturnType<typeof party>) => ReturnType<Digest["check"]>, boolean]>([
    ["with a wrong password", ({ check, nonce }) => check({ nonce: nonce(), password: "p3" }), false],
    ["of another user", ({ check, nonce }) => check({ nonce: nonce(), user: "eve" }), false],
    ["for another realm", ({ check, nonce }) => check({ nonce: nonce(), realm: "b.test" }), false],
    ["for another method", ({ check, nonce }) => check({ nonce: nonce(), method: "MESSAGE" }), false],
    ["without a nonce", ({ check }) => check({ nonce: "" }), false],
    ["with somebody else's nonce", ({ check }) => check({ nonce: "0".repeat(48) }), true],
    ["with a nonce of another flow", ({ check, nonce }) => check({ nonce: nonce("TCP ::1 2") }), true],
    ["with a nonce of another process", ({ check }) => check({ nonce: party().nonce() }), true],
    [
      "with a nonce whose time was moved",
      ({ check, nonce }) => check({ nonce: nonce().replace(/^.{8}/, "ffffffff") }),
      true,
    ],
    [
      "with a nonce that is too old",
      ({ check, nonce, time }) => {
        const old = nonce();
        time.advance(301_000);
        return check({ nonce: old });
      },
      true,
    ],
    ["with an unknown algorithm", ({ check, nonce }) => check({ nonce: nonce(), told: "SHA-512" }), false],
    ["without qop", ({ check, nonce }) => check({ nonce: nonce(), qop: "" }), false],
    ["with auth-int", ({ check, nonce }) => check({ nonce: nonce(), qop: "auth-int" }), false],
    ["with a count that is none", ({ check, nonce }) => check({ nonce: nonce(), nc: "1" }), false],
  ])("%s is none", (_name, made, stale) => {
    expect(made(party())).toEqual({ ok: false, stale });
  });

  test("a nonce lasts for 300 s", () => {
    const { check, nonce, time } = party();
    const one = nonce();
    time.advance(299_000);
    expect(check({ nonce: one })).toMatchObject({ ok: true });
  });

  test("without any header there is none, nor with another scheme (RFC 4475 §3.3.7)", () => {
    const { digest } = party();
    expect(digest.check(request(), "f")).toEqual({ ok: false, stale: false });
    const other = request({ headers: { authorization: "NoOneKnowsThisScheme opaque-data=here" } });
    expect(digest.check(other, "f")).toEqual({ ok: false, stale: false });
  });

  test("that was computed for auth but says otherwise is none", () => {
    const { digest, nonce } = party();
    const by = {
      user,
      realm,
      password: "p1",
      method: "REGISTER",
      uri: "sip:a.test",
      nc: 1,
      algorithm: "SHA-256",
    } as const;
    for (const qop of ["auth-int", "x"]) {
      const header = authorization({ ...by, nonce: nonce() }).replace("qop=auth", `qop=${qop}`);
      expect(digest.check(request({ method: "REGISTER", headers: { authorization: header } }), "UDP ::1 1").ok).toBe(
        false,
      );
    }
  });

  test("credentials of another realm beside ours do not hide ours", () => {
    const { digest, nonce } = party();
    const by = { user, password: "p1", method: "REGISTER", uri: "sip:a.test", nc: 1, algorithm: "SHA-256" } as const;
    const one = nonce();
    const headers = ["b.test", realm].map((of) => authorization({ ...by, realm: of, nonce: one }));
    const both = request({ method: "REGISTER", headers: { authorization: headers } });
    expect(digest.check(both, "UDP ::1 1")).toMatchObject({ ok: true });
  });
});

describe("a nonce count serves once", () => {
  test("the same proof again is a replay", () => {
    const { check, nonce } = party();
    const one = nonce();
    expect(check({ nonce: one })).toMatchObject({ ok: true });
    expect(check({ nonce: one })).toEqual({ ok: false, stale: true });
    expect(check({ nonce: one, nc: 2 })).toMatchObject({ ok: true });
  });

  test("counts may overtake each other, up to 64", () => {
    const { check, nonce } = party();
    const one = nonce();
    const used = [5, 3, 70, 7, 69, 8, 134].map((nc) => check({ nonce: one, nc }).ok);
    expect(used).toEqual([true, true, true, true, true, true, true]);
    expect([5, 70, 134, 133].map((nc) => check({ nonce: one, nc }).ok)).toEqual([false, false, false, true]);
    expect([70, 71].map((nc) => check({ nonce: one, nc }).ok)).toEqual([false, true]);
  });

  test("a wrong password does not use a count up", () => {
    const { check, nonce } = party();
    const one = nonce();
    expect(check({ nonce: one, password: "wrong" })).toEqual({ ok: false, stale: false });
    expect(check({ nonce: one })).toMatchObject({ ok: true });
  });
});
