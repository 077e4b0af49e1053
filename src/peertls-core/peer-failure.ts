import { SuiteError } from "../pki/suite-error.ts";
import type { DenialReason } from "./verdict.ts";

/** Alerts by which a peer's gate refuses for good; anything else is worth another try. */
const PERMANENT = new Set([42, 43, 44, 45, 46, 48, 49, 116]);

/** OpenSSL's names, for versions whose messages carry no number. */
const BY_NAME: readonly (readonly [RegExp, number])[] = [
  [/BAD_CERTIFICATE/, 42],
  [/UNSUPPORTED_CERTIFICATE/, 43],
  [/CERTIFICATE_REVOKED/, 44],
  [/CERTIFICATE_EXPIRED/, 45],
  [/CERTIFICATE_UNKNOWN/, 46],
  [/UNKNOWN_CA/, 48],
  [/ACCESS_DENIED/, 49],
  [/CERTIFICATE_REQUIRED/, 116],
  [/INTERNAL_ERROR/, 80],
  [/NO_APPLICATION_PROTOCOL/, 120],
];

/** The TLS alert that an error of Node tells of, if it does. */
export function alertNumber(error: Error & { code?: string }): number | undefined {
  const numbered = /alert number (\d+)/.exec(error.message)?.[1];
  if (numbered !== undefined) return Number(numbered);
  const code = error.code ?? "";
  return /ALERT/.test(code) ? BY_NAME.find(([name]) => name.test(code))?.[1] : undefined;
}

/**
 * What the end of a dialled connection means. A refusal counts only from somebody whom we had admitted: before that
 * anybody on the way could have sent it.
 * @param resumed a refusal of a resumed session is tried again in full: the peer may just have lost our chain
 */
export function peerFailure(
  error: (Error & { code?: string }) | undefined,
  admitted: boolean,
  resumed: boolean,
): SuiteError {
  const alert = error === undefined ? undefined : alertNumber(error);
  const details = alert === undefined ? {} : { alert };
  if (admitted && alert !== undefined && PERMANENT.has(alert) && !(resumed && alert === 48)) {
    return new SuiteError("refused-by-peer", "the peer does not admit us", { fault: "peer", details, cause: error });
  }
  if (
    !admitted &&
    (error?.code === "ECONNREFUSED" || error?.code === "EHOSTUNREACH" || error?.code === "ENETUNREACH")
  ) {
    return new SuiteError("unreachable", "the peer cannot be reached", {
      fault: "peer",
      temporary: true,
      cause: error,
    });
  }
  return new SuiteError("handshake-failed", "the connection ended before the peer admitted us", {
    fault: "peer",
    temporary: true,
    details,
    ...(error === undefined ? {} : { cause: error }),
  });
}

/** What our own gate's refusal of somebody we dialled means to whoever dialled. */
export function denied(reason: DenialReason): SuiteError {
  const details = { reason };
  if (reason === "identity-mismatch" || reason === "key-not-published") {
    return new SuiteError("identity-mismatch", "somebody else answers there", {
      fault: "peer",
      temporary: true,
      details,
    });
  }
  if (reason === "blocked" || reason === "not-admitted") {
    return new SuiteError("refused-by-policy", "our own policy refuses this peer", { fault: "local", details });
  }
  return new SuiteError("certificate-invalid", "the peer's certificate is not acceptable", {
    fault: "peer",
    temporary: true,
    details,
  });
}
