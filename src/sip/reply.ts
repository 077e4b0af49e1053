import { asSuiteError, SuiteError, type SuiteErrorCode } from "../pki/suite-error.ts";

/** Failure → status, total (architecture.md §6). */
export function statusOf(code: SuiteErrorCode): { status: number; reason: string } {
  switch (code) {
    case "certificate-malformed":
    case "certificate-invalid":
    case "identity-invalid":
    case "identity-mismatch":
    case "refused-by-peer":
    case "refused-by-policy":
    case "forbidden":
    case "seal-wrong-signer":
    case "seal-untrusted":
    case "seal-not-addressed":
    case "not-sealed":
      return { status: 403, reason: "Forbidden" };
    case "auth-failed":
      return { status: 401, reason: "Unauthorized" };
    case "unknown-recipient":
    case "not-found":
      return { status: 404, reason: "Not Found" };
    case "syntax":
      return { status: 400, reason: "Bad Request" };
    case "unsupported":
      return { status: 415, reason: "Unsupported Media Type" };
    case "limit-exceeded":
    case "seal-too-large":
      return { status: 413, reason: "Request Entity Too Large" };
    case "seal-malformed":
    case "seal-not-for-us":
    case "seal-unsupported":
    case "seal-unreadable":
      return { status: 493, reason: "Undecipherable" };
    case "unreachable":
    case "handshake-failed":
    case "busy":
    case "directory-unavailable":
    case "seal-rate-limited":
    case "quota-exceeded":
    case "cancelled":
      return { status: 503, reason: "Service Unavailable" };
    case "record-rejected":
    case "record-rollback":
    case "record-fork":
    case "recipient-unusable":
    case "source-changed":
    case "conflict":
    case "store-failed":
    case "config-invalid":
    case "internal":
      return { status: 500, reason: "Server Internal Error" };
  }
}

export function statusOfThrown(thrown: unknown): { status: number; reason: string } {
  return statusOf(asSuiteError(thrown).code);
}

/** A peer's final answer to a MESSAGE → what it means for the outbox. 408, 480 and 5xx are worth another try (sip.md §2.7). */
export function failureOf(status: number): SuiteError {
  const details = { status };
  if (status === 404 || status === 604)
    return new SuiteError("unknown-recipient", "the peer's node does not host this person", { fault: "peer", details });
  if (status === 403 || status === 603)
    return new SuiteError("refused-by-peer", "the peer's node refuses the message", { fault: "peer", details });
  if (status === 413 || status === 513)
    return new SuiteError("limit-exceeded", "the message is too large for the peer's node", { fault: "peer", details });
  if (status === 408 || status === 480 || (status >= 500 && status < 600)) {
    return new SuiteError("busy", "the peer's node cannot take the message now", {
      fault: "peer",
      temporary: true,
      details,
    });
  }
  return new SuiteError("syntax", "the peer's node does not take the message", { fault: "peer", details });
}
