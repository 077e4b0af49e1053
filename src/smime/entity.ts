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
export async function* canonicalLines(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let endedWithCr = false;
  for await (const chunk of source) {
    if (chunk.length === 0) continue;
    const octets = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    yield* canonicalPieces(octets, endedWithCr);
    endedWithCr = octets[octets.length - 1] === 0x0d;
  }
  if (endedWithCr) yield Buffer.of(0x0a);
}

const crlf = Buffer.of(0x0d, 0x0a);

/** A CR at the very end of `octets` waits for the next chunk to get its LF. */
function* canonicalPieces(octets: Buffer, afterCr: boolean): Generator<Buffer> {
  let from = 0;
  if (afterCr && octets[0] !== 0x0a) yield Buffer.of(0x0a);
  if (isCanonical(octets, afterCr)) {
    yield octets;
    return;
  }
  for (let i = 0; i < octets.length; i++) {
    const octet = octets[i];
    const bareLf = octet === 0x0a && (i === 0 ? !afterCr : octets[i - 1] !== 0x0d);
    const bareCr = octet === 0x0d && i + 1 < octets.length && octets[i + 1] !== 0x0a;
    if (!bareLf && !bareCr) continue;
    if (i > from) yield octets.subarray(from, i);
    yield crlf;
    from = i + 1;
  }
  if (from < octets.length) yield octets.subarray(from);
}

function isCanonical(octets: Buffer, afterCr: boolean): boolean {
  for (let lf = octets.indexOf(0x0a); lf >= 0; lf = octets.indexOf(0x0a, lf + 1)) {
    if (lf === 0 ? !afterCr : octets[lf - 1] !== 0x0d) return false;
  }
  for (let cr = octets.indexOf(0x0d); cr >= 0; cr = octets.indexOf(0x0d, cr + 1)) {
    if (cr + 1 < octets.length && octets[cr + 1] !== 0x0a) return false;
  }
  return true;
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
