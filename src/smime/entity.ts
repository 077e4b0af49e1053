import { SuiteError } from "../pki/suite-error.ts";
import { ByteReader } from "./byte-reader.ts";
import { malformed } from "./failure.ts";
import { type Parameterised, parseParameterised } from "./parameter.ts";

/** The header fields of a MIME entity or mail, in their order. */
export interface EntityHead {
  readonly fields: readonly HeaderField[];
}

export interface HeaderField {
  /** As written; compare without case. */
  readonly name: string;
  /** Unfolded, without the white space around it; encoded words are left as they are. */
  readonly value: string;
  /** As it stands in the message: name, colon, value, folds; no line end behind it. */
  readonly raw: string;
}

export const maxHeadBytes = 65_536;
const maxFields = 1_000;

/** A field to write. Folds at 78 columns where there is a space. Throws SuiteError "syntax" if it would not stay one field. */
export function headerField(name: string, value: string): HeaderField {
  if (!/^[\x21-\x39\x3b-\x7e]+$/.test(name) || /[\r\n\0]/.test(value)) {
    throw new SuiteError("syntax", "not a header field", { fault: "local", details: { name: name.slice(0, 64) } });
  }
  const trimmed = value.trim();
  return { name, value: trimmed, raw: folded(`${name}: ${trimmed}`) };
}

/**
 * Reads header fields; `bytes` may end with the blank line. Accepts bare LF as line end, refuses bare CR and NUL. Octets
 * that are not UTF-8 are taken for ISO 8859-1. Throws SuiteError "syntax".
 */
export function parseHead(bytes: Uint8Array): EntityHead {
  if (bytes.length > maxHeadBytes) throw badHead("too long");
  const text = decodeText(bytes);
  if (/\r(?!\n)|\0/.test(text)) throw badHead("bare CR or NUL");
  const fields: HeaderField[] = [];
  for (const raw of text.split(/\r?\n(?![ \t])/)) {
    if (raw === "") continue;
    const match = /^([\x21-\x39\x3b-\x7e]+)[ \t]*:(.*)$/s.exec(raw);
    if (match?.[1] === undefined) throw badHead("not a field");
    if (fields.length >= maxFields) throw badHead("too many fields");
    const value = (match[2] ?? "").replace(/\r?\n/g, "").trim();
    fields.push({ name: match[1], value, raw: raw.replace(/\r?\n/g, "\r\n") });
  }
  return { fields };
}

/** The fields and the blank line. */
export function serializeHead(head: EntityHead): Buffer {
  return Buffer.from(`${head.fields.map(({ raw }) => `${raw}\r\n`).join("")}\r\n`, "utf8");
}

/** An entity that was split: its head, that head's bytes with the blank line, and what follows. */
export interface SplitEntity {
  readonly head: EntityHead;
  readonly headBytes: Buffer;
  readonly body: AsyncGenerator<Buffer>;
}

/** Reads the head of a stream, of at most 64 KiB. Throws SuiteError "seal-malformed" or "syntax". */
export async function splitEntity(source: AsyncIterable<Uint8Array>): Promise<SplitEntity> {
  const reader = new ByteReader(source);
  const headBytes = await readHeadBytes(reader);
  return { head: parseHead(headBytes), headBytes, body: reader.rest() };
}

/** Takes the head with its blank line from a stream, or everything if the stream ends before one. A copy. */
export async function readHeadBytes(reader: ByteReader): Promise<Buffer> {
  for (let searched = 0; ; ) {
    const end = headEnd(reader.view(), searched);
    if (end > maxHeadBytes || (end < 0 && reader.available > maxHeadBytes)) throw malformed("head too long");
    if (end >= 0) return Buffer.from(reader.take(end));
    searched = Math.max(0, reader.available - 2);
    if (!(await reader.fill(reader.available + 1))) return Buffer.from(reader.take(reader.available));
  }
}

/** The first field of this name. */
export function fieldOf(head: EntityHead, name: string): HeaderField | undefined {
  const wanted = name.toLowerCase();
  return head.fields.find((field) => field.name.toLowerCase() === wanted);
}

/** Media type, lower case, and its parameters; text/plain if there is none (RFC 2045 §5.2). */
export function contentTypeOf(head: EntityHead): Parameterised {
  return parseParameterised(fieldOf(head, "Content-Type")?.value ?? "text/plain; charset=us-ascii");
}

/** Whether what describes the body stands there twice: programs differ in which one they go by. */
export function isAmbiguous(head: EntityHead): boolean {
  const describing = ["content-type", "content-transfer-encoding"];
  return describing.some((name) => head.fields.filter((field) => field.name.toLowerCase() === name).length > 1);
}

/** Content-Transfer-Encoding, lower case. */
export function transferEncodingOf(head: EntityHead): string {
  return parseParameterised(fieldOf(head, "Content-Transfer-Encoding")?.value ?? "7bit").value;
}

/** Message-ID without its angle brackets. */
export function messageIdOf(head: EntityHead): string | undefined {
  const value = fieldOf(head, "Message-ID")?.value;
  return value === undefined ? undefined : (/<([^<>\s]{1,900})>/.exec(value)?.[1] ?? undefined);
}

/** Makes every line end CRLF: what is signed as multipart/signed has to be canonical (RFC 8551 §3.1.1). */
export async function* canonicalLines(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const lines = new CanonicalLines();
  for await (const chunk of source) {
    const piece = lines.push(chunk);
    if (piece.length > 0) yield piece;
  }
  const last = lines.end();
  if (last.length > 0) yield last;
}

/** The same, piece by piece: what comes out of them in their order is the text in canonical form. */
export class CanonicalLines {
  #heldCr = false; // one at the end of a piece waits for what follows

  push(piece: Uint8Array): Buffer {
    if (piece.length === 0) return nothing;
    const octets = Buffer.concat([this.#heldCr ? cr : nothing, piece]);
    this.#heldCr = octets.at(-1) === 0x0d;
    const lines = this.#heldCr ? octets.subarray(0, -1) : octets;
    return isCanonical(lines) ? lines : canonical(lines);
  }

  end(): Buffer {
    return this.#heldCr ? canonical(cr) : nothing;
  }
}

const cr = Buffer.of(0x0d);
const nothing = Buffer.alloc(0);

function isCanonical(octets: Buffer): boolean {
  for (let lf = octets.indexOf(0x0a); lf >= 0; lf = octets.indexOf(0x0a, lf + 1)) {
    if (octets[lf - 1] !== 0x0d) return false;
  }
  for (let at = octets.indexOf(0x0d); at >= 0; at = octets.indexOf(0x0d, at + 1)) {
    if (octets[at + 1] !== 0x0a) return false;
  }
  return true;
}

function canonical(octets: Buffer): Buffer {
  return Buffer.from(octets.toString("latin1").replace(/\r\n?|\n/g, "\r\n"), "latin1");
}

/** Where the head ends, behind its blank line; −1 if that is not there yet. */
function headEnd(view: Buffer, from: number): number {
  if (view[0] === 0x0a) return 1;
  if (view[0] === 0x0d && view[1] === 0x0a) return 2;
  for (let lf = view.indexOf(0x0a, from); lf >= 0; lf = view.indexOf(0x0a, lf + 1)) {
    if (view[lf + 1] === 0x0a) return lf + 2;
    if (view[lf + 1] === 0x0d && view[lf + 2] === 0x0a) return lf + 3;
  }
  return -1;
}

function decodeText(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return Buffer.from(bytes).toString("latin1");
  }
}

/** Breaks before a space so that lines keep to 78 columns (RFC 5322 §2.1.1) where the text lets it. */
function folded(line: string): string {
  const lines: string[] = [];
  let rest = line;
  while (rest.length > 78) {
    let space = rest.lastIndexOf(" ", 78);
    // Not right behind the name's colon, and no line of white space alone.
    if (rest.slice(0, Math.max(space, 0)).trim() === "" || (lines.length === 0 && space === line.indexOf(":") + 1)) {
      space = rest.indexOf(" ", 79);
    }
    if (space < 0 || rest.slice(space).trim() === "") break;
    lines.push(rest.slice(0, space));
    rest = rest.slice(space);
  }
  return [...lines, rest].join("\r\n");
}

function badHead(what: string): SuiteError {
  return new SuiteError("syntax", "not a message head", { fault: "peer", details: { what } });
}
