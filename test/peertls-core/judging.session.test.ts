import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Judging, type RevocationSource } from "../../src/peertls-core/judging.ts";
import { DEFAULT_LIMITS } from "../../src/peertls-core/limits.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import type { Approach } from "../../src/peertls-core/verdict.ts";
import { type Certificate, parseCertificate, peerCertificate } from "../../src/pki/certificate.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { issueCertificate } from "../../src/pki/issue.ts";
import { silentLog } from "../../src/pki/log.ts";
import { authTemplate, makeCa, makeEcKey, makeTestDomain } from "../support/pki.ts";

const DAY = 86_400_000;
const alpha = makeTestDomain({ domain: "alpha.test" });
const alice = alpha.person({ identity: "alice@alpha.test" });
const bob = alpha.person({ identity: "bob@alpha.test" });

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] }));
afterEach(() => void vi.useRealTimers());

const anchor = {
  ...alpha.anchor,
  domains: ["alpha.test"],
  organisations: [],
  identitiesFrom: ["rfc822Name"] as const,
};
const everybody = { block: [], allow: [], rules: [{ domain: "alpha.test" }], otherwise: "deny" as const, contacts: [] };

async function core(who: typeof alice, change: { clock?: () => Date; revocations?: RevocationSource } = {}) {
  const trust = new Trust({ anchors: [anchor], ...everybody, requestsOnPort: false });
  const basis = { credentials: who.auth, trust, random: randomBytes, log: silentLog };
  const made = await makePeerTls({ ...basis, clock: () => new Date(), ...change });
  made.onPeer(
    "sip",
    (connection) =>
      void connection.stream
        .on("error", () => undefined)
        .resume()
        .write("welcome"),
  );
  return Object.assign(made, { [Symbol.asyncDispose]: () => made.close() });
}

/** A connection from Alice to this node. */
async function dialled(from: PeerTls, to: PeerTls) {
  const address = await to.listen({ host: "::1", port: 0 });
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const connection = await from.dial(expected, "sip", [{ kind: "direct", address }], AbortSignal.timeout(5_000));
  await connection.confirmed;
  connection.stream.on("error", () => undefined).resume();
  return connection;
}

test("a connection ends with its peer's certificate, though neither policy nor lists change", async () => {
  let offset = 0;
  await using node = await core(bob, { clock: () => new Date(Date.now() + offset) });
  await using peer = await core(alice);
  const connection = await dialled(peer, node);
  vi.advanceTimersByTime(120_000);
  expect(node.connections).toHaveLength(1);
  offset = 31 * DAY;
  vi.advanceTimersByTime(120_000);
  await once(connection.stream, "close");
  expect(node.connections).toEqual([]);
});

test("a CA whose certificate was revoked and replaced still vouches for its people; without a new one it does not", () => {
  const now = new Date();
  const root = makeCa("root", now);
  const old = makeCa("issuing", now, { issuer: root });
  const renewed = makeCa("issuing", now, { issuer: root, key: old.privateKey });
  const key = makeEcKey();
  const leaf = parseCertificate(
    issueCertificate(authTemplate(parseIdentity("alice@alpha.test"), now, old, key), old.privateKey),
  );
  const trust = new Trust({
    anchors: [{ ...anchor, certificate: root.certificate }],
    ...everybody,
    requestsOnPort: false,
  });
  const revoked = new Set<string>();
  const judging = new Judging({
    ...{ trust, limits: DEFAULT_LIMITS, clock: () => now, log: silentLog },
    revocations: {
      stateOf: (path) => {
        const at = path.findIndex(({ sha256 }) => revoked.has(sha256));
        return at < 0 ? { status: "good" } : { status: "revoked", at, since: now };
      },
      onChange: () => undefined,
    },
  });
  const verdict = (sent: readonly Certificate[]) =>
    judging.judge(
      { certificate: peerCertificate(leaf), sent },
      {
        direction: "in",
        purpose: { kind: "protocol", protocol: "sip" },
        address: { host: "::1", port: 1 },
        resumed: false,
      },
    );
  expect(verdict([old.certificate])).toMatchObject({ admit: true });
  revoked.add(old.certificate.sha256);
  expect(verdict([old.certificate])).toMatchObject({ admit: false, reason: "revoked" });
  expect(verdict([old.certificate, renewed.certificate])).toMatchObject({ admit: true });
  expect(verdict([])).toMatchObject({ admit: true }); // resumed
  revoked.add(leaf.sha256);
  expect(verdict([renewed.certificate])).toMatchObject({ admit: false, reason: "revoked" });
});

test.each([
  ["the first", "aaa.test"],
  ["the second", "zzz.test"],
])("a root that stands for two domains vouches for people of both: alpha.test is %s", (_order, other) => {
  const anchors = [
    { ...anchor, name: "sixid:alpha.test" },
    { ...anchor, name: `sixid:${other}`, domains: [other] },
  ].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const rules = { anchors, ...everybody, requestsOnPort: false };
  const verdictOf = (trust: Trust, expected?: Approach["expected"]) =>
    trust.policy.judge({
      ...{ direction: "in", protocol: "sip", certificate: peerCertificate(alice.auth.certificate), resumed: false },
      path: trust.paths.find(alice.auth.certificate, alice.auth.chain, new Date()),
      revocation: { status: "good" },
      address: { host: "::1", port: 1 },
      time: new Date(),
      ...(expected === undefined ? {} : { expected }),
    });
  expect(verdictOf(new Trust(rules))).toMatchObject({ admit: true, identity: alice.identity });
  const dialled = { identity: alice.identity, fingerprints: [alice.auth.certificate.fingerprint] };
  expect(verdictOf(new Trust(rules), dialled)).toMatchObject({ admit: true, by: { rule: "dialled" } });
  const blocking = (issuer: string) => verdictOf(new Trust({ ...rules, block: [{ issuer }] }));
  expect(blocking("sixid:alpha.test")).toMatchObject({ admit: false, reason: "blocked" });
  expect(blocking(`sixid:${other}`)).toMatchObject({ admit: true });
});

test("a source of revocations that fails when it is asked again closes the connection, and nothing else", async () => {
  let broken = false;
  let changed: () => void = () => undefined;
  const revocations: RevocationSource = {
    stateOf: () => {
      if (broken) throw new Error("no such anchor");
      return { status: "good" };
    },
    onChange: (listener) => {
      changed = listener;
    },
  };
  await using node = await core(bob, { revocations });
  await using peer = await core(alice);
  const connection = await dialled(peer, node);
  broken = true;
  expect(changed).not.toThrow();
  await once(connection.stream, "close");
});
