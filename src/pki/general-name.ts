import type { DerElement } from "./der.ts";
import * as der from "./der.ts";
import { type Identity, identityDomain, identityLocal } from "./identity.ts";
import { type Name, readName } from "./name.ts";
import { type Oid, smtpUtf8Mailbox } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";

/** GeneralName (RFC 5280 §4.2.1.6). Texts stand as they were read, uncleaned. */
export type GeneralName =
  | { readonly type: "rfc822Name"; readonly text: string }
  | { readonly type: "dNSName"; readonly text: string }
  | { readonly type: "uri"; readonly text: string }
  | { readonly type: "directoryName"; readonly name: Name }
  /** 4 or 16 octets; twice that in a name constraint. */
  | { readonly type: "ipAddress"; readonly octets: Uint8Array }
  /** otherName of RFC 9598. */
  | { readonly type: "smtpUtf8Mailbox"; readonly text: string }
  | { readonly type: "otherName"; readonly typeId: Oid; readonly value: Uint8Array }
  /** x400Address, ediPartyName, registeredID: nobody reads them, a constraint of such a form refuses them. */
  | { readonly type: "other"; readonly tag: number; readonly bytes: Uint8Array };

/** Reads GeneralNames: at least one, at most `limit`. Throws SuiteError "syntax". */
export function readGeneralNames(content: Uint8Array, limit: number): GeneralName[] {
  const names: GeneralName[] = [];
  const cursor = new der.DerCursor(content);
  do {
    if (names.length === limit) throw malformed("too many names");
    names.push(readGeneralName(cursor.next()));
  } while (!cursor.done);
  return names;
}

export function readGeneralName(element: DerElement): GeneralName {
  switch (element.tag) {
    case der.contextConstructed(0):
      return readOtherName(element);
    case der.contextPrimitive(1):
      return { type: "rfc822Name", text: der.readIa5(element) };
    case der.contextPrimitive(2):
      return { type: "dNSName", text: der.readIa5(element) };
    case der.contextConstructed(4):
      return { type: "directoryName", name: readName(der.readDer(element.content)) };
    case der.contextPrimitive(6):
      return { type: "uri", text: der.readIa5(element) };
    case der.contextPrimitive(7):
      return { type: "ipAddress", octets: element.content };
    case der.contextConstructed(3):
    case der.contextConstructed(5):
    case der.contextPrimitive(8):
      return { type: "other", tag: element.tag, bytes: element.bytes };
    default:
      throw malformed("unknown form of name");
  }
}

export function encodeRfc822Name(address: string): Buffer {
  return der.implicitPrimitive(1, ascii(address));
}

export function encodeDnsName(domain: string): Buffer {
  return der.implicitPrimitive(2, ascii(domain));
}

export function encodeUri(uri: string): Buffer {
  return der.implicitPrimitive(6, ascii(uri));
}

/** `sip:user@domain`; what RFC 3261 §25.1 does not allow in a user is escaped. */
export function encodeSipUri(identity: Identity): Buffer {
  const user = identityLocal(identity).replace(/[^a-z0-9\-_.!~*'()&=+$,/]/gu, encodeURIComponent);
  return encodeUri(`sip:${user}@${identityDomain(identity)}`);
}

export function encodeDirectoryName(name: Uint8Array): Buffer {
  return der.explicit(4, name);
}

/** RFC 9598 §3: for a mailbox whose local part is not ASCII. */
export function encodeSmtpUtf8Mailbox(address: string): Buffer {
  return der.implicitConstructed(0, der.oid(smtpUtf8Mailbox), der.explicit(0, der.utf8String(address)));
}

function readOtherName(element: DerElement): GeneralName {
  const cursor = new der.DerCursor(element);
  const typeId = der.readOid(cursor.next(der.tag.oid));
  const value = der.readDer(cursor.next(der.contextConstructed(0)).content);
  cursor.end();
  if (typeId !== smtpUtf8Mailbox) return { type: "otherName", typeId, value: value.bytes };
  if (value.tag !== der.tag.utf8String) throw malformed("SmtpUTF8Mailbox is not a UTF8String");
  return { type: "smtpUtf8Mailbox", text: der.readString(value) };
}

function ascii(text: string): Buffer {
  if (!/^[\x21-\x7e]+$/.test(text)) throw malformed("not printable ASCII");
  return Buffer.from(text, "latin1");
}

function malformed(what: string): SuiteError {
  return new SuiteError("syntax", "not a well-formed general name", { fault: "peer", details: { what } });
}
