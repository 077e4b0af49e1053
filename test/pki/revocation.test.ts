import { describe, expect, test } from "vitest";
import type { Certificate } from "../../src/pki/certificate.ts";
import { parseRevocationList, type RevocationList } from "../../src/pki/crl.ts";
import { issueRevocationList, type RevocationListTemplate, type RevokedTemplate } from "../../src/pki/crl-issue.ts";
import { allReasons, type DistributionPoint } from "../../src/pki/distribution-point.ts";
import type { Issuer } from "../../src/pki/issue.ts";
import { validatePath } from "../../src/pki/path.ts";
import { type RevocationLists, requireRevocation, revocationOf } from "../../src/pki/revocation.ts";
import { makeCa, makeEcKey, makeTestDomain } from "../support/pki.ts";

const now = new Date("2026-06-01T12:00:00Z");
const hour = 3_600_000;
const at = (ms: number) => new Date(now.getTime() + ms);
const home = makeTestDomain({ domain: "example.test", now });
const ca = home.issuing;
const alice = home.person({ identity: "alice@example.test" }).auth.certificate;
const since = at(-2 * hour);
const ofAlice: RevokedTemplate = { serial: alice.serial, since, reason: "superseded" };

function list(o: Partial<RevocationListTemplate> = {}): RevocationList {
  const template = { issuer: ca, entries: [], number: 10, thisUpdate: at(-hour), nextUpdate: at(hour) };
  return parseRevocationList(issueRevocationList({ ...template, ...o }));
}

function statusOf(
  lists: readonly RevocationList[],
  o: Partial<RevocationLists> = {},
  certificate: Certificate = alice,
): string {
  const question = { lists, signers: [], time: now, graceMs: 0, ...o };
  const found = revocationOf(certificate, ca.certificate, home.anchor, question);
  return found.status === "revoked" ? `revoked ${found.reason}` : found.status;
}

/** The certificate with other distribution points than its issuer gave it. */
const pointed = (...distributionPoints: readonly Partial<DistributionPoint>[]): Certificate =>
  Object.assign(Object.create(alice) as Certificate, {
    distributionPoints: distributionPoints.map((point) => ({ reasons: allReasons, ...point })),
  });
/** Private fields do not come along with a prototype: other fields are laid over the list itself. */
const changed = (read: RevocationList, fields: Partial<RevocationList>): RevocationList => Object.assign(read, fields);
const odd = { criticalUnknown: ["1.2.3"] };
const uri = (text: string) => [{ type: "uri" as const, text }];
const nameOf = (issuer: Issuer) => [{ type: "directoryName" as const, name: issuer.certificate.subject }];

describe("the issuer's own lists", () => {
  test.each<[string, Partial<RevocationListTemplate>, Partial<RevocationLists>, string]>([
    ["a list that does not name it", {}, {}, "good"],
    ["a list that names it", { entries: [ofAlice] }, {}, "revoked superseded"],
    ["a list until its nextUpdate", {}, { time: at(hour) }, "good"],
    ["a list past its nextUpdate", {}, { time: at(hour + 1) }, "stale"],
    ["a list within the grace", {}, { time: at(2 * hour), graceMs: hour }, "good"],
    ["a list behind the grace", {}, { time: at(2 * hour + 1), graceMs: hour }, "stale"],
    ["an old list that names it", { entries: [ofAlice] }, { time: at(9 * hour) }, "revoked superseded"],
    ["a list by a clock that is a little ahead", { thisUpdate: at(300_000) }, {}, "good"],
    ["a list from the future", { thisUpdate: at(301_000) }, {}, "stale"],
    ["a list of its CAs only", { scope: { only: "ca" } }, {}, "unknown"],
    ["a list of its users only", { scope: { only: "user" } }, {}, "good"],
    ["a list of a place that the certificate does not name", { scope: { urls: ["http://a.test/"] } }, {}, "unknown"],
    ["a list for some reasons", { scope: { reasons: 1 << 1 } }, {}, "unknown"],
    ["a list of another issuer of that name and its key", { issuer: makeCa("example.test CA", now) }, {}, "unknown"],
    ["a list of the root", { issuer: home.root, entries: [ofAlice] }, {}, "unknown"],
    ["a delta without its complete list", { delta: 9, entries: [ofAlice] }, {}, "unknown"],
  ])("%s", (_, differences, question, expected) => {
    expect(statusOf([list(differences)], question)).toBe(expected);
  });

  test("no list says nothing", () => {
    expect(statusOf([])).toBe("unknown");
  });

  test("a list for users only does not speak of a CA", () => {
    const root = (differences: Partial<RevocationListTemplate>) => {
      const question = { lists: [list({ issuer: home.root, ...differences })], signers: [], time: now, graceMs: 0 };
      return revocationOf(ca.certificate, home.root.certificate, home.anchor, question).status;
    };
    expect(root({ scope: { only: "user" } })).toBe("unknown");
    expect(root({ scope: { only: "ca" } })).toBe("good");
  });

  test("a list that is too old beside one that is not, in any order", () => {
    const both = [list({ nextUpdate: at(-1) }), list()];
    for (const lists of [both, both.toReversed()]) expect(statusOf(lists)).toBe("good");
  });

  test("a list with a critical extension that is not known does not count, even if it revokes", () => {
    expect(statusOf([changed(list({ entries: [ofAlice] }), odd)])).toBe("unknown");
  });

  test("an issuer that may not sign lists has signed none", () => {
    const mute = makeCa("Mute", now, { issuer: home.root, differences: { keyUsage: ["keyCertSign"] } });
    const below = makeCa("Below", now, { issuer: mute }).certificate;
    const question = { lists: [list({ issuer: mute })], signers: [], time: now, graceMs: 0 };
    expect(revocationOf(below, mute.certificate, home.anchor, question).status).toBe("unknown");
  });
});

describe("distribution points", () => {
  const [one, two] = ["http://a.test/1.crl", "http://a.test/2.crl"];
  const place = (...urls: string[]) => list({ scope: { urls } });

  test("the list of one of its places counts, that of another does not", () => {
    expect(statusOf([place(one)], {}, pointed({ fullName: uri(one) }))).toBe("good");
    expect(statusOf([place(two)], {}, pointed({ fullName: uri(one) }))).toBe("unknown");
    expect(statusOf([place(two, one)], {}, pointed({ fullName: uri(one) }))).toBe("good");
    expect(statusOf([place(two)], {}, pointed({ fullName: uri(one) }, { fullName: uri(two) }))).toBe("good");
  });

  test("a list without a place is for all", () => {
    expect(statusOf([list()], {}, pointed({ fullName: uri(one) }))).toBe("good");
  });

  test("reasons add up over lists", () => {
    const some = 1 << 1;
    const others = allReasons & ~some;
    const lists = [list({ scope: { reasons: some } }), list({ scope: { reasons: others } })];
    expect(statusOf(lists)).toBe("good");
    expect(statusOf(lists.slice(1))).toBe("unknown");
    expect(statusOf([lists[0] ?? list(), list({ scope: { reasons: others }, nextUpdate: at(-1) })])).toBe("stale");
  });

  test("a point speaks for its own reasons alone, though its list knows all", () => {
    const lists = [place(one)];
    expect(statusOf(lists, {}, pointed({ fullName: uri(one), reasons: 1 << 1 }))).toBe("unknown");
    const rest = { fullName: uri(one), reasons: allReasons & ~(1 << 1) };
    expect(statusOf(lists, {}, pointed({ fullName: uri(one), reasons: 1 << 1 }, rest))).toBe("good");
  });
});

describe("indirect lists", () => {
  const other = makeCa("List signer", now, { issuer: home.root, differences: { keyUsage: ["cRLSign"] } });
  const indirect = (o: Partial<RevocationListTemplate> = {}) =>
    list({ issuer: other, scope: { indirect: true }, ...o });
  const certificate = pointed({ crlIssuer: nameOf(other) });
  // The signer's own status is asked for, too.
  const ofRoot = list({ issuer: home.root });
  const signers = [other.certificate];
  const entry = { ...ofAlice, issuer: ca.certificate.subjectDer };

  test("speak of certificates of others, if these name their issuer", () => {
    expect(statusOf([indirect(), ofRoot], { signers }, certificate)).toBe("good");
    expect(statusOf([indirect(), ofRoot], { signers })).toBe("unknown");
    expect(statusOf([indirect({ entries: [entry] }), ofRoot], { signers }, certificate)).toBe("revoked superseded");
  });

  test("an entry of another issuer with the same serial number means somebody else", () => {
    const entries = [{ ...entry, issuer: home.root.certificate.subjectDer }];
    expect(statusOf([indirect({ entries }), ofRoot], { signers }, certificate)).toBe("good");
    expect(statusOf([indirect({ entries: [ofAlice] }), ofRoot], { signers }, certificate)).toBe("good");
  });

  test("a point without a place means the lists of its issuer's name", () => {
    const place = (issuer: Issuer) => {
      const read = indirect();
      return changed(read, { scope: { ...read.scope, fullName: nameOf(issuer) } });
    };
    expect(statusOf([place(other), ofRoot], { signers }, certificate)).toBe("good");
    expect(statusOf([place(ca), ofRoot], { signers }, certificate)).toBe("unknown");
  });

  test("one that does not say that it is indirect is none", () => {
    expect(statusOf([list({ issuer: other }), ofRoot], { signers }, certificate)).toBe("unknown");
  });
});

describe("a list signed by another key than the certificate", () => {
  const another = (parent: Issuer, keyUsage: readonly ("cRLSign" | "keyCertSign")[] = ["cRLSign"]) =>
    makeCa("example.test CA", now, { issuer: parent, differences: { keyUsage } });
  const ofRoot = list({ issuer: home.root });
  const judge = (signer: Issuer, lists: readonly RevocationList[] = [ofRoot]) =>
    statusOf([list({ issuer: signer }), ...lists], { signers: [signer.certificate] });

  test("counts if its signer has a path to the same anchor and may sign lists", () => {
    expect(judge(another(home.root))).toBe("good");
    expect(judge(another(home.root, ["keyCertSign"]))).toBe("unknown");
    expect(judge(another(makeCa("Other root", now)))).toBe("unknown");
  });

  test("does not if the signer is revoked, or nobody knows", () => {
    const signer = another(home.root);
    expect(judge(signer, [])).toBe("unknown");
    const entries = [{ serial: signer.certificate.serial, since }];
    expect(judge(signer, [list({ issuer: home.root, entries })])).toBe("unknown");
  });

  test("may tell that its own signer is not revoked", () => {
    const key = makeEcKey();
    const root = makeCa("Root", now, { key });
    const old = { certificate: root.certificate, privateKey: key };
    const fresh = makeCa("Root", now, { issuer: old, differences: { keyUsage: ["cRLSign"] } });
    const below = makeCa("Below", now, { issuer: old }).certificate;
    const question = { lists: [list({ issuer: fresh })], signers: [fresh.certificate], time: now, graceMs: 0 };
    const anchor = { name: "root", certificate: root.certificate };
    expect(revocationOf(below, root.certificate, anchor, question).status).toBe("good");
  });
});

describe("deltas", () => {
  const complete = (o: Partial<RevocationListTemplate> = {}) => list({ number: 10, ...o });
  const delta = (o: Partial<RevocationListTemplate> = {}) => list({ number: 12, delta: 10, ...o });
  const restored: RevokedTemplate = { ...ofAlice, reason: "removeFromCRL" };
  const forger = { certificate: ca.certificate, privateKey: makeEcKey() };
  const ofUsers = { only: "user" } as const;
  const held: RevokedTemplate = { ...ofAlice, reason: "certificateHold" };

  test.each<[string, readonly RevocationList[], string]>([
    ["one adds an entry", [complete(), delta({ entries: [ofAlice] })], "revoked superseded"],
    ["one takes an entry back", [complete({ entries: [held] }), delta({ entries: [restored] })], "good"],
    ["one leaves an entry", [complete({ entries: [held] }), delta()], "revoked certificateHold"],
    ["one is too new for the list", [complete({ number: 9 }), delta({ entries: [ofAlice] })], "good"],
    ["one is older than the list", [complete({ number: 12 }), delta({ entries: [ofAlice] })], "good"],
    ["one is past its nextUpdate", [complete(), delta({ entries: [ofAlice], nextUpdate: at(-1) })], "good"],
    [
      "one is by another key",
      [complete(), delta({ entries: [ofAlice], issuer: makeCa("example.test CA", now) })],
      "good",
    ],
    ["one is of another scope", [complete(), delta({ entries: [ofAlice], scope: { only: "user" } })], "good"],
    [
      "the newest of two wins",
      [complete(), delta({ entries: [held] }), list({ number: 13, delta: 10, entries: [restored] })],
      "good",
    ],
    ["one is signed by nobody we know", [complete(), delta({ entries: [ofAlice], issuer: forger })], "good"],
    ["one is for some reasons", [complete(), delta({ entries: [ofAlice], scope: { reasons: 1 << 1 } })], "good"],
    [
      "one is of another place",
      [complete(), delta({ entries: [ofAlice], scope: { urls: ["http://a.test/"] } })],
      "good",
    ],
    [
      "one is of the same place",
      [complete({ scope: ofUsers }), delta({ entries: [ofAlice], scope: ofUsers })],
      "revoked superseded",
    ],
    [
      "one has a critical extension that is not known",
      [complete(), changed(delta({ entries: [ofAlice] }), odd)],
      "good",
    ],
    ["an old complete list stays old", [complete({ nextUpdate: at(-1) }), delta()], "stale"],
  ])("%s", (_, lists, expected) => {
    expect(statusOf(lists)).toBe(expected);
    expect(statusOf(lists.toReversed())).toBe(expected);
  });
});

test("a delta adds nothing to a list by another key, though both keys may sign", () => {
  const other = makeCa("example.test CA", now, { issuer: home.root, differences: { keyUsage: ["cRLSign"] } });
  const o = { signers: [other.certificate] };
  const [complete, ofRoot] = [list({ number: 10 }), list({ issuer: home.root })];
  const delta = list({ issuer: other, number: 12, delta: 10, entries: [ofAlice] });
  expect(statusOf([complete, delta, ofRoot], o)).toBe("good");
  expect(statusOf([list({ issuer: other, number: 10 }), delta, ofRoot], o)).toBe("revoked superseded");
});

describe("a path whose certificates must not be revoked", () => {
  const judge = (...lists: RevocationList[]) => {
    const result = validatePath({
      leaf: alice,
      candidates: [ca.certificate],
      anchors: [home.anchor],
      time: now,
      purpose: "peer",
      revocation: requireRevocation({ lists, signers: [], time: now, graceMs: 0 }),
    });
    return result.ok ? "ok" : `${result.reason} ${result.at}`;
  };
  const ofRoot = list({ issuer: home.root });

  test("needs a list of every issuer; nobody asks about the anchor", () => {
    expect(judge(list(), ofRoot)).toBe("ok");
    expect(judge(list())).toBe("revocation-unknown 1");
    expect(judge(ofRoot)).toBe("revocation-unknown 0");
    expect(judge(list({ nextUpdate: at(-1) }), ofRoot)).toBe("revocation-unknown 0");
  });

  test("tells which of them is revoked", () => {
    expect(judge(list({ entries: [ofAlice] }), ofRoot)).toBe("revoked 0");
    const entries = [{ serial: ca.certificate.serial, since }];
    expect(judge(list(), list({ issuer: home.root, entries }))).toBe("revoked 1");
  });
});
