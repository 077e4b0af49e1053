import { asSuiteError, type SuiteError } from "../pki/suite-error.ts";
import type { ErrorCode, Reply } from "./messages.ts";

/** Failure → the protocol's error, total. A more exact code may stand in `details.code`. */
export function errorReply(thrown: unknown): Reply & { type: "err" } {
  const error = asSuiteError(thrown);
  const exact = error.details["code"];
  const retry = error.details["retrySeconds"];
  const code = typeof exact === "string" && EXACT.has(exact) ? (exact as ErrorCode) : codeOf(error);
  return {
    type: "err",
    code,
    text: error.code === "internal" ? "internal error" : error.message,
    ...(typeof retry === "number" ? { retry } : {}),
  };
}

/** Errors after which the connection ends: what follows could not be trusted to be framed. */
export function closes(code: ErrorCode): boolean {
  return code === "bad-frame" || code === "bad-xml" || code === "version" || code === "tls-required";
}

/** The status that EST tells it by (irp.md §2.3). */
export function statusOfError(code: ErrorCode): number {
  return STATUS[code];
}

const STATUS: Readonly<Record<ErrorCode, number>> = {
  "bad-frame": 400,
  "bad-xml": 400,
  version: 400,
  "tls-required": 400,
  "bad-csr": 400,
  "weak-key": 400,
  "key-in-use": 400,
  "auth-required": 401,
  "auth-failed": 401,
  forbidden: 403,
  policy: 403,
  "not-found": 404,
  stale: 409,
  "too-large": 413,
  internal: 500,
  upstream: 502,
  busy: 503,
};

const EXACT = new Set<string>([
  "bad-frame",
  "bad-xml",
  "version",
  "bad-csr",
  "weak-key",
  "key-in-use",
  "policy",
  "too-large",
  "upstream",
  "auth-failed",
]);

function codeOf(error: SuiteError): ErrorCode {
  switch (error.code) {
    case "auth-failed":
      return "auth-failed";
    case "forbidden":
      return "forbidden";
    case "not-found":
    case "unknown-recipient":
      return "not-found";
    case "syntax":
    case "certificate-malformed":
      return "bad-csr";
    case "limit-exceeded":
      return "policy";
    case "conflict":
      return "stale";
    case "busy":
    case "store-failed":
    case "directory-unavailable":
      return "busy";
    case "record-rejected":
      return "forbidden";
    default:
      return "internal";
  }
}
