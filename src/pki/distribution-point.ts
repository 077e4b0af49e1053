import type { DerElement } from "./der.ts";
import * as der from "./der.ts";
import { type GeneralName, readGeneralNames } from "./general-name.ts";
import { type Name, readName, readRdn, sameName } from "./name.ts";

/** Why a certificate was revoked (RFC 5280 §5.3.1), by code. */
export const crlReasons = {
  0: "unspecified",
  1: "keyCompromise",
  2: "cACompromise",
  3: "affiliationChanged",
  4: "superseded",
  5: "cessationOfOperation",
  6: "certificateHold",
  8: "removeFromCRL",
  9: "privilegeWithdrawn",
  10: "aACompromise",
} as const;

export type CrlReason = (typeof crlReasons)[keyof typeof crlReasons];

/** CRLReason, an ENUMERATED. */
export function encodeReason(reason: CrlReason): Buffer {
  const code = Object.entries(crlReasons).find(([, name]) => name === reason)?.[0] ?? "0";
  return der.encode(der.tag.enumerated, Buffer.of(Number(code)));
}

/** ReasonFlags as a mask, bit n of the BIT STRING as 1 << n; bit 0 means nothing. */
export const allReasons = 0x1fe;

/** Where, and for which reasons, a certificate's revocation is told (RFC 5280 §4.2.1.13). */
export interface DistributionPoint {
  readonly fullName?: readonly GeneralName[];
  /** Content octets of a RelativeDistinguishedName, to be appended to the CRL issuer's name. */
  readonly relativeName?: Uint8Array;
  readonly reasons: number;
  /** Absent: the certificate's own issuer. */
  readonly crlIssuer?: readonly GeneralName[];
}

const maxNames = 64;

/** DistributionPoint ::= SEQUENCE { [0] name, [1] reasons, [2] cRLIssuer }. Throws SuiteError "syntax". */
export function readDistributionPoint(element: DerElement): DistributionPoint {
  const cursor = new der.DerCursor(element);
  const name = cursor.optional(der.contextConstructed(0));
  const reasons = cursor.optional(der.contextPrimitive(1));
  const crlIssuer = cursor.optional(der.contextConstructed(2));
  cursor.end();
  return {
    ...(name === undefined ? {} : readDistributionPointName(name)),
    reasons: reasons === undefined ? allReasons : readReasonFlags(reasons),
    ...(crlIssuer === undefined ? {} : { crlIssuer: readGeneralNames(crlIssuer.content, maxNames) }),
  };
}

/** The content of a DistributionPointName's tag: a CHOICE, so explicitly tagged. */
export function readDistributionPointName(element: DerElement): Pick<DistributionPoint, "fullName" | "relativeName"> {
  const cursor = new der.DerCursor(element);
  const fullName = cursor.optional(der.contextConstructed(0));
  const relativeName = fullName === undefined ? cursor.next(der.contextConstructed(1)) : undefined;
  cursor.end();
  if (fullName !== undefined) return { fullName: readGeneralNames(fullName.content, maxNames) };
  if (relativeName === undefined) return {};
  readRdn(relativeName);
  return { relativeName: relativeName.content };
}

/** ReasonFlags with an implicit tag. */
export function readReasonFlags(element: DerElement): number {
  const { content } = element;
  let mask = 0;
  for (let bit = 1; bit <= 8; bit += 1) if ((content[1 + (bit >> 3)] ?? 0) & (0x80 >> (bit & 7))) mask |= 1 << bit;
  return mask;
}

/** All names of a point, a relative one made whole with the CRL issuer's name. Total. */
export function pointNames(
  point: Pick<DistributionPoint, "fullName" | "relativeName">,
  crlIssuer: Name,
): readonly GeneralName[] {
  if (point.fullName !== undefined) return point.fullName;
  if (point.relativeName === undefined) return [];
  const issuer = der.readDer(crlIssuer.der).content;
  const whole = der.sequence(issuer, der.encode(der.tag.set, point.relativeName));
  try {
    return [{ type: "directoryName", name: readName(der.readDer(whole)) }];
  } catch {
    return [{ type: "other", tag: der.tag.set, bytes: point.relativeName }]; // too long a name: the same as none
  }
}

/** Whether two lists have a name in common. */
export function shareName(a: readonly GeneralName[], b: readonly GeneralName[]): boolean {
  return a.some((one) => b.some((other) => sameGeneralName(one, other)));
}

function sameGeneralName(a: GeneralName, b: GeneralName): boolean {
  if (a.type === "directoryName") return b.type === "directoryName" && sameName(a.name, b.name);
  if (a.type === "uri" || a.type === "rfc822Name" || a.type === "dNSName")
    return b.type === a.type && a.text === b.text;
  return false;
}
