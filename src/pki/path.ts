import { type AlgorithmPolicy, rsaAllowed, signatureScheme, standardAlgorithms, verifySignature } from "./algorithm.ts";
import type { Certificate } from "./certificate.ts";
import { parseDomain } from "./identity.ts";
import { sameName } from "./name.ts";
import { type ComparisonBudget, type ConstrainedName, constrainedNames, namesAllowed } from "./name-constraint.ts";
import type { Oid } from "./oid.ts";
import { type PolicyQuestion, validPolicies } from "./policy.ts";
import type { SignatureCache } from "./signature-cache.ts";
import type { Window } from "./time.ts";
import { allowsExtendedUsage, allowsPurpose, type Purpose } from "./usage.ts";

/** A certificate that is trusted because somebody configured it; `name` is what logs call it. */
export interface TrustAnchor {
  readonly name: string;
  readonly certificate: Certificate;
}

export type PathFailure =
  | "malformed"
  | "algorithm"
  | "purpose"
  | "issuer-unknown"
  | "expired"
  | "not-yet-valid"
  | "revoked"
  | "revocation-unknown"
  | "signature"
  | "not-a-ca"
  | "path-length"
  | "key-usage"
  | "name-constraints"
  | "policy"
  | "critical-extension"
  | "too-complex";

export type PathResult =
  /** `at`: which certificate failed, 0 = the leaf. */
  | { readonly ok: false; readonly reason: PathFailure; readonly at: number }
  | {
      readonly ok: true;
      /** The leaf first, the anchor's certificate last. */
      readonly path: readonly Certificate[];
      readonly anchor: TrustAnchor;
      /** When the whole path is within its validity: a kept result is judged again by comparing with it. */
      readonly window: Window;
      /** Certificate policies that the path is good for. */
      readonly policies: readonly Oid[];
    };

export interface PathQuestion {
  readonly leaf: Certificate;
  /** Certificates that may serve as intermediates, in any order; whoever sent them is not trusted. */
  readonly candidates: readonly Certificate[];
  /** More of them, tried after those. */
  readonly pool?: CandidatePool;
  readonly anchors: readonly TrustAnchor[];
  readonly time: Date;
  readonly purpose: Purpose;
  /** `standardAlgorithms` if absent. */
  readonly algorithms?: AlgorithmPolicy;
  /** The leaf's key has just been used, as in a TLS handshake: it need not be loaded to see that it can be. */
  readonly keyProven?: boolean;
  /** Absent: any policy will do, or none. */
  readonly policies?: PolicyQuestion;
  /** Asked of each certificate below the anchor, once its path is good otherwise; not asked for if absent. */
  readonly revocation?: RevocationCheck;
  /** Spares computing the signatures of CA certificates again; without it every one is computed. */
  readonly cache?: SignatureCache;
}

/** Candidates too many to be gone through for each path. */
export interface CandidatePool {
  /** @param subject the `key` of the name that the certificates have to bear */
  named(subject: string): Iterable<Certificate>;
}

/** @param issuer the certificate above it in its path */
export type RevocationCheck = (
  certificate: Certificate,
  issuer: Certificate,
  anchor: TrustAnchor,
) => "revoked" | "revocation-unknown" | undefined;

const maxIntermediates = 8;
const maxSignatureChecks = 64;
const maxNameComparisons = 100_000;

/**
 * Builds a path from the leaf to one of the anchors and validates it (RFC 5280 §6.1); the first good one wins. If there
 * is none, the reason is that of the attempt that came furthest. Total: never throws.
 */
export function validatePath(question: PathQuestion): PathResult {
  try {
    return new PathSearch(question).run();
  } catch {
    return { ok: false, reason: "malformed", at: 0 };
  }
}

/**
 * Whether one of the certificate's dNSNames is this name (RFC 9525 §6.3): case and U-labels aside exactly. No wildcards,
 * no common name.
 */
export function serverNameMatches(certificate: Certificate, dnsName: string): boolean {
  let expected: string;
  try {
    expected = parseDomain(dnsName);
  } catch {
    return false;
  }
  return certificate.subjectAltNames.some((name) => name.type === "dNSName" && name.text.toLowerCase() === expected);
}

/** A certificate that could be the issuer; an anchor ends the path. */
interface Issuer {
  readonly certificate: Certificate;
  readonly anchor?: TrustAnchor;
}

class PathSearch {
  private readonly question: PathQuestion;
  private readonly algorithms: AlgorithmPolicy;
  private readonly bySubject = new Map<string, Issuer[]>();
  private readonly comparisons: ComparisonBudget = { left: maxNameComparisons };
  private signatureChecks = 0;
  private failure: PathResult & { ok: false } = { ok: false, reason: "issuer-unknown", at: 0 };
  private failureWeight = 0;

  constructor(question: PathQuestion) {
    this.question = question;
    this.algorithms = question.algorithms ?? standardAlgorithms;
    for (const anchor of question.anchors) this.offer({ certificate: anchor.certificate, anchor });
    for (const certificate of question.candidates) this.offer({ certificate });
  }

  run(): PathResult {
    const { leaf, anchors, purpose } = this.question;
    if (!this.keyAllowed(leaf)) return { ok: false, reason: "algorithm", at: 0 };
    if (!allowsPurpose(leaf, purpose)) return { ok: false, reason: "purpose", at: 0 };
    const failure = this.judgeAny(leaf);
    if (failure !== undefined) return { ok: false, reason: failure, at: 0 };
    const anchor = anchors.find(({ certificate }) => Buffer.compare(certificate.der, leaf.der) === 0);
    const result: PathResult =
      anchor !== undefined
        ? { ok: true, path: [leaf], anchor, window: leaf.validity, policies: [] }
        : (this.extend([leaf], leaf) ?? this.failure);
    // A CA may have signed a key that is none, as a point off its curve: whoever asks for it next would be thrown at.
    if (result.ok && this.question.keyProven !== true && !keyLoads(leaf))
      return { ok: false, reason: "malformed", at: 0 };
    if (result.ok) this.question.cache?.keep(result.path);
    return result;
  }

  /** Depth first: tries every issuer of `last`, the end of `path`. Undefined: none leads to a good path. */
  private extend(path: readonly Certificate[], last: Certificate): PathResult | undefined {
    const at = path.length - 1;
    const issuers = this.issuersOf(last, path);
    if (issuers.length === 0) this.note("issuer-unknown", at, 0);
    for (const { certificate, anchor } of issuers) {
      if (anchor === undefined && path.length > maxIntermediates) {
        this.note("too-complex", at, 2);
        continue;
      }
      const unfit = this.judgeIssuer(certificate);
      if (unfit !== undefined) {
        this.note(unfit, path.length, 1);
        continue;
      }
      const unsigned = this.judgeSignature(last, certificate);
      if (unsigned === "too-complex") return { ok: false, reason: "too-complex", at };
      if (unsigned !== undefined) {
        // Another key under a known name, and it says so: the true issuer is one that we do not have.
        if (unsigned === "signature" && keyIdentifiers(last, certificate) === "differ")
          this.note("issuer-unknown", at, 0);
        else this.note(unsigned, at, 1);
        continue;
      }
      const longer = [...path, certificate];
      const result = anchor === undefined ? this.extend(longer, certificate) : this.complete(longer, anchor);
      if (result?.ok || result?.reason === "too-complex") return result;
      if (result !== undefined) this.note(result.reason, result.at, 3);
    }
    return undefined;
  }

  /** What can be judged only with the whole path in hand (RFC 5280 §6.1.3, §6.1.4). */
  private complete(path: readonly Certificate[], anchor: TrustAnchor): PathResult {
    const names: ConstrainedName[][] = []; // read only where a constraint asks for them
    const namesOf = (certificate: Certificate, at: number) =>
      (names[at] ??= at > 0 && isSelfIssued(certificate) ? [] : constrainedNames(certificate));
    for (let i = path.length - 1; i > 0; i--) {
      const issuer = path[i];
      const pathLength = issuer?.basicConstraints?.pathLength;
      const below = () => path.slice(1, i).filter((certificate) => !isSelfIssued(certificate)).length;
      if (pathLength !== undefined && below() > pathLength) return { ok: false, reason: "path-length", at: i };
      if (issuer?.nameConstraints === undefined) continue;
      for (let at = i - 1; at >= 0; at--) {
        const certificate = path[at];
        if (certificate === undefined) continue;
        const allowed = namesAllowed(namesOf(certificate, at), issuer.nameConstraints, this.comparisons);
        if (allowed !== true) return { ok: false, reason: allowed || "name-constraints", at };
      }
    }
    const policies = validPolicies(path, this.question.policies ?? {});
    if (policies === undefined) return { ok: false, reason: "policy", at: 0 };
    const { revocation } = this.question;
    for (let at = path.length - 2; revocation !== undefined && at >= 0; at--) {
      const [certificate, issuer] = [path[at], path[at + 1]];
      if (certificate === undefined || issuer === undefined) break;
      const reason = revocation(certificate, issuer, anchor);
      if (reason !== undefined) return { ok: false, reason, at };
    }
    return { ok: true, path, anchor, window: intersection(path), policies };
  }

  private judgeIssuer(certificate: Certificate): PathFailure | undefined {
    if (!this.keyAllowed(certificate)) return "algorithm";
    if (!isAuthority(certificate, this.question.anchors)) return "not-a-ca";
    if (certificate.keyUsage?.has("keyCertSign") === false) return "key-usage";
    if (!allowsExtendedUsage(certificate, this.question.purpose)) return "purpose";
    return this.judgeAny(certificate);
  }

  private judgeAny(certificate: Certificate): PathFailure | undefined {
    if (certificate.criticalUnknown.length > 0) return "critical-extension";
    if (this.question.time > certificate.validity.notAfter) return "expired";
    if (this.question.time < certificate.validity.notBefore) return "not-yet-valid";
    return undefined;
  }

  private judgeSignature(subject: Certificate, issuer: Certificate): PathFailure | undefined {
    const { algorithmsAgree, signatureAlgorithm, tbs, signature } = subject;
    if (!algorithmsAgree || signatureScheme(signatureAlgorithm, this.algorithms) === undefined) return "algorithm";
    if (++this.signatureChecks > maxSignatureChecks) return "too-complex"; // known ones too: the search has to end
    if (this.question.cache?.has(subject, issuer)) return undefined;
    try {
      const good = verifySignature(signatureAlgorithm, issuer.publicKey, tbs, signature, this.algorithms);
      return good ? undefined : "signature";
    } catch {
      return "signature"; // the issuer's key cannot be loaded: nothing is signed by it
    }
  }

  private keyAllowed({ key }: Certificate): boolean {
    if (key.rsaBits !== undefined) return rsaAllowed(key.rsaBits, key.rsaExponent ?? 0, this.algorithms);
    return key.keyType !== "other";
  }

  private offer(issuer: Issuer): void {
    const subject = issuer.certificate.subject.key;
    const alike = this.bySubject.get(subject);
    if (alike === undefined) this.bySubject.set(subject, [issuer]);
    else alike.push(issuer);
  }

  /** Whose name is the issuer's, whose key is not in the path yet; the likely ones first. */
  private issuersOf(certificate: Certificate, path: readonly Certificate[]): Issuer[] {
    const { key } = certificate.issuer;
    const named = [...(this.bySubject.get(key) ?? [])];
    for (const pooled of this.question.pool?.named(key) ?? []) named.push({ certificate: pooled });
    const fresh = named.filter((issuer) => !path.some((earlier) => sameSubject(earlier, issuer.certificate)));
    if (fresh.length < 2) return fresh;
    return fresh.toSorted((a, b) => likelihood(b, certificate) - likelihood(a, certificate));
  }

  /** Keeps the failure of the attempt that came furthest, of equals the first. */
  private note(reason: PathFailure, at: number, weight: number): void {
    if (weight < this.failureWeight || (weight === this.failureWeight && at <= this.failure.at)) return;
    this.failure = { ok: false, reason, at };
    this.failureWeight = weight;
  }
}

/** A hint (RFC 5280 §4.2.1.1): a mismatch comes last, but is tried. */
function likelihood({ certificate, anchor }: Issuer, subject: Certificate): number {
  return likelihoods[keyIdentifiers(subject, certificate)] + (anchor === undefined ? 0 : 1);
}

const likelihoods = { agree: 4, unknown: 2, differ: 0 } as const;

function keyIdentifiers(subject: Certificate, issuer: Certificate): "agree" | "differ" | "unknown" {
  if (subject.authorityKeyId === undefined || issuer.subjectKeyId === undefined) return "unknown";
  return Buffer.compare(subject.authorityKeyId, issuer.subjectKeyId) === 0 ? "agree" : "differ";
}

/** An anchor of version 1 knows no extensions and is a CA because it was configured. */
function isAuthority(certificate: Certificate, anchors: readonly TrustAnchor[]): boolean {
  if (certificate.basicConstraints !== undefined) return certificate.basicConstraints.ca;
  return anchors.some((anchor) => anchor.certificate === certificate);
}

function keyLoads(certificate: Certificate): boolean {
  try {
    return certificate.publicKey.type === "public";
  } catch {
    return false;
  }
}

function isSelfIssued(certificate: Certificate): boolean {
  return sameName(certificate.issuer, certificate.subject);
}

function sameSubject(a: Certificate, b: Certificate): boolean {
  return Buffer.compare(a.spki, b.spki) === 0 && sameName(a.subject, b.subject);
}

function intersection(path: readonly Certificate[]): Window {
  const starts = path.map(({ validity }) => validity.notBefore.getTime());
  const ends = path.map(({ validity }) => validity.notAfter.getTime());
  return { notBefore: new Date(Math.max(...starts)), notAfter: new Date(Math.min(...ends)) };
}
