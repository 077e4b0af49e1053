import type { Certificate } from "./certificate.ts";
import { sameName } from "./name.ts";
import type { Oid } from "./oid.ts";

/** What the caller asks of certificate policies (RFC 5280 §6.1.1). */
export interface PolicyQuestion {
  /** One of these has to be valid for the path, if any policy has to; absent: any. */
  readonly acceptable?: readonly Oid[];
  /** The path must be good for at least one policy. */
  readonly explicit?: boolean;
  readonly inhibitMapping?: boolean;
  readonly inhibitAny?: boolean;
}

export const anyPolicy: Oid = "2.5.29.32.0";

/** A policy at one depth. RFC 5280 has a tree here, which grows exponentially; RFC 9618 makes it this graph, which cannot. */
interface Node {
  readonly policy: Oid;
  expected: ReadonlySet<Oid>;
  readonly parents: ReadonlySet<Node>;
}

type Level = Map<Oid, Node>;

/**
 * Processes the policies of a path (RFC 5280 §6.1.2–6.1.5, RFC 9618).
 * @param path leaf first, the anchor's certificate last; the anchor's own policies are not asked
 * @returns the policies for which the path is good, `anyPolicy` among them if it is unrestricted; undefined: it is good for
 *   none that will do
 */
export function validPolicies(path: readonly Certificate[], question: PolicyQuestion): readonly Oid[] | undefined {
  const certificates = path.slice(0, -1).toReversed();
  const last = certificates.length;
  // As most paths are: nothing is said, so nothing is valid, and nothing has to be.
  if (!question.explicit && last > 0 && !certificates.some(speaksOfPolicies)) return [];
  let explicit = question.explicit ? 0 : last + 1;
  let mapping = question.inhibitMapping ? 0 : last + 1;
  let any = question.inhibitAny ? 0 : last + 1;
  const root: Node = { policy: anyPolicy, expected: new Set([anyPolicy]), parents: new Set() };
  let above: Level = new Map([[anyPolicy, root]]);

  for (const [index, certificate] of certificates.entries()) {
    const isLast = index === last - 1;
    const selfIssued = sameName(certificate.issuer, certificate.subject);
    const level = levelOf(certificate, above, any > 0 || (!isLast && selfIssued));
    if (!isLast) {
      if (!applyMappings(certificate, level, above, mapping > 0)) return undefined;
      if (!selfIssued) {
        explicit = Math.max(0, explicit - 1);
        mapping = Math.max(0, mapping - 1);
        any = Math.max(0, any - 1);
      }
      explicit = Math.min(explicit, certificate.policyConstraints?.requireExplicit ?? Infinity);
      mapping = Math.min(mapping, certificate.policyConstraints?.inhibitMapping ?? Infinity);
      any = Math.min(any, certificate.inhibitAnyPolicy ?? Infinity);
    } else {
      explicit = Math.max(0, explicit - 1);
      if (certificate.policyConstraints?.requireExplicit === 0) explicit = 0;
    }
    above = level;
  }

  const valid = acceptableOf(validAt(above), question.acceptable);
  return explicit > 0 || valid.length > 0 ? valid : undefined;
}

function speaksOfPolicies({ policies, policyMappings, policyConstraints }: Certificate): boolean {
  return policies !== undefined || policyMappings !== undefined || policyConstraints !== undefined;
}

/** RFC 5280 §6.1.3 (d): the policies of a certificate that continue one above them. */
function levelOf({ policies }: Certificate, above: Level, anyCounts: boolean): Level {
  const level: Level = new Map();
  if (policies === undefined) return level;
  const expecting = expectations(above);
  const unrestricted = above.get(anyPolicy);
  for (const policy of policies) {
    if (policy === anyPolicy) continue;
    const parents = expecting.get(policy) ?? (unrestricted === undefined ? undefined : new Set([unrestricted]));
    if (parents !== undefined) level.set(policy, { policy, expected: new Set([policy]), parents });
  }
  if (policies.includes(anyPolicy) && anyCounts) {
    for (const [policy, parents] of expecting) {
      if (!level.has(policy)) level.set(policy, { policy, expected: new Set([policy]), parents });
    }
  }
  return level;
}

function expectations(level: Level): Map<Oid, Set<Node>> {
  const expecting = new Map<Oid, Set<Node>>();
  for (const node of level.values()) {
    for (const policy of node.expected) {
      const parents = expecting.get(policy);
      if (parents === undefined) expecting.set(policy, new Set([node]));
      else parents.add(node);
    }
  }
  return expecting;
}

/** RFC 5280 §6.1.4 (a), (b). @returns false for a mapping from or to anyPolicy */
function applyMappings({ policyMappings = [] }: Certificate, level: Level, above: Level, allowed: boolean): boolean {
  const mapped = new Map<Oid, Set<Oid>>();
  for (const { issuerDomain, subjectDomain } of policyMappings) {
    if (issuerDomain === anyPolicy || subjectDomain === anyPolicy) return false;
    mapped.set(issuerDomain, (mapped.get(issuerDomain) ?? new Set()).add(subjectDomain));
  }
  for (const [policy, expected] of mapped) {
    const node = level.get(policy);
    if (!allowed) level.delete(policy);
    else if (node !== undefined) node.expected = expected;
    else if (level.has(anyPolicy)) {
      const parent = above.get(anyPolicy);
      level.set(policy, { policy, expected, parents: new Set(parent === undefined ? [] : [parent]) });
    }
  }
  return true;
}

/** RFC 9618 §5.4: of all that reaches the leaf, the policies that hang on anyPolicy, in the words of the anchor's domain. */
function validAt(leaf: Level): Set<Oid> {
  const valid = new Set<Oid>();
  const seen = new Set<Node>();
  const waiting = [...leaf.values()];
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    if (node.policy !== anyPolicy && [...node.parents].some(({ policy }) => policy === anyPolicy))
      valid.add(node.policy);
    waiting.push(...node.parents);
  }
  if (leaf.has(anyPolicy)) valid.add(anyPolicy);
  return valid;
}

function acceptableOf(valid: ReadonlySet<Oid>, acceptable: readonly Oid[] | undefined): Oid[] {
  if (acceptable === undefined || acceptable.includes(anyPolicy)) return [...valid];
  return valid.has(anyPolicy) ? [...acceptable] : acceptable.filter((policy) => valid.has(policy));
}
