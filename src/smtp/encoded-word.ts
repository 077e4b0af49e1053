/** Encoded words that are looked at in one text. */
const maxWords = 1_000;

/** Reads the encoded words of RFC 2047 in unstructured text such as a Subject. What is none, or unknown, stays as it is. */
export function decodeWords(text: string): string {
  let words = 0;
  let decoded = "";
  let rest = 0;
  let run: { charset: string; bytes: Buffer[] } | undefined;
  const flush = () => {
    if (run !== undefined) decoded += decodeCharset(run.charset, Buffer.concat(run.bytes)) ?? "";
    run = undefined;
  };
  for (const match of text.matchAll(/=\?([\w.:+-]{1,40})(?:\*[\w-]*)?\?([bq])\?([^?\s]*)\?=/gi)) {
    if (++words > maxWords) break;
    const [whole, charset = "", encoding = "", content = ""] = match;
    if (decodeCharset(charset, Buffer.alloc(0)) === undefined) continue;
    const between = text.slice(rest, match.index);
    const bytes = encoding.toLowerCase() === "b" ? Buffer.from(content, "base64") : quotedBytes(content);
    // Characters may be cut between words of one character set; white space between two words is not text (§6.2).
    if (run === undefined || between.trim() !== "" || run.charset !== charset.toLowerCase()) {
      const joined = run !== undefined && between.trim() === "";
      flush();
      decoded += joined ? "" : between;
      run = { charset: charset.toLowerCase(), bytes: [] };
    }
    run.bytes.push(bytes);
    rest = match.index + whole.length;
  }
  flush();
  return decoded + text.slice(rest);
}

/** Writes text as encoded words where it is not printable ASCII; one space between words, for folding. */
export function encodeWords(text: string): string {
  const line = text.toWellFormed().replace(/[\x00-\x1f\x7f]+/g, " ");
  if (/^[\x20-\x7e]*$/.test(line) && !line.includes("=?")) return line;
  const words: string[] = [];
  let word = "";
  for (const character of line) {
    if (Buffer.byteLength(word + character) > 45) {
      words.push(word);
      word = "";
    }
    word += character;
  }
  words.push(word);
  return words.map((one) => `=?UTF-8?B?${Buffer.from(one).toString("base64")}?=`).join(" ");
}

function quotedBytes(content: string): Buffer {
  const text = content
    .replaceAll("_", " ")
    .replace(/=([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(text, "latin1");
}

function decodeCharset(charset: string, bytes: Buffer): string | undefined {
  try {
    return new TextDecoder(charset).decode(bytes);
  } catch {
    return undefined;
  }
}
