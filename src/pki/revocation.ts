import { type AlgorithmPolicy, standardAlgorithms } from "./algorithm.ts";
import type { Certificate } from "./certificate.ts";
import type { RevocationList } from "./crl.ts";
import { allReasons, type CrlReason, type DistributionPoint, pointNames, shareName } from "./distribution-point.ts";
import type { GeneralName } from "./general-name.ts";
import { sameName } from "./name.ts";
import { type RevocationCheck, type TrustAnchor, validatePath } from "./path.ts";

/** What the lists say of one certificate. */
export type RevocationStatus =
  | { readonly status: "good" }
  | { readonly status: "revoked"; readonly reason: CrlReason; readonly since: Date }
  /** There are lists, but they are past their nextUpdate and the grace. */
  | { readonly status: "stale" }
  /** No list speaks of it, or not of all reasons. */
  | { readonly status: "unknown" };

export interface RevocationLists {
  readonly lists: readonly RevocationList[];
  /** Certificates among which a list's own signer may be, and those of its path. */
  readonly signers: readonly Certificate[];
  readonly time: Date;
  /** How long a list counts past its nextUpdate. */
  readonly graceMs: number;
  readonly algorithms?: AlgorithmPolicy;
}

/** Signers whose own path is being looked for: a list may be what tells that its own signer is not revoked. */
type Asking = ReadonlySet<Certificate>;

const maxSigners = 4;
/** Who signs lists and answers may have a clock that is ahead of ours. */
export const clockSkewMs = 300_000;

/**
 * Whether a certificate is revoked (RFC 5280 §6.3.3): over its distribution points, then over its issuer's own lists, until
 * every reason is covered. An entry in a list that is too old still counts.
 * @param issuer the certificate above it in its path
 */
export function revocationOf(
  certificate: Certificate,
  issuer: Certificate,
  anchor: TrustAnchor,
  o: RevocationLists,
  asking: Asking = new Set(),
): RevocationStatus {
  let uncovered = allReasons;
  let stale = false;
  const own: DistributionPoint = {
    fullName: [{ type: "directoryName", name: certificate.issuer }],
    reasons: allReasons,
  };
  for (const point of [...(certificate.distributionPoints ?? []), own]) {
    for (const list of o.lists) {
      if (list.deltaBase !== undefined || !speaksOf(list, point, certificate)) continue;
      const covers = list.scope.reasons & point.reasons & uncovered;
      if (covers === 0 || !trusted(list, issuer, anchor, o, asking)) continue;
      const fits = (delta: RevocationList) =>
        isDeltaOf(delta, list) && current(delta, o) && trusted(delta, issuer, anchor, o, asking);
      const delta = o.lists.filter(fits).sort(byNumber)[0];
      const entry =
        delta?.find(certificate.serial, certificate.issuer) ?? list.find(certificate.serial, certificate.issuer);
      if (entry !== undefined && entry.reason !== "removeFromCRL") return { status: "revoked", ...entry };
      if (current(list, o)) uncovered &= ~covers;
      else stale = true;
      if (uncovered === 0) return { status: "good" };
    }
  }
  return { status: stale ? "stale" : "unknown" };
}

/** For `validatePath`: who is not found good has no good path. */
export function requireRevocation(o: RevocationLists, asking: Asking = new Set()): RevocationCheck {
  return (certificate, issuer, anchor) => {
    const { status } = revocationOf(certificate, issuer, anchor, o, asking);
    if (status === "revoked") return "revoked";
    return status === "good" ? undefined : "revocation-unknown";
  };
}

/** Whether the list is one that the distribution point means, and may speak of such a certificate. */
function speaksOf(list: RevocationList, point: DistributionPoint, certificate: Certificate): boolean {
  if (list.criticalUnknown.length > 0) return false;
  const { scope } = list;
  const ca = certificate.basicConstraints?.ca === true;
  if (scope.only === "attribute" || (scope.only === "user" && ca) || (scope.only === "ca" && !ca)) return false;
  const listIssuer: GeneralName = { type: "directoryName", name: list.issuer };
  if (point.crlIssuer === undefined) {
    if (!sameName(list.issuer, certificate.issuer)) return false;
  } else if (!scope.indirect || !shareName([listIssuer], point.crlIssuer)) return false;
  const told = pointNames(scope, list.issuer);
  if (told.length === 0) return true;
  const named = pointNames(point, list.issuer);
  return shareName(told, named.length > 0 ? named : (point.crlIssuer ?? []));
}

/** RFC 5280 §6.3.3 (c): same issuer, scope and key, and built on the complete list or an earlier one. */
function isDeltaOf(delta: RevocationList, base: RevocationList): boolean {
  if (delta.deltaBase === undefined || base.number === undefined || delta.number === undefined) return false;
  if (delta.criticalUnknown.length > 0 || !sameName(delta.issuer, base.issuer)) return false;
  if (base.number < delta.deltaBase || base.number >= delta.number) return false;
  const keys = [delta.authorityKeyId ?? new Uint8Array(), base.authorityKeyId ?? new Uint8Array()] as const;
  if (Buffer.compare(...keys) !== 0) return false;
  const { scope: a } = delta;
  const { scope: b } = base;
  if (a.only !== b.only || a.reasons !== b.reasons || a.indirect !== b.indirect) return false;
  const [namesA, namesB] = [pointNames(a, delta.issuer), pointNames(b, base.issuer)];
  return namesA.length === namesB.length && (namesA.length === 0 || shareName(namesA, namesB));
}

function byNumber(a: RevocationList, b: RevocationList): number {
  return (b.number ?? 0n) > (a.number ?? 0n) ? 1 : -1;
}

function current(list: RevocationList, { time, graceMs }: RevocationLists): boolean {
  return (
    list.thisUpdate.getTime() <= time.getTime() + clockSkewMs &&
    list.nextUpdate !== undefined &&
    time.getTime() <= list.nextUpdate.getTime() + graceMs
  );
}

/** Signed by the issuer itself, or by another certificate with the list's name, cRLSign, and a path to the same anchor. */
function trusted(
  list: RevocationList,
  issuer: Certificate,
  anchor: TrustAnchor,
  o: RevocationLists,
  asking: Asking,
): boolean {
  const algorithms = o.algorithms ?? standardAlgorithms;
  const signs = (one: Certificate) =>
    sameName(one.subject, list.issuer) && one.keyUsage?.has("cRLSign") !== false && list.signedBy(one, algorithms);
  if (signs(issuer) || signs(anchor.certificate)) return true;
  if (asking.size >= maxSigners) return false;
  return o.signers.some((signer) => {
    if (!signs(signer)) return false;
    if (asking.has(signer)) return true;
    const result = validatePath({
      leaf: signer,
      candidates: o.signers,
      anchors: [anchor],
      time: o.time,
      purpose: "any",
      algorithms,
      revocation: requireRevocation(o, new Set([...asking, signer])),
    });
    return result.ok;
  });
}
