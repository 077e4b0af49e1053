import { shownText } from "./character-string.ts";
import type { DerElement } from "./der.ts";
import * as der from "./der.ts";
import { attributeType, type Oid } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";

/** Most attributes that one name may have. */
const maxAttributes = 64;

/** AttributeTypeAndValue (RFC 5280 §4.1.2.4). */
export interface NameAttribute {
  readonly type: Oid;
  /** The text as it stands in the certificate, uncleaned; undefined if the value is no character string. */
  readonly text: string | undefined;
  /** The value's DER. */
  readonly value: Uint8Array;
}

/** RelativeDistinguishedName: usually one attribute, sometimes more. */
export type Rdn = readonly NameAttribute[];

/** A distinguished name. Compare with `sameName`, show with `showName`: the text is never parsed back. */
export interface Name {
  /** The DER as it was read. */
  readonly der: Uint8Array;
  readonly rdns: readonly Rdn[];
  /** Per RDN, what RFC 5280 §7.1 compares. */
  readonly comparable: readonly string[];
  /** The same for all names that compare as equal, and for no others. */
  readonly key: string;
}

/** Reads a Name (an RDNSequence). Throws SuiteError "syntax". */
export function readName(element: DerElement): Name {
  if (element.tag !== der.tag.sequence) throw malformed("not a name");
  const rdns: Rdn[] = [];
  let count = 0;
  const cursor = new der.DerCursor(element);
  while (!cursor.done) {
    const rdn = readRdn(cursor.next(der.tag.set));
    count += rdn.length;
    if (count > maxAttributes) throw malformed("too many attributes");
    rdns.push(rdn);
  }
  return new ReadName(element.bytes, rdns);
}

/** Reads the members of a RelativeDistinguishedName. */
export function readRdn(element: DerElement): Rdn {
  const attributes: NameAttribute[] = [];
  const cursor = new der.DerCursor(element);
  do attributes.push(readAttribute(cursor.next(der.tag.sequence)));
  while (!cursor.done && attributes.length <= maxAttributes);
  cursor.end();
  return attributes;
}

/** RFC 5280 §7.1: string types alike, case folded, spaces collapsed; RDNs in order, attributes within one in any order. */
export function sameName(a: Name, b: Name): boolean {
  if (Buffer.compare(a.der, b.der) === 0) return true;
  return a.comparable.length === b.comparable.length && nameWithin(a, b);
}

/** Whether `name` lies in the subtree `base`: begins with all its RDNs (RFC 5280 §7.1). */
export function nameWithin(base: Name, name: Name): boolean {
  const within = name.comparable;
  return base.comparable.every((rdn, i) => rdn === within[i]);
}

/** Texts of all attributes of this type, in the order of the name. */
export function attributeTexts(name: Name, type: Oid): string[] {
  const texts: string[] = [];
  for (const rdn of name.rdns) {
    for (const attribute of rdn) {
      if (attribute.type === type && attribute.text !== undefined) texts.push(attribute.text);
    }
  }
  return texts;
}

/** For people: RFC 4514 order and escapes, cleaned of what cannot be shown, at most 512 characters. */
export function showName(name: Name): string {
  const rdns = name.rdns.map((rdn) => rdn.map(showAttribute).join("+"));
  return shownText(rdns.reverse().join(","), 512);
}

/** One RDN to write: `[type, text]`, or several for a multi-valued RDN. */
export type RdnTemplate = readonly [type: Oid, text: string] | readonly (readonly [type: Oid, text: string])[];

/** Writes a Name. Text becomes UTF8String, but where RFC 5280 appendix A demands PrintableString or IA5String. */
export function encodeName(rdns: readonly RdnTemplate[]): Buffer {
  return der.sequence(
    ...rdns.map((rdn) => der.set(...(isSingle(rdn) ? [rdn] : rdn).map(([type, text]) => encodeAttribute(type, text)))),
  );
}

class ReadName implements Name {
  readonly der: Uint8Array;
  readonly rdns: readonly Rdn[];
  private folded: readonly string[] | undefined;
  private joined: string | undefined;

  constructor(bytes: Uint8Array, rdns: readonly Rdn[]) {
    this.der = bytes;
    this.rdns = rdns;
  }

  get comparable(): readonly string[] {
    this.folded ??= this.rdns.map((rdn) => rdn.map(comparableAttribute).sort().join("\0"));
    return this.folded;
  }

  get key(): string {
    this.joined ??= this.comparable.join("\x01");
    return this.joined;
  }
}

function readAttribute(element: DerElement): NameAttribute {
  const cursor = new der.DerCursor(element);
  const type = der.readOid(cursor.next(der.tag.oid));
  const value = cursor.next();
  cursor.end();
  const text = der.isStringTag(value.tag) ? der.readString(value) : undefined;
  return { type, text, value: value.bytes };
}

/** Folded text has no control characters: they can separate and mark what is none. */
function comparableAttribute({ type, text, value }: NameAttribute): string {
  return `${type}=${text === undefined ? `\x01${Buffer.from(value).toString("hex")}` : foldText(text)}`;
}

/** The string preparation of RFC 4518 as far as it decides between real names. */
function foldText(text: string): string {
  const simple = /^[\x20-\x7e]*$/.test(text);
  // Through upper case: it brings ß and ss, ſ and s together.
  const folded = simple ? text.toLowerCase() : text.normalize("NFKC").toUpperCase().toLowerCase().normalize("NFKC");
  // RFC 4518 §2.2: format and control characters are nothing, separators are spaces. §2.6.1: inner spaces collapse.
  const mapped = simple ? folded : folded.replace(/[\p{Z}\t\n\v\f\r\x85]/gu, " ").replace(/[\p{Cf}\p{Cc}]/gu, "");
  return mapped.replace(/ +/g, " ").trim();
}

const shortNames: ReadonlyMap<Oid, string> = new Map([
  [attributeType.commonName, "CN"],
  [attributeType.countryName, "C"],
  [attributeType.localityName, "L"],
  [attributeType.stateOrProvinceName, "ST"],
  [attributeType.streetAddress, "STREET"],
  [attributeType.organizationName, "O"],
  [attributeType.organizationalUnitName, "OU"],
  [attributeType.domainComponent, "DC"],
  [attributeType.userId, "UID"],
  [attributeType.emailAddress, "emailAddress"],
  [attributeType.serialNumber, "serialNumber"],
  [attributeType.givenName, "givenName"],
  [attributeType.surname, "SN"],
]);

function showAttribute({ type, text, value }: NameAttribute): string {
  const short = shortNames.get(type) ?? type;
  if (text === undefined) return `${short}=#${Buffer.from(value).toString("hex")}`;
  const escaped = text.replace(/["+,;<>\\=]/g, "\\$&").replace(/^[ #]| $/g, "\\$&");
  return `${short}=${escaped}`;
}

function isSingle(rdn: RdnTemplate): rdn is readonly [Oid, string] {
  return typeof rdn[0] === "string";
}

function encodeAttribute(type: Oid, text: string): Buffer {
  return der.sequence(der.oid(type), encodeText(type, text));
}

function encodeText(type: Oid, text: string): Buffer {
  switch (type) {
    case attributeType.emailAddress:
    case attributeType.domainComponent:
      return der.ia5String(text);
    case attributeType.countryName:
    case attributeType.serialNumber:
      return der.printableString(text);
    default:
      return der.utf8String(text);
  }
}

function malformed(what: string): SuiteError {
  return new SuiteError("syntax", "not a well-formed distinguished name", { fault: "peer", details: { what } });
}
