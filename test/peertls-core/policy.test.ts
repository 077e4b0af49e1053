import { describe, expect, test } from "vitest";
import { denied } from "../../src/peertls-core/peer-failure.ts";
import { compilePolicy, type TrustRules } from "../../src/peertls-core/policy.ts";
import { alertOf, DENIAL_REASONS } from "../../src/peertls-core/verdict.ts";
import type { PathFailure } from "../../src/pki/path.ts";
import { approach, fp, type Who } from "./approach.ts";

const alice = "alice@alpha.test";
const base: TrustRules = {
  anchors: [
    {
      name: "alpha",
      certificate: {} as never,
      domains: ["alpha.test", ".alpha.test"],
      organisations: ["Alpha Ltd"],
      identitiesFrom: ["rfc822Name"],
    },
    {
      name: "any",
      certificate: {} as never,
      domains: ["any"],
      organisations: [],
      identitiesFrom: ["rfc822Name", "sipUri"],
    },
  ],
  block: [],
  allow: [],
  rules: [],
  otherwise: "deny",
  contacts: [],
  requestsOnPort: false,
};
const judge = (rules: Partial<TrustRules>, who: Who) => compilePolicy({ ...base, ...rules }).judge(approach(who));
const says = (rules: Partial<TrustRules>, who: Who): string => {
  const verdict = judge(rules, who);
  return verdict.admit ? `${verdict.by.rule}: ${verdict.identity}` : verdict.reason;
};
const key = fp("leaf");

describe("who may come in (peertls.md), each step before the next", () => {
  test.each<[string, Partial<TrustRules>, Who, string]>([
    // 1. block
    ["a blocked name", { block: [{ identity: alice }], allow: [{ identity: alice }] }, {}, "blocked"],
    [
      "a blocked name, written in another way",
      { block: [{ identity: "ALICE@Alpha.test" }], allow: [{ identity: alice }] },
      {},
      "blocked",
    ],
    ["a blocked key", { block: [{ fingerprint: key }], allow: [{ fingerprint: key }] }, {}, "blocked"],
    [
      "a blocked key of an issuer on the way",
      { block: [{ fingerprint: fp("ca") }], allow: [{ identity: alice }] },
      {},
      "blocked",
    ],
    [
      "a blocked key of the anchor",
      { block: [{ fingerprint: fp("alpha") }], allow: [{ identity: alice }] },
      {},
      "blocked",
    ],
    ["a blocked issuer", { block: [{ issuer: "alpha" }], allow: [{ identity: alice }] }, {}, "blocked"],
    ["a blocked domain", { block: [{ domain: "alpha.test" }], allow: [{ identity: alice }] }, {}, "blocked"],
    [
      "a blocked domain's subdomain is another one",
      { block: [{ domain: "alpha.test" }], allow: [{ identity: "a@x.alpha.test" }] },
      { identities: ["a@x.alpha.test"] },
      "allow: a@x.alpha.test",
    ],
    [
      "a domain below a blocked one",
      { block: [{ domain: ".alpha.test" }], allow: [{ identity: "a@x.y.alpha.test" }] },
      { identities: ["a@x.y.alpha.test"] },
      "blocked",
    ],
    [
      "a domain that only ends alike",
      { block: [{ domain: ".alpha.test" }], allow: [{ identity: "a@xalpha.test" }] },
      { identities: ["a@xalpha.test"], anchor: "any" },
      "allow: a@xalpha.test",
    ],
    [
      "the second name is blocked",
      { block: [{ identity: "b@alpha.test" }], allow: [{ identity: alice }] },
      { identities: [alice, "b@alpha.test"] },
      "blocked",
    ],
    [
      "a blocked name that no anchor vouches for",
      { block: [{ identity: alice }] },
      { failure: "issuer-unknown" },
      "blocked",
    ],
    [
      "blocked for mail, comes for messages",
      { block: [{ identity: alice, protocols: ["smtp"] }], allow: [{ identity: alice }] },
      {},
      `allow: ${alice}`,
    ],
    [
      "blocked, even where dialled",
      { block: [{ identity: alice }] },
      { expected: { identity: alice, fingerprints: [key] } },
      "blocked",
    ],
    // 2. the certificate
    ["expired", { allow: [{ identity: alice }] }, { failure: "expired" }, "expired"],
    ["of an anchor that is in force no more", { allow: [{ identity: alice }] }, { anchor: "gone" }, "issuer-unknown"],
    ["without names", { allow: [{ fingerprint: key }] }, { identities: [] }, "no-identity"],
    [
      "named only where this anchor is not believed",
      { allow: [{ identity: alice }] },
      { source: "sipUri" },
      "no-identity",
    ],
    [
      "named only where that anchor is believed",
      { allow: [{ identity: alice }] },
      { source: "sipUri", anchor: "any" },
      `allow: ${alice}`,
    ],
    [
      "a name that the anchor may not vouch for",
      { allow: [{ identity: "a@beta.test" }] },
      { identities: ["a@beta.test"] },
      "name-out-of-scope",
    ],
    [
      "a domain below the anchor's",
      { allow: [{ fingerprint: key }] },
      { identities: ["a@x.alpha.test"] },
      "allow: a@x.alpha.test",
    ],
    [
      "two names, one in scope",
      { allow: [{ fingerprint: key }] },
      { identities: ["a@beta.test", alice] },
      `allow: ${alice}`,
    ],
    [
      "two names, allowed by the one out of scope",
      { allow: [{ identity: "a@beta.test" }] },
      { identities: ["a@beta.test", alice] },
      "not-admitted",
    ],
    // 3. dialled
    [
      "the person dialled, with a published key",
      {},
      { expected: { identity: alice, fingerprints: [fp("other"), key] } },
      `dialled: ${alice}`,
    ],
    [
      "another person than dialled, though allowed",
      { allow: [{ identity: alice }] },
      { expected: { identity: "b@alpha.test", fingerprints: [key] } },
      "identity-mismatch",
    ],
    [
      "the person dialled with another key, though allowed",
      { allow: [{ identity: alice }] },
      { expected: { identity: alice, fingerprints: [fp("other")] } },
      "key-not-published",
    ],
    [
      "the person dialled, named where the anchor is not believed",
      {},
      { source: "sipUri", expected: { identity: alice, fingerprints: [key] } },
      "no-identity",
    ],
    // 4. allow
    ["an allowed name", { allow: [{ identity: alice }] }, {}, `allow: ${alice}`],
    ["an allowed key", { allow: [{ fingerprint: `sha256:${key}` }] }, {}, `allow: ${alice}`],
    ["the issuer's key is nobody's", { allow: [{ fingerprint: fp("ca") }] }, {}, "not-admitted"],
    ["allowed for mail only", { allow: [{ identity: alice, protocols: ["smtp"] }] }, {}, "not-admitted"],
    [
      "allowed for mail, comes for mail",
      { allow: [{ identity: alice, protocols: ["smtp", "ftps"] }] },
      { protocol: "smtp" },
      `allow: ${alice}`,
    ],
    [
      "two entries, the second speaks of this",
      {
        allow: [
          { identity: alice, protocols: ["smtp"] },
          { identity: alice, protocols: ["sip"] },
        ],
      },
      {},
      `allow: ${alice}`,
    ],
    // 5. rules
    ["a whole issuer", { rules: [{ issuer: "alpha" }] }, {}, `organisation: ${alice}`],
    ["another issuer", { rules: [{ issuer: "any" }] }, {}, "not-admitted"],
    ["a whole domain", { rules: [{ domain: "alpha.test" }] }, {}, `organisation: ${alice}`],
    [
      "a domain of a name out of scope",
      { rules: [{ domain: "beta.test" }] },
      { identities: ["a@beta.test", alice] },
      "not-admitted",
    ],
    [
      "an organisation that the anchor may vouch for",
      { rules: [{ organisation: "Alpha Ltd" }] },
      { organisation: "Alpha Ltd" },
      `organisation: ${alice}`,
    ],
    [
      "an organisation that it may not vouch for",
      { rules: [{ organisation: "Beta Ltd" }] },
      { organisation: "Beta Ltd" },
      "not-admitted",
    ],
    [
      "an organisation by an anchor that vouches for none",
      { rules: [{ organisation: "Alpha Ltd" }] },
      { organisation: "Alpha Ltd", anchor: "any" },
      "not-admitted",
    ],
    [
      "an organisation written otherwise",
      { rules: [{ organisation: "Alpha Ltd" }] },
      { organisation: "ALPHA LTD" },
      "not-admitted",
    ],
    // 6. everybody else
    ["a stranger", {}, {}, "not-admitted"],
    ["a contact, where contacts may", { otherwise: "contacts", contacts: [alice as never] }, {}, `contact: ${alice}`],
    ["a contact, where only the listed may", { otherwise: "deny", contacts: [alice as never] }, {}, "not-admitted"],
    [
      "a contact by a name out of scope",
      { otherwise: "contacts", contacts: ["a@beta.test" as never] },
      { identities: ["a@beta.test", alice] },
      "not-admitted",
    ],
    [
      "the contact among two names",
      { otherwise: "contacts", contacts: ["b@alpha.test" as never] },
      { identities: [alice, "b@alpha.test"] },
      "contact: b@alpha.test",
    ],
    [
      "a stranger who asks, where asking is open",
      { requestsOnPort: true },
      { protocol: "request" },
      `request: ${alice}`,
    ],
    ["a stranger who asks, where it is not", {}, { protocol: "request" }, "not-admitted"],
    ["a stranger who does not ask, where asking is open", { requestsOnPort: true }, {}, "not-admitted"],
    [
      "a blocked one who asks",
      { requestsOnPort: true, block: [{ identity: alice }] },
      { protocol: "request" },
      "blocked",
    ],
    [
      "one with a bad certificate who asks",
      { requestsOnPort: true },
      { protocol: "request", failure: "issuer-unknown" },
      "issuer-unknown",
    ],
  ])("%s", (_name, rules, who, expected) => {
    expect(says(rules, who)).toBe(expected);
  });

  test("the trace has a line a step and the deciding one last, and the same verdict", () => {
    const policy = compilePolicy({ ...base, otherwise: "contacts" });
    const { verdict, trace } = policy.explain(approach({}));
    expect(verdict).toEqual(policy.judge(approach({})));
    expect(trace).toEqual([
      "block: no entry",
      "revocation: not checked: there is no list",
      `certificate: valid to anchor alpha, names ${alice}`,
      "allow: no entry",
      "rules: none fits",
      "otherwise: not a contact",
    ]);
  });

  test("a denial by an entry says which", () => {
    expect(judge({ block: [{ domain: "alpha.test", protocols: ["sip"] }] }, {})).toEqual({
      admit: false,
      reason: "blocked",
      entry: "domain alpha.test (sip)",
    });
  });

  test.each([[{ identity: "nobody" }], [{ fingerprint: "12" }], [{ identity: "sip:a@b.test" }]])(
    "an entry that names nobody (%j) does not compile",
    (entry) => {
      expect(() => compilePolicy({ ...base, allow: [entry] })).toThrow(expect.objectContaining({ name: "SuiteError" }));
    },
  );
});

test("every way in which a path fails is denied for a reason that has an alert", () => {
  const failures: PathFailure[] = [
    "malformed",
    "algorithm",
    "purpose",
    "issuer-unknown",
    "expired",
    "not-yet-valid",
    "revoked",
    "revocation-unknown",
    "signature",
    "not-a-ca",
    "path-length",
    "key-usage",
    "name-constraints",
    "policy",
    "critical-extension",
    "too-complex",
  ];
  const told = failures.map((failure) => {
    const verdict = judge({ allow: [{ identity: alice }] }, { failure });
    if (verdict.admit) throw new Error(`${failure} was admitted`);
    return [failure, verdict.reason, alertOf(verdict.reason)];
  });
  expect(told).toEqual([
    ["malformed", "certificate-malformed", 42],
    ["algorithm", "algorithm-refused", 43],
    ["purpose", "purpose", 43],
    ["issuer-unknown", "issuer-unknown", 48],
    ["expired", "expired", 45],
    ["not-yet-valid", "not-yet-valid", 45],
    ["revoked", "revoked", 44],
    ["revocation-unknown", "revocation-unknown", 46],
    ...[
      "signature",
      "not-a-ca",
      "path-length",
      "key-usage",
      "name-constraints",
      "policy",
      "critical-extension",
      "too-complex",
    ].map((one) => [one, "path-invalid", 42]),
  ]);
});

test("blocked and not admitted look alike to the peer, and every reason has a failure for whoever dialled", () => {
  expect(alertOf("blocked")).toBe(alertOf("not-admitted"));
  expect(
    Object.fromEntries(DENIAL_REASONS.map((reason) => [reason, `${denied(reason).code} ${denied(reason).temporary}`])),
  ).toEqual({
    ...Object.fromEntries(DENIAL_REASONS.map((reason) => [reason, "certificate-invalid true"])),
    "identity-mismatch": "identity-mismatch true",
    "key-not-published": "identity-mismatch true",
    blocked: "refused-by-policy false",
    "not-admitted": "refused-by-policy false",
  });
});
