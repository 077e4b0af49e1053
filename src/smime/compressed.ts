import { once } from "node:events";
import { createInflate } from "node:zlib";
import { readAlgorithm } from "../pki/algorithm.ts";
import * as der from "../pki/der.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { contentType } from "./algorithms.ts";
import type { BerReader } from "./ber-read.ts";
import { leaveContentInfo } from "./envelope-read.ts";
import { malformed, tooLarge, unsupported } from "./failure.ts";

/** ZLIB (RFC 3274 §2). */
const zlib = "1.2.840.113549.1.9.16.3.8";
/** What decompresses to more is a bomb. */
const maxRatio = 100;
const alwaysBytes = 65_536;

/**
 * Reads the CompressedData (RFC 3274 §1.1) of an entered ContentInfo. What it yields is whole only when it has come to its
 * end. Throws SuiteError "seal-malformed", "seal-unsupported", "syntax", or "seal-too-large" if it is more than `maxBytes`.
 */
export async function* decompressContent(ber: BerReader, maxBytes: number): AsyncGenerator<Buffer> {
  await ber.enter(der.tag.sequence);
  der.readSmallInteger(await ber.element(der.tag.integer)); // version
  const algorithm = readAlgorithm(await ber.element(der.tag.sequence));
  if (algorithm.oid !== zlib) throw unsupported("compression");
  await ber.enter(der.tag.sequence);
  if (der.readOid(await ber.element(der.tag.oid)) !== contentType.data) throw unsupported("compressed content type");
  await ber.enter(der.contextConstructed(0));
  yield* inflated(ber.octets(der.tag.octetString), maxBytes);
  await ber.leave();
  await ber.leave();
  await ber.leave();
  await leaveContentInfo(ber);
}

async function* inflated(source: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<Buffer> {
  const inflate = createInflate();
  let came = 0;
  const pumped = (async () => {
    for await (const piece of source) {
      came += piece.length;
      if (!inflate.write(piece)) await Promise.race([once(inflate, "drain"), once(inflate, "close")]);
      if (inflate.destroyed) return;
    }
    inflate.end();
  })();
  // What the source throws is told as it is; what is no zlib stream is malformed.
  let failure: { thrown: unknown } | undefined;
  pumped.catch((thrown: unknown) => {
    failure = { thrown };
    inflate.destroy();
  });
  let size = 0;
  try {
    for await (const piece of inflate as AsyncIterable<Buffer>) {
      size += piece.length;
      if (size > came * maxRatio + alwaysBytes) throw malformed("compressed too well");
      if (size > maxBytes) throw tooLarge(maxBytes);
      yield piece;
    }
  } catch (thrown) {
    if (failure !== undefined) throw failure.thrown;
    throw thrown instanceof SuiteError ? thrown : malformed("compression", thrown);
  } finally {
    inflate.destroy();
  }
  await pumped;
  if (inflate.bytesWritten !== came) throw malformed("trailing bytes");
}
