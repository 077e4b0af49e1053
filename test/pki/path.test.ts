import type { KeyObject } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type AlgorithmPolicy, standardAlgorithms } from "../../src/pki/algorithm.ts";
import { type Certificate, parseCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { encodeDnsName } from "../../src/pki/general-name.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { type CertificateTemplate, type Issuer, issueCertificate } from "../../src/pki/issue.ts";
import { encodeName } from "../../src/pki/name.ts";
import { attributeType, extendedKeyUsage } from "../../src/pki/oid.ts";
import { type PathQuestion, serverNameMatches, type TrustAnchor, validatePath } from "../../src/pki/path.ts";
import { SignatureCache } from "../../src/pki/signature-cache.ts";
import { authTemplate, type BadKind, makeCa, makeEcKey, makeTestDomain, spkiOf } from "../support/pki.ts";

const now = new Date("2026-06-01T12:00:00Z");
const dayMs = 86_400_000;
const home = makeTestDomain({ domain: "example.test", now });
const alice = home.person({ identity: "alice@example.test" });

function ask(differences: Partial<PathQuestion> = {}): string {
  const { certificate: leaf, chain: candidates } = alice.auth;
  const result = validatePath({ leaf, candidates, anchors: [home.anchor], time: now, purpose: "peer", ...differences });
  return result.ok ? `ok ${result.path.length}` : `${result.reason} ${result.at}`;
}

const ca = (name: string, issuer?: Issuer, differences: Partial<CertificateTemplate> = {}, key?: KeyObject): Issuer =>
  makeCa(name, now, { issuer, key, differences });

function leafBelow(parent: Issuer, differences: Partial<CertificateTemplate> = {}): Certificate {
  const template = authTemplate(parseIdentity("alice@example.test"), now, parent, makeEcKey());
  return parseCertificate(issueCertificate({ ...template, ...differences }, parent.privateKey));
}

const anchorOf = (issuer: Issuer): TrustAnchor => ({ name: "anchor", certificate: issuer.certificate });

describe("the ordinary cases", () => {
  test("a person's certificate below the domain's CA is good", () => {
    expect(ask()).toBe("ok 3");
  });

  test.each<[BadKind, string]>([
    ["expired", "expired 0"],
    ["not-yet-valid", "not-yet-valid 0"],
    ["untrusted", "issuer-unknown 0"],
    ["code-signing-only", "purpose 0"],
    ["wrong-domain", "name-constraints 0"],
    ["email-protection-only", "ok 3"],
    ["client-auth-only", "ok 3"],
    ["no-extended-usage", "ok 3"],
    ["rsa", "ok 3"],
    ["ed25519", "ok 3"],
    ["mail-only", "ok 3"],
  ])("%s: %s", (kind, result) => {
    expect(ask({ leaf: home.bad(kind).certificate })).toBe(result);
  });

  test("a stranger who brings its own CA of the same name is still unknown", () => {
    const { certificate: leaf, chain } = home.bad("untrusted");
    expect(ask({ leaf, candidates: chain })).toBe("issuer-unknown 1");
    expect(ask({ leaf, candidates: [...alice.auth.chain, ...chain] })).toBe("issuer-unknown 1");
  });

  test("without the intermediate the issuer is unknown", () => {
    expect(ask({ candidates: [] })).toBe("issuer-unknown 0");
  });

  test("without anchors nothing is good", () => {
    expect(ask({ anchors: [] })).toBe("issuer-unknown 1");
  });

  test("a root that the peer sends is no anchor", () => {
    expect(ask({ anchors: [], candidates: [...alice.auth.chain, home.root.certificate] })).toBe("issuer-unknown 2");
  });

  test("the issuing CA itself may be the anchor", () => {
    expect(ask({ anchors: [anchorOf(home.issuing)], candidates: [] })).toBe("ok 2");
  });

  test("a leaf that is an anchor is a path of one, another certificate of its key is not", () => {
    const key = makeEcKey();
    const own = ca("Pinned", undefined, { keyUsage: ["digitalSignature"] }, key);
    const again = ca("Pinned", undefined, { keyUsage: ["digitalSignature"] }, key);
    expect(ask({ leaf: own.certificate, anchors: [anchorOf(own)] })).toBe("ok 1");
    expect(ask({ leaf: again.certificate, anchors: [anchorOf(own)] })).not.toMatch(/^ok/);
  });

  test("an AUTH certificate does not seal, an ENCRYPTION certificate does no TLS", () => {
    expect(ask({ purpose: "seal" })).toBe("purpose 0");
    expect(ask({ purpose: "server" })).toBe("purpose 0");
    expect(ask({ leaf: alice.encryption.certificate })).toBe("purpose 0");
    expect(ask({ leaf: alice.encryption.certificate, purpose: "seal" })).toBe("ok 3");
    expect(ask({ leaf: home.domainServer().certificate, purpose: "server" })).toBe("ok 3");
  });

  test("the window is what all of the path shares", () => {
    const { certificate: leaf, chain: candidates } = alice.auth;
    const result = validatePath({ leaf, candidates, anchors: [home.anchor], time: now, purpose: "peer" });
    expect(result.ok && result.window).toEqual(leaf.validity);
    const root = ca("Short");
    const long = leafBelow(root);
    const short = validatePath({ leaf: long, candidates: [], anchors: [anchorOf(root)], time: now, purpose: "peer" });
    expect(short.ok && short.window.notAfter).toEqual(root.certificate.validity.notAfter);
  });

  test.each([
    ["the first second", -300_000, "ok 3"],
    ["the second before", -301_000, "not-yet-valid 0"],
    ["the last second", 30 * dayMs, "ok 3"],
    ["the second after", 30 * dayMs + 1000, "expired 0"],
  ])("%s of the leaf: %s", (_, offset, result) => {
    expect(ask({ time: new Date(now.getTime() + offset) })).toBe(result);
  });
});

describe("what a CA must be", () => {
  const root = ca("Root");
  const past = { notBefore: new Date(now.getTime() - 2 * dayMs), notAfter: new Date(now.getTime() - dayMs) };
  const below = (differences: Partial<CertificateTemplate>): string => {
    const middle = ca("Middle", root, differences);
    return ask({ leaf: leafBelow(middle), candidates: [middle.certificate], anchors: [anchorOf(root)] });
  };
  test("an ordinary one passes", () => {
    expect(below({})).toBe("ok 3");
  });

  test("a person's certificate does not issue", () => {
    const person: Issuer = { certificate: alice.auth.certificate, privateKey: alice.auth.privateKey };
    const candidates = [alice.auth.certificate, ...alice.auth.chain];
    expect(ask({ leaf: leafBelow(person), candidates })).toBe("not-a-ca 1");
  });

  test("CA without keyCertSign", () => {
    expect(below({ keyUsage: ["cRLSign"] })).toBe("key-usage 1");
  });

  test("CA past its time", () => {
    expect(below({ validity: past })).toBe("expired 1");
  });

  test("CA for code signing only", () => {
    expect(below({ extendedKeyUsage: [extendedKeyUsage.codeSigning] })).toBe("purpose 1");
    expect(below({ extendedKeyUsage: [extendedKeyUsage.clientAuth] })).toBe("ok 3");
  });

  test("the anchor's own end binds too", () => {
    const old = ca("Old", undefined, { validity: past });
    expect(ask({ leaf: leafBelow(old), candidates: [], anchors: [anchorOf(old)] })).toBe("expired 1");
  });

  test("path length 0 admits leaves only, and the anchor's own binds too", () => {
    const zero = ca("Zero", root, { ca: { pathLength: 0 } });
    const under = ca("Under", zero);
    const candidates = [zero.certificate, under.certificate];
    expect(ask({ leaf: leafBelow(zero), candidates, anchors: [anchorOf(root)] })).toBe("ok 3");
    expect(ask({ leaf: leafBelow(under), candidates, anchors: [anchorOf(root)] })).toBe("path-length 2");
    expect(ask({ leaf: leafBelow(under), candidates, anchors: [anchorOf(zero)] })).toBe("path-length 2");
  });

  test("a critical extension that is not known refuses, in a leaf and in a CA", () => {
    const odd = { criticalUnknown: ["1.2.3"] };
    expect(ask({ leaf: Object.assign(Object.create(alice.auth.certificate), odd) as Certificate })).toBe(
      "critical-extension 0",
    );
    const middle = ca("Middle", root);
    const candidates = [Object.assign(Object.create(middle.certificate), odd) as Certificate];
    expect(ask({ leaf: leafBelow(middle), candidates, anchors: [anchorOf(root)] })).toBe("critical-extension 1");
  });
});

describe("signatures", () => {
  test("any changed octet of the leaf breaks the path", () => {
    const { certificate, chain } = alice.auth;
    fc.assert(
      fc.property(fc.nat(certificate.der.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
        const bytes = Buffer.from(certificate.der);
        bytes.writeUInt8(bytes.readUInt8(at) ^ mask, at);
        let leaf: Certificate;
        try {
          leaf = parseCertificate(bytes);
        } catch {
          return;
        }
        expect(ask({ leaf, candidates: chain })).not.toMatch(/^ok/);
      }),
      { numRuns: 3000 },
    );
  });

  test("a signature by another key under the true key identifier is a bad signature", () => {
    const forged = issueCertificate(authTemplate(alice.identity, now, home.issuing, makeEcKey()), makeEcKey());
    expect(ask({ leaf: parseCertificate(forged) })).toBe("signature 0");
  });

  test("inner and outer algorithm that differ are refused", () => {
    const { tbs, signature } = alice.auth.certificate;
    const other = der.sequence(der.oid("1.2.840.10045.4.3.3"));
    expect(ask({ leaf: parseCertificate(der.sequence(tbs, other, der.bitString(signature))) })).toBe("algorithm 0");
  });

  test("an algorithm that the policy does not allow is refused before it is computed", () => {
    const strict: AlgorithmPolicy = { ...standardAlgorithms, digests: new Set(["sha384"]) };
    expect(ask({ algorithms: strict })).toBe("algorithm 0");
    expect(ask({ leaf: home.bad("rsa").certificate, algorithms: { ...standardAlgorithms, minRsaBits: 4096 } })).toBe(
      "algorithm 0",
    );
  });
});

describe("a leaf whose key is none", () => {
  // A CA signs what it is given: the path is good, and whoever asks for the key next would be thrown at.
  const offCurve = (): Certificate => {
    const spki = Buffer.from(spkiOf(makeEcKey()));
    spki.writeUInt8(spki.readUInt8(spki.length - 1) ^ 1, spki.length - 1);
    return leafBelow(home.issuing, { spki });
  };

  test("a point off its curve below a good CA is malformed", () => {
    const leaf = offCurve();
    expect(() => leaf.publicKey).toThrow(expect.objectContaining({ code: "certificate-malformed" }));
    expect(ask({ leaf })).toBe("malformed 0");
    expect(ask({ leaf, anchors: [{ name: "itself", certificate: leaf }] })).toBe("malformed 0");
  });

  test("Ed25519 of 31 octets is malformed", () => {
    const spki = Buffer.from("3029300506032b6570032000".padEnd(86, "1"), "hex");
    expect(ask({ leaf: leafBelow(home.issuing, { spki }) })).toBe("malformed 0");
  });

  test("a bad reason found before is told instead", () => {
    expect(ask({ leaf: offCurve(), anchors: [] })).toBe("issuer-unknown 1");
  });

  test("a CA with such a key has signed nothing", () => {
    const bytes = Buffer.from(home.issuing.certificate.der);
    const point = bytes.indexOf(home.issuing.certificate.key.keyBits);
    bytes.writeUInt8(bytes.readUInt8(point + 5) ^ 1, point + 5);
    expect(ask({ candidates: [parseCertificate(bytes)] })).toBe("signature 0");
  });
});

describe("a cache of signatures", () => {
  const { certificate: leaf, chain } = alice.auth;
  const [issuing = leaf] = chain;

  test("spares the signature of a CA, not that of the leaf", () => {
    const cache = new SignatureCache();
    // Would not verify, if anybody looked.
    const unsigned = new Proxy(issuing, {
      get: (target, name) => (name === "signature" ? Buffer.alloc(70) : Reflect.get(target, name, target)),
    });
    expect(ask({ candidates: [unsigned], cache })).toBe("signature 1");
    expect(ask({ cache })).toBe("ok 3");
    expect(ask({ candidates: [unsigned], cache })).toBe("ok 3");
    expect(cache.has(issuing, home.root.certificate)).toBe(true);
    expect(cache.has(leaf, issuing)).toBe(false);
    const forged = issueCertificate(authTemplate(alice.identity, now, home.issuing, makeEcKey()), makeEcKey());
    expect(ask({ leaf: parseCertificate(forged), cache })).toBe("signature 0");
  });

  test("keeps nothing of a path that is bad", () => {
    const cache = new SignatureCache();
    ask({ purpose: "seal", cache });
    ask({ leaf: home.bad("wrong-domain").certificate, cache });
    ask({ time: new Date(now.getTime() + 31 * dayMs), cache });
    expect(cache.has(issuing, home.root.certificate)).toBe(false);
  });

  test("does not take one CA for another of its name, nor one issuer for another", () => {
    const cache = new SignatureCache();
    const other = makeTestDomain({ domain: "example.test", now });
    ask({ cache });
    expect(cache.has(issuing, other.root.certificate)).toBe(false);
    expect(cache.has(other.issuing.certificate, home.root.certificate)).toBe(false);
    expect(ask({ anchors: [other.anchor], cache })).toBe("issuer-unknown 1");
  });

  test("forgets the oldest of more than 1,000", () => {
    const cache = new SignatureCache();
    const { certificate } = home.root;
    const made = (n: number) => [leaf, { ...issuing, sha256: `${n}`, fingerprint: issuing.fingerprint }, certificate];
    for (let n = 0; n < 1_000; n += 1) cache.keep(made(n) as Certificate[]);
    const has = (n: number) => cache.has(made(n)[1] as Certificate, certificate);
    cache.keep(made(0) as Certificate[]);
    cache.keep(made(1_000) as Certificate[]);
    expect([0, 1, 2, 1_000].map(has)).toEqual([true, false, true, true]);
  });
});

describe("searching", () => {
  const root = ca("Root");

  test("of two CAs with one name the one that signed is found, in any order, with and without key identifiers", () => {
    const { authorityKeyId: _, ...anonymous } = authTemplate(alice.identity, now, home.issuing, makeEcKey());
    const one = ca("Twin", root);
    const two = ca("Twin", root);
    const leaf = parseCertificate(
      issueCertificate({ ...anonymous, issuer: two.certificate.subjectDer }, two.privateKey),
    );
    const both = [one.certificate, two.certificate];
    for (const candidates of [both, both.toReversed()]) {
      expect(ask({ leaf, candidates, anchors: [anchorOf(root)] })).toBe("ok 3");
      expect(ask({ leaf: leafBelow(two), candidates, anchors: [anchorOf(root)] })).toBe("ok 3");
    }
  });

  test("a dead end is left again: the cross-certificate below an unknown root does not hide the good path", () => {
    const key = makeEcKey();
    const good = ca("Middle", root, {}, key);
    const cross = ca("Middle", ca("Foreign"), {}, key);
    for (const candidates of [
      [cross.certificate, good.certificate],
      [good.certificate, cross.certificate],
    ]) {
      expect(ask({ leaf: leafBelow(good), candidates, anchors: [anchorOf(root)] })).toBe("ok 3");
    }
  });

  test("CAs that certify each other in a ring end the search", () => {
    const [a, b] = [makeEcKey(), makeEcKey()];
    const byA: Issuer = { certificate: ca("A", undefined, {}, a).certificate, privateKey: a };
    const byB: Issuer = { certificate: ca("B", undefined, {}, b).certificate, privateKey: b };
    const ring = [ca("A", byB, {}, a), ca("B", byA, {}, b)];
    const candidates = ring.map((issuer) => issuer.certificate);
    expect(ask({ leaf: leafBelow(byA), candidates, anchors: [anchorOf(root)] })).toBe("issuer-unknown 2");
  });

  test("8 intermediates pass, 9 are too complex", () => {
    const chain = [root];
    while (chain.length <= 9) chain.push(ca(`CA ${chain.length}`, chain.at(-1) ?? root));
    const candidates = chain.slice(1).map((issuer) => issuer.certificate);
    expect(ask({ leaf: leafBelow(chain[8] ?? root), candidates, anchors: [anchorOf(root)] })).toBe("ok 10");
    expect(ask({ leaf: leafBelow(chain[9] ?? root), candidates, anchors: [anchorOf(root)] })).toBe("too-complex 8");
  });

  test("a mesh of 1,000 cross-signed CAs is too complex, and quickly", () => {
    const selves = Array.from({ length: 32 }, (_, n) => ca(`Mesh ${n}`));
    const cross = (subject: number, issuer: Issuer) => ca(`Mesh ${subject}`, issuer, {}, selves[subject]?.privateKey);
    const candidates = selves.flatMap((_, n) =>
      selves.flatMap((issuer, m) => (n === m ? [] : cross(n, issuer).certificate)),
    );
    expect(candidates.length).toBeGreaterThan(990);
    const question = { leaf: leafBelow(selves[0] ?? root), candidates, anchors: [anchorOf(root)] };
    ask(question);
    const before = process.threadCpuUsage();
    expect(ask(question)).toMatch(/^too-complex /);
    const { user, system } = process.threadCpuUsage(before);
    expect((user + system) / 1000).toBeLessThan(20);
    // A cache that knows all of them does not make the search longer.
    const knowing = Object.assign(new SignatureCache(), { has: (one: Certificate) => one !== question.leaf });
    expect(ask({ ...question, cache: knowing })).toMatch(/^too-complex /);
  });

  test("a bomb of names and subtrees is too complex", () => {
    const many = (count: number, at: string) => Array.from({ length: count }, (_, n) => encodeDnsName(`h${n}.${at}`));
    const [first, second] = [ca("First", root, { permitted: many(256, "x.test") }), ca("Root2")];
    const third = ca("Third", first, { permitted: many(256, "x.test") });
    const leaf = leafBelow(third, { subjectAltNames: many(256, "h1.x.test"), subject: encodeName([]) });
    const candidates = [first.certificate, second.certificate, third.certificate];
    expect(ask({ leaf, candidates, anchors: [anchorOf(root)] })).toBe("too-complex 0");
  });
});

describe("server names (RFC 9525)", () => {
  const server = home.domainServer({ name: "sixid.example.test" }).certificate;
  test.each([
    ["sixid.example.test", true],
    ["SIXID.Example.TEST", true],
    ["example.test", false],
    ["a.sixid.example.test", false],
    ["*.example.test", false],
    ["sixid.example.test.", false],
    ["", false],
  ])("%j: %s", (name, matches) => {
    expect(serverNameMatches(server, name)).toBe(matches);
  });

  test("a wildcard certificate matches nothing", () => {
    const wildcard = leafBelow(home.issuing, { subjectAltNames: [encodeDnsName("*.example.test")] });
    expect(serverNameMatches(wildcard, "a.example.test")).toBe(false);
  });

  test("the common name does not count", () => {
    const named = leafBelow(home.issuing, {
      subject: encodeName([[attributeType.commonName, "example.test"]]),
      subjectAltNames: [],
    });
    expect(serverNameMatches(named, "example.test")).toBe(false);
  });
});
