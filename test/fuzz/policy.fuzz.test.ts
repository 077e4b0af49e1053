import fc from "fast-check";
import { expect, test } from "vitest";
import { compilePolicy, type TrustRules } from "../../src/peertls-core/policy.ts";
import type { TrustEntry } from "../../src/peertls-core/policy-schema.ts";
import type { Approach } from "../../src/peertls-core/verdict.ts";
import { approach, fp, type Who } from "../peertls-core/approach.ts";

const people = ["a@x.test", "b@x.test", "a@y.x.test", "a@z.test"];
const domains = ["x.test", ".x.test", "y.x.test", "z.test", ".test"];
const keys = ["leaf", "ca", "one", "two", "none"];
const protocols = ["sip", "smtp", "ftps"] as const;

const entry: fc.Arbitrary<TrustEntry> = fc
  .tuple(
    fc.oneof(
      fc.constantFrom(...people).map((identity) => ({ identity })),
      fc.constantFrom(...keys).map((name) => ({ fingerprint: fp(name) })),
      fc.constantFrom(...domains).map((domain) => ({ domain })),
      fc.constantFrom("one", "two").map((issuer) => ({ issuer })),
      fc.constantFrom("O", "P").map((organisation) => ({ organisation })),
    ),
    fc.option(fc.subarray([...protocols], { minLength: 1 }), { nil: undefined }),
  )
  .map(([selector, only]) => (only === undefined ? selector : { ...selector, protocols: only }));
const list = fc.array(entry, { maxLength: 3 });
const anchor = (name: string) =>
  fc.record({
    name: fc.constant(name),
    certificate: fc.constant({} as never),
    domains: fc.subarray(["any", ...domains], { minLength: 1 }),
    organisations: fc.subarray(["O", "P"]),
    identitiesFrom: fc.subarray(["rfc822Name", "sipUri"] as const, { minLength: 1 }),
  });
const rules: fc.Arbitrary<TrustRules> = fc.record({
  anchors: fc.tuple(anchor("one"), anchor("two")).map((both) => [...both]),
  block: list,
  allow: list,
  rules: list,
  otherwise: fc.constantFrom("deny", "contacts"),
  contacts: fc.subarray(people).map((all) => all as never[]),
  requestsOnPort: fc.boolean(),
});
const who: fc.Arbitrary<Who> = fc.record(
  {
    identities: fc.subarray(people, { minLength: 0 }),
    source: fc.constantFrom("rfc822Name" as const, "sipUri" as const),
    organisation: fc.constantFrom("O", "P"),
    anchor: fc.constantFrom("one", "two", "gone"),
    failure: fc.constantFrom("expired" as const, "issuer-unknown" as const),
    protocol: fc.constantFrom(...protocols, "request" as const),
    expected: fc.record({
      identity: fc.constantFrom(...people),
      fingerprints: fc.subarray(keys).map((all) => all.map(fp)),
    }),
  },
  { requiredKeys: ["identities", "anchor"] },
);

/** The same rules, read aloud: no index, no order but the six steps. */
function readAloud(r: TrustRules, a: Approach): string {
  const all = a.certificate.identities.map((one) => one.identity as string);
  const speaks = (e: TrustEntry) => e.protocols === undefined || e.protocols.some((one) => one === a.protocol);
  const inDomain = (domain: string, person: string) =>
    domain.startsWith(".")
      ? person.endsWith(domain) && !person.endsWith(`@${domain.slice(1)}`)
      : person.endsWith(`@${domain}`);
  const about = (e: TrustEntry, names: readonly string[], known: readonly string[]) =>
    speaks(e) &&
    (names.includes(e.identity ?? "") ||
      known.includes(e.fingerprint ?? "") ||
      (e.domain !== undefined && names.some((one) => inDomain(e.domain ?? "", one))));
  const leaf = a.certificate.fingerprint;
  const chain = a.path.ok
    ? [...a.path.path, a.path.anchor.certificate].map((one) => one.fingerprint as string)
    : [leaf];
  const issuer = a.path.ok ? a.path.anchor.name : undefined;
  if (r.block.some((e) => about(e, all, chain) || (e.issuer !== undefined && e.issuer === issuer && speaks(e))))
    return "blocked";
  if (!a.path.ok) return a.path.reason;
  const by = r.anchors.find((one) => one.name === issuer);
  if (by === undefined) return "issuer-unknown";
  const believed = a.certificate.identities
    .filter((one) => by.identitiesFrom.includes(one.source))
    .map((one) => one.identity as string);
  if (believed.length === 0) return "no-identity";
  const names = believed.filter((one) => by.domains.some((domain) => domain === "any" || inDomain(domain, one)));
  if (names.length === 0) return "name-out-of-scope";
  if (a.expected !== undefined) {
    if (!names.includes(a.expected.identity)) return "identity-mismatch";
    return a.expected.fingerprints.includes(leaf) ? `dialled ${a.expected.identity}` : "key-not-published";
  }
  if (r.allow.some((e) => about(e, names, [leaf]))) return `allow ${names[0]}`;
  const organisation = a.certificate.organisation;
  const whole = r.rules.some(
    (e) =>
      about(e, names, []) ||
      (speaks(e) && e.issuer === by.name) ||
      (speaks(e) &&
        e.organisation !== undefined &&
        e.organisation === organisation &&
        by.organisations.includes(organisation)),
  );
  if (whole) return `organisation ${names[0]}`;
  const contact =
    r.otherwise === "contacts" ? names.find((one) => (r.contacts as readonly string[]).includes(one)) : undefined;
  if (contact !== undefined) return `contact ${contact}`;
  return a.protocol === "request" && r.requestsOnPort ? `request ${names[0]}` : "not-admitted";
}

test("the policy decides as its rules read aloud", () => {
  fc.assert(
    fc.property(rules, who, (r, one) => {
      const a = approach(one);
      const verdict = compilePolicy(r).judge(a);
      expect(verdict.admit ? `${verdict.by.rule} ${verdict.identity}` : verdict.reason).toBe(readAloud(r, a));
    }),
    { numRuns: 2_000 },
  );
});
