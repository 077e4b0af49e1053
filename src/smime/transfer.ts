import { z } from "zod";
import type { Fingerprint } from "../pki/certificate.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type EntityHead, type HeaderField, headerField } from "./entity.ts";
import { malformed } from "./failure.ts";
import { safeFileName } from "./file-name.ts";

/** Larger files go in parts (smime.md §2.9). */
export const PARTS_ABOVE = 1024 ** 3;
export const PART_BYTES = 512 * 1024 ** 2;
export const MAX_PARTS = 4_096;
export const MANIFEST_TYPE = "application/vnd.sixtalk.manifest+json";
export const MAX_MANIFEST_BYTES = 1_048_576;

/** One part of a file: bytes `offset` up to `offset + size`. Parts are counted from 0. */
export interface PartRange {
  readonly part: number;
  readonly offset: number;
  readonly size: number;
}

/** What the signed head of a part says: which piece of which transfer it is. */
export interface PartPlace {
  /** 32 hex digits. */
  readonly transfer: string;
  readonly part: number;
  readonly of: number;
  readonly offset: number;
  readonly total: number;
}

/** What the sender signs at the end: the file, and each part by the digest that was signed with it. */
export interface Manifest {
  readonly transfer: string;
  /** Safe to use. */
  readonly name: string;
  readonly mediaType: string;
  readonly size: number;
  readonly partSize: number;
  readonly modified?: Date;
  readonly parts: readonly { readonly size: number /** The part's messageDigest, hex. */; readonly digest: string }[];
}

/** A part whose seal was opened and verified. */
export interface VerifiedPart {
  readonly place: PartPlace;
  readonly size: number;
  /** messageDigest, hex. */
  readonly digest: string;
  readonly signer: Fingerprint;
}

/** Cuts a file into parts of `partBytes`; the last one has the rest. @throws SuiteError limit-exceeded above 4096 parts */
export function splitInParts(total: number, partBytes: number): PartRange[] {
  const count = Math.ceil(total / partBytes);
  if (count > MAX_PARTS) {
    throw new SuiteError("limit-exceeded", "the file is too large", { fault: "local", details: { total } });
  }
  return Array.from({ length: count }, (_, part) => {
    const offset = part * partBytes;
    return { part, offset, size: Math.min(partBytes, total - offset) };
  });
}

/** Names of the sealed objects outside: nothing of the file shows in them. */
export function objectName(transfer: string, what: "whole" | "manifest" | number): string {
  if (what === "whole") return `${transfer}.p7m`;
  return `${transfer}.${what === "manifest" ? what : String(what).padStart(4, "0")}.p7m`;
}

export function transferField({ transfer, part, of, offset, total }: PartPlace): HeaderField {
  return headerField("SixTalk-Transfer", `id=${transfer}; part=${part}; of=${of}; offset=${offset}; total=${total}`);
}

/**
 * Which part the signed thing is; nothing if it is none.
 * @throws SuiteError seal-malformed if the field stands there twice or says what cannot be
 */
export function placeOf(head: EntityHead): PartPlace | undefined {
  const fields = head.fields.filter(({ name }) => name.toLowerCase() === "sixtalk-transfer");
  const [field] = fields;
  if (field === undefined) return undefined;
  const match = fieldForm.exec(field.value);
  if (fields.length > 1 || match === null) throw malformed("transfer field");
  const [, transfer = "", ...numbers] = match;
  const [part = 0, of = 0, offset = 0, total = 0] = numbers.map(Number);
  const place = { transfer, part, of, offset, total };
  if (
    !Number.isSafeInteger(offset) ||
    !Number.isSafeInteger(total) ||
    of > MAX_PARTS ||
    part >= of ||
    offset >= total
  ) {
    throw malformed("transfer field");
  }
  return place;
}

const fieldForm =
  /^id=([0-9a-f]{32}); part=(0|[1-9]\d{0,3}); of=([2-9]|[1-9]\d{1,3}); offset=(0|[1-9]\d{0,15}); total=([1-9]\d{0,15})$/;

/**
 * The size of all parts but the last, by what one part says of itself and how much it holds. Parts that agree in this, in
 * `of` and `total` cannot overlap or leave a gap, whatever their number.
 * @throws SuiteError seal-malformed
 */
export function partSizeBy({ part, of, offset, total }: PartPlace, size: number): number {
  const partSize = part === 0 ? size : offset / part;
  const expected = part === of - 1 ? total - offset : partSize;
  const fits = Number.isSafeInteger(partSize) && partSize > 0 && size === expected && offset === part * partSize;
  if (!fits || Math.ceil(total / partSize) !== of) throw malformed("part out of place");
  return partSize;
}

export function manifestBytes({ transfer, name, mediaType, size, partSize, modified, parts }: Manifest): Buffer {
  return Buffer.from(
    JSON.stringify({
      v: 1,
      transfer,
      name,
      mediaType,
      size,
      partSize,
      ...(modified === undefined ? {} : { modified: modified.toISOString() }),
      parts: parts.map((part) => ({ size: part.size, digest: `${hashOf(part.digest)}:${part.digest}` })),
    }),
  );
}

/** @throws SuiteError seal-malformed: another version, a wrong form, sizes that do not add up */
export function parseManifest(bytes: Uint8Array): Manifest {
  const { name, parts, modified, v: _v, ...facts } = parsed(bytes);
  const { size, partSize } = facts;
  const right = (part: number) => (part === parts.length - 1 ? size - part * partSize : partSize);
  if (Math.ceil(size / partSize) !== parts.length || parts.some((one, part) => one.size !== right(part))) {
    throw malformed("manifest sizes");
  }
  return {
    ...facts,
    name: safeFileName(name),
    ...(modified === undefined ? {} : { modified: new Date(modified) }),
    parts: parts.map((one) => ({ size: one.size, digest: one.digest.slice(one.digest.indexOf(":") + 1) })),
  };
}

function parsed(bytes: Uint8Array): z.infer<typeof manifestForm> {
  if (bytes.length > MAX_MANIFEST_BYTES) throw malformed("manifest too long");
  try {
    return manifestForm.parse(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
  } catch (cause) {
    throw malformed("manifest", cause);
  }
}

const count = z.number().int().min(1).max(Number.MAX_SAFE_INTEGER);
const manifestForm = z.strictObject({
  v: z.literal(1),
  transfer: z.string().regex(/^[0-9a-f]{32}$/),
  name: z.string().max(1_024),
  mediaType: z.string().regex(/^[a-z0-9!#$&^_.+-]{1,127}\/[a-z0-9!#$&^_.+-]{1,127}$/i),
  size: count,
  partSize: count,
  modified: z.iso.datetime().optional(),
  parts: z
    .array(
      z.strictObject({
        size: count,
        digest: z.string().regex(/^(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$/),
      }),
    )
    .min(2)
    .max(MAX_PARTS),
});

/**
 * Compares what was received with what the sender says it is.
 * @param signer whose signature the manifest has
 * @returns whether all parts are there
 * @throws SuiteError seal-malformed if anything disagrees: then these parts never become this file
 */
export function checkTransfer(manifest: Manifest, signer: Fingerprint, parts: Iterable<VerifiedPart>): boolean {
  const seen = new Set<number>();
  for (const { place, size, digest, signer: partSigner } of parts) {
    const listed = manifest.parts[place.part];
    const agrees =
      listed !== undefined &&
      !seen.has(place.part) &&
      place.transfer === manifest.transfer &&
      place.of === manifest.parts.length &&
      place.total === manifest.size &&
      place.offset === place.part * manifest.partSize &&
      size === listed.size &&
      digest === listed.digest &&
      partSigner === signer;
    if (!agrees) throw malformed("part and manifest disagree");
    seen.add(place.part);
  }
  return seen.size === manifest.parts.length;
}

function hashOf(digest: string): string {
  return `sha${digest.length * 4}`;
}
