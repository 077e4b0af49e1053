import { setImmediate as turn } from "node:timers/promises";
import * as der from "../pki/der.ts";
import type { ByteReader } from "./byte-reader.ts";
import { malformed } from "./failure.ts";

const maxDepth = 32;
/** Elements without an own limit: names of algorithms, versions. What is in one is gone through at once. */
const maxElementBytes = 65_536;
const gatheredBytes = 65_536;
const gatheredPieces = 2_048;
/** After so many values others get their turn: what is buffered may have a hundred thousand of two octets. */
const valuesATurn = 2_048;

interface Frame {
  /** Where the value ends; undefined: at its end-of-contents octets. */
  end: number | undefined;
  /** The nearest end of whatever encloses it and has one. */
  bound: number;
}

/**
 * Pulls BER (X.690 §8) from a stream: enters and leaves what is constructed, takes small values whole and as DER, streams
 * octet strings. Everything that it throws of its own is SuiteError "seal-malformed".
 */
export class BerReader {
  readonly #bytes: ByteReader;
  readonly #frames: Frame[] = [];
  /** Values that were read since others had their turn. */
  #values = 0;

  constructor(bytes: ByteReader) {
    this.#bytes = bytes;
  }

  /** Identifier octet of the next value; undefined where the entered value, or the source, ends. */
  async peek(): Promise<number | undefined> {
    const frame = this.#frames.at(-1);
    if (frame === undefined) return (await this.#bytes.fill(1)) ? this.#bytes.view()[0] : undefined;
    if (frame.end !== undefined) {
      if (this.#bytes.consumed >= frame.end) return undefined;
      await this.#need(1);
      return this.#bytes.view()[0];
    }
    await this.#need(2);
    const [identifier, length] = this.#bytes.view();
    return identifier === 0 && length === 0 ? undefined : identifier;
  }

  /** Enters the next value, which must be constructed and have this identifier octet. */
  async enter(identifier: number): Promise<void> {
    const header = await this.#header();
    if (header.identifier !== identifier) throw malformed("unexpected type");
    this.#push(header.length);
  }

  /** Leaves the value that was entered last; it must be read to its end. */
  async leave(): Promise<void> {
    if ((await this.peek()) !== undefined) throw malformed("more than expected");
    const frame = this.#frames.pop();
    if (frame?.end === undefined) this.#bytes.take(2);
  }

  /** The next value, which must fit into `limit` bytes, with every length made definite and minimal. */
  async element(identifier?: number, limit = maxElementBytes): Promise<der.DerElement> {
    if (identifier !== undefined && (await this.peek()) !== identifier) throw malformed("unexpected type");
    return der.readDer(await this.#small({ left: limit }));
  }

  /** Takes the next value if it has this identifier octet. */
  async optional(identifier: number, limit = maxElementBytes): Promise<der.DerElement | undefined> {
    return (await this.peek()) === identifier ? this.element(identifier, limit) : undefined;
  }

  /**
   * Streams the content of an OCTET STRING of any size, primitive or constructed. `identifier` is that of the primitive
   * form; the constructed one has the constructed bit set and OCTET STRINGs inside (X.690 §8.7.3).
   */
  async *octets(identifier: number): AsyncGenerator<Buffer> {
    const first = await this.#header();
    if (first.identifier === identifier) {
      yield* this.#content(first.length ?? fail("primitive of indefinite length"));
      return;
    }
    if (first.identifier !== (identifier | 0x20)) throw malformed("not an octet string");
    this.#push(first.length);
    const base = this.#frames.length;
    while (this.#frames.length >= base) {
      const small = this.#smallOctets();
      if (small !== undefined) {
        yield small;
        await this.#count(0);
        continue;
      }
      const next = await this.peek();
      if (next === undefined) await this.leave();
      else if (next === 0x24) await this.enter(0x24);
      else if (next !== der.tag.octetString) throw malformed("not an octet string");
      else yield* this.#content((await this.#header()).length ?? fail("primitive of indefinite length"));
    }
  }

  /**
   * The contents of small OCTET STRINGs that are buffered one behind the other, in one piece: some programs write 4 KiB at a
   * time, and going step by step through each costs more than decrypting it.
   */
  #smallOctets(): Buffer | undefined {
    const view = this.#bytes.view();
    const frame = this.#frames.at(-1);
    const limit = Math.min(
      view.length,
      (frame?.end ?? frame?.bound ?? Number.POSITIVE_INFINITY) - this.#bytes.consumed,
    );
    const contents: Buffer[] = [];
    let at = 0;
    for (
      let size = 0;
      size < gatheredBytes && contents.length < gatheredPieces && at + 4 <= limit && view[at] === der.tag.octetString;
    ) {
      const first = view[at + 1] ?? 0;
      const octets = first === 0x81 ? 1 : first === 0x82 ? 2 : 0;
      if (first > 0x82 || first === 0x80) break;
      const start = at + 2 + octets;
      const end = start + (octets === 0 ? first : view.readUIntBE(at + 2, octets));
      if (end > limit) break;
      contents.push(view.subarray(start, end));
      size += end - start;
      at = end;
    }
    if (contents.length < 2) return undefined; // a single one goes uncopied
    const gathered = Buffer.concat(contents);
    this.#values += contents.length;
    this.#bytes.take(at);
    return gathered;
  }

  /** Reads over the next value, of at most `limit` bytes. */
  async skip(limit: number): Promise<void> {
    const { length } = await this.#header();
    if (length === undefined) {
      this.#push(undefined);
      const start = this.#bytes.consumed;
      while ((await this.peek()) !== undefined) await this.skip(limit - (this.#bytes.consumed - start));
      await this.leave();
    } else {
      if (length > limit) throw malformed("too long");
      for await (const _piece of this.#content(length));
    }
  }

  /** The source must end here. */
  async end(): Promise<void> {
    if (this.#frames.length > 0 || (await this.#bytes.fill(1))) throw malformed("trailing bytes");
  }

  async #count(values: number): Promise<void> {
    this.#values += values;
    if (this.#values < valuesATurn) return;
    this.#values = 0;
    await turn();
  }

  async #header(): Promise<{ identifier: number; length: number | undefined }> {
    await this.#count(1);
    await this.#need(2);
    const view = this.#bytes.view();
    const identifier = view[0] ?? 0;
    const first = view[1] ?? 0;
    if (identifier === 0) throw malformed("end of contents");
    if ((identifier & 0x1f) === 0x1f) throw malformed("high tag number");
    if (first < 0x80) return this.#counted(identifier, 2, first);
    if (first === 0x80) {
      if ((identifier & 0x20) === 0) throw malformed("primitive of indefinite length");
      return this.#counted(identifier, 2, undefined);
    }
    const octets = first & 0x7f;
    if (octets > 6) throw malformed("length too long");
    await this.#need(2 + octets);
    return this.#counted(identifier, 2 + octets, this.#bytes.view().readUIntBE(2, octets));
  }

  #counted(identifier: number, headerBytes: number, length: number | undefined) {
    this.#bytes.take(headerBytes);
    const bound = this.#frames.at(-1)?.bound ?? Number.POSITIVE_INFINITY;
    if (this.#bytes.consumed + (length ?? 0) > bound) throw malformed("longer than what encloses it");
    return { identifier, length };
  }

  #push(length: number | undefined): void {
    if (this.#frames.length >= maxDepth) throw malformed("nested too deeply");
    const bound = this.#frames.at(-1)?.bound ?? Number.POSITIVE_INFINITY;
    if (length === undefined) this.#frames.push({ end: undefined, bound });
    else this.#frames.push({ end: this.#bytes.consumed + length, bound: this.#bytes.consumed + length });
  }

  async *#content(length: number): AsyncGenerator<Buffer> {
    for (let left = length; left > 0; ) {
      const piece = (await this.#bytes.some(left)) ?? fail("truncated");
      left -= piece.length;
      yield piece;
    }
  }

  async #small(budget: { left: number }): Promise<Buffer> {
    const { identifier, length } = await this.#header();
    budget.left -= length ?? 4;
    if (budget.left < 0) throw malformed("too long");
    if (length !== undefined) {
      await this.#need(length);
      const content = this.#bytes.take(length);
      await this.#count(length >> 5); // there may be others in it
      if ((identifier & 0x20) === 0) return der.encode(identifier, content);
      return der.encode(identifier, ...definiteMembers(content, this.#frames.length + 1));
    }
    this.#push(undefined);
    const members: Buffer[] = [];
    while ((await this.peek()) !== undefined) members.push(await this.#small(budget));
    await this.leave();
    return der.encode(identifier, ...members);
  }

  async #need(count: number): Promise<void> {
    if (this.#bytes.available < count && !(await this.#bytes.fill(count))) throw malformed("truncated");
  }
}

/** The members of a constructed value as DER: the content itself, unchanged, if its lengths already are. */
function definiteMembers(content: Buffer, depth: number): Buffer[] {
  if (depth > maxDepth) throw malformed("nested too deeply");
  const members: Buffer[] = [];
  let changed = false;
  for (let position = 0; position < content.length; ) {
    const member = readMember(content, position, depth);
    changed ||= member.changed;
    members.push(member.der);
    position = member.end;
  }
  return changed ? members : [content];
}

function readMember(source: Buffer, start: number, depth: number): { der: Buffer; end: number; changed: boolean } {
  const header = readHeader(source, start);
  const constructed = (header.identifier & 0x20) !== 0;
  if (header.length === undefined) {
    const { members, end } = readIndefinite(source, header.contentStart, depth + 1);
    return { der: der.encode(header.identifier, ...members), end, changed: true };
  }
  const end = header.contentStart + header.length;
  if (end > source.length) throw malformed("longer than what encloses it");
  const content = source.subarray(header.contentStart, end);
  const members = constructed ? definiteMembers(content, depth + 1) : [content];
  if (header.minimal && members[0] === content) return { der: source.subarray(start, end), end, changed: false };
  return { der: der.encode(header.identifier, ...members), end, changed: true };
}

function readIndefinite(source: Buffer, start: number, depth: number): { members: Buffer[]; end: number } {
  if (depth > maxDepth) throw malformed("nested too deeply");
  const members: Buffer[] = [];
  for (let position = start; ; ) {
    if (source[position] === 0 && source[position + 1] === 0) return { members, end: position + 2 };
    const member = readMember(source, position, depth);
    members.push(member.der);
    position = member.end;
  }
}

function readHeader(source: Buffer, start: number) {
  const identifier = source[start] ?? fail("truncated");
  const first = source[start + 1] ?? fail("truncated");
  if (identifier === 0) throw malformed("end of contents");
  if ((identifier & 0x1f) === 0x1f) throw malformed("high tag number");
  const octets = first > 0x80 ? first & 0x7f : 0;
  if (octets > 6 || start + 2 + octets > source.length) throw malformed("truncated");
  if (first === 0x80) {
    if ((identifier & 0x20) === 0) throw malformed("primitive of indefinite length");
    return { identifier, length: undefined, contentStart: start + 2, minimal: false };
  }
  const length = octets === 0 ? first : source.readUIntBE(start + 2, octets);
  const minimal = octets === 0 || (length >= 0x80 && length >= 2 ** (8 * (octets - 1)));
  return { identifier, length, contentStart: start + 2 + octets, minimal };
}

function fail(what: string): never {
  throw malformed(what);
}
