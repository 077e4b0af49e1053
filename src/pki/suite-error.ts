/** Who has to act so that it works next time: the other side, this machine, or a service in between. Picks the log level. */
export type Fault = "peer" | "local" | "service";

/** Everything that can go wrong, by name. Closed: each protocol's `reply.ts` maps every code to a wire code. */
export type SuiteErrorCode =
  // certificates and who a peer is
  | "certificate-malformed"
  | "certificate-invalid"
  | "identity-invalid"
  | "identity-mismatch"
  | "refused-by-peer"
  | "refused-by-policy"
  | "unreachable"
  | "handshake-failed"
  // what was said
  | "syntax"
  | "limit-exceeded"
  | "unsupported"
  | "auth-failed"
  | "forbidden"
  | "not-found"
  | "conflict"
  | "busy"
  | "cancelled"
  // the directory
  | "unknown-recipient"
  | "directory-unavailable"
  | "record-rejected"
  | "record-rollback"
  | "record-fork"
  // seals
  | "seal-malformed"
  | "seal-not-for-us"
  | "seal-unsupported"
  | "seal-unreadable"
  | "seal-wrong-signer"
  | "seal-untrusted"
  | "seal-not-addressed"
  | "seal-too-large"
  | "seal-rate-limited"
  | "not-sealed"
  | "recipient-unusable"
  | "source-changed"
  // this machine
  | "store-failed"
  | "quota-exceeded"
  | "config-invalid"
  | "internal";

export interface SuiteErrorOptions {
  fault: Fault;
  /** Whether the same thing may succeed later without anybody changing it; the outbox tries again only then. */
  temporary?: boolean;
  cause?: unknown;
  /** Context for the log, as fields: nobody parses the message. Never a secret, never content. */
  details?: Readonly<Record<string, string | number | boolean>>;
}

/** The one error type that crosses folder borders. The message is a constant sentence; context goes into `details`. */
export class SuiteError extends Error {
  override readonly name = "SuiteError";
  readonly code: SuiteErrorCode;
  readonly fault: Fault;
  readonly temporary: boolean;
  readonly details: Readonly<Record<string, string | number | boolean>>;

  constructor(code: SuiteErrorCode, message: string, options: SuiteErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.fault = options.fault;
    this.temporary = options.temporary ?? false;
    this.details = options.details ?? {};
  }
}

/** Wraps whatever was thrown; a `SuiteError` passes unchanged, all else is a fault of this program. */
export function asSuiteError(thrown: unknown): SuiteError {
  if (thrown instanceof SuiteError) return thrown;
  return new SuiteError("internal", "unexpected failure", { fault: "local", temporary: true, cause: thrown });
}

/** A SuiteError as it crosses a thread. */
export interface WireError {
  code: SuiteErrorCode;
  message: string;
  fault: Fault;
  temporary: boolean;
  details: Record<string, string | number | boolean>;
}

export function toWire({ code, message, fault, temporary, details }: SuiteError): WireError {
  return { code, message, fault, temporary, details: { ...details } };
}

export function fromWire({ code, message, ...options }: WireError): SuiteError {
  return new SuiteError(code, message, options);
}
