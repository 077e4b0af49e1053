import { asSuiteError, SuiteError, type SuiteErrorCode } from "../pki/suite-error.ts";

/** One reply of RFC 5321 §4.2 with its enhanced status code (RFC 3463). */
export interface Reply {
  code: number;
  enhanced: EnhancedCode;
  /** One line of printable text. */
  text: string;
}

type EnhancedCode = `${2 | 4 | 5}.${number}.${number}`;

/** A reply to be given, thrown by whoever finds that out. Does not leave this folder. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly reply: Reply;

  constructor(code: number, enhanced: EnhancedCode, text: string) {
    super(text);
    this.reply = { code, enhanced, text };
  }
}

/** Failure → reply, total (architecture.md §6). Failures of a seal after the key step share one reply, byte for byte. */
export function replyOf(code: SuiteErrorCode): Reply {
  switch (code) {
    case "certificate-malformed":
    case "certificate-invalid":
    case "identity-mismatch":
      return { code: 554, enhanced: "5.7.1", text: "Not the person expected" };
    case "refused-by-peer":
    case "refused-by-policy":
    case "forbidden":
      return { code: 550, enhanced: "5.7.1", text: "Not allowed" };
    case "auth-failed":
      return { code: 535, enhanced: "5.7.8", text: "User or password wrong" };
    case "unreachable":
    case "handshake-failed":
      return { code: 451, enhanced: "4.4.1", text: "Cannot be reached now" };
    case "syntax":
      return { code: 501, enhanced: "5.5.2", text: "Syntax error" };
    case "unsupported":
      return { code: 555, enhanced: "5.5.4", text: "Not supported" };
    case "limit-exceeded":
    case "seal-too-large":
      return { code: 552, enhanced: "5.3.4", text: "Too large" };
    case "identity-invalid":
      return { code: 553, enhanced: "5.1.3", text: "Not an address of the form local@domain" };
    case "unknown-recipient":
    case "not-found":
      return { code: 550, enhanced: "5.1.1", text: "No such person here" };
    case "directory-unavailable":
    case "record-rejected":
    case "record-rollback":
    case "record-fork":
      return { code: 451, enhanced: "4.4.3", text: "Directory not available" };
    case "seal-not-for-us":
      return { code: 554, enhanced: "5.7.5", text: "Not sealed to a key of the recipient" };
    case "seal-unsupported":
      return { code: 554, enhanced: "5.7.6", text: "Sealed with an algorithm that is not supported" };
    case "not-sealed":
      return { code: 523, enhanced: "5.7.10", text: "Encryption needed" };
    case "seal-malformed":
    case "seal-unreadable":
    case "seal-wrong-signer":
    case "seal-untrusted":
    case "seal-not-addressed":
      return { code: 554, enhanced: "5.6.0", text: "Mail cannot be opened and verified" };
    case "seal-rate-limited":
      return { code: 451, enhanced: "4.7.1", text: "Too many mails that could not be opened" };
    case "quota-exceeded":
      return { code: 452, enhanced: "4.2.2", text: "Enough from you for today" };
    case "store-failed":
      return { code: 452, enhanced: "4.3.1", text: "Cannot be stored now" };
    case "busy":
      return { code: 451, enhanced: "4.3.2", text: "Busy, try again later" };
    case "recipient-unusable":
    case "source-changed":
    case "conflict":
    case "cancelled":
    case "config-invalid":
    case "internal":
      return { code: 451, enhanced: "4.3.0", text: "Local error, try again later" };
  }
}

/** @param stage what was being answered: the end of DATA has 554 for what is a syntax error in a command */
export function replyOfThrown(thrown: unknown, stage: "command" | "data"): Reply {
  if (thrown instanceof Refusal) return thrown.reply;
  const reply = replyOf(asSuiteError(thrown).code);
  return stage === "data" && reply.code === 501 ? { ...reply, code: 554 } : reply;
}

/** What a peer's final or refusing reply means for the outbox. Temporary unless it is a 5yz. */
export function failureOf(reply: { code: number; enhanced?: string }): SuiteError {
  const { code, enhanced = "" } = reply;
  const details = { reply: code, enhanced };
  if (code < 500) {
    return new SuiteError("busy", "the peer's node cannot take the mail now", {
      fault: "peer",
      temporary: true,
      details,
    });
  }
  const [failure, message] = permanentFailure(code, enhanced);
  return new SuiteError(failure, message, { fault: "peer", details });
}

function permanentFailure(code: number, enhanced: string): [SuiteErrorCode, string] {
  if (code === 523 || enhanced === "5.7.10") return ["not-sealed", "the peer's node takes sealed mail only"];
  if (code === 552 || enhanced === "5.3.4") return ["limit-exceeded", "the mail is too large for the peer's node"];
  switch (enhanced) {
    case "5.7.5":
      return ["seal-not-for-us", "the peer has no key for the seal"];
    case "5.7.6":
      return ["seal-unsupported", "the peer does not read such seals"];
    case "5.6.0":
      return ["seal-unreadable", "the peer cannot open and verify the mail"];
  }
  if (/^5\.1\.[0-6]$/.test(enhanced)) return ["unknown-recipient", "the peer's node does not host this person"];
  if (/^5\.7\./.test(enhanced) || (code === 550 && enhanced === "")) {
    return ["refused-by-policy", "the peer's node refuses the mail"];
  }
  return ["syntax", "the peer's node does not take the mail"];
}
