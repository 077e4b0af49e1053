import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type Cpim, makeCpim, parseCpim } from "./cpim.ts";
import { type SipRequest, value } from "./grammar.ts";
import { personOf } from "./identity.ts";
import { mediaType } from "./message.ts";
import { parseSipUri, sipUriOf } from "./uri.ts";

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
  const type = mediaType(request.headers);
  if (type === "text/plain" || type === "") return utf8(request.body);
  if (type === "message/cpim") {
    const cpim = parseCpim(request.body);
    if (!/^text\/plain\b/i.test(cpim.contentType))
      throw new SuiteError("unsupported", "only text is understood", { fault: "peer" });
    return utf8(cpim.body);
  }
  throw new SuiteError("unsupported", "only text is understood", { fault: "peer" });
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
  const cpim = parseCpim(request.body);
  if (personOf(parseSipUri(cpim.from)) !== from)
    throw new SuiteError("forbidden", "the message names another sender", { fault: "peer" });
  const fallback = `${value(request.headers, "call-id") ?? ""} ${value(request.headers, "cseq") ?? ""}`;
  return {
    bytes: request.body,
    messageId: cpim.messageId === "" ? fallback : cpim.messageId,
    title: titleOf(utf8(cpim.body)),
  };
}

/** The text of a stored message. @throws SuiteError syntax */
export function storedText(bytes: Buffer): string {
  return utf8(parseCpim(bytes).body);
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
