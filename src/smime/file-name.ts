import type { Identity } from "../pki/identity.ts";
import { contentTypeOf, type EntityHead, fieldOf, headerField } from "./entity.ts";
import { formatParameter, parseParameterised } from "./parameter.ts";

/** What the signed head of a file says about it; outside the seal none of it stands. */
export interface FileFacts {
  readonly name: string;
  readonly mediaType: string;
  readonly size?: number;
  readonly modified?: Date;
}

export interface FileHead extends FileFacts {
  readonly from: Identity;
  readonly to: readonly Identity[];
  readonly date: Date;
  /** Without angle brackets. */
  readonly messageId: string;
}

/** The head of a file to be signed: who, to whom, and the file's facts (RFC 2183, RFC 2231). */
export function fileHead(file: FileHead): EntityHead {
  const disposition = [
    "attachment",
    formatParameter("filename", safeFileName(file.name)),
    ...(file.size === undefined ? [] : [formatParameter("size", String(file.size))]),
    ...(file.modified === undefined ? [] : [formatParameter("modification-date", mailDate(file.modified))]),
  ];
  return {
    fields: [
      headerField("From", file.from),
      headerField("To", file.to.join(", ")),
      headerField("Date", mailDate(file.date)),
      headerField("Message-ID", `<${file.messageId}>`),
      headerField("MIME-Version", "1.0"),
      headerField("Content-Type", mediaTypeForm.test(file.mediaType) ? file.mediaType : "application/octet-stream"),
      headerField("Content-Disposition", disposition.join("")),
      headerField("Content-Transfer-Encoding", "binary"),
    ],
  };
}

/** What a head says about its file. The name is safe to use; it is "file" if there is none. */
export function fileFacts(head: EntityHead): FileFacts {
  const type = contentTypeOf(head);
  const { parameters } = parseParameterised(fieldOf(head, "Content-Disposition")?.value ?? "attachment");
  const size = parameters.get("size");
  const modified = new Date(parameters.get("modification-date") ?? Number.NaN);
  return {
    name: safeFileName(parameters.get("filename") ?? type.parameters.get("name") ?? ""),
    mediaType: mediaTypeForm.test(type.value) ? type.value : "application/octet-stream",
    ...(size !== undefined && /^\d{1,15}$/.test(size) ? { size: Number(size) } : {}),
    ...(Number.isNaN(modified.getTime()) ? {} : { modified }),
  };
}

/**
 * A name that stays one file in one folder on every system: the last path segment, NFC, nothing unseen or reversing, no
 * colon, no dot in front, no Windows device, at most 255 octets. "file" if nothing is left.
 */
export function safeFileName(name: string): string {
  const segment = name.toWellFormed().split(/[/\\]/).at(-1) ?? "";
  const cleaned = segment
    .normalize("NFC")
    .replace(/[\p{Cc}\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff\ufffd]/gu, "")
    .replaceAll(":", "_")
    .replace(/^[. ]+|[. ]+$/g, "");
  const named = cleaned === "" ? "file" : cleaned;
  const harmless = /^(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:[ .]|$)/i.test(named)
    ? `_${named}`
    : named;
  return shortened(harmless, 255);
}

/** RFC 5322 §3.3, in UTC. */
export function mailDate(date: Date): string {
  return date.toUTCString().replace("GMT", "+0000");
}

const mediaTypeForm = /^[a-z0-9!#$&^_.+-]{1,127}\/[a-z0-9!#$&^_.+-]{1,127}$/i;

/** Cuts before the extension, between characters. */
function shortened(name: string, maxOctets: number): string {
  if (Buffer.byteLength(name) <= maxOctets) return name;
  const extension = /\.[^. ]{1,16}$/u.exec(name)?.[0] ?? "";
  let left = maxOctets - Buffer.byteLength(extension);
  let stem = "";
  for (const character of name.slice(0, name.length - extension.length)) {
    left -= Buffer.byteLength(character);
    if (left < 0) break;
    stem += character;
  }
  return stem.replace(/[. ]+$/, "") + extension;
}
