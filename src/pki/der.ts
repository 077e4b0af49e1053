import { decodeAscii, decodeLatin1, decodeUtf8, decodeUtf16, decodeUtf32 } from "./character-string.ts";
import { namedOids, type Oid } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";
import { formatTime, parseGeneralizedTime, parseUtcTime } from "./time.ts";

/** One DER value (X.690 §10): a view of the bytes it was read from, not a copy. */
export interface DerElement {
  /** The identifier octet: class, constructed bit, number. */
  readonly tag: number;
  /** The whole value: identifier, length, content. */
  readonly bytes: Uint8Array;
  readonly content: Uint8Array;
}

/** Identifier octets of the universal types that this program reads and writes. */
export const tag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  enumerated: 0x0a,
  utf8String: 0x0c,
  numericString: 0x12,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  visibleString: 0x1a,
  universalString: 0x1c,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

/** Identifier octet of a context-specific primitive `[n]`. */
export const contextPrimitive = (n: number): number => 0x80 | n;
/** Identifier octet of a context-specific constructed `[n]`. */
export const contextConstructed = (n: number): number => 0xa0 | n;

/** Nesting deeper than this is refused by `checkDepth`. */
export const maxDepth = 16;

// Everything that reads throws SuiteError "syntax", fault "peer": whoever knows what was being read wraps it.

/** Reads exactly one value; a byte behind it is an error. */
export function readDer(bytes: Uint8Array): DerElement {
  const cursor = new DerCursor(bytes);
  const element = cursor.next();
  cursor.end();
  return element;
}

/**
 * Walks through everything constructed: each length must fit into what encloses it, and nothing lies deeper than
 * `limit`. Content of OCTET STRINGs and other primitives is not looked into.
 */
export function checkDepth({ bytes }: DerElement, limit = maxDepth): void {
  checkNesting(bytes, 0, bytes.length, limit);
}

function checkNesting(source: Uint8Array, start: number, limit: number, levels: number): void {
  if (levels < 1 && start < limit) throw malformed("nested too deeply");
  for (let at = start; at < limit; ) {
    const end = endOf(source, at, limit);
    if ((source[at] ?? 0) & 0x20) checkNesting(source, contentOf(source, at), end, levels - 1);
    at = end;
  }
}

/** Reads the values inside a constructed one, in order. Never looks behind the bytes it was given. */
export class DerCursor {
  private readonly source: Uint8Array;
  private readonly limit: number;
  private position: number;

  /** @param within the constructed value, or its content */
  constructor(within: DerElement | Uint8Array) {
    const element = within instanceof ReadElement ? within : undefined; // which spares making a view of its content
    this.source = element?.source ?? (within instanceof Uint8Array ? within : within.content);
    this.position = element?.contentStart ?? 0;
    this.limit = element?.end ?? this.source.length;
  }

  get done(): boolean {
    return this.position >= this.limit;
  }

  /** Identifier octet of the next value; undefined at the end. */
  peekTag(): number | undefined {
    return this.done ? undefined : this.source[this.position];
  }

  /** Takes the next value; with `tag` given, it must be that one. */
  next(tag?: number): DerElement {
    const element = readElement(this.source, this.position, this.limit);
    if (tag !== undefined && element.tag !== tag) throw malformed("unexpected type");
    this.position = element.end;
    return element;
  }

  /** Takes the next value if it has this identifier octet. */
  optional(tag: number): DerElement | undefined {
    return this.peekTag() === tag ? this.next() : undefined;
  }

  /** The content must end here. */
  end(): void {
    if (!this.done) throw malformed("trailing bytes");
  }
}

class ReadElement implements DerElement {
  readonly tag: number;
  readonly end: number;
  readonly source: Uint8Array;
  readonly contentStart: number;
  private readonly start: number;

  constructor(source: Uint8Array, start: number, contentStart: number, end: number) {
    this.tag = source[start] ?? 0;
    this.source = source;
    this.start = start;
    this.contentStart = contentStart;
    this.end = end;
  }

  get bytes(): Uint8Array {
    return this.source.subarray(this.start, this.end);
  }

  get content(): Uint8Array {
    return this.source.subarray(this.contentStart, this.end);
  }
}

function readElement(source: Uint8Array, start: number, limit: number): ReadElement {
  const end = endOf(source, start, limit);
  return new ReadElement(source, start, contentOf(source, start), end);
}

/** Where the content of a well-formed value begins. */
function contentOf(source: Uint8Array, start: number): number {
  const first = source[start + 1] ?? 0;
  return start + 2 + (first > 0x7f ? first & 0x7f : 0);
}

/** Where a value ends. @throws SuiteError if identifier or length are malformed, or it ends behind `limit` */
function endOf(source: Uint8Array, start: number, limit: number): number {
  if (start + 2 > limit) throw malformed("truncated");
  const identifier = source[start] ?? 0;
  const first = source[start + 1] ?? 0;
  if ((identifier & 0x1f) === 0x1f) throw malformed("high tag number");
  if (identifier === 0) throw malformed("end of contents");
  let content = start + 2;
  let length = first;
  if (first > 0x7f) {
    const count = first & 0x7f;
    if (count === 0) throw malformed("indefinite length");
    if (count > 4) throw malformed("length too long");
    length = 0;
    for (let i = 0; i < count; i++) {
      if (content >= limit) throw malformed("truncated");
      length = length * 256 + (source[content++] ?? 0);
    }
    // X.690 §10.1: the fewest octets.
    if (length < 0x80 || length < 2 ** (8 * (count - 1))) throw malformed("length not minimal");
  }
  const end = content + length;
  if (end > limit) throw malformed("truncated");
  return end;
}

/** INTEGER or ENUMERATED, also implicitly tagged. At most 8 KiB, enough for any RSA key. */
export function readInteger(element: DerElement): bigint {
  const content = integerContent(element);
  const hex = Buffer.from(content.buffer, content.byteOffset, content.length).toString("hex");
  const value = BigInt(`0x${hex}`);
  return (content[0] ?? 0) & 0x80 ? value - (1n << BigInt(8 * content.length)) : value;
}

/** An INTEGER that fits into 32 bits, signed. */
export function readSmallInteger(element: DerElement): number {
  const content = integerContent(element);
  if (content.length > 4) throw malformed("integer too large");
  let value = (content[0] ?? 0) & 0x80 ? -1 : 0;
  for (const octet of content) value = (value << 8) | octet;
  return value;
}

/** Content octets of an INTEGER, two's complement, minimal; what `integer(bytes)` writes again. */
export function integerContent(element: DerElement): Uint8Array {
  const content = element.content;
  const first = content[0];
  if (first === undefined) throw malformed("empty integer");
  if (content.length > 8192) throw malformed("integer too large");
  const second = content[1];
  if (second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second > 0x7f))) {
    throw malformed("integer not minimal");
  }
  return content;
}

/** OBJECT IDENTIFIER, also implicitly tagged; at most 64 content octets. */
export function readOid(element: DerElement): Oid {
  const content = element.content;
  if (content.length === 0 || content.length > 64) throw malformed("object identifier of a wrong length");
  const known = knownOid(content);
  if (known !== undefined) return known;
  let dotted = "";
  let arc = 0;
  let large: bigint | undefined; // only for arcs past 2^46, as UUIDs make them
  let atStart = true;
  for (const octet of content) {
    if (atStart && octet === 0x80) throw malformed("object identifier not minimal");
    if (large === undefined && arc >= 2 ** 46) large = BigInt(arc);
    if (large === undefined) arc = arc * 128 + (octet & 0x7f);
    else large = (large << 7n) | BigInt(octet & 0x7f);
    atStart = (octet & 0x80) === 0;
    if (!atStart) continue;
    if (dotted !== "") dotted += `.${large ?? arc}`;
    else if (large !== undefined) dotted = `2.${large - 80n}`;
    else if (arc < 80) dotted = `${Math.floor(arc / 40)}.${arc % 40}`;
    else dotted = `2.${arc - 80}`;
    arc = 0;
    large = undefined;
  }
  if (!atStart) throw malformed("object identifier cut off");
  return dotted;
}

/** Nearly all that is read has a name: such a string is there already, and need not be put together. */
function knownOid(content: Uint8Array): Oid | undefined {
  const alike = knownOids.get(alikeness(content));
  return alike?.find(({ octets }) => Buffer.compare(octets, content) === 0)?.dotted;
}

const knownOids = Map.groupBy(
  Array.from(new Set(namedOids), (dotted) => ({ dotted, octets: oid(dotted).subarray(2) })),
  ({ octets }) => alikeness(octets),
);

function alikeness(octets: Uint8Array): number {
  return (octets.length << 8) | (octets.at(-1) ?? 0);
}

/** BIT STRING. `unused` counts the low bits of the last octet that do not belong to it; they must be zero. */
export function readBitString(element: DerElement): { bytes: Uint8Array; unused: number } {
  const content = element.content;
  const unused = content[0];
  if (unused === undefined || unused > 7 || (content.length === 1 && unused !== 0)) throw malformed("bad bit string");
  if (((content[content.length - 1] ?? 0) & ((1 << unused) - 1)) !== 0 && content.length > 1) {
    throw malformed("bit string with padding that is not zero");
  }
  return { bytes: content.subarray(1), unused };
}

/** OCTET STRING, primitive, also implicitly tagged: its content. */
export function readOctetString(element: DerElement): Uint8Array {
  if (element.tag & 0x20) throw malformed("constructed octet string");
  return element.content;
}

export function readBoolean(element: DerElement): boolean {
  const content = element.content;
  if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff)) throw malformed("bad boolean");
  return content[0] !== 0;
}

/** Any character string type by its universal tag. Control characters pass: what is shown is cleaned where it is shown. */
export function readString(element: DerElement): string {
  const decode = stringTypes.get(element.tag) ?? fail("not a character string");
  return decode(element.content) ?? fail("bad character string");
}

/** Whether `readString` knows the type. */
export function isStringTag(identifier: number): boolean {
  return stringTypes.has(identifier);
}

const stringTypes: ReadonlyMap<number, (content: Uint8Array) => string | undefined> = new Map([
  [tag.utf8String, decodeUtf8],
  [tag.printableString, decodeAscii],
  [tag.ia5String, decodeAscii],
  [tag.visibleString, decodeAscii],
  [tag.numericString, decodeAscii],
  [tag.teletexString, decodeLatin1], // T.61 in theory, Latin-1 in every certificate that has one
  [tag.bmpString, decodeUtf16],
  [tag.universalString, decodeUtf32],
]);

/** IA5String content, also implicitly tagged. */
export function readIa5(element: DerElement): string {
  return decodeAscii(element.content) ?? fail("not ASCII");
}

/** UTCTime or GeneralizedTime in the one form each that RFC 5280 §4.1.2.5 allows: with seconds, in UTC, no fraction. */
export function readTime(element: DerElement): Date {
  if (element.tag !== tag.utcTime && element.tag !== tag.generalizedTime) throw malformed("not a time");
  const text = decodeAscii(element.content) ?? "";
  const time = element.tag === tag.utcTime ? parseUtcTime(text) : parseGeneralizedTime(text);
  return time ?? fail("bad time");
}

// The writer: every function returns one DER value. Lengths minimal, DEFAULTs are the caller's to leave out.

/** Any value: identifier octet, then length, then the parts one after the other. */
export function encode(identifier: number, ...parts: readonly Uint8Array[]): Buffer {
  let length = 0;
  for (const part of parts) length += part.length;
  const lengthOctets = length < 0x80 ? 0 : length < 0x100 ? 1 : length < 0x10000 ? 2 : length < 0x1000000 ? 3 : 4;
  const out = Buffer.allocUnsafe(2 + lengthOctets + length);
  out[0] = identifier;
  if (lengthOctets === 0) out[1] = length;
  else {
    out[1] = 0x80 | lengthOctets;
    out.writeUIntBE(length, 2, lengthOctets);
  }
  let position = 2 + lengthOctets;
  for (const part of parts) {
    out.set(part, position);
    position += part.length;
  }
  return out;
}

export function sequence(...parts: readonly Uint8Array[]): Buffer {
  return encode(tag.sequence, ...parts);
}

/** SET OF: sorts its members as X.690 §11.6 demands. */
export function set(...parts: readonly Uint8Array[]): Buffer {
  return encode(tag.set, ...parts.toSorted(Buffer.compare));
}

/** A number, or the two's complement octets that `integerContent` gave: a serial number comes back as it was. */
export function integer(value: number | bigint | Uint8Array): Buffer {
  const content = typeof value === "object" ? value : integerOctets(BigInt(value));
  const written = encode(tag.integer, content);
  integerContent(readDer(written));
  return written;
}

/** An INTEGER ≥ 0 from big-endian octets without a sign, of any length. */
export function unsignedInteger(octets: Uint8Array): Buffer {
  const start = octets.findIndex((octet) => octet !== 0);
  if (start < 0) return integer(0);
  const significant = octets.subarray(start);
  return (significant[0] ?? 0) & 0x80
    ? encode(tag.integer, Buffer.of(0), significant)
    : encode(tag.integer, significant);
}

function integerOctets(value: bigint): Buffer {
  let length = 1;
  while (BigInt.asIntN(8 * length, value) !== value) length++;
  const hex = BigInt.asUintN(8 * length, value).toString(16);
  return Buffer.from(hex.padStart(2 * length, "0"), "hex");
}

export function oid(dotted: Oid): Buffer {
  const [first = 0n, second = 0n, ...rest] = dotted.split(".").map(BigInt);
  const octets: number[] = [];
  for (const arc of [first * 40n + second, ...rest]) {
    const base128 = [Number(arc & 0x7fn)];
    for (let left = arc >> 7n; left > 0n; left >>= 7n) base128.unshift(Number(left & 0x7fn) | 0x80);
    octets.push(...base128);
  }
  return encode(tag.oid, Buffer.from(octets));
}

export function octetString(bytes: Uint8Array): Buffer {
  return encode(tag.octetString, bytes);
}

/** `unused`: how many low bits of the last octet do not count; they must be zero. */
export function bitString(bytes: Uint8Array, unused = 0): Buffer {
  return encode(tag.bitString, Buffer.of(unused), bytes);
}

export function boolean(value: boolean): Buffer {
  return encode(tag.boolean, Buffer.of(value ? 0xff : 0));
}

export function nullValue(): Buffer {
  return encode(tag.null);
}

export function utf8String(text: string): Buffer {
  return encode(tag.utf8String, Buffer.from(text, "utf8"));
}

export function ia5String(text: string): Buffer {
  return encode(tag.ia5String, asciiOctets(text));
}

/** The caller sees to it that `text` keeps to the type's alphabet: letters, digits, space and '()+,-./:=? */
export function printableString(text: string): Buffer {
  return encode(tag.printableString, asciiOctets(text));
}

function asciiOctets(text: string): Buffer {
  return decodeAscii(Buffer.from(text)) === text ? Buffer.from(text) : fail("text is not ASCII");
}

/** UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280 §4.1.2.5); a fraction of a second is dropped. */
export function time(date: Date): Buffer {
  const { text, generalized } = formatTime(date);
  return encode(generalized ? tag.generalizedTime : tag.utcTime, Buffer.from(text, "latin1"));
}

/** `[n] EXPLICIT`: around one whole value. */
export function explicit(n: number, der: Uint8Array): Buffer {
  return encode(contextConstructed(n), der);
}

/** `[n] IMPLICIT` of a primitive type: around its content. */
export function implicitPrimitive(n: number, content: Uint8Array): Buffer {
  return encode(contextPrimitive(n), content);
}

/** `[n] IMPLICIT` of a SEQUENCE or SET: around its members. */
export function implicitConstructed(n: number, ...parts: readonly Uint8Array[]): Buffer {
  return encode(contextConstructed(n), ...parts);
}

function malformed(what: string): SuiteError {
  return new SuiteError("syntax", "not well-formed DER", { fault: "peer", details: { what } });
}

function fail(what: string): never {
  throw malformed(what);
}
