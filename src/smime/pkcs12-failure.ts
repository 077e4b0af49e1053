import { asSuiteError, SuiteError } from "../pki/suite-error.ts";

/** Not a PKCS#12 file, or one past a limit. */
export function p12Malformed(what: string, cause?: unknown): SuiteError {
  return new SuiteError("syntax", malformed, {
    fault: "local",
    details: { what },
    ...(cause === undefined ? {} : { cause }),
  });
}

/** A PKCS#12 file of a kind that is known not to be read here. */
export function p12Unsupported(what: string): SuiteError {
  return new SuiteError("unsupported", unsupported, {
    fault: "local",
    details: { what },
  });
}

/** The MAC tells no more than that. */
export function p12WrongPassphrase(): SuiteError {
  return new SuiteError("auth-failed", wrong, { fault: "local" });
}

/** What an aborted signal throws: its reason if that says what it is, else `cancelled`. */
export function p12Cancelled(signal: AbortSignal): SuiteError {
  if (signal.reason instanceof SuiteError) return signal.reason;
  return new SuiteError("cancelled", "cancelled while a key file was read or written", {
    fault: "local",
    cause: signal.reason,
  });
}

/** What the parsers below threw, in the words of this file format. */
export function asP12Failure(thrown: unknown): SuiteError {
  const error = asSuiteError(thrown);
  if (own.has(error.message) || ["internal", "cancelled"].includes(error.code)) return error;
  return p12Malformed(String(error.details["what"] ?? error.code), thrown);
}

const malformed = "not a well-formed PKCS#12 file";
const unsupported = "the PKCS#12 file uses what this program does not read";
const wrong = "the passphrase is not the right one, or the file is damaged";
const own: ReadonlySet<string> = new Set([malformed, unsupported, wrong]);
