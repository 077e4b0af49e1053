import type { Fingerprint, PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { PathResult } from "../pki/path.ts";
import type { PeerAddress, Protocol } from "./connection.ts";

/** TLS alert descriptions (RFC 8446 §6) and the reasons that send them; `null`: the connection is just destroyed. */
const ALERTS = {
  "no-certificate": 116,
  "certificate-malformed": 42,
  "path-invalid": 42,
  "identity-mismatch": 42,
  "algorithm-refused": 43,
  purpose: 43,
  "no-identity": 46,
  "name-out-of-scope": 46,
  "key-not-published": 46,
  "revocation-unknown": 46,
  blocked: 49,
  "not-admitted": 49,
  expired: 45,
  "not-yet-valid": 45,
  revoked: 44,
  "issuer-unknown": 48,
  "protocol-unknown": 120,
  busy: 80,
  "gate-failure": 80,
} as const;

export type DenialReason = keyof typeof ALERTS;

/** The alert that a denied peer is sent. `blocked` and `not-admitted` share one, so that nobody learns which it was. */
export function alertOf(reason: DenialReason): number {
  return ALERTS[reason];
}

export const DENIAL_REASONS = Object.keys(ALERTS) as readonly DenialReason[];

/** What is known of the revocation of a path's certificates; of several the worst. */
export type RevocationState =
  /** No list is named, or none was ever fetched. */
  | { status: "unchecked" }
  | { status: "good" }
  /** The last list is older than its grace: nobody knows. */
  | { status: "unknown" }
  /** `at`: which certificate, 0 = the leaf. */
  | { status: "revoked"; at: number; since: Date };

/** All that the gate may know about somebody who wants in, or whom we dialled. */
export interface Approach {
  direction: "in" | "out";
  protocol: Protocol | "request";
  certificate: PeerCertificate;
  path: PathResult;
  revocation: RevocationState;
  address: PeerAddress;
  time: Date;
  resumed: boolean;
  /** Set when dialling: the person we want and the keys that the person's record lists. */
  expected?: { identity: Identity; fingerprints: readonly Fingerprint[] };
}

export type AdmissionRule = "allow" | "organisation" | "contact" | "dialled" | "request";

export type Verdict =
  | { admit: false; reason: DenialReason; entry?: string }
  | { admit: true; by: { rule: AdmissionRule; entry: string }; identity: Identity };
