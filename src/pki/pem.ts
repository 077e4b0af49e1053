import { SuiteError } from "./suite-error.ts";

/** Longest text that is read: a chain, a list of anchors; not a CRL, which comes as DER. */
const maxLength = 1 << 20;

/**
 * The DER of every block with this label ("CERTIFICATE", "CERTIFICATE REQUEST", …), in order; other blocks and the text
 * between blocks are passed over (RFC 7468 §2). Without a label, every block counts. Throws SuiteError "syntax" if no
 * such block is there, or one is not base64.
 */
export function pemToDer(pem: string, label?: string): Uint8Array[] {
  if (pem.length > maxLength) throw malformed("too long");
  const found: Uint8Array[] = [];
  for (const match of pem.matchAll(block)) {
    const [, begin, body = "", end] = match;
    if (begin !== end) throw malformed("labels differ");
    if (label === undefined || begin === label) found.push(decodeBase64(body));
  }
  if (found.length === 0) throw malformed("no such block");
  return found;
}

/** One block, lines of 64 characters, a line break at the end. */
export function derToPem(der: Uint8Array, label: string): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.length).toString("base64");
  const lines = base64.match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.map((line) => `${line}\n`).join("")}-----END ${label}-----\n`;
}

const block = /-----BEGIN ([A-Z0-9 ]{1,40})-----([^-]*)-----END ([A-Z0-9 ]{1,40})-----/g;

function decodeBase64(body: string): Uint8Array {
  const base64 = body.replace(/\s+/g, "");
  if (base64.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) throw malformed("not base64");
  return new Uint8Array(Buffer.from(base64, "base64"));
}

function malformed(what: string): SuiteError {
  return new SuiteError("syntax", "not a PEM file", { fault: "peer", details: { what } });
}
