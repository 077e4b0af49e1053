import { SuiteError } from "../pki/suite-error.ts";

/** Before and after authentication (irp.md §2.2). */
export const MAX_FRAME_BEFORE = 8_192;
export const MAX_FRAME_AFTER = 262_144;

/** Four octets of length, big endian, then as much UTF-8. Fed with any pieces; keeps at most one frame. */
export class FrameReader {
  #buffer: Buffer = Buffer.alloc(0);
  /** What came since, until there is enough for the next step: nothing is copied for every piece. */
  #pieces: Buffer[] = [];
  #gathered = 0;
  #needed = 4;
  limit = MAX_FRAME_BEFORE;
  /** A length of 0 or over the limit: nothing behind it can be framed. The frames before it were handed out. */
  broken: SuiteError | undefined;

  /** @returns the frames that are complete now; then look at `broken` */
  push(chunk: Buffer): Buffer[] {
    if (this.broken !== undefined) return [];
    this.#pieces.push(chunk);
    this.#gathered += chunk.length;
    if (this.#buffer.length + this.#gathered < this.#needed) return [];
    this.#buffer = Buffer.concat([this.#buffer, ...this.#pieces.splice(0)]);
    this.#gathered = 0;
    const frames: Buffer[] = [];
    for (;;) {
      this.#needed = 4;
      if (this.#buffer.length < 4) return frames;
      const length = this.#buffer.readUInt32BE(0);
      if (length === 0 || length > this.limit) {
        this.broken = new SuiteError("syntax", "bad frame length", { fault: "peer", details: { code: "bad-frame" } });
        this.#buffer = Buffer.alloc(0);
        return frames;
      }
      this.#needed = 4 + length;
      if (this.#buffer.length < this.#needed) return frames;
      frames.push(this.#buffer.subarray(4, this.#needed)); // its own: `concat` made it
      this.#buffer = this.#buffer.subarray(this.#needed);
    }
  }

  /** Whether a frame has begun and is not complete. */
  get midFrame(): boolean {
    return this.#buffer.length + this.#gathered > 0;
  }
}

export function frame(text: string): Buffer {
  const body = Buffer.from(text, "utf8");
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}
