import fc from "fast-check";
import { expect, test } from "vitest";
import { compilePolicy, type PolicyAnchor, type TrustRules } from "../../src/peertls-core/policy.ts";
import type { TrustEntry } from "../../src/peertls-core/policy-schema.ts";
import type { Approach, RevocationState } from "../../src/peertls-core/verdict.ts";
import type { Certificate, IdentitySource } from "../../src/pki/certificate.ts";
import { approach, fp, type Who } from "../peertls-core/approach.ts";

const people = ["a@x.test", "b@x.test", "a@y.x.test", "a@z.test"];
const domains = ["x.test", ".x.test", "y.x.test", "z.test", ".test"];
const keys = ["leaf", "ca", "root", "other", "none"];
const protocols = ["sip", "smtp", "ftps"] as const;
const names = ["one", "two", "three"] as const;
const sources = ["rfc822Name", "sipUri"] as const;
/** Several anchors may stand for one root. The second has the key of the first, but is another certificate. */
const roots = [
  { fingerprint: fp("root"), sha256: "first" },
  { fingerprint: fp("root"), sha256: "renewed" },
  { fingerprint: fp("other"), sha256: "other" },
] as Certificate[];

const entry: fc.Arbitrary<TrustEntry> = fc
  .tuple(
    fc.oneof(
      fc.constantFrom(...people).map((identity) => ({ identity })),
      fc.constantFrom(...keys).map((name) => ({ fingerprint: fp(name) })),
      fc.constantFrom(...domains).map((domain) => ({ domain })),
      fc.constantFrom(...names).map((issuer) => ({ issuer })),
      fc.constantFrom("O", "P").map((organisation) => ({ organisation })),
    ),
    fc.option(fc.subarray([...protocols], { minLength: 1 }), { nil: undefined }),
  )
  .map(([selector, only]) => (only === undefined ? selector : { ...selector, protocols: only }));
// The later a step is, the more have to be passed to come to it: what ends at the first ones is made rarer.
const seldom = <T>(one: fc.Arbitrary<T>, oneIn: number): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: 1, arbitrary: one }, { weight: oneIn - 1, arbitrary: fc.constant(undefined) });
const list = fc.oneof(fc.constant([]), fc.array(entry, { maxLength: 3 }));
const anchor = (name: string): fc.Arbitrary<PolicyAnchor> =>
  fc.record(
    {
      name: fc.constant(name),
      certificate: fc.constantFrom(...roots),
      domains: fc.subarray(["any", ...domains], { minLength: 1 }),
      organisations: fc.subarray(["O", "P"]),
      identitiesFrom: fc.subarray([...sources], { minLength: 1 }),
      revocation: fc.record({
        mode: fc.constantFrom("default" as const, "hard" as const, "soft" as const),
        graceHours: fc.constant(24),
      }),
    },
    { requiredKeys: ["name", "certificate", "domains", "organisations", "identitiesFrom"] },
  );
const rules: fc.Arbitrary<TrustRules> = fc.record({
  anchors: fc.tuple(anchor("one"), anchor("two"), anchor("three")).map((all) => [...all]),
  block: list,
  allow: list,
  rules: list,
  otherwise: fc.constantFrom("deny", "contacts"),
  contacts: fc.subarray(people).map((all) => all as never[]),
  requestsOnPort: fc.boolean(),
});
const who: fc.Arbitrary<Who> = fc.record(
  { organisation: fc.constantFrom("O", "P"), protocol: fc.constantFrom(...protocols, "request" as const) },
  { requiredKeys: [] },
);
const failure = fc.constantFrom("expired" as const, "issuer-unknown" as const).map((one) => ({ failure: one }));
const expected = fc
  .record({ identity: fc.constantFrom(...people), fingerprints: fc.subarray(keys).map((all) => all.map(fp)) })
  .map((one) => ({ expected: one }));
const identities = fc
  .shuffledSubarray(people)
  .chain((some) =>
    fc.tuple(
      ...some.map((identity) => fc.record({ identity: fc.constant(identity), source: fc.constantFrom(...sources) })),
    ),
  );
const revocation: fc.Arbitrary<RevocationState> = fc.oneof(
  { weight: 4, arbitrary: fc.constant({ status: "good" as const }) },
  { weight: 4, arbitrary: fc.constant({ status: "unchecked" as const }) },
  fc.constant({ status: "unknown" as const }),
  fc.nat(2).map((at) => ({ status: "revoked" as const, at, since: new Date(0) })),
);

/** A certificate whose path ends at one of the anchors, or at one that is in force no more. */
const approaches = fc
  .tuple(
    rules,
    who,
    seldom(failure, 12),
    seldom(expected, 3),
    identities,
    revocation,
    fc.constantFrom(0, 1, 2, 0, 1, 2, "gone" as const),
  )
  .map(([r, one, failed, dialled, claimed, state, end]): [TrustRules, Approach] => {
    const a = approach({ ...one, ...failed, ...dialled });
    const ends =
      end === "gone" ? { name: "gone", certificate: { fingerprint: fp("gone"), sha256: "gone" } } : r.anchors[end];
    const path = a.path.ok ? { ...a.path, anchor: ends } : a.path;
    const certificate = { ...a.certificate, identities: claimed };
    return [r, { ...a, certificate, path, revocation: state } as unknown as Approach];
  });

type Claim = { identity: string; source: IdentitySource };

const inDomain = (domain: string, person: string) =>
  domain.startsWith(".")
    ? person.endsWith(domain) && !person.endsWith(`@${domain.slice(1)}`)
    : domain === "any" || person.endsWith(`@${domain}`);

/** The same rules, read aloud: no index, no order but the six steps. */
function readAloud(r: TrustRules, a: Approach): string {
  const claims: readonly Claim[] = a.certificate.identities;
  const speaks = (e: TrustEntry) => e.protocols === undefined || e.protocols.some((one) => one === a.protocol);
  const about = (e: TrustEntry, people: readonly string[], known: readonly string[]) =>
    speaks(e) &&
    (people.includes(e.identity ?? "") ||
      known.includes(e.fingerprint ?? "") ||
      (e.domain !== undefined && people.some((one) => inDomain(e.domain ?? "", one))));
  const leaf: string = a.certificate.fingerprint;
  const chain: string[] = a.path.ok
    ? [...a.path.path, a.path.anchor.certificate].map((one) => one.fingerprint)
    : [leaf];

  // Of the anchors that are the path's root, those that may vouch for whom we dialled, or for any name of who came.
  const end = a.path.ok ? a.path.anchor : undefined;
  const atRoot = r.anchors.filter((one) => end !== undefined && one.certificate === end.certificate);
  const mayName = (by: PolicyAnchor, { identity, source }: Claim) =>
    by.identitiesFrom.includes(source) && by.domains.some((domain) => inDomain(domain, identity));
  const wanted = claims.filter((one) => a.expected === undefined || one.identity === a.expected.identity);
  const vouching = atRoot.filter((by) => wanted.some((one) => mayName(by, one)));
  const issuers = vouching.length > 0 ? vouching.map((one) => one.name) : [end?.name];

  const everybody = claims.map((one) => one.identity);
  const blocks = (e: TrustEntry) =>
    about(e, everybody, chain) || (e.issuer !== undefined && issuers.includes(e.issuer));
  if (r.block.some((e) => speaks(e) && blocks(e))) return "blocked";
  if (!a.path.ok) return a.path.reason;
  const by = vouching[0] ?? r.anchors.find((one) => one.name === end?.name);
  if (by === undefined) return "issuer-unknown";
  const { status } = a.revocation;
  const mode = by.revocation?.mode ?? "default";
  if (status === "revoked") return "revoked";
  if (mode === "hard" && status !== "good") return "revocation-unknown";
  if (mode === "default" && status === "unknown") return "revocation-unknown";
  if (!claims.some((one) => by.identitiesFrom.includes(one.source))) return "no-identity";
  const believed = claims.filter((one) => mayName(by, one)).map((one) => one.identity);
  if (believed.length === 0) return "name-out-of-scope";
  if (a.expected !== undefined) {
    if (!believed.includes(a.expected.identity)) return "identity-mismatch";
    return a.expected.fingerprints.some((one) => one === leaf) ? `dialled ${a.expected.identity}` : "key-not-published";
  }
  if (r.allow.some((e) => about(e, believed, [leaf]))) return `allow ${believed[0]}`;
  const organisation = a.certificate.organisation;
  const whole = r.rules.some(
    (e) =>
      about(e, believed, []) ||
      (speaks(e) && e.issuer === by.name) ||
      (speaks(e) &&
        e.organisation !== undefined &&
        e.organisation === organisation &&
        by.organisations.includes(organisation)),
  );
  if (whole) return `organisation ${believed[0]}`;
  const contacts: readonly string[] = r.otherwise === "contacts" ? r.contacts : [];
  const contact = believed.find((one) => contacts.includes(one));
  if (contact !== undefined) return `contact ${contact}`;
  return a.protocol === "request" && r.requestsOnPort ? `request ${believed[0]}` : "not-admitted";
}

test("the policy decides as its rules read aloud, tells why in the end, and each way comes up", () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(approaches, ([r, a]) => {
      const policy = compilePolicy(r);
      const verdict = policy.judge(a);
      const said = verdict.admit ? `${verdict.by.rule} ${verdict.identity}` : verdict.reason;
      expect(said).toBe(readAloud(r, a));
      const { verdict: explained, trace } = policy.explain(a);
      expect(explained).toEqual(verdict);
      if ("entry" in verdict && verdict.entry !== undefined) expect(trace.at(-1)).toBe(`block: ${verdict.entry}`);
      seen.add(said.split(" ")[0] ?? "");
    }),
    { numRuns: 6_000 },
  );
  expect([...seen].sort()).toEqual(
    [
      ...["allow", "blocked", "contact", "dialled", "expired", "identity-mismatch", "issuer-unknown"],
      ...["key-not-published", "name-out-of-scope", "no-identity", "not-admitted", "organisation", "request"],
      ...["revocation-unknown", "revoked"],
    ].sort(),
  );
});
