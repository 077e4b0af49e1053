import { SuiteError } from "../pki/suite-error.ts";
import { parseNameAddr, parseVia } from "./headers.ts";
import { parseSipUri } from "./uri.ts";

export interface SipHeader {
  /** Lower case, compact forms written out. */
  name: string;
  /** Unfolded, without the white space around it. */
  value: string;
}

export interface SipRequest {
  kind: "request";
  method: string;
  uri: string;
  headers: readonly SipHeader[];
  body: Buffer;
}

export interface SipResponse {
  kind: "response";
  status: number;
  reason: string;
  headers: readonly SipHeader[];
  body: Buffer;
}

export type SipMessage = SipRequest | SipResponse;

export type Framed =
  | { kind: "message"; message: SipMessage }
  | { kind: "ping" }
  /** `headers`: what could be read, to answer with; none if there must be no answer. `fatal`: the stream's framing is lost. */
  | { kind: "refused"; status: number; reason: string; headers: readonly SipHeader[]; fatal: boolean };

/** Limits; beyond them the status in brackets. */
const MAX_LINE = 8_192; // 400
const MAX_URI = 4_096; // 414
const MAX_HEADER_SECTION = 65_536; // 513
const MAX_HEADER_LINES = 256; // 513
const MAX_BODY = 65_536; // 413
const MAX_SKIPPED_BODY = 1_048_576; // beyond: closed

/** The compact forms of RFC 3261 §7.3.3, RFC 3428 and others. */
const COMPACT: Readonly<Record<string, string>> = {
  i: "call-id",
  m: "contact",
  e: "content-encoding",
  l: "content-length",
  c: "content-type",
  f: "from",
  s: "subject",
  k: "supported",
  t: "to",
  v: "via",
  o: "event",
  u: "allow-events",
  r: "refer-to",
};

const ONCE = new Set(["from", "to", "call-id", "cseq", "max-forwards", "content-length"]);
const CRLF2 = Buffer.from("\r\n\r\n");

/** Cuts a stream into messages (RFC 3261 §18.3). Bytes may come in any pieces; nothing is kept beyond the limits. */
export class StreamFramer {
  #buffer: Buffer = Buffer.alloc(0);
  /** A request that was refused for its length: so many bytes of its body are still to be passed over. */
  #skip = 0;
  #dead = false;
  /** Where the search for the end of the header section goes on: never twice over the same bytes. */
  #searched = 0;
  /** How many bytes the message takes whose header section is known. Until they are there the pieces only gather: nothing is read again. */
  #needed = 0;
  #pieces: Buffer[] = [];
  #gathered = 0;

  push(chunk: Buffer): Framed[] {
    if (this.#dead) return [];
    this.#pieces.push(chunk);
    this.#gathered += chunk.length;
    if (this.#buffer.length + this.#gathered < this.#needed) return [];
    this.#buffer = Buffer.concat([this.#buffer, ...this.#pieces.splice(0)]);
    this.#gathered = 0;
    const framed: Framed[] = [];
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      framed.push(next);
      if (next.kind === "refused" && next.fatal) {
        this.#dead = true;
        this.#buffer = Buffer.alloc(0);
        break;
      }
    }
    return framed;
  }

  /** Whether a message has begun and is not complete. A line end alone is none: the answer to a ping is just that. */
  get midMessage(): boolean {
    return this.#skip > 0 || (this.#buffer.length > 0 && this.#buffer[0] !== 0x0d);
  }

  #next(): Framed | undefined {
    if (this.#skip > 0) {
      const step = Math.min(this.#skip, this.#buffer.length);
      this.#skip -= step;
      this.#buffer = this.#buffer.subarray(step);
      if (this.#skip > 0) return undefined;
    }
    // A keep-alive is CRLFCRLF (RFC 5626 §3.5.1); single CRLFs before a message are passed over (§7.5).
    if (this.#buffer[0] === 0x0d || this.#buffer[0] === 0x0a) {
      if (this.#buffer.length >= 4 && this.#buffer.subarray(0, 4).equals(CRLF2)) {
        this.#buffer = this.#buffer.subarray(4);
        return { kind: "ping" };
      }
      if (this.#buffer.length >= 2 && this.#buffer[0] === 0x0d && this.#buffer[1] === 0x0a) {
        const third = this.#buffer[2];
        if (third === undefined || (third === 0x0d && this.#buffer.length < 4)) return undefined;
        this.#buffer = this.#buffer.subarray(2);
        return this.#next();
      }
      if (this.#buffer.length < 2) return undefined;
      return refused(400, "Bad line end", [], true);
    }
    const end = this.#buffer.indexOf(CRLF2, Math.max(0, this.#searched - 3));
    if (end < 0) {
      this.#searched = this.#buffer.length;
      if (this.#buffer.length <= MAX_HEADER_SECTION) return undefined;
      return refused(513, "Message Too Large", answerable(this.#buffer.subarray(0, MAX_HEADER_SECTION)), true);
    }
    this.#searched = 0;
    this.#needed = 0;
    if (end > MAX_HEADER_SECTION)
      return refused(513, "Message Too Large", answerable(this.#buffer.subarray(0, MAX_HEADER_SECTION)), true);
    const head = this.#buffer.subarray(0, end);
    if (head.toString("latin1").split("\r\n", MAX_HEADER_LINES + 1).length > MAX_HEADER_LINES)
      return refused(513, "Message Too Large", answerable(head), true);
    const headers = headersOf(head);
    const lengths = headers.filter((header) => header.name === "content-length");
    const length =
      lengths.length === 1 && /^\d{1,10}$/.test(lengths[0]?.value ?? "") ? Number(lengths[0]?.value) : undefined;
    if (length === undefined) return refused(400, "Content-Length needed", answerable(head), true);
    if (length > MAX_BODY) {
      if (length > MAX_SKIPPED_BODY) return refused(413, "Request Entity Too Large", answerable(head), true);
      this.#buffer = this.#buffer.subarray(end + 4);
      this.#skip = length;
      return refused(413, "Request Entity Too Large", answerable(head), false);
    }
    if (this.#buffer.length < end + 4 + length) {
      this.#searched = end;
      this.#needed = end + 4 + length;
      return undefined;
    }
    const body = Buffer.from(this.#buffer.subarray(end + 4, end + 4 + length));
    const message = parseHead(head, body);
    this.#buffer = this.#buffer.subarray(end + 4 + length);
    return message;
  }
}

/** One datagram, one message (§18.3): without Content-Length to the end; a larger one than there is is an error. */
export function parseDatagram(bytes: Buffer): Framed {
  if (bytes.length > 0 && bytes.every((byte) => byte === 0x0d || byte === 0x0a)) return { kind: "ping" };
  const end = bytes.indexOf(CRLF2);
  if (end < 0) return refused(400, "No end of header", answerable(bytes), false);
  const head = bytes.subarray(0, end);
  const rest = bytes.subarray(end + 4);
  const told = headersOf(head).find((header) => header.name === "content-length")?.value;
  if (told !== undefined && (!/^\d{1,10}$/.test(told) || Number(told) > rest.length))
    return refused(400, "Bad Content-Length", answerable(head), false);
  return parseHead(head, Buffer.from(told === undefined ? rest : rest.subarray(0, Number(told))));
}

/** The values of a header field that may stand several times or as a list: split at commas outside quotes and angles. */
export function values(headers: readonly SipHeader[], name: string): string[] {
  return headers.filter((header) => header.name === name).flatMap((header) => splitList(header.value));
}

export function value(headers: readonly SipHeader[], name: string): string | undefined {
  return headers.find((header) => header.name === name)?.value;
}

export function splitList(text: string): string[] {
  const parts: string[] = [];
  let quoted = false;
  let angle = false;
  let from = 0;
  for (let at = 0; at < text.length; at++) {
    const one = text[at];
    if (quoted && one === "\\") at += 1;
    else if (one === '"') quoted = !quoted;
    else if (!quoted && one === "<") angle = true;
    else if (!quoted && one === ">") angle = false;
    else if (!quoted && !angle && one === ",") {
      parts.push(text.slice(from, at).trim());
      from = at + 1;
    }
  }
  parts.push(text.slice(from).trim());
  return parts.filter((part) => part !== "");
}

function parseHead(head: Buffer, body: Buffer): Framed {
  const headers = headersOf(head);
  const fail = (status: number, reason: string) => refused(status, reason, answerable(head), false);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(head);
  } catch {
    return fail(400, "Bad UTF-8");
  }
  const lines = text.split("\r\n");
  if (lines.length > MAX_HEADER_LINES) return fail(513, "Message Too Large");
  if (lines.some((line) => line.length > MAX_LINE)) return fail(400, "Line too long");
  if (/[\0-\x08\x0b\x0c\x0e-\x1f\x7f\n\r]/.test(withoutQuotedPairs(lines.join(""))))
    return fail(400, "Control character");
  const [start = "", ...fields] = lines;
  if (fields.some((line) => !/^[ \t]/.test(line) && !/^[A-Za-z0-9\-.!%*_+`'~]+[ \t]*:/.test(line)))
    return fail(400, "Bad header field");
  for (const name of ONCE)
    if (headers.filter((header) => header.name === name).length > 1) return fail(400, `Repeated ${name}`);

  const status = /^SIP\/2\.0 ([1-6]\d\d) (.*)$/.exec(start);
  if (status !== null)
    return {
      kind: "message",
      message: { kind: "response", status: Number(status[1]), reason: status[2] ?? "", headers, body },
    };
  const request = /^([A-Za-z0-9\-.!%*_+`'~]+) (\S+) SIP\/(\d+\.\d+)$/.exec(start);
  if (request === null) return fail(400, "Bad start line");
  const [, method = "", uri = "", version] = request;
  if (version !== "2.0") return fail(505, "Version Not Supported");
  if (uri.length > MAX_URI) return fail(414, "Request-URI Too Long");
  const problem = missing(headers, method) ?? malformed(headers, uri);
  if (problem !== undefined) return fail(400, problem);
  return { kind: "message", message: { kind: "request", method, uri, headers, body } };
}

/** What every request has (§8.1.1). */
function missing(headers: readonly SipHeader[], method: string): string | undefined {
  for (const name of ["via", "from", "to", "call-id", "cseq"])
    if (value(headers, name) === undefined) return `Missing ${name}`;
  const cseq = /^(\d{1,10})[ \t]+(\S+)$/.exec(value(headers, "cseq") ?? "");
  if (cseq === null || Number(cseq[1]) > 0xffff_ffff) return "Bad CSeq";
  if (cseq[2] !== method) return "CSeq method differs";
  const forwards = value(headers, "max-forwards");
  if (forwards !== undefined && !/^\d+$/.test(forwards)) return "Bad Max-Forwards";
  return undefined;
}

/** The fields that are looked at before anything else. An unknown scheme is well formed; who meets it decides. */
function malformed(headers: readonly SipHeader[], uri: string): string | undefined {
  const wellFormed = (parse: () => unknown): boolean => {
    try {
      parse();
      return true;
    } catch (error) {
      return error instanceof SuiteError && error.code === "unsupported";
    }
  };
  if (/[<>"\\^`{|}]/.test(uri) || !wellFormed(() => parseSipUri(uri))) return "Bad Request-URI";
  if (/^sips?:/i.test(uri) && parseSipUri(uri).headers !== undefined) return "Headers in the Request-URI";
  if (!wellFormed(() => parseVia(splitList(value(headers, "via") ?? "")[0] ?? ""))) return "Bad Via";
  for (const name of ["from", "to"])
    if (!wellFormed(() => parseNameAddr(value(headers, name) ?? ""))) return `Bad ${name}`;
  return undefined;
}

/** Control characters may stand behind a backslash in a quoted string, and nowhere else (§25.1). */
function withoutQuotedPairs(text: string): string {
  return text.replace(/"(?:[^"\\]|\\.)*"/gs, (quoted) => quoted.replace(/\\./gs, ""));
}

/** Reads what can be read, so that even a bad request is answered with its own Via, From, To, Call-ID and CSeq. */
function headersOf(head: Buffer): SipHeader[] {
  const headers: SipHeader[] = [];
  for (const line of head
    .toString("utf8")
    .split("\r\n", MAX_HEADER_LINES + 2)
    .slice(1, MAX_HEADER_LINES + 1)) {
    const last = headers.at(-1);
    if (/^[ \t]/.test(line)) {
      if (last !== undefined) last.value = `${last.value} ${line.trim()}`.trim();
      continue;
    }
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const name = line.slice(0, colon).trim().toLowerCase();
    headers.push({ name: COMPACT[name] ?? name, value: line.slice(colon + 1).trim() });
  }
  return headers;
}

/** Neither a response nor an ACK is ever answered, however wrong it is. */
function answerable(head: Buffer): SipHeader[] {
  return /^(?:SIP\/|ACK )/i.test(head.toString("latin1", 0, 4)) ? [] : headersOf(head);
}

function refused(status: number, reason: string, headers: readonly SipHeader[], fatal: boolean): Framed {
  return { kind: "refused", status, reason, headers, fatal };
}
