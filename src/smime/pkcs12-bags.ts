import { type AlgorithmIdentifier, readAlgorithm } from "../pki/algorithm.ts";
import * as der from "../pki/der.ts";
import type { Oid } from "../pki/oid.ts";
import { contentType } from "./algorithms.ts";
import { BerReader } from "./ber-read.ts";
import { ByteReader } from "./byte-reader.ts";
import { p12Malformed, p12Unsupported } from "./pkcs12-failure.ts";

/** Object identifiers of PKCS#12 (RFC 7292 appendix D). */
export const p12Type = {
  encryptedData: "1.2.840.113549.1.7.6",
  keyBag: "1.2.840.113549.1.12.10.1.1",
  shroudedKeyBag: "1.2.840.113549.1.12.10.1.2",
  certBag: "1.2.840.113549.1.12.10.1.3",
  secretBag: "1.2.840.113549.1.12.10.1.5",
  safeContentsBag: "1.2.840.113549.1.12.10.1.6",
  x509Certificate: "1.2.840.113549.1.9.22.1",
  friendlyName: "1.2.840.113549.1.9.20",
  localKeyId: "1.2.840.113549.1.9.21",
} as const;

const maxSafes = 200;
const maxBags = 200;
const maxNesting = 4;

/** One bag, with what it has been called; its value as it lies in it. */
export interface SafeBag {
  readonly type: Oid;
  readonly value: der.DerElement;
  readonly friendlyName: string | undefined;
}

/** PFX (RFC 7292 §4): the octets of the AuthenticatedSafe, and what they are authenticated by. */
export async function readPfx(bytes: Uint8Array): Promise<{ authSafe: Buffer; macData: der.DerElement }> {
  const pfx = new der.DerCursor(await definite(bytes));
  if (der.readSmallInteger(pfx.next(der.tag.integer)) !== 3) throw p12Unsupported("version");
  const { type, content } = readContentInfo(pfx.next(der.tag.sequence));
  const macData = pfx.optional(der.tag.sequence);
  pfx.end();
  if (type !== contentType.data) throw p12Unsupported("signed instead of protected by a passphrase");
  if (macData === undefined) throw p12Unsupported("not authenticated by a passphrase");
  return { authSafe: octetsOf(content, der.tag.octetString), macData };
}

/** What of an AuthenticatedSafe lies open, and what is encrypted. */
export type Safe =
  | { readonly contents: Buffer }
  | { readonly algorithm: AlgorithmIdentifier; readonly ciphertext: Buffer };

export async function readAuthSafe(authSafe: Uint8Array): Promise<Safe[]> {
  const cursor = new der.DerCursor(await definite(authSafe));
  const safes: Safe[] = [];
  while (!cursor.done) {
    if (safes.length >= maxSafes) throw p12Malformed("too many parts");
    const { type, content } = readContentInfo(cursor.next(der.tag.sequence));
    if (type === contentType.data) safes.push({ contents: octetsOf(content, der.tag.octetString) });
    else if (type === p12Type.encryptedData) safes.push(readEncryptedData(content));
    else throw p12Unsupported(`content ${type}`);
  }
  return safes;
}

/** All bags of SafeContents, those of nested ones in their place. `bags`: those read before, to which they are added. */
export async function readSafeContents(contents: Uint8Array, bags: SafeBag[]): Promise<void> {
  collectBags(await definite(contents), bags, 1);
}

/** [0] EXPLICIT of CertBag and SecretBag. */
export function readTyped(value: der.DerElement): { type: Oid; content: der.DerElement } {
  expect(value, der.tag.sequence);
  const cursor = new der.DerCursor(value);
  const type = der.readOid(cursor.next(der.tag.oid));
  const content = der.readDer(cursor.next(der.contextConstructed(0)).content);
  cursor.end();
  return { type, content };
}

/** Content of an OCTET STRING, which may be in pieces (X.690 §8.7.3). @param identifier of its primitive form */
export function octetsOf(element: der.DerElement, identifier: number): Buffer {
  if (element.tag === identifier) return Buffer.from(element.content);
  expect(element, identifier | 0x20);
  const pieces: Buffer[] = [];
  const cursor = new der.DerCursor(element);
  while (!cursor.done) pieces.push(octetsOf(cursor.next(), der.tag.octetString)); // as deep as `definite` lets it be
  return Buffer.concat(pieces);
}

/** One value with every length made definite and minimal: old programs write BER. */
async function definite(bytes: Uint8Array): Promise<der.DerElement> {
  const reader = new BerReader(new ByteReader(once(bytes)));
  const element = await reader.element(der.tag.sequence, bytes.length);
  await reader.end();
  return element;
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

function readContentInfo(element: der.DerElement): { type: Oid; content: der.DerElement } {
  return readTyped(element);
}

/** EncryptedData (RFC 5652 §8). */
function readEncryptedData(element: der.DerElement): Safe {
  expect(element, der.tag.sequence);
  const cursor = new der.DerCursor(element);
  const version = der.readSmallInteger(cursor.next(der.tag.integer));
  const info = new der.DerCursor(cursor.next(der.tag.sequence));
  cursor.optional(der.contextConstructed(1)); // unprotectedAttrs
  cursor.end();
  if (version !== 0 && version !== 2) throw p12Unsupported("version of the encrypted part");
  const type = der.readOid(info.next(der.tag.oid));
  const algorithm = readAlgorithm(info.next(der.tag.sequence));
  const content = info.next();
  info.end();
  if (type !== contentType.data) throw p12Unsupported(`encrypted ${type}`);
  return { algorithm, ciphertext: octetsOf(content, der.contextPrimitive(0)) };
}

function collectBags(contents: der.DerElement, bags: SafeBag[], depth: number): void {
  if (depth > maxNesting) throw p12Malformed("nested too deeply");
  expect(contents, der.tag.sequence);
  const cursor = new der.DerCursor(contents);
  while (!cursor.done) {
    const bag = new der.DerCursor(cursor.next(der.tag.sequence));
    const type = der.readOid(bag.next(der.tag.oid));
    const value = der.readDer(bag.next(der.contextConstructed(0)).content);
    const friendlyName = readFriendlyName(bag.optional(der.tag.set));
    bag.end();
    if (bags.length >= maxBags) throw p12Malformed("too many bags");
    if (type === p12Type.safeContentsBag) collectBags(value, bags, depth + 1);
    else bags.push({ type, value, friendlyName });
  }
}

function readFriendlyName(attributes: der.DerElement | undefined): string | undefined {
  const cursor = new der.DerCursor(attributes ?? new Uint8Array());
  let name: string | undefined;
  while (!cursor.done) {
    const attribute = new der.DerCursor(cursor.next(der.tag.sequence));
    const type = der.readOid(attribute.next(der.tag.oid));
    const values = new der.DerCursor(attribute.next(der.tag.set));
    attribute.end();
    if (type !== p12Type.friendlyName || values.done) continue;
    name ??= der.readString(values.next(der.tag.bmpString));
  }
  return name;
}

function expect(element: der.DerElement, identifier: number): void {
  if (element.tag !== identifier) throw p12Malformed("unexpected type");
}
