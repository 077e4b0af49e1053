import { type CrlReason, crlReasons } from "../pki/distribution-point.ts";
import type { CertificateKind, CertificateStatus } from "./messages.ts";
import { badXml, type Element, writeXml } from "./xml.ts";

type Fields<N extends string, O extends string> = Record<N, string> & Partial<Record<O, string>>;

const MAX_ATTRIBUTE = 512;

/** How one message is read and written. */
export interface Grammar<M> {
  read(element: Element): M;
  write(message: M): { attributes?: Record<string, string | number | undefined>; text?: string; children?: string[] };
}

/** A grammar for each message of one direction. */
export type Grammars<M extends { type: string }> = { [T in M["type"]]: Grammar<M & { type: T }> };

/** @throws SuiteError syntax (`bad-xml`) */
export function readBy<M extends { type: string }>(grammars: Grammars<M>, element: Element): M {
  if (!Object.hasOwn(grammars, element.name)) throw badXml("unknown element");
  return grammars[element.name as M["type"]].read(element);
}

export function writeBy<M extends { type: string }>(grammars: Grammars<M>, message: M): string {
  const { write } = grammars[message.type as M["type"]] as Grammar<M>;
  return writeXml({ name: message.type, ...write(message) });
}

/** All that is needed is there, nothing is there that is not known. @throws SuiteError syntax, as all here */
export function attributes<N extends string, O extends string>(
  element: Element,
  needed: readonly N[],
  optional: readonly O[],
): Fields<N, O> {
  for (const [name, value] of Object.entries(element.attributes)) {
    if (!(needed as readonly string[]).includes(name) && !(optional as readonly string[]).includes(name))
      throw badXml("unknown attribute");
    if (value.length > MAX_ATTRIBUTE) throw badXml("too long an attribute");
  }
  for (const name of needed) if (element.attributes[name] === undefined) throw badXml("missing attribute");
  return element.attributes as Fields<N, O>;
}

/** Children with a text each, none twice. */
export function texts<N extends string, O extends string>(
  element: Element,
  needed: readonly N[],
  optional: readonly O[],
): Fields<N, O> {
  const known: readonly string[] = [...needed, ...optional];
  const found = new Map<string, string>();
  for (const child of element.children) {
    if (!known.includes(child.name)) throw badXml("unknown element");
    if (found.has(child.name)) throw badXml("repeated element");
    found.set(child.name, textOf(child));
  }
  if (element.children.length === 0 && element.text.trim() !== "") throw badXml("text where elements belong");
  for (const name of needed) if (!found.has(name)) throw badXml("missing element");
  return Object.fromEntries(found) as Fields<N, O>;
}

/** Children with a text each, by their names, as often as they come. */
export function lists<N extends string>(element: Element, names: readonly N[]): Record<N, string[]> {
  const found = Object.fromEntries(names.map((name) => [name, [] as string[]])) as Record<N, string[]>;
  for (const child of element.children) {
    if (!(names as readonly string[]).includes(child.name)) throw badXml("unknown element");
    found[child.name as N].push(textOf(child));
  }
  if (element.children.length === 0 && element.text.trim() !== "") throw badXml("text where elements belong");
  return found;
}

/** One at most. */
export function single(values: readonly string[]): string | undefined {
  if (values.length > 1) throw badXml("repeated element");
  return values[0];
}

/** An element of nothing but text, without attributes. */
export function textOf(element: Element): string {
  attributes(element, [], []);
  if (element.children.length > 0) throw badXml("element in a text");
  return element.text;
}

export function empty(element: Element): Element {
  if (element.children.length > 0 || element.text.trim() !== "") throw badXml("content where there is none");
  return element;
}

/** A signed object (JWS, compact). */
export function jws(text: string): string {
  const clean = text.trim();
  if (!/^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}$/.test(clean)) throw badXml("no signed object");
  return clean;
}

export function kindOf(text: string): CertificateKind {
  if (text !== "auth" && text !== "encryption") throw badXml("kind");
  return text;
}

export function statusOf(text: string): CertificateStatus {
  if (text !== "good" && text !== "revoked" && text !== "expired") throw badXml("status");
  return text;
}

/** As RFC 5280 §5.3.1 names them; nothing leaves a list again. */
export function reasonOf(text: string): CrlReason {
  const known = Object.values(crlReasons).find((reason) => reason === text);
  if (known === undefined || known === "removeFromCRL") throw badXml("reason");
  return known;
}

export function hex(text: string, digits?: number): string {
  if (!/^([0-9a-f]{2}){1,32}$/.test(text) || (digits !== undefined && text.length !== digits)) throw badXml("hex");
  return text;
}

export function number(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw badXml("number");
  return Number(text);
}

export function base64(text: string): Buffer {
  const clean = text.replace(/\s+/g, "");
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(clean)) throw badXml("base64");
  return Buffer.from(clean, "base64");
}

/** An element with a text; nothing for undefined. */
export function textXml(name: string, text: string | undefined): string[] {
  return text === undefined ? [] : [writeXml({ name, text })];
}

export function base64Xml(name: string, bytes: Buffer): string {
  return writeXml({ name, text: bytes.toString("base64") });
}

/** The entries that are there. */
export function defined<T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}
