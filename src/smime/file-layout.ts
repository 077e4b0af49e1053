import * as der from "../pki/der.ts";

/** Content that stands in an open file: nothing of it may change meanwhile. */
export interface OpenContent {
  readonly descriptor: number;
  readonly offset: number;
  readonly size: number;
}

/**
 * How the plaintext of an envelope is put together from a file: `before`, the file in OCTET STRINGs (`chunked`) or as it is,
 * and at its end what is known last, which no segment contains.
 */
export interface FileLayout {
  readonly before: Uint8Array;
  readonly chunked: boolean;
}

/** Plaintext, and ciphertext, of a segment: whole cipher blocks, one OCTET STRING of the envelope. */
export const segmentBytes = 262_144;
/** Of an OCTET STRING of 64 KiB to 16 MiB: identifier, and length in four octets. */
export const octetHeaderBytes = 5;
/** That of a segment's ciphertext. */
export const segmentHeader: Buffer = octetHeader(segmentBytes);
const smallestChunk = 65_536;

/** What of the file goes into a segment, and what stands before it there. */
export interface Segment {
  readonly before: Uint8Array;
  /** Offset in the file. */
  readonly at: number;
  readonly size: number;
}

export function segmentOf(layout: FileLayout, index: number): Segment {
  const headerBytes = layout.chunked ? octetHeaderBytes : 0;
  const first = segmentBytes - layout.before.length - headerBytes;
  if (first < smallestChunk) throw new Error("too much before the file");
  const chunk = segmentBytes - headerBytes;
  const size = index === 0 ? first : chunk;
  const header = layout.chunked ? octetHeader(size) : new Uint8Array();
  return {
    before: index === 0 ? Buffer.concat([layout.before, header]) : header,
    at: index === 0 ? 0 : first + (index - 1) * chunk,
    size,
  };
}

/** How many segments the file fills; what is left of it comes behind them. */
export function segmentCount(layout: FileLayout, fileSize: number): number {
  const { size: first } = segmentOf(layout, 0);
  const { size: chunk } = segmentOf(layout, 1);
  return fileSize < first ? 0 : 1 + Math.floor((fileSize - first) / chunk);
}

function octetHeader(length: number): Buffer {
  const header = Buffer.alloc(octetHeaderBytes);
  header.writeUInt32BE(length, 1);
  header[0] = der.tag.octetString;
  header[1] = 0x83;
  return header;
}
