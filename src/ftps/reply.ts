import { SuiteError, type SuiteErrorCode } from "../pki/suite-error.ts";

/** One reply of a server: the code and its text, or the lines of a multi-line reply (RFC 959 §4.2). */
export interface Reply {
  code: number;
  text: string | readonly string[];
}

/** Texts that programs match on, exactly so (ftps.md §2.4). */
export const REPLIES = {
  loginFirst: reply(530, "Log in with USER and PASS first."),
  authFirst: reply(530, "Use AUTH TLS first: a password is not taken in clear."),
  notAuthenticated: reply(530, "Authentication failed."),
  userFirst: reply(503, "Login with USER first."),
  alreadyIn: reply(503, "User already authenticated."),
  renameFirst: reply(503, "Bad sequence of commands: use RNFR first."),
  needsArgument: reply(501, "Syntax error: command needs an argument."),
  needsNoArgument: reply(501, "Syntax error: command does not accept arguments."),
  lineTooLong: reply(500, "Command too long."),
  notUtf8: reply(501, "Syntax error: not UTF-8."),
  noSuchFile: reply(550, "No such file or directory."),
  notFolder: reply(550, "Not a directory."),
  noPrivilege: reply(550, "Not enough privileges."),
  sizeInAscii: reply(550, "SIZE not allowed in ASCII mode."),
  noGlobbing: reply(550, "Globbing not supported."),
  restInAscii: reply(501, "Resuming transfers not allowed in ASCII mode."),
  restInvalid: reply(501, "Invalid parameter."),
  optsUnknown: reply(501, "Unsupported command."),
  optsInvalid: reply(501, "Invalid argument."),
  unknownHelp: reply(501, "Unrecognized command."),
  structure: reply(501, "Unrecognized STRU type."),
  structureOther: reply(504, "Unimplemented STRU type."),
  mode: reply(501, "Unrecognized MODE type."),
  modeOther: reply(504, "Unimplemented MODE type."),
  epsvOnly: reply(501, "Only EPSV is allowed after EPSV ALL."),
  noActive: reply(502, "Active mode is off: use EPSV."),
  onlyEpsv: reply(502, "Use EPSV."),
  noDataPort: reply(425, "Use EPSV first."),
  dataFailed: reply(425, "Can't open data connection."),
  needsProtection: reply(521, "Data connections need PROT P."),
  aborted: reply(426, "Connection closed; transfer aborted."),
  abortDone: reply(226, "ABOR command successful."),
  abortNothing: reply(225, "No transfer to abort."),
  fileStatus: reply(150, "File status okay; about to open data connection."),
  complete: reply(226, "Transfer complete."),
  idle: reply(421, "Control connection timed out."),
  stopping: reply(421, "Service not available, closing control connection."),
  goodbye: reply(221, "Goodbye."),
} satisfies Record<string, Reply>;

export function reply(code: number, text: string | readonly string[]): Reply {
  return { code, text };
}

/**
 * The bytes of a reply. Of several lines the inner ones begin with a space, so that none looks like the last; what a program
 * said and is told again ends no line.
 */
export function formatReply({ code, text }: Reply): string {
  if (typeof text === "string") return `${code} ${visible(text)}\r\n`;
  const last = text.length - 1;
  return text
    .map(visible)
    .map((line, at) => (at === last ? `${code} ${line}` : at === 0 ? `${code}-${line}` : ` ${line}`))
    .map((line) => `${line}\r\n`)
    .join("");
}

function visible(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f]/g, "?");
}

/** Failure → reply, total (architecture.md §6): a new code does not compile until it has a line here. */
export function replyOf(code: SuiteErrorCode): Reply {
  switch (code) {
    case "certificate-malformed":
    case "certificate-invalid":
    case "identity-mismatch":
    case "refused-by-peer":
    case "refused-by-policy":
      return reply(530, "Not allowed.");
    case "auth-failed":
      return REPLIES.notAuthenticated;
    case "unreachable":
    case "handshake-failed":
      return REPLIES.dataFailed;
    case "cancelled":
      return REPLIES.aborted;
    case "syntax":
      return reply(501, "Syntax error in parameters or arguments.");
    case "unsupported":
      return reply(504, "Command not implemented for that parameter.");
    case "limit-exceeded":
    case "seal-too-large":
      return reply(552, "Exceeded storage allocation.");
    case "identity-invalid":
    case "unknown-recipient":
    case "not-found":
      return REPLIES.noSuchFile;
    case "forbidden":
      return REPLIES.noPrivilege;
    case "conflict":
    case "busy":
      return reply(450, "File busy.");
    case "directory-unavailable":
    case "record-rejected":
    case "record-rollback":
    case "record-fork":
      return reply(451, "The directory is not available.");
    case "seal-malformed":
    case "seal-not-for-us":
    case "seal-unsupported":
    case "seal-unreadable":
    case "seal-wrong-signer":
    case "seal-untrusted":
    case "seal-not-addressed":
    case "not-sealed":
      return reply(553, "Seal not accepted.");
    case "seal-rate-limited":
      return reply(451, "Try again later.");
    case "store-failed":
    case "quota-exceeded":
      return reply(452, "Insufficient storage space.");
    case "recipient-unusable":
    case "source-changed":
    case "config-invalid":
    case "internal":
      return reply(451, "Local error in processing.");
  }
}

/** What a peer's refusal means for the outbox (ftps.md §2.7). */
export function failureOf(code: number): SuiteError {
  const details = { reply: code };
  if (code === 553)
    return new SuiteError("seal-unreadable", "the peer's node does not accept the seal", { fault: "peer", details });
  if (code === 552)
    return new SuiteError("limit-exceeded", "the file is too large for the peer's node", { fault: "peer", details });
  if (code === 550)
    return new SuiteError("forbidden", "the peer's node does not take the file", { fault: "peer", details });
  if (code === 530)
    return new SuiteError("refused-by-policy", "the peer's node does not let us in", { fault: "peer", details });
  if (code === 450) {
    return new SuiteError("conflict", "the peer's node misses parts of the file", {
      fault: "peer",
      temporary: true,
      details,
    });
  }
  if (code >= 400 && code < 500) {
    return new SuiteError("busy", "the peer's node cannot take the file now", {
      fault: "peer",
      temporary: true,
      details,
    });
  }
  return new SuiteError("unsupported", "the peer's node does not understand us", { fault: "peer", details });
}
