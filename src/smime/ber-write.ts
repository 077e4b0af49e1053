import * as der from "../pki/der.ts";

/** Content up to this size is written as DER; above, as indefinite lengths around chunks. */
export const definiteLimit = 1_048_576;
export const chunkBytes = 262_144;

/** Identifier octet and indefinite length (X.690 §8.1.3.6), for each value that is opened. */
export function opened(...identifiers: readonly number[]): Buffer {
  return Buffer.from(identifiers.flatMap((identifier) => [identifier, 0x80]));
}

/** End-of-contents octets for `count` opened values. */
export function closed(count: number): Buffer {
  return Buffer.alloc(2 * count);
}

/** OCTET STRINGs of 256 KiB, the last one shorter, none empty: the inside of a constructed OCTET STRING. */
export async function* octetChunks(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  const header = Buffer.of(der.tag.octetString, 0x83, 0x04, 0x00, 0x00); // 0x040000 = 256 KiB
  let chunk = Buffer.allocUnsafe(header.length + chunkBytes);
  let used = header.length;
  for await (const piece of source) {
    for (let taken = 0; taken < piece.length; ) {
      const count = Math.min(chunk.length - used, piece.length - taken);
      chunk.set(piece.subarray(taken, taken + count), used);
      used += count;
      taken += count;
      if (used < chunk.length) continue;
      header.copy(chunk);
      yield chunk;
      chunk = Buffer.allocUnsafe(header.length + chunkBytes);
      used = header.length;
    }
  }
  if (used > header.length) yield der.octetString(chunk.subarray(header.length, used));
}

export type Gathered = { small: Buffer } | { large: AsyncIterable<Uint8Array> };

/** Reads ahead: the whole source if it has at most `limit` bytes, else a stream that begins with what was read. */
export async function gather(source: AsyncIterable<Uint8Array>, limit = definiteLimit): Promise<Gathered> {
  const iterator = source[Symbol.asyncIterator]();
  const pieces: Uint8Array[] = [];
  let size = 0;
  while (size <= limit) {
    const next = await iterator.next();
    if (next.done) return { small: Buffer.concat(pieces) };
    pieces.push(Buffer.from(next.value)); // copied: the source may use its buffer again
    size += next.value.length;
  }
  return { large: replayed(pieces, iterator) };
}

async function* replayed(pieces: Uint8Array[], iterator: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* pieces.splice(0);
    for (;;) {
      const next = await iterator.next();
      if (next.done) return;
      yield next.value;
    }
  } finally {
    await iterator.return?.();
  }
}
