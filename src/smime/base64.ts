import { malformed } from "./failure.ts";

const octetsPerLine = 57; // 76 columns (RFC 2045 §6.8)

/** Base64 in lines of 76 columns, each ended by CRLF. */
export async function* encodeBase64(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let pending: Buffer = Buffer.alloc(0);
  for await (const chunk of source) {
    const octets = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    const whole = octets.length - (octets.length % octetsPerLine);
    if (whole > 0) yield lines(octets.subarray(0, whole));
    pending = Buffer.from(octets.subarray(whole)); // a copy: the source may use its buffer again
  }
  if (pending.length > 0) yield lines(pending);
}

/**
 * Decodes base64 of any line lengths. White space is passed over; every other foreign character, padding inside and a cut
 * last group are errors: SuiteError "seal-malformed".
 */
export async function* decodeBase64(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let pending = "";
  let padded = false;
  for await (const chunk of source) {
    const text =
      pending +
      Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
        .toString("latin1")
        .replace(/[\r\n\t ]+/g, "");
    if (text !== "" && padded) throw malformed("base64 behind its padding");
    const whole = text.length - (text.length % 4);
    pending = text.slice(whole);
    if (whole === 0) continue;
    const groups = text.slice(0, whole);
    if (!/^[A-Za-z0-9+/]*={0,2}$/.test(groups)) throw malformed("not base64");
    padded = groups.endsWith("=");
    if (padded && pending !== "") throw malformed("base64 behind its padding");
    yield Buffer.from(groups, "base64");
  }
  if (pending !== "") throw malformed("base64 cut off");
}

function lines(octets: Uint8Array): Buffer {
  const text = Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString("base64");
  return Buffer.from(text.replace(/.{1,76}/g, "$&\r\n"), "latin1");
}
