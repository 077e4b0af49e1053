import { sign, signatureAlgorithmFor } from "./algorithm.ts";
import * as der from "./der.ts";
import { allReasons, type CrlReason, encodeReason } from "./distribution-point.ts";
import { encodeExtension } from "./extension.ts";
import { encodeDirectoryName, encodeUri } from "./general-name.ts";
import { type Issuer, keyIdentifier } from "./issue.ts";
import { crlEntryExtension, crlExtension } from "./oid.ts";

export interface RevokedTemplate {
  /** Content octets of the certificate's serial number. */
  readonly serial: Uint8Array;
  readonly since: Date;
  /** "removeFromCRL" only in a delta. */
  readonly reason?: CrlReason;
  /** DER of the Name of its issuer, in an indirect list; stands for the entries that follow, too. */
  readonly issuer?: Uint8Array;
}

/** What a list is about, where it is not about all that its issuer certified (RFC 5280 §5.2.5). */
export interface ScopeTemplate {
  readonly urls?: readonly string[];
  readonly only?: "user" | "ca";
  /** A mask, bit n of ReasonFlags as 1 << n. */
  readonly reasons?: number;
  readonly indirect?: boolean;
}

export interface RevocationListTemplate {
  readonly issuer: Issuer;
  readonly entries: readonly RevokedTemplate[];
  /** Grows with every list, complete ones and deltas alike. */
  readonly number: number | bigint;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date;
  /** Number of the complete list to which this one adds. */
  readonly delta?: number | bigint;
  readonly scope?: ScopeTemplate;
}

/** Signs a revocation list, version 2 (RFC 5280 §5), as DER. */
export function issueRevocationList(o: RevocationListTemplate): Buffer {
  const { certificate, privateKey } = o.issuer;
  const algorithm = signatureAlgorithmFor(privateKey).der;
  // An absent list and an empty one are not the same: RFC 5280 §5.1.2.6 wants it absent.
  const entries = o.entries.length === 0 ? [] : [der.sequence(Buffer.concat(o.entries.map(encodeEntry)))];
  const tbs = der.sequence(
    der.integer(1),
    algorithm,
    certificate.subjectDer,
    der.time(o.thisUpdate),
    der.time(o.nextUpdate),
    ...entries,
    der.explicit(0, der.sequence(...extensions(o))),
  );
  return der.sequence(tbs, algorithm, der.bitString(sign(privateKey, tbs)));
}

function extensions({ issuer: { certificate }, number, delta, scope }: RevocationListTemplate): Buffer[] {
  const keyId = certificate.subjectKeyId ?? keyIdentifier(certificate.spki);
  const made = [
    encodeExtension(crlExtension.authorityKeyIdentifier, false, der.sequence(der.implicitPrimitive(0, keyId))),
    encodeExtension(crlExtension.crlNumber, false, der.integer(number)),
  ];
  if (delta !== undefined) made.push(encodeExtension(crlExtension.deltaCrlIndicator, true, der.integer(delta)));
  if (scope !== undefined) made.push(encodeExtension(crlExtension.issuingDistributionPoint, true, encodeScope(scope)));
  return made;
}

function encodeScope({ urls = [], only, reasons = allReasons, indirect = false }: ScopeTemplate): Buffer {
  const yes = Buffer.of(0xff);
  return der.sequence(
    ...(urls.length === 0 ? [] : [der.implicitConstructed(0, der.implicitConstructed(0, ...urls.map(encodeUri)))]),
    ...(only === "user" ? [der.implicitPrimitive(1, yes)] : []),
    ...(only === "ca" ? [der.implicitPrimitive(2, yes)] : []),
    ...(reasons === allReasons ? [] : [der.implicitPrimitive(3, reasonFlags(reasons))]),
    ...(indirect ? [der.implicitPrimitive(4, yes)] : []),
  );
}

/** Content of the shortest BIT STRING. */
function reasonFlags(mask: number): Buffer {
  const octets = Buffer.alloc(3);
  let last = 0;
  for (let bit = 1; bit <= 8; bit += 1) {
    if ((mask & (1 << bit)) === 0) continue;
    octets[1 + (bit >> 3)] = (octets[1 + (bit >> 3)] ?? 0) | (0x80 >> (bit & 7));
    last = bit;
  }
  octets[0] = 7 - (last & 7);
  return octets.subarray(0, 2 + (last >> 3));
}

function encodeEntry({ serial, since, reason = "unspecified", issuer }: RevokedTemplate): Buffer {
  const made: Buffer[] = [];
  // RFC 5280 §5.3.1: "unspecified" is said by saying nothing.
  if (reason !== "unspecified") made.push(encodeExtension(crlEntryExtension.reasonCode, false, encodeReason(reason)));
  if (issuer !== undefined) {
    const names = der.sequence(encodeDirectoryName(issuer));
    made.push(encodeExtension(crlEntryExtension.certificateIssuer, true, names));
  }
  return der.sequence(der.integer(serial), der.time(since), ...(made.length === 0 ? [] : [der.sequence(...made)]));
}
