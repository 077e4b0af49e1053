import {
  type AlgorithmIdentifier,
  type AlgorithmPolicy,
  readAlgorithm,
  standardAlgorithms,
  verifySignature,
} from "./algorithm.ts";
import type { Certificate, Fingerprint } from "./certificate.ts";
import { type EntryTable, malformed, RevokedEntries, type RevokedEntry, sequenceOf, tableOf } from "./crl-entries.ts";
import type { DerElement } from "./der.ts";
import * as der from "./der.ts";
import {
  allReasons,
  type DistributionPoint,
  readDistributionPointName,
  readReasonFlags,
} from "./distribution-point.ts";
import { readExtensionList } from "./extension.ts";
import { type Name, readName } from "./name.ts";
import { crlExtension, type Oid } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";

/** What a list speaks of (RFC 5280 §5.2.5); without the extension everything of its issuer. */
export interface CrlScope extends Pick<DistributionPoint, "fullName" | "relativeName"> {
  readonly only?: "user" | "ca" | "attribute";
  readonly reasons: number;
  /** It may have entries of other issuers. */
  readonly indirect: boolean;
}

const maxBytes = 64 * 1024 * 1024;
/** Octets of memory for one of a name that was read (measured: about 20). */
const nameWeight = 24;
/** Keys that one list's signature is tried with: each costs a pass over all of it, and a CA can have as many as it likes. */
const maxKeysTried = 96;

/**
 * A certificate revocation list, v1 or v2. It is read in one pass and kept as it came: an index of offsets, no object
 * per entry. Nothing is verified before `signedBy`. Throws SuiteError "certificate-malformed".
 * @param read what another thread of this program found in the very same bytes
 */
export function parseRevocationList(bytes: Uint8Array, read?: ListReading): RevocationList {
  if (bytes.length > maxBytes) throw malformed("too long");
  try {
    return new RevocationList(bytes, read);
  } catch (cause) {
    if (cause instanceof SuiteError && cause.code === "syntax") throw malformed("syntax", cause);
    throw cause;
  }
}

/** What takes long with a large list: plain data, so that it can be done on a thread of its own. */
export interface ListReading {
  readonly table: EntryTable;
  /** Whose keys the signature was tried with, by `standardAlgorithms`. */
  readonly signedBy: readonly (readonly [Fingerprint, boolean])[];
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
  /** Octets of memory that it takes. */
  readonly weight: number;
  readonly #tbs: Uint8Array;
  readonly #signature: Uint8Array;
  readonly #algorithm: AlgorithmIdentifier;
  readonly #algorithmsAgree: boolean;
  readonly #table: EntryTable;
  readonly #entries: RevokedEntries;
  readonly #signedBy = new WeakMap<AlgorithmPolicy, Map<Fingerprint, boolean>>();

  constructor(bytes: Uint8Array, read?: ListReading) {
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
    const content = entries?.content ?? new Uint8Array();
    this.#table = read?.table ?? tableOf(content, issuer, extensions.scope.indirect);
    this.#entries = new RevokedEntries(content, issuer, this.#table);
    this.size = this.#table.size;
    const { slots, issuerOf, issuers } = this.#table;
    const names = issuers.reduce((octets, { length }) => octets + length, 0);
    this.weight = bytes.length + slots.byteLength + (issuerOf?.byteLength ?? 0) + nameWeight * names;
    this.criticalUnknown = [...critical, ...this.#table.criticalUnknown];
    if (read !== undefined) this.#signedBy.set(standardAlgorithms, new Map(read.signedBy));
  }

  /** The entry for a certificate, by serial number and the name of its issuer. */
  find(serial: Uint8Array, issuer: Name): RevokedEntry | undefined {
    return this.#entries.find(serial, issuer);
  }

  /** Whether it is signed by the certificate's key; found out once for each, and not for a key after very many others. */
  signedBy(signer: Certificate, algorithms: AlgorithmPolicy = standardAlgorithms): boolean {
    const found = this.#signedBy.get(algorithms) ?? new Map<Fingerprint, boolean>();
    this.#signedBy.set(algorithms, found);
    const known = found.get(signer.fingerprint);
    if (known !== undefined || found.size >= maxKeysTried) return known ?? false;
    const signed = this.#algorithmsAgree && this.#verify(signer, algorithms);
    found.set(signer.fingerprint, signed);
    return signed;
  }

  /** For another thread: see `parseRevocationList`. */
  get reading(): ListReading {
    return { table: this.#table, signedBy: [...(this.#signedBy.get(standardAlgorithms) ?? [])] };
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
