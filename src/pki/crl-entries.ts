import * as der from "./der.ts";
import { type CrlReason, crlReasons } from "./distribution-point.ts";
import { readExtensionList } from "./extension.ts";
import { readGeneralNames } from "./general-name.ts";
import { type Name, readName, sameName } from "./name.ts";
import { crlEntryExtension, type Oid } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";

export interface RevokedEntry {
  readonly reason: CrlReason;
  readonly since: Date;
}

/**
 * Where the entries of a list are: a hash table of their offsets, 4 octets a slot, three quarters full. Plain data, which
 * one thread can make for another.
 */
export interface EntryTable {
  readonly size: number;
  /** Offset + 1; 0 is a free slot. */
  readonly slots: Uint32Array<ArrayBuffer>;
  /** Of indirect lists: whose certificate the entry of each slot is about: 0 the list's issuer, n the nth of `issuers`. */
  readonly issuerOf: Uint32Array<ArrayBuffer> | undefined;
  /** DER of the names that entries of an indirect list bring up. */
  readonly issuers: readonly Uint8Array[];
  /** Critical extensions of entries that are not understood. */
  readonly criticalUnknown: readonly Oid[];
}

const maxEntries = 4_000_000;
const maxSerialOctets = 32;
/** Changes of issuer in an indirect list. */
const maxIssuers = 10_000;
/** Of their names: each is read by whoever looks something up. */
const maxIssuerOctets = 1024 * 1024;
/** Of critical extensions that are not understood one is enough to make the list unusable. */
const maxCriticalUnknown = 16;

/** Reads the content of revokedCertificates in one pass. @throws SuiteError certificate-malformed, syntax */
export function tableOf(content: Uint8Array, issuer: Name, indirect: boolean): EntryTable {
  const scanned = scan(content, indirect);
  const { starts, issuerOf: issuerOfEntry } = scanned;
  const length = 4 + Math.ceil((starts.length * 4) / 3);
  const slots = new Uint32Array(length);
  const issuerOf = indirect ? new Uint32Array(length) : undefined;
  // Of honest lists an entry finds its slot after one or two others. Nobody has proven yet who made this one.
  let probes = 1_000 + 16 * starts.length;
  const salts = indirect ? [issuer, ...scanned.issuers].map(saltOf) : [0];
  for (let n = 0; n < starts.length; n += 1) {
    const start = starts[n] ?? 0;
    const serial = contentStart(content, start);
    const end = endOf(content, serial, der.tag.integer);
    let at = slotOf(content, contentStart(content, serial), end, salts[issuerOfEntry?.[n] ?? 0] ?? 0, length);
    for (; slots[at] !== 0; at = at + 1 === length ? 0 : at + 1) {
      if (--probes < 0) throw malformed("too many serial numbers that are alike");
    }
    slots[at] = start + 1;
    if (issuerOf !== undefined) issuerOf[at] = issuerOfEntry?.[n] ?? 0;
  }
  const { criticalUnknown } = scanned;
  return { size: starts.length, slots, issuerOf, issuers: scanned.issuers.map((one) => one.der), criticalUnknown };
}

/** Entries of revokedCertificates, found by their table. */
export class RevokedEntries {
  readonly #content: Uint8Array;
  readonly #table: EntryTable;
  readonly #issuers: readonly Name[];

  constructor(content: Uint8Array, issuer: Name, table: EntryTable) {
    this.#content = content;
    this.#table = table;
    this.#issuers = [issuer, ...table.issuers.map((bytes) => readName(der.readDer(bytes)))];
  }

  find(serial: Uint8Array, issuer: Name): RevokedEntry | undefined {
    const { slots, issuerOf } = this.#table;
    const salt = issuerOf === undefined ? 0 : saltOf(issuer);
    for (let at = slotOf(serial, 0, serial.length, salt, slots.length); slots[at] !== 0; ) {
      const start = (slots[at] ?? 0) - 1;
      const about = this.#issuers[issuerOf?.[at] ?? 0];
      if (this.#isSerialAt(start, serial) && about !== undefined && sameName(about, issuer)) return this.#read(start);
      at = at + 1 === slots.length ? 0 : at + 1;
    }
    return undefined;
  }

  #read(start: number): RevokedEntry {
    const content = this.#content;
    const cursor = new der.DerCursor(
      der.readDer(content.subarray(start, endOf(content, start, der.tag.sequence))).content,
    );
    cursor.next(der.tag.integer);
    const since = timeOr(cursor.next(), new Date(0));
    const wrapped = cursor.optional(der.tag.sequence);
    const code =
      wrapped === undefined
        ? undefined
        : readExtensionList(wrapped).find(({ type }) => type === crlEntryExtension.reasonCode)?.value[2];
    return { since, reason: crlReasons[(code ?? 0) as keyof typeof crlReasons] ?? "unspecified" };
  }

  #isSerialAt(start: number, serial: Uint8Array): boolean {
    const element = contentStart(this.#content, start);
    const at = contentStart(this.#content, element);
    if (endOf(this.#content, element, der.tag.integer) - at !== serial.length) return false;
    for (let n = 0; n < serial.length; n += 1) if (this.#content[at + n] !== serial[n]) return false;
    return true;
  }
}

interface Scanned {
  starts: Uint32Array;
  issuerOf: Uint32Array | undefined;
  issuers: readonly Name[];
  criticalUnknown: readonly Oid[];
}

/** One pass over all entries; extensions are looked into only where they are not the one that is everywhere. */
function scan(content: Uint8Array, indirect: boolean): Scanned {
  let starts = new Uint32Array(1_024);
  let issuerOf = indirect ? new Uint32Array(1_024) : undefined;
  const issuers: Name[] = [];
  const criticalUnknown: Oid[] = [];
  let count = 0;
  let issuerOctets = 0;
  for (let at = 0; at < content.length; ) {
    const end = endOf(content, at, der.tag.sequence);
    if (count === maxEntries) throw malformed("too many entries");
    if (count === starts.length) {
      starts = grown(starts);
      if (issuerOf !== undefined) issuerOf = grown(issuerOf);
    }
    const serial = contentStart(content, at);
    const serialEnd = endOf(content, serial, der.tag.integer);
    if (serialEnd - contentStart(content, serial) > maxSerialOctets) throw malformed("serial number too long");
    const dateTag = content[serialEnd];
    if (dateTag !== der.tag.utcTime && dateTag !== der.tag.generalizedTime) throw malformed("date missing");
    const dateEnd = endOf(content, serialEnd, dateTag);
    if (dateEnd > end) throw malformed("entry overruns");
    if (dateEnd < end && !isReasonAlone(content, dateEnd, end)) {
      const about = readExtensions(content.subarray(dateEnd, end), criticalUnknown);
      if (about !== undefined && indirect) {
        issuers.push(about);
        issuerOctets += about.der.length;
      }
      if (issuers.length === maxIssuers || issuerOctets > maxIssuerOctets) throw malformed("too many issuers");
    }
    if (issuerOf !== undefined) issuerOf[count] = issuers.length; // stands for those that follow, too (RFC 5280 §5.3.3)
    starts[count++] = at;
    at = end;
  }
  return { starts: starts.subarray(0, count), issuerOf, issuers, criticalUnknown };
}

/** @returns the certificateIssuer, if the entry names one */
function readExtensions(bytes: Uint8Array, critical: Oid[]): Name | undefined {
  let about: Name | undefined;
  for (const extension of readExtensionList(der.readDer(bytes))) {
    if (extension.type === crlEntryExtension.certificateIssuer) {
      const names = readGeneralNames(sequenceOf(der.readDer(extension.value)).content, 64);
      about = names.flatMap((name) => (name.type === "directoryName" ? name.name : []))[0];
    } else if (
      extension.critical &&
      extension.type !== crlEntryExtension.reasonCode &&
      critical.length < maxCriticalUnknown &&
      !critical.includes(extension.type)
    )
      critical.push(extension.type);
  }
  return about;
}

/** FNV-1a, spread over `slots`. */
function slotOf(bytes: Uint8Array, from: number, to: number, salt: number, slots: number): number {
  let hash = 0x811c9dc5 ^ salt;
  for (let at = from; at < to; at += 1) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193);
  return Math.floor((((hash ^ (hash >>> 15)) >>> 0) / 0x1_0000_0000) * slots);
}

/** Certificates of different issuers often have the same serial numbers. */
function saltOf(issuer: Name): number {
  let hash = 0;
  for (const letter of issuer.key) hash = Math.imul(hash ^ (letter.codePointAt(0) ?? 0), 0x01000193);
  return hash;
}

/** Most entries have no extension but a reason code: SEQUENCE { SEQUENCE { 2.5.29.21, OCTET STRING { ENUMERATED } } }. */
function isReasonAlone(content: Uint8Array, at: number, end: number): boolean {
  return end - at === 14 && REASON_HEAD.every((octet, n) => content[at + n] === octet);
}

const REASON_HEAD = [0x30, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01];

/** That it is revoked counts, whatever the date says. */
function timeOr(element: der.DerElement, otherwise: Date): Date {
  try {
    return der.readTime(element);
  } catch {
    return otherwise;
  }
}

/** Where the content of the value at `at` begins. */
function contentStart(bytes: Uint8Array, at: number): number {
  const first = bytes[at + 1] ?? 0;
  return at + 2 + (first > 0x7f ? first & 0x7f : 0);
}

/** Where the value at `at` ends; it must have this tag, a definite minimal length, and lie within the bytes. An indefinite
 * length counts as one that is not minimal. */
function endOf(bytes: Uint8Array, at: number, tag: number): number {
  if (bytes[at] !== tag) throw malformed("unexpected type");
  const first = bytes[at + 1] ?? 0x80;
  let length = first;
  const start = contentStart(bytes, at);
  if (first > 0x7f) {
    length = 0;
    for (let n = at + 2; n < start; n += 1) length = length * 256 + (bytes[n] ?? 0);
    if (length < 0x80 || bytes[at + 2] === 0) throw malformed("length is not minimal");
  }
  if (start + length > bytes.length) throw malformed("truncated");
  return start + length;
}

function grown(array: Uint32Array): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(array.length * 2);
  larger.set(array);
  return larger;
}

/** @throws SuiteError certificate-malformed */
export function sequenceOf(element: der.DerElement): der.DerElement {
  if (element.tag !== der.tag.sequence) throw malformed("not a sequence");
  return element;
}

export function malformed(what: string, cause?: unknown): SuiteError {
  return new SuiteError("certificate-malformed", "not a well-formed revocation list", {
    fault: "peer",
    details: { what },
    ...(cause === undefined ? {} : { cause }),
  });
}
