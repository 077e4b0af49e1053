import type { Certificate } from "../../src/pki/certificate.ts";
import { sameName } from "../../src/pki/name.ts";
import { anyPolicy, type PolicyQuestion } from "../../src/pki/policy.ts";

interface TreeNode {
  readonly policy: string;
  expected: Set<string>;
  readonly parent: TreeNode | undefined;
  children: TreeNode[];
}

/** The policy tree of RFC 5280 §6.1.2–6.1.5 word by word: exponential, and obvious. Same answer as `validPolicies`. */
export function treePolicies(path: readonly Certificate[], question: PolicyQuestion): ReadonlySet<string> | undefined {
  const certificates = path.slice(0, -1).toReversed();
  const n = certificates.length;
  const root: TreeNode = { policy: anyPolicy, expected: new Set([anyPolicy]), parent: undefined, children: [] };
  let tree: TreeNode | undefined = root;
  let explicit = question.explicit ? 0 : n + 1;
  let mapping = question.inhibitMapping ? 0 : n + 1;
  let any = question.inhibitAny ? 0 : n + 1;

  for (const [index, certificate] of certificates.entries()) {
    const i = index + 1;
    const { policies, policyMappings = [], policyConstraints: constraints } = certificate;
    const selfIssued = sameName(certificate.issuer, certificate.subject);
    if (policies !== undefined && tree !== undefined) {
      for (const policy of policies.filter((one) => one !== anyPolicy)) {
        const expecting = atDepth(tree, i - 1).filter((node) => node.expected.has(policy));
        const parents =
          expecting.length > 0 ? expecting : atDepth(tree, i - 1).filter((one) => one.policy === anyPolicy);
        for (const parent of parents) add(parent, policy, [policy]);
      }
      if (policies.includes(anyPolicy) && (any > 0 || (i < n && selfIssued))) {
        for (const node of atDepth(tree, i - 1)) {
          for (const value of node.expected) {
            if (!node.children.some((child) => child.policy === value)) add(node, value, [value]);
          }
        }
      }
      tree = pruned(tree, i);
    }
    if (policies === undefined) tree = undefined;
    if (explicit === 0 && tree === undefined) return undefined;
    if (i === n) break;

    if (policyMappings.some((one) => one.issuerDomain === anyPolicy || one.subjectDomain === anyPolicy))
      return undefined;
    for (const from of new Set(policyMappings.map((one) => one.issuerDomain))) {
      if (tree === undefined) break;
      const to = policyMappings.flatMap((one) => (one.issuerDomain === from ? one.subjectDomain : []));
      const nodes = atDepth(tree, i).filter((node) => node.policy === from);
      if (mapping === 0) {
        for (const node of nodes)
          if (node.parent) node.parent.children = node.parent.children.filter((one) => one !== node);
        tree = pruned(tree, i);
      } else if (nodes.length > 0) for (const node of nodes) node.expected = new Set(to);
      else if (atDepth(tree, i).some((node) => node.policy === anyPolicy)) {
        for (const parent of atDepth(tree, i - 1).filter((node) => node.policy === anyPolicy)) add(parent, from, to);
      }
    }
    if (!selfIssued)
      [explicit, mapping, any] = [Math.max(0, explicit - 1), Math.max(0, mapping - 1), Math.max(0, any - 1)];
    explicit = Math.min(explicit, constraints?.requireExplicit ?? Infinity);
    mapping = Math.min(mapping, constraints?.inhibitMapping ?? Infinity);
    any = Math.min(any, certificate.inhibitAnyPolicy ?? Infinity);
  }

  explicit = Math.max(0, explicit - 1);
  if (certificates.at(-1)?.policyConstraints?.requireExplicit === 0) explicit = 0;
  const valid = new Set<string>();
  const wanted = question.acceptable?.includes(anyPolicy) ? undefined : question.acceptable;
  for (let depth = 1; tree !== undefined && depth <= n; depth += 1) {
    for (const node of atDepth(tree, depth)) {
      if (node.parent?.policy !== anyPolicy) continue;
      if (node.policy !== anyPolicy) valid.add(node.policy);
      else if (depth === n) for (const one of wanted ?? [anyPolicy]) valid.add(one);
    }
  }
  const kept = new Set([...valid].filter((one) => wanted === undefined || wanted.includes(one)));
  return explicit > 0 || kept.size > 0 ? kept : undefined;
}

function add(parent: TreeNode, policy: string, expected: readonly string[]): void {
  parent.children.push({ policy, expected: new Set(expected), parent, children: [] });
}

function atDepth(node: TreeNode, depth: number): TreeNode[] {
  return depth === 0 ? [node] : node.children.flatMap((child) => atDepth(child, depth - 1));
}

/** Deletes nodes above `depth` without children, over and over. */
function pruned(node: TreeNode, depth: number): TreeNode | undefined {
  if (depth === 0) return node;
  node.children = node.children.filter((child) => pruned(child, depth - 1) !== undefined);
  return node.children.length > 0 ? node : undefined;
}
