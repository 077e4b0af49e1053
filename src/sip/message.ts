import type { SipHeader, SipMessage, SipRequest, SipResponse } from "./grammar.ts";
import { splitList, value } from "./grammar.ts";

/** Names as people write them, for the few that are not just capitalised words. */
const WRITTEN: Readonly<Record<string, string>> = {
  "call-id": "Call-ID",
  cseq: "CSeq",
  "www-authenticate": "WWW-Authenticate",
  "mime-version": "MIME-Version",
};

/** The bytes of a message; Content-Length is counted here. */
export function serialise(message: SipMessage): Buffer {
  const start =
    message.kind === "request"
      ? `${message.method} ${message.uri} SIP/2.0`
      : `SIP/2.0 ${message.status} ${message.reason}`;
  const lines = message.headers
    .filter((header) => header.name !== "content-length")
    .map((header) => `${written(header.name)}: ${header.value}`);
  const head = [start, ...lines, `Content-Length: ${message.body.length}`, "", ""].join("\r\n");
  return Buffer.concat([Buffer.from(head, "utf8"), message.body]);
}

/** RFC 3261 §8.2.6: Via, From, To, Call-ID and CSeq as they came; a To tag if there was none. */
export function responseTo(
  request: Pick<SipRequest, "headers">,
  status: number,
  reason: string,
  toTag: string,
  extra: readonly SipHeader[] = [],
): SipResponse {
  const headers: SipHeader[] = [];
  for (const header of request.headers) {
    if (header.name === "via" || header.name === "from" || header.name === "call-id" || header.name === "cseq")
      headers.push(header);
    if (header.name === "to")
      headers.push(hasTag(header.value) ? header : { name: "to", value: `${header.value};tag=${toTag}` });
  }
  return { kind: "response", status, reason, headers: [...headers, ...extra], body: Buffer.alloc(0) };
}

/** Notes where a request came from in its top Via (RFC 3261 §18.2.1, RFC 3581). */
export function withReceived(request: SipRequest, from: { host: string; port: number }): SipRequest {
  let done = false;
  const headers = request.headers.map((header) => {
    if (header.name !== "via" || done) return header;
    done = true;
    const [top = "", ...others] = splitList(header.value);
    const told = top
      .replace(/;[ \t]*received[ \t]*=[^;]*/gi, "")
      .replace(/;[ \t]*rport[ \t]*(?:=[^;]*)?(?=;|$)/i, `;rport=${from.port}`);
    const noted = `${told};received=${from.host}`;
    return { name: "via", value: [noted, ...others].join(", ") };
  });
  return { ...request, headers };
}

/** A tag of the header field; what stands in the display name or in the URI is none. */
function hasTag(value: string): boolean {
  return /;[ \t]*tag[ \t]*=/i.test(value.replace(/"(?:[^"\\]|\\.)*"|<[^>]*>/gs, ""));
}

export function mediaType(headers: readonly SipHeader[]): string {
  return (value(headers, "content-type") ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
}

function written(name: string): string {
  return (
    WRITTEN[name] ?? name.replace(/(^|-)([a-z])/g, (_all, dash: string, letter: string) => dash + letter.toUpperCase())
  );
}
