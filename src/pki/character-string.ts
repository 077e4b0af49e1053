import { isAscii, isUtf8 } from "node:buffer";

// The ASN.1 character string types as text; undefined where the bytes are none of the type.

export function decodeUtf8(content: Uint8Array): string | undefined {
  return isUtf8(content) ? view(content).toString("utf8") : undefined;
}

export function decodeAscii(content: Uint8Array): string | undefined {
  return isAscii(content) ? view(content).toString("latin1") : undefined;
}

export function decodeLatin1(content: Uint8Array): string {
  return view(content).toString("latin1");
}

/** BMPString: UTF-16 big-endian. */
export function decodeUtf16(content: Uint8Array): string | undefined {
  if (content.length % 2 !== 0) return undefined;
  const text = Buffer.from(content).swap16().toString("utf16le");
  return text.isWellFormed() ? text : undefined;
}

/** UniversalString: UTF-32 big-endian. */
export function decodeUtf32(content: Uint8Array): string | undefined {
  if (content.length % 4 !== 0) return undefined;
  const units = new DataView(content.buffer, content.byteOffset, content.length);
  let text = "";
  for (let i = 0; i < content.length; i += 4) {
    const codePoint = units.getUint32(i);
    if (codePoint > 0x10ffff) return undefined;
    text += String.fromCodePoint(codePoint);
  }
  return text.isWellFormed() ? text : undefined;
}

/**
 * Text from a certificate as it may be shown: no control, format or bidi characters, no line breaks, spaces collapsed,
 * at most `limit` characters.
 */
export function shownText(text: string, limit = 128): string {
  if (text.length <= limit && plain.test(text)) return text;
  const clean = text
    .replace(/[\p{Cc}\p{Zl}\p{Zp}\s]+/gu, " ")
    .replace(/[\p{Cf}\p{Co}\p{Cs}\p{Cn}]/gu, "")
    .trim();
  const characters = Array.from(clean);
  return characters.length <= limit ? clean : `${characters.slice(0, limit - 1).join("")}…`;
}

// Printable ASCII, words with single spaces between them: nearly every text there is, and nothing in it to clean.
const plain = /^[\x21-\x7e]+(?: [\x21-\x7e]+)*$/;

function view(content: Uint8Array): Buffer {
  return Buffer.from(content.buffer, content.byteOffset, content.length);
}
