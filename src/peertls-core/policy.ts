import type { Certificate, Fingerprint, PeerCertificate } from "../pki/certificate.ts";
import { parseFingerprint } from "../pki/certificate.ts";
import { type Identity, identityDomain, parseIdentity } from "../pki/identity.ts";
import type { PathFailure, TrustAnchor } from "../pki/path.ts";
import type { TrustEntry } from "./policy-schema.ts";
import type { Approach, DenialReason, RevocationState, Verdict } from "./verdict.ts";

/** An anchor and what it may vouch for. */
export interface PolicyAnchor extends TrustAnchor {
  /** Domains of the identities it may name: `example.org`, `.example.org` (below it), or `any`. */
  domains: readonly string[];
  organisations: readonly string[];
  identitiesFrom: readonly PeerCertificate["identities"][number]["source"][];
  /** What is done when revocation cannot be told; `default` if absent. */
  revocation?: { mode: RevocationMode; graceHours: number; lists?: readonly string[] };
}

/** `hard`: who was not found good stays out; `soft`: only who was found revoked does; `default`: see `revocationDenial`. */
export type RevocationMode = "default" | "hard" | "soft";

/** Everything a verdict depends on, as plain values. Entries of the file and of the owner's commands stand united here. */
export interface TrustRules {
  anchors: readonly PolicyAnchor[];
  block: readonly TrustEntry[];
  allow: readonly TrustEntry[];
  rules: readonly TrustEntry[];
  otherwise: "deny" | "contacts";
  contacts: readonly Identity[];
  /** Whether a stranger with a valid path may hand in a request on the peer port. */
  requestsOnPort: boolean;
}

export interface TracedVerdict {
  verdict: Verdict;
  /** One line a step, in the order they were taken, the deciding one last. */
  trace: readonly string[];
}

/** Who may come in. Synchronous, pure, immutable: a change is a new policy. */
export interface TrustPolicy {
  readonly anchors: readonly PolicyAnchor[];
  judge(approach: Approach): Verdict;
  /** `judge` with the steps told. */
  explain(approach: Approach): TracedVerdict;
}

/** @throws SuiteError identity-invalid or syntax for an entry that names nobody */
export function compilePolicy(rules: TrustRules): TrustPolicy {
  const anchors = new Map(rules.anchors.map((anchor) => [anchor.name, anchor]));
  const byKey = Map.groupBy(rules.anchors, ({ certificate }) => certificate.fingerprint);
  const block = selectors(rules.block);
  const allow = selectors(rules.allow);
  const open = selectors(rules.rules);
  const contacts = new Set<Identity>(rules.contacts);

  function decide(approach: Approach, tell: (line: string) => void): Verdict {
    const { certificate, path } = approach;
    const keys: Certificate[] = path.ok ? [...path.path, path.anchor.certificate] : [certificate.certificate];

    // One root may stand for several domains, under a name for each: the path tells only the first of them.
    const vouching = path.ok ? sameCertificate(byKey, path.anchor).filter((one) => vouchesFor(one, approach)) : [];
    const issuers = path.ok && vouching.length === 0 ? [path.anchor] : vouching;

    // 1. the block-list: whatever the certificate claims counts, even where no anchor vouches for the claim
    const blocked =
      match(block, approach, {
        identities: certificate.identities.map((one) => one.identity),
        keys: keys.map((one) => one.fingerprint),
      }) ?? issuers.flatMap(({ name }) => block.issuers.get(name) ?? []).find((entry) => applies(entry, approach));
    if (blocked !== undefined) {
      tell(`block: ${show(blocked)}`);
      return { admit: false, reason: "blocked", entry: show(blocked) };
    }
    tell("block: no entry");

    // 2. the certificate itself
    if (!path.ok) {
      tell(`certificate: ${path.reason}${path.at > 0 ? ` (issuer ${path.at} above the leaf)` : ""}`);
      return { admit: false, reason: denialOf(path.reason) };
    }
    const anchor = vouching[0] ?? anchors.get(path.anchor.name);
    if (anchor === undefined) {
      tell(`certificate: anchor ${path.anchor.name} is not in force any more`);
      return { admit: false, reason: "issuer-unknown" };
    }
    const { revocation } = approach;
    const unproven = revocationDenial(revocation, anchor.revocation?.mode ?? "default");
    tell(`revocation: ${describe(revocation)}`);
    if (unproven !== undefined) return { admit: false, reason: unproven };
    const named = certificate.identities
      .filter((one) => anchor.identitiesFrom.includes(one.source))
      .map((one) => one.identity);
    const vouched = named.filter((identity) => inDomains(anchor.domains, identityDomain(identity)));
    const preferred = vouched[0];
    if (preferred === undefined) {
      tell(
        named.length === 0
          ? "certificate: it names nobody"
          : `certificate: anchor ${anchor.name} may not vouch for ${named.join(", ")}`,
      );
      return { admit: false, reason: named.length === 0 ? "no-identity" : "name-out-of-scope" };
    }
    tell(`certificate: valid to anchor ${anchor.name}, names ${vouched.join(", ")}`);

    // 3. whom we dialled: the person and the key, both
    if (approach.expected !== undefined) {
      const { identity, fingerprints } = approach.expected;
      if (!vouched.includes(identity)) {
        tell(`dialled: ${identity} was expected`);
        return { admit: false, reason: "identity-mismatch" };
      }
      if (!fingerprints.includes(certificate.fingerprint)) {
        tell(`dialled: key ${certificate.fingerprint} is not in the record of ${identity}`);
        return { admit: false, reason: "key-not-published" };
      }
      tell(`dialled: ${identity} with a published key`);
      return { admit: true, by: { rule: "dialled", entry: identity }, identity };
    }

    // 4. allowed by name or key
    const allowed = match(allow, approach, { identities: vouched, keys: [certificate.fingerprint] });
    if (allowed !== undefined) {
      tell(`allow: ${show(allowed)}`);
      return { admit: true, by: { rule: "allow", entry: show(allowed) }, identity: preferred };
    }
    tell("allow: no entry");

    // 5. whole organisations, issuers, domains
    const organisation = certificate.organisation;
    const rule =
      open.issuers.get(anchor.name)?.find((entry) => applies(entry, approach)) ??
      (organisation !== undefined && anchor.organisations.includes(organisation)
        ? open.organisations.get(organisation)?.find((entry) => applies(entry, approach))
        : undefined) ??
      match(open, approach, { identities: vouched, keys: [] });
    if (rule !== undefined) {
      tell(`rules: ${show(rule)}`);
      return { admit: true, by: { rule: "organisation", entry: show(rule) }, identity: preferred };
    }
    tell("rules: none fits");

    // 6. everybody else
    const contact = rules.otherwise === "contacts" ? vouched.find((identity) => contacts.has(identity)) : undefined;
    if (contact !== undefined) {
      tell(`otherwise: ${contact} is a contact`);
      return { admit: true, by: { rule: "contact", entry: contact }, identity: contact };
    }
    if (approach.protocol === "request" && rules.requestsOnPort) {
      tell("request: strangers with a valid certificate may ask");
      return { admit: true, by: { rule: "request", entry: preferred }, identity: preferred };
    }
    tell(rules.otherwise === "contacts" ? "otherwise: not a contact" : "otherwise: deny");
    return { admit: false, reason: "not-admitted" };
  }

  return {
    anchors: rules.anchors,
    judge: (approach) => decide(approach, () => undefined),
    explain: (approach) => {
      const trace: string[] = [];
      return { verdict: decide(approach, (line) => trace.push(line)), trace };
    },
  };
}

function sameCertificate(
  byKey: ReadonlyMap<Fingerprint, readonly PolicyAnchor[]>,
  { certificate }: TrustAnchor,
): readonly PolicyAnchor[] {
  return (byKey.get(certificate.fingerprint) ?? []).filter((one) => one.certificate.sha256 === certificate.sha256);
}

/** For whom we dialled, or, of those who came, for one of the names. */
function vouchesFor({ identitiesFrom, domains }: PolicyAnchor, { certificate, expected }: Approach): boolean {
  return certificate.identities.some(
    ({ identity, source }) =>
      (expected === undefined || identity === expected.identity) &&
      identitiesFrom.includes(source) &&
      inDomains(domains, identityDomain(identity)),
  );
}

/** The table of peertls.md §2.7: what a state of revocation means under a mode. */
function revocationDenial(state: RevocationState, mode: RevocationMode): DenialReason | undefined {
  switch (state.status) {
    case "revoked":
      return "revoked";
    case "good":
      return undefined;
    case "unchecked":
      return mode === "hard" ? "revocation-unknown" : undefined;
    case "unknown":
      return mode === "soft" ? undefined : "revocation-unknown";
  }
}

function describe(state: RevocationState): string {
  switch (state.status) {
    case "revoked":
      return `revoked since ${state.since.toISOString()}${state.at > 0 ? ` (issuer ${state.at} above the leaf)` : ""}`;
    case "good":
      return "not revoked";
    case "unchecked":
      return "not checked: there is no list";
    case "unknown":
      return "unknown: the list is too old";
  }
}

interface Selectors {
  identities: Map<Identity, TrustEntry[]>;
  fingerprints: Map<Fingerprint, TrustEntry[]>;
  domains: Map<string, TrustEntry[]>;
  organisations: Map<string, TrustEntry[]>;
  issuers: Map<string, TrustEntry[]>;
}

function selectors(entries: readonly TrustEntry[]): Selectors {
  const made: Selectors = {
    identities: new Map(),
    fingerprints: new Map(),
    domains: new Map(),
    organisations: new Map(),
    issuers: new Map(),
  };
  for (const entry of entries) {
    if (entry.identity !== undefined) add(made.identities, parseIdentity(entry.identity), entry);
    else if (entry.fingerprint !== undefined) add(made.fingerprints, parseFingerprint(entry.fingerprint), entry);
    else if (entry.domain !== undefined) add(made.domains, entry.domain.toLowerCase(), entry);
    else if (entry.organisation !== undefined) add(made.organisations, entry.organisation, entry);
    else if (entry.issuer !== undefined) add(made.issuers, entry.issuer, entry);
  }
  return made;
}

function add<K>(map: Map<K, TrustEntry[]>, key: K, entry: TrustEntry): void {
  const known = map.get(key);
  if (known === undefined) map.set(key, [entry]);
  else known.push(entry);
}

function match(
  where: Selectors,
  approach: Approach,
  who: { identities: readonly Identity[]; keys: readonly Fingerprint[] },
): TrustEntry | undefined {
  const fits = (entries: TrustEntry[] | undefined) => entries?.find((entry) => applies(entry, approach));
  for (const key of who.keys) {
    const entry = fits(where.fingerprints.get(key));
    if (entry !== undefined) return entry;
  }
  for (const identity of who.identities) {
    const entry = fits(where.identities.get(identity)) ?? byDomain(where.domains, identityDomain(identity), fits);
    if (entry !== undefined) return entry;
  }
  return undefined;
}

/** `example.org` names the domain itself, `.example.org` every domain below it. */
function byDomain(
  domains: Map<string, TrustEntry[]>,
  domain: string,
  fits: (entries: TrustEntry[] | undefined) => TrustEntry | undefined,
): TrustEntry | undefined {
  if (domains.size === 0) return undefined;
  const exact = fits(domains.get(domain));
  if (exact !== undefined) return exact;
  for (let dot = domain.indexOf("."); dot >= 0; dot = domain.indexOf(".", dot + 1)) {
    const entry = fits(domains.get(domain.slice(dot)));
    if (entry !== undefined) return entry;
  }
  return undefined;
}

/** An entry without protocols speaks of all of them, requests included. */
function applies(entry: TrustEntry, approach: Approach): boolean {
  return (
    entry.protocols === undefined || (approach.protocol !== "request" && entry.protocols.includes(approach.protocol))
  );
}

function inDomains(domains: readonly string[], domain: string): boolean {
  return domains.some((one) => one === "any" || one === domain || (one.startsWith(".") && domain.endsWith(one)));
}

function show(entry: TrustEntry): string {
  const [key, value] = Object.entries(entry).find(([name]) => name !== "protocols") ?? ["entry", "?"];
  return `${key} ${String(value)}${entry.protocols === undefined ? "" : ` (${entry.protocols.join(", ")})`}`;
}

function denialOf(reason: PathFailure): DenialReason {
  switch (reason) {
    case "malformed":
      return "certificate-malformed";
    case "algorithm":
      return "algorithm-refused";
    case "purpose":
    case "issuer-unknown":
    case "expired":
    case "not-yet-valid":
    case "revoked":
    case "revocation-unknown":
      return reason;
    default:
      return "path-invalid";
  }
}
