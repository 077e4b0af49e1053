import type { ByteReader } from "./byte-reader.ts";
import { contentTypeOf, type EntityHead, parseHead, readHeadBytes } from "./entity.ts";
import { malformed } from "./failure.ts";

const maxPreambleBytes = 65_536;
const maxDelimiterRest = 1_024;

/** The boundary of a multipart type. Throws SuiteError "seal-malformed". */
export function boundaryOf(head: EntityHead): string {
  const boundary = contentTypeOf(head).parameters.get("boundary") ?? "";
  if (!/^[\x20-\x7e]{0,69}[\x21-\x7e]$/.test(boundary)) throw malformed("boundary"); // RFC 2046 §5.1.1
  return boundary;
}

/**
 * Cuts the parts of a multipart body out of the raw bytes, as signatures need them: the line end before a delimiter
 * belongs to the delimiter (RFC 2046 §5.1.1), all else is untouched. `preamble`, then each part in turn to its end.
 */
export class MultipartReader {
  readonly #reader: ByteReader;
  readonly #delimiter: Buffer;
  #closed = false;

  constructor(reader: ByteReader, boundary: string) {
    this.#reader = reader;
    this.#delimiter = Buffer.from(`\n--${boundary}`, "latin1");
  }

  /** Reads over what stands before the first delimiter. */
  async preamble(): Promise<void> {
    const first = this.#delimiter.subarray(1);
    await this.#reader.fill(first.length);
    if (this.#reader.view().subarray(0, first.length).equals(first)) {
      this.#reader.take(first.length);
      if (await this.#endOfDelimiter()) return;
    }
    let size = 0;
    for await (const piece of this.part()) {
      size += piece.length;
      if (size > maxPreambleBytes) throw malformed("preamble too long");
    }
  }

  /** The bytes up to the next delimiter. */
  async *part(): AsyncGenerator<Buffer> {
    if (this.#closed) throw malformed("part missing");
    const keep = this.#delimiter.length; // with the CR that may stand before it
    for (;;) {
      const view = this.#reader.view();
      const at = view.indexOf(this.#delimiter);
      if (at < 0) {
        if (view.length > keep) yield this.#reader.take(view.length - keep);
        if (!(await this.#reader.fill(this.#reader.available + 1))) throw malformed("multipart cut off");
        continue;
      }
      const end = view[at - 1] === 0x0d ? at - 1 : at;
      if (end > 0) yield this.#reader.take(end);
      const lineEnd = Buffer.from(this.#reader.take(at + keep - end));
      if (await this.#endOfDelimiter()) return;
      yield lineEnd; // a line that only begins like a delimiter
    }
  }

  /** The head of a part; what `part` yields next is its body. */
  async head(): Promise<EntityHead> {
    return parseHead(await readHeadBytes(this.#reader));
  }

  /** No part may follow. What stands behind is read over. */
  async end(): Promise<void> {
    if (!this.#closed) throw malformed("more parts than two");
    for await (const _piece of this.#reader.rest());
  }

  /** Takes the rest of a delimiter's line: white space, or `--` and anything. False if it is no delimiter. */
  async #endOfDelimiter(): Promise<boolean> {
    for (;;) {
      const view = this.#reader.view();
      const lf = view.indexOf(0x0a);
      const rest = view.toString("latin1", 0, Math.min(lf < 0 ? view.length : lf, maxDelimiterRest + 1));
      if (rest.startsWith("--")) {
        this.#closed = true;
        return true;
      }
      if (!/^(?:-|[ \t]*\r?)$/.test(rest)) return false;
      if (rest.length > maxDelimiterRest) throw malformed("delimiter too long");
      if (lf >= 0) {
        if (rest === "-") return false;
        this.#reader.take(lf + 1);
        return true;
      }
      if (!(await this.#reader.fill(view.length + 1))) throw malformed("multipart cut off");
    }
  }
}
