import {
  type AlgorithmIdentifier,
  type AlgorithmPolicy,
  readAlgorithm,
  standardAlgorithms,
  verifySignature,
} from "./algorithm.ts";
import type { Certificate, Fingerprint } from "./certificate.ts";
import type { DerElement } from "./der.ts";
import * as der from "./der.ts";
import {
  allReasons,
  type CrlReason,
  crlReasons,
  type DistributionPoint,
  readDistributionPointName,
  readReasonFlags,
} from "./distribution-point.ts";
import { readExtensionList } from "./extension.ts";
import { readGeneralNames } from "./general-name.ts";
import { type Name, readName, sameName } from "./name.ts";
import { crlEntryExtension, crlExtension, type Oid } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";

export interface RevokedEntry {
  readonly reason: CrlReason;
  readonly since: Date;
}

/** What a list speaks of (RFC 5280 §5.2.5); without the extension everything of its issuer. */
export interface CrlScope extends Pick<DistributionPoint, "fullName" | "relativeName"> {
  readonly only?: "user" | "ca" | "attribute";
  readonly reasons: number;
  /** It may have entries of other issuers. */
  readonly indirect: boolean;
}

const maxBytes = 64 * 1024 * 1024;
const maxEntries = 4_000_000;
const maxSerialOctets = 32;
/** Changes of issuer in an indirect list. */
const maxIssuers = 10_000;
/** Of critical extensions that are not understood one is enough to make the list unusable. */
const maxCriticalUnknown = 16;

/**
 * A certificate revocation list, v1 or v2. It is read in one pass and kept as it came: an index of offsets, no object
 * per entry. Nothing is verified before `signedBy`. Throws SuiteError "certificate-malformed".
 */
export function parseRevocationList(bytes: Uint8Array): RevocationList {
  if (bytes.length > maxBytes) throw malformed("too long");
  try {
    return new RevocationList(bytes);
  } catch (cause) {
    if (cause instanceof SuiteError && cause.code === "syntax") throw malformed("syntax", cause);
    throw cause;
  }
}

export class RevocationList {
  readonly der: Uint8Array;
  readonly issuer: Name;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date | undefined;
  readonly number: bigint | undefined;
  /** Set in a delta: the complete list that it adds to has at least this number. */
  readonly deltaBase: bigint | undefined;
  readonly authorityKeyId: Uint8Array | undefined;
  readonly scope: CrlScope;
  /** Critical extensions, of the list or of an entry, that are not understood: then nothing in it counts. */
  readonly criticalUnknown: readonly Oid[];
  /** How many certificates it names. */
  readonly size: number;
  readonly #tbs: Uint8Array;
  readonly #signature: Uint8Array;
  readonly #algorithm: AlgorithmIdentifier;
  readonly #algorithmsAgree: boolean;
  readonly #index: EntryIndex;
  readonly #signedBy = new WeakMap<AlgorithmPolicy, Map<Fingerprint, boolean>>();

  constructor(bytes: Uint8Array) {
    const outer = new der.DerCursor(sequenceOf(der.readDer(bytes)).content);
    const tbs = outer.next(der.tag.sequence);
    this.#algorithm = readAlgorithm(outer.next(der.tag.sequence));
    const signature = der.readBitString(outer.next(der.tag.bitString));
    outer.end();
    if (signature.unused !== 0) throw malformed("signature of odd bits");

    const cursor = new der.DerCursor(tbs);
    const version = cursor.optional(der.tag.integer);
    if (version !== undefined && der.readSmallInteger(version) !== 1) throw malformed("unknown version");
    const inner = cursor.next(der.tag.sequence);
    const issuer = readName(cursor.next(der.tag.sequence));
    const thisUpdate = der.readTime(cursor.next());
    const next = cursor.peekTag();
    const hasNext = next === der.tag.utcTime || next === der.tag.generalizedTime;
    const nextUpdate = hasNext ? der.readTime(cursor.next()) : undefined;
    const entries = cursor.optional(der.tag.sequence);
    const wrapped = cursor.optional(der.contextConstructed(0));
    cursor.end();

    const critical: Oid[] = [];
    const extensions: ListExtensions = { scope: { reasons: allReasons, indirect: false } };
    if (wrapped !== undefined) readListExtensions(der.readDer(wrapped.content), extensions, critical);
    this.der = bytes;
    this.issuer = issuer;
    this.thisUpdate = thisUpdate;
    this.nextUpdate = nextUpdate;
    this.number = extensions.number;
    this.deltaBase = extensions.deltaBase;
    this.authorityKeyId = extensions.authorityKeyId;
    this.scope = extensions.scope;
    this.#tbs = tbs.bytes;
    this.#signature = signature.bytes;
    this.#algorithmsAgree = Buffer.compare(inner.bytes, this.#algorithm.der) === 0;
    this.#index = new EntryIndex(entries?.content ?? new Uint8Array(), issuer, extensions.scope.indirect, critical);
    this.size = this.#index.size;
    this.criticalUnknown = critical;
  }

  /** The entry for a certificate, by serial number and the name of its issuer. */
  find(serial: Uint8Array, issuer: Name): RevokedEntry | undefined {
    return this.#index.find(serial, issuer);
  }

  /** Whether it is signed by the certificate's key; found out once for each. */
  signedBy(signer: Certificate, algorithms: AlgorithmPolicy = standardAlgorithms): boolean {
    const found = this.#signedBy.get(algorithms) ?? new Map<Fingerprint, boolean>();
    this.#signedBy.set(algorithms, found);
    const known = found.get(signer.fingerprint);
    if (known !== undefined) return known;
    const signed = this.#algorithmsAgree && this.#verify(signer, algorithms);
    found.set(signer.fingerprint, signed);
    return signed;
  }

  #verify(signer: Certificate, algorithms: AlgorithmPolicy): boolean {
    try {
      return verifySignature(this.#algorithm, signer.publicKey, this.#tbs, this.#signature, algorithms);
    } catch {
      return false; // a key that cannot be loaded
    }
  }
}

interface ListExtensions {
  number?: bigint;
  deltaBase?: bigint;
  authorityKeyId?: Uint8Array;
  scope: CrlScope;
}

function readListExtensions(element: DerElement, into: ListExtensions, critical: Oid[]): void {
  for (const { type, critical: isCritical, value } of readExtensionList(element)) {
    if (type === crlExtension.crlNumber) into.number = der.readInteger(der.readDer(value));
    else if (type === crlExtension.deltaCrlIndicator) into.deltaBase = der.readInteger(der.readDer(value));
    else if (type === crlExtension.issuingDistributionPoint) into.scope = readScope(der.readDer(value));
    else if (type === crlExtension.authorityKeyIdentifier) {
      const keyId = new der.DerCursor(der.readDer(value).content).optional(der.contextPrimitive(0));
      if (keyId !== undefined) into.authorityKeyId = keyId.content;
    } else if (isCritical) critical.push(type);
  }
}

/** IssuingDistributionPoint (RFC 5280 §5.2.5). */
function readScope(element: DerElement): CrlScope {
  const cursor = new der.DerCursor(sequenceOf(element).content);
  const name = cursor.optional(der.contextConstructed(0));
  const flag = (n: number) => {
    const found = cursor.optional(der.contextPrimitive(n));
    return found !== undefined && found.content[0] !== 0;
  };
  const user = flag(1);
  const ca = flag(2);
  const someReasons = cursor.optional(der.contextPrimitive(3));
  const indirect = flag(4);
  const attribute = flag(5);
  cursor.end();
  const only = user ? "user" : ca ? "ca" : attribute ? "attribute" : undefined;
  return {
    ...(name === undefined ? {} : readDistributionPointName(name)),
    ...(only === undefined ? {} : { only }),
    reasons: someReasons === undefined ? allReasons : readReasonFlags(someReasons),
    indirect,
  };
}

/** Entries of revokedCertificates, found by a hash table of their offsets: 4 octets a slot, three quarters full. */
class EntryIndex {
  readonly size: number;
  readonly #content: Uint8Array;
  readonly #slots: Uint32Array;
  /** Of indirect lists: whose certificate each entry is about, by its number in `#issuers`. */
  readonly #issuerOf: Uint32Array | undefined;
  readonly #issuers: Name[];

  constructor(content: Uint8Array, issuer: Name, indirect: boolean, critical: Oid[]) {
    this.#content = content;
    this.#issuers = [issuer];
    const { starts, issuerOf } = this.#scan(indirect, critical);
    this.size = starts.length;
    const slots = 4 + Math.ceil((starts.length * 4) / 3);
    this.#slots = new Uint32Array(slots);
    this.#issuerOf = issuerOf === undefined ? undefined : new Uint32Array(slots);
    // Of honest lists an entry finds its slot after one or two others. Nobody has proven yet who made this one.
    let probes = 1_000 + 16 * starts.length;
    const salts = this.#issuers.map((one) => (indirect ? saltOf(one) : 0));
    for (let n = 0; n < starts.length; n += 1) {
      const start = starts[n] ?? 0;
      const serial = contentStart(content, start);
      const end = endOf(content, serial, der.tag.integer);
      let at = this.#slotOf(content, contentStart(content, serial), end, salts[issuerOf?.[n] ?? 0] ?? 0);
      for (; this.#slots[at] !== 0; at = at + 1 === slots ? 0 : at + 1) {
        if (--probes < 0) throw malformed("too many serial numbers that are alike");
      }
      this.#slots[at] = start + 1;
      if (this.#issuerOf !== undefined) this.#issuerOf[at] = issuerOf?.[n] ?? 0;
    }
  }

  find(serial: Uint8Array, issuer: Name): RevokedEntry | undefined {
    const slots = this.#slots;
    const salt = this.#issuerOf === undefined ? 0 : saltOf(issuer);
    for (let at = this.#slotOf(serial, 0, serial.length, salt); slots[at] !== 0; ) {
      const start = (slots[at] ?? 0) - 1;
      const about = this.#issuers[this.#issuerOf?.[at] ?? 0];
      if (this.#isSerialAt(start, serial) && about !== undefined && sameName(about, issuer)) return this.#read(start);
      at = at + 1 === slots.length ? 0 : at + 1;
    }
    return undefined;
  }

  /** One pass over all entries; extensions are looked into only where they are not the one that is everywhere. */
  #scan(indirect: boolean, critical: Oid[]): { starts: Uint32Array; issuerOf: Uint32Array | undefined } {
    const content = this.#content;
    let starts = new Uint32Array(1_024);
    let issuerOf = indirect ? new Uint32Array(1_024) : undefined;
    let count = 0;
    let issuer = 0;
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
        const about = this.#readExtensions(content.subarray(dateEnd, end), critical);
        if (about !== undefined && indirect) issuer = this.#issuers.push(about) - 1;
        if (issuer === maxIssuers) throw malformed("too many issuers");
      }
      if (issuerOf !== undefined) issuerOf[count] = issuer; // stands for those that follow, too (RFC 5280 §5.3.3)
      starts[count++] = at;
      at = end;
    }
    return { starts: starts.subarray(0, count), issuerOf };
  }

  /** @returns the certificateIssuer, if the entry names one */
  #readExtensions(bytes: Uint8Array, critical: Oid[]): Name | undefined {
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

  /** FNV-1a. */
  #slotOf(bytes: Uint8Array, from: number, to: number, salt: number): number {
    let hash = 0x811c9dc5 ^ salt;
    for (let at = from; at < to; at += 1) hash = Math.imul(hash ^ (bytes[at] ?? 0), 0x01000193);
    return Math.floor((((hash ^ (hash >>> 15)) >>> 0) / 0x1_0000_0000) * this.#slots.length);
  }
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
function timeOr(element: DerElement, otherwise: Date): Date {
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

function sequenceOf(element: DerElement): DerElement {
  if (element.tag !== der.tag.sequence) throw malformed("not a sequence");
  return element;
}

function malformed(what: string, cause?: unknown): SuiteError {
  return new SuiteError("certificate-malformed", "not a well-formed revocation list", {
    fault: "peer",
    details: { what },
    ...(cause === undefined ? {} : { cause }),
  });
}
