import { SuiteError } from "../pki/suite-error.ts";

/** Before and after authentication (irp.md §2.2). */
export const MAX_FRAME_BEFORE = 8_192;
export const MAX_FRAME_AFTER = 262_144;

/** Four octets of length, big endian, then as much UTF-8. Fed with any pieces; keeps at most one frame. */
export class FrameReader {
  #buffer: Buffer = Buffer.alloc(0);
  limit = MAX_FRAME_BEFORE;

  /** @throws SuiteError syntax (`bad-frame`) for a length of 0 or over the limit */
  push(chunk: Buffer): Buffer[] {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    const frames: Buffer[] = [];
    for (;;) {
      if (this.#buffer.length < 4) return frames;
      const length = this.#buffer.readUInt32BE(0);
      if (length === 0 || length > this.limit)
        throw new SuiteError("syntax", "bad frame length", { fault: "peer", details: { code: "bad-frame" } });
      if (this.#buffer.length < 4 + length) return frames;
      frames.push(Buffer.from(this.#buffer.subarray(4, 4 + length)));
      this.#buffer = this.#buffer.subarray(4 + length);
    }
  }

  /** Whether a frame has begun and is not complete. */
  get midFrame(): boolean {
    return this.#buffer.length > 0;
  }
}

export function frame(text: string): Buffer {
  const body = Buffer.from(text, "utf8");
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}
