import type { SuiteError } from "../pki/suite-error.ts";
import type { FailedReason, HeldReason } from "./envelope.ts";

/** What a failed attempt means, and for whom: the row alone, all of the peer, or everybody whose directory is away. */
export type Outcome =
  | { for: "row"; next: "again" }
  | { for: "row"; next: "failed"; reason: FailedReason }
  | { for: "peer"; next: "again" }
  | { for: "peer"; next: "held"; reason: HeldReason }
  | { for: "peer"; next: "record-rejected" }
  | { for: "directory"; next: "again" };

const ROW_AGAIN: Outcome = { for: "row", next: "again" };
const PEER_AGAIN: Outcome = { for: "peer", next: "again" };

/** The one place where a failure becomes a next state. Total: a new code does not compile until it has a line here. */
export function outcomeOf(error: SuiteError): Outcome {
  switch (error.code) {
    case "unreachable":
    case "handshake-failed":
      return PEER_AGAIN;
    case "certificate-invalid":
    case "certificate-malformed":
      // Expired or not yet published: the peer renews it; a wrong person's certificate is identity-mismatch.
      return PEER_AGAIN;
    case "identity-mismatch":
      return { for: "peer", next: "held", reason: "identity-mismatch" };
    case "refused-by-peer":
      return { for: "peer", next: "held", reason: "not-admitted" };
    case "directory-unavailable":
      return error.fault === "peer" ? ROW_AGAIN : { for: "directory", next: "again" };
    case "record-rejected":
    case "record-rollback":
    case "record-fork":
      return { for: "peer", next: "record-rejected" };
    case "unknown-recipient":
    case "identity-invalid":
      return failedUnless(error, "unknown");
    case "refused-by-policy":
      return failedUnless(error, "policy");
    case "limit-exceeded":
    case "quota-exceeded":
    case "seal-too-large":
      return failedUnless(error, "too-big");
    case "syntax":
    case "unsupported":
      return failedUnless(error, "syntax");
    case "seal-malformed":
    case "seal-not-for-us":
    case "seal-unsupported":
    case "seal-unreadable":
    case "seal-wrong-signer":
    case "seal-untrusted":
    case "seal-not-addressed":
    case "seal-rate-limited":
    case "not-sealed":
      return failedUnless(error, "seal-rejected");
    case "auth-failed":
    case "forbidden":
    case "not-found":
    case "conflict":
    case "source-changed":
      return failedUnless(error, "refused");
    case "recipient-unusable": // no certificate to seal to now: the peer renews it, or the row expires
    case "busy":
    case "cancelled":
    case "store-failed":
    case "config-invalid":
    case "internal":
      return ROW_AGAIN;
  }
}

function failedUnless(error: SuiteError, reason: FailedReason): Outcome {
  return error.temporary ? ROW_AGAIN : { for: "row", next: "failed", reason };
}
