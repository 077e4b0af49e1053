import * as der from "../pki/der.ts";

/** Content up to this size is written as DER; above, as indefinite lengths around chunks. */
export const definiteLimit = 1_048_576;
/** Pieces that together are smaller than this go into one chunk. */
const joinedBytes = 65_536;

/** Identifier octet and indefinite length (X.690 §8.1.3.6), for each value that is opened. */
export function opened(...identifiers: readonly number[]): Buffer {
  return Buffer.from(identifiers.flatMap((identifier) => [identifier, 0x80]));
}

/** End-of-contents octets for `count` opened values. */
export function closed(count: number): Buffer {
  return Buffer.alloc(2 * count);
}

/**
 * OCTET STRINGs, none empty: the inside of a constructed OCTET STRING. What comes in large pieces goes on uncopied, each an
 * OCTET STRING; small ones are joined. A piece must not change before it was taken.
 */
export async function* octetChunks(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let pending = Buffer.allocUnsafe(joinedBytes);
  let used = 0;
  for await (const piece of source) {
    if (used + piece.length >= joinedBytes) {
      yield Buffer.concat([octetHeader(used + piece.length), pending.subarray(0, used)]);
      yield Buffer.from(piece.buffer, piece.byteOffset, piece.length);
      used = 0;
      pending = Buffer.allocUnsafe(joinedBytes);
    } else {
      pending.set(piece, used);
      used += piece.length;
    }
  }
  if (used > 0) yield der.octetString(pending.subarray(0, used));
}

/** Identifier and length of an OCTET STRING. */
function octetHeader(length: number): Buffer {
  const bytes = length.toString(16);
  const octets = Buffer.from(bytes.padStart(bytes.length + (bytes.length % 2), "0"), "hex");
  return Buffer.concat([Buffer.of(der.tag.octetString, 0x80 | octets.length), octets]);
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
