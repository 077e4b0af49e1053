import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Certificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { encodeName, readName } from "../../src/pki/name.ts";
import { attributeType } from "../../src/pki/oid.ts";
import { anyPolicy, type PolicyQuestion, validPolicies } from "../../src/pki/policy.ts";
import { treePolicies } from "../support/policy-tree.ts";

type Policies = Partial<
  Pick<Certificate, "policies" | "policyMappings" | "policyConstraints" | "inhibitAnyPolicy"> & { selfIssued: boolean }
>;

const nameOf = (n: number) => readName(der.readDer(encodeName([[attributeType.commonName, `CA ${n}`]])));

/** A path of certificates that are nothing but their policies, the one below the anchor first; the leaf last. */
function pathOf(...below: readonly Policies[]): Certificate[] {
  let level = 0;
  const certificates = below.map(({ selfIssued = false, ...policies }) => {
    const issuer = nameOf(level);
    if (!selfIssued) level += 1;
    return { issuer, subject: nameOf(level), ...policies } as Certificate;
  });
  return [...certificates.toReversed(), { issuer: nameOf(0), subject: nameOf(0) } as Certificate];
}

const [one, two, three] = ["1.1.1", "1.1.2", "1.1.3"];
const map = (...pairs: readonly (readonly [string, string])[]) =>
  pairs.map(([issuerDomain, subjectDomain]) => ({ issuerDomain, subjectDomain }));
const all = { policies: [anyPolicy] };
const explicit = { explicit: true };

describe("the policies that a path is good for", () => {
  test.each<[string, Policies[], PolicyQuestion, readonly string[] | undefined]>([
    ["one for all", [{ policies: [one] }, { policies: [one] }], explicit, [one]],
    ["none needed, none there", [{}, {}], {}, []],
    ["one needed, none there", [{}, {}], explicit, undefined],
    ["different ones", [{ policies: [one] }, { policies: [two] }], explicit, undefined],
    ["different ones, none needed", [{ policies: [one] }, { policies: [two] }], {}, []],
    ["any above one", [all, { policies: [one] }], explicit, [one]],
    ["any below one", [{ policies: [one] }, all], explicit, [one]],
    ["any everywhere", [all, all], explicit, [anyPolicy]],
    ["any everywhere, one asked", [all, all], { ...explicit, acceptable: [two] }, [two]],
    ["any inhibited by the caller", [all, { policies: [one] }], { ...explicit, inhibitAny: true }, undefined],
    ["any inhibited by the CA", [{ policies: [one], inhibitAnyPolicy: 0 }, all], explicit, undefined],
    [
      "any one certificate further",
      [{ policies: [one], inhibitAnyPolicy: 1 }, { policies: [one] }, all],
      explicit,
      undefined,
    ],
    ["any while it counts", [{ policies: [one], inhibitAnyPolicy: 1 }, all, { policies: [one] }], explicit, [one]],
    [
      "self-issued, any inhibited",
      [{ policies: [one], inhibitAnyPolicy: 0 }, { ...all, selfIssued: true }, { policies: [one] }],
      explicit,
      [one],
    ],
    ["mapped", [{ policies: [one], policyMappings: map([one, two]) }, { policies: [two] }], explicit, [one]],
    [
      "mapped, the old one",
      [{ policies: [one], policyMappings: map([one, two]) }, { policies: [one] }],
      explicit,
      undefined,
    ],
    [
      "mapped, asked in the CA's words",
      [{ policies: [one], policyMappings: map([one, two]) }, { policies: [two] }],
      { ...explicit, acceptable: [two] },
      undefined,
    ],
    [
      "mapped to two",
      [{ policies: [one], policyMappings: map([one, two], [one, three]) }, { policies: [three] }],
      explicit,
      [one],
    ],
    ["mapped from any", [{ ...all, policyMappings: map([anyPolicy, two]) }, { policies: [two] }], {}, undefined],
    ["mapped to any", [{ ...all, policyMappings: map([one, anyPolicy]) }, { policies: [two] }], {}, undefined],
    ["mapped below any", [{ ...all, policyMappings: map([one, two]) }, { policies: [two] }], explicit, [one]],
    [
      "mapping inhibited by the caller",
      [{ policies: [one], policyMappings: map([one, two]) }, { policies: [two] }],
      { ...explicit, inhibitMapping: true },
      undefined,
    ],
    [
      "mapping inhibited by the CA above",
      [
        { ...all, policyConstraints: { inhibitMapping: 0 } },
        { policies: [one], policyMappings: map([one, two]) },
        { policies: [two] },
      ],
      explicit,
      undefined,
    ],
    ["one needed by a CA", [{ policyConstraints: { requireExplicit: 0 } }, {}], {}, undefined],
    [
      "one needed by a CA, later than the path is long",
      [{ policyConstraints: { requireExplicit: 3 } }, {}, {}],
      {},
      [],
    ],
    ["one needed by the leaf itself", [{}, { policyConstraints: { requireExplicit: 0 } }], {}, undefined],
    [
      "one of two asked",
      [{ policies: [one, two] }, { policies: [one, two] }],
      { ...explicit, acceptable: [two, three] },
      [two],
    ],
  ])("%s", (_, below, question, expected) => {
    expect(validPolicies(pathOf(...below), question)?.toSorted()).toEqual(expected);
    const tree = treePolicies(pathOf(...below), question);
    expect(tree && [...tree].toSorted()).toEqual(expected);
  });
});

test("the graph says what the tree of RFC 5280 says, on any path", () => {
  const policy = fc.constantFrom(one, two, three, anyPolicy);
  const named = fc.constantFrom(one, two, three);
  const count = fc.option(fc.nat(3), { nil: undefined, freq: 4 });
  const certificate = fc
    .record({
      policies: fc.option(fc.uniqueArray(policy, { minLength: 1, maxLength: 4 }), { nil: undefined, freq: 9 }),
      policyMappings: fc.array(fc.tuple(fc.oneof({ weight: 15, arbitrary: named }, policy), named), { maxLength: 3 }),
      requireExplicit: count,
      inhibitMapping: count,
      inhibitAnyPolicy: count,
      selfIssued: fc.boolean(),
    })
    .map(({ policies, policyMappings, requireExplicit, inhibitMapping, inhibitAnyPolicy, selfIssued }) => ({
      selfIssued,
      ...(policies === undefined ? {} : { policies }),
      policyMappings: map(...policyMappings),
      policyConstraints: {
        ...(requireExplicit === undefined ? {} : { requireExplicit }),
        ...(inhibitMapping === undefined ? {} : { inhibitMapping }),
      },
      ...(inhibitAnyPolicy === undefined ? {} : { inhibitAnyPolicy }),
    }));
  const question = fc
    .record({
      acceptable: fc.option(fc.uniqueArray(policy, { maxLength: 2 }), { nil: undefined }),
      explicit: fc.boolean(),
      inhibitMapping: fc.constantFrom(false, false, false, true),
      inhibitAny: fc.constantFrom(false, false, false, true),
    })
    .map(({ acceptable, ...rest }) => (acceptable === undefined ? rest : { ...rest, acceptable }));
  const outcomes = new Set<string>();
  fc.assert(
    fc.property(fc.array(certificate, { minLength: 1, maxLength: 5 }), question, (below, asked) => {
      const path = pathOf(...below);
      const graph = validPolicies(path, asked);
      const tree = treePolicies(path, asked);
      expect(graph === undefined ? undefined : new Set(graph)).toEqual(tree);
      outcomes.add([...(tree ?? ["refused"])].join());
    }),
    { numRuns: 5_000 },
  );
  expect(outcomes.size).toBeGreaterThan(8);
});

test("policies that would make a tree of 8^8 nodes are judged within 20 ms", () => {
  const numbers = Array.from({ length: 8 }, (_, n) => `1.1.${n}`);
  const bomb = {
    policies: numbers,
    policyMappings: map(...numbers.flatMap((a) => numbers.map((b) => [a, b] as const))),
  };
  const path = pathOf(...Array.from({ length: 9 }, () => bomb));
  validPolicies(path, explicit);
  const before = process.threadCpuUsage();
  expect(validPolicies(path, explicit)).toHaveLength(8);
  const { user, system } = process.threadCpuUsage(before);
  expect((user + system) / 1000).toBeLessThan(20);
});
