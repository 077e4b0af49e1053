import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type Cpim, makeCpim, parseCpim } from "./cpim.ts";
import { type SipRequest, value } from "./grammar.ts";
import { namedIn } from "./identity.ts";
import { mediaType } from "./message.ts";
import { sipUriOf } from "./uri.ts";

const TITLE_CHARACTERS = 80;

/** A text as a CPIM object: what is kept and what goes to the peer's node. */
export function instantMessage(o: { from: Identity; to: Identity; text: string; id: string; now: Date }): {
  bytes: Buffer;
  title: string;
} {
  const cpim: Cpim = {
    from: sipUriOf(o.from),
    to: sipUriOf(o.to),
    dateTime: o.now.toISOString(),
    messageId: o.id,
    contentType: "text/plain; charset=utf-8",
    body: Buffer.from(o.text, "utf8"),
  };
  return { bytes: makeCpim(cpim), title: titleOf(o.text) };
}

/** The text of a MESSAGE of the owner's program: plain, or wrapped in CPIM. @throws SuiteError unsupported (415), syntax */
export function textOf(request: SipRequest): string {
  unencoded(request);
  if (mediaType(request.headers) === "message/cpim") {
    const cpim = parseCpim(request.body);
    return plainText(cpim.contentType, cpim.body);
  }
  return plainText(value(request.headers, "content-type") ?? "text/plain", request.body);
}

/**
 * A peer's MESSAGE. Between nodes it is always CPIM, whose From has to be the SIP From.
 * @throws SuiteError unsupported (415), forbidden (403), syntax (400)
 */
export function arrivedMessage(
  request: SipRequest,
  from: Identity,
): { bytes: Buffer; messageId: string; title: string } {
  if (mediaType(request.headers) !== "message/cpim")
    throw new SuiteError("unsupported", "between nodes messages are CPIM", { fault: "peer" });
  unencoded(request);
  const cpim = parseCpim(request.body);
  if (namedIn(`<${cpim.from}>`) !== from)
    throw new SuiteError("forbidden", "the message names another sender", { fault: "peer" });
  const fallback = `${value(request.headers, "call-id") ?? ""} ${value(request.headers, "cseq") ?? ""}`;
  return {
    bytes: request.body,
    messageId: cpim.messageId === "" ? fallback : cpim.messageId,
    title: titleOf(plainText(cpim.contentType, cpim.body)),
  };
}

/** The text of a stored message. @throws SuiteError syntax */
export function storedText(bytes: Buffer): string {
  return utf8(parseCpim(bytes).body);
}

/** @throws SuiteError unsupported for another type or character set; syntax for bytes that are no UTF-8 */
function plainText(contentType: string, body: Buffer): string {
  const charset = /;[ \t]*charset[ \t]*=[ \t]*"?([^\s;"]*)/i.exec(contentType)?.[1] ?? "utf-8";
  if (!/^text\/plain[ \t]*(?:;|$)/i.test(contentType) || !/^(?:utf-8|us-ascii)$/i.test(charset))
    throw new SuiteError("unsupported", "only text in UTF-8 is understood", { fault: "peer" });
  return utf8(body);
}

function unencoded(request: SipRequest): void {
  if (!/^(?:identity)?$/i.test(value(request.headers, "content-encoding") ?? ""))
    throw new SuiteError("unsupported", "content encodings are not understood", { fault: "peer" });
}

function titleOf(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length <= TITLE_CHARACTERS ? line : `${line.slice(0, TITLE_CHARACTERS - 1)}…`;
}

function utf8(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new SuiteError("syntax", "the text is not UTF-8", { fault: "peer", cause });
  }
}
