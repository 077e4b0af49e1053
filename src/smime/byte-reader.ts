/**
 * Pulls bytes out of chunks of any size: what is asked for comes back whole, however it was cut. Holds no more than what
 * was asked for and one chunk. Slices that it returned stay as they are; they may be views of the source's own chunks.
 */
export class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>;
  #buffer: Buffer = Buffer.alloc(0);
  #start = 0;
  #end = 0;
  #ended = false;
  #consumed = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** Bytes taken so far. */
  get consumed(): number {
    return this.#consumed;
  }

  get available(): number {
    return this.#end - this.#start;
  }

  /** All that is buffered, not taken. */
  view(): Buffer {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  /** Waits until `count` bytes are buffered; false if the source ends before. */
  async fill(count: number): Promise<boolean> {
    while (this.available < count) {
      if (this.#ended) return false;
      const next = await this.#source.next();
      if (next.done) this.#ended = true;
      else if (next.value.length > 0) this.#append(next.value, count);
    }
    return true;
  }

  /** Takes `count` bytes that are buffered. */
  take(count: number): Buffer {
    if (count > this.available) throw new RangeError("taken before it was there");
    const taken = this.#buffer.subarray(this.#start, this.#start + count);
    this.#start += count;
    this.#consumed += count;
    return taken;
  }

  /** Takes what is there, at least one byte, at most `max`; undefined at the end of the source. */
  async some(max: number): Promise<Buffer | undefined> {
    if (this.available === 0 && !(await this.fill(1))) return undefined;
    return this.take(Math.min(max, this.available));
  }

  /** Takes everything up to the end of the source. */
  async *rest(): AsyncGenerator<Buffer> {
    for (;;) {
      const piece = await this.some(Number.POSITIVE_INFINITY);
      if (piece === undefined) return;
      yield piece;
    }
  }

  #append(chunk: Uint8Array, wanted: number): void {
    const available = this.available;
    if (available === 0) {
      this.#buffer = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
      this.#start = 0;
      this.#end = chunk.length;
      return;
    }
    const needed = available + chunk.length;
    // A chunk of the source's has no room behind it, so that only what was allocated here is written to.
    if (this.#buffer.length - this.#end < chunk.length) {
      // Never moved in place: slices that were handed out are views of the old buffer.
      const grown = Buffer.allocUnsafe(Math.max(2 * needed, Math.min(wanted, 2 * needed + 65_536)));
      this.#buffer.copy(grown, 0, this.#start, this.#end);
      this.#buffer = grown;
      this.#start = 0;
      this.#end = available;
    }
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
  }
}

/** Joins small pieces into ones of `size` bytes and passes large ones on: many tiny cipher calls cost half the speed. */
export async function* coalesce(source: AsyncIterable<Buffer>, size = 65_536): AsyncGenerator<Buffer> {
  let pending = Buffer.allocUnsafe(size);
  let used = 0;
  for await (const piece of source) {
    if (used > 0 && used + piece.length > size) {
      yield pending.subarray(0, used);
      pending = Buffer.allocUnsafe(size);
      used = 0;
    }
    if (piece.length >= size / 2) {
      if (used > 0) {
        yield pending.subarray(0, used);
        pending = Buffer.allocUnsafe(size);
        used = 0;
      }
      yield piece;
      continue;
    }
    piece.copy(pending, used);
    used += piece.length;
  }
  if (used > 0) yield pending.subarray(0, used);
}
