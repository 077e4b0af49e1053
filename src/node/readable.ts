import { contentTypeOf, type EntityHead, fieldOf, parseHead, transferEncodingOf } from "../smime/entity.ts";
import { decodeWords } from "../smtp/encoded-word.ts";

/** A mail as a person reads it at a terminal: the decoded fields and the plain text in it. */
export interface ReadableMail {
  from: string;
  to: string;
  subject: string;
  date: string;
  text: string;
}

const MAX_DEPTH = 10;
/** Parts of one multipart that are looked at. */
const MAX_PARTS = 1_000;

/** Finds what can be read in a stored mail. What cannot is named in brackets; nothing is thrown. */
export function readableMail(bytes: Uint8Array): ReadableMail {
  const { head, body } = split(Buffer.from(bytes));
  const field = (name: string) => decodeWords(fieldOf(head, name)?.value ?? "");
  return {
    from: field("From"),
    to: field("To"),
    subject: field("Subject"),
    date: field("Date"),
    text: textOf(head, body, 0).replaceAll("\r\n", "\n").trimEnd(),
  };
}

function textOf(head: EntityHead, body: Buffer, depth: number): string {
  const { value, parameters } = contentTypeOf(head);
  if (depth > MAX_DEPTH) return "[nested too deeply]";
  if (value.startsWith("multipart/")) {
    const parts = partsOf(body, parameters.get("boundary") ?? "").map(split);
    const typeOf = (part: { head: EntityHead }) => contentTypeOf(part.head).value || "text/plain";
    if (value === "multipart/signed")
      return parts[0] === undefined ? "" : textOf(parts[0].head, parts[0].body, depth + 1);
    if (value === "multipart/alternative") {
      const best = parts.find((part) => typeOf(part) === "text/plain") ?? parts[0];
      return best === undefined ? "" : textOf(best.head, best.body, depth + 1);
    }
    return parts.map((part) => textOf(part.head, part.body, depth + 1)).join("\r\n");
  }
  if (value !== "" && value !== "text/plain") return `[${value}, ${body.length} bytes]`;
  return decodeText(decodeBody(body, transferEncodingOf(head)), parameters.get("charset") ?? "utf-8");
}

/** Head and body; an unreadable head counts as none. */
function split(entity: Buffer): { head: EntityHead; body: Buffer } {
  const blank = /\r?\n\r?\n/.exec(entity.toString("latin1", 0, 131_072));
  const end = entity[0] === 0x0d || entity[0] === 0x0a ? 0 : (blank?.index ?? entity.length);
  try {
    const head = parseHead(entity.subarray(0, end));
    return { head, body: entity.subarray(end === 0 ? (entity[0] === 0x0d ? 2 : 1) : end + (blank?.[0].length ?? 0)) };
  } catch {
    return { head: { fields: [] }, body: entity };
  }
}

/** RFC 2046 §5.1.1, leniently: for the eye, not for a signature. */
function partsOf(body: Buffer, boundary: string): Buffer[] {
  if (boundary === "") return [];
  const parts: Buffer[] = [];
  const delimiter = Buffer.from(`--${boundary}`, "latin1");
  let from: number | undefined;
  for (let at = body.indexOf(delimiter); at >= 0; at = body.indexOf(delimiter, at + delimiter.length)) {
    if (at > 0 && body[at - 1] !== 0x0a) continue;
    if (parts.length === MAX_PARTS) break;
    if (from !== undefined) parts.push(body.subarray(from, Math.max(from, at - (body[at - 2] === 0x0d ? 2 : 1))));
    const lineEnd = body.indexOf(0x0a, at);
    if (lineEnd < 0 || body.toString("latin1", at + delimiter.length, at + delimiter.length + 2) === "--") break;
    from = lineEnd + 1;
  }
  return parts;
}

function decodeBody(body: Buffer, encoding: string): Buffer {
  if (encoding === "base64") return Buffer.from(body.toString("latin1"), "base64");
  if (encoding === "quoted-printable") return decodeQuoted(body.toString("latin1").replace(/=[ \t]*\r?\n/g, ""));
  return body;
}

function decodeQuoted(text: string): Buffer {
  return Buffer.from(
    text.replace(/=([0-9a-fA-F]{2})/g, (_match, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    "latin1",
  );
}

function decodeText(bytes: Uint8Array, charset: string): string {
  try {
    return new TextDecoder(charset).decode(bytes);
  } catch {
    return new TextDecoder().decode(bytes);
  }
}
