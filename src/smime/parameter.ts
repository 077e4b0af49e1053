import { malformed } from "./failure.ts";

/** A field such as Content-Type: a value and parameters (RFC 2045 §5.1). Names and value are lower case. */
export interface Parameterised {
  readonly value: string;
  readonly parameters: ReadonlyMap<string, string>;
}

const maxParameters = 64;

/** Reads value and parameters, with RFC 2231's continuations and character sets. A parameter that does not parse ends it. */
export function parseParameterised(text: string): Parameterised {
  const scanner = new Scanner(text);
  const value = scanner.until(";").replace(/\s+/g, "").toLowerCase();
  const raw = new Map<string, string>();
  while (scanner.skip(";")) {
    const name = scanner.until("=;").trim().toLowerCase();
    if (name === "") continue;
    if (!scanner.skip("=")) break;
    if (raw.size >= maxParameters) throw malformed("too many parameters");
    const found = scanner.value();
    if (!raw.has(name)) raw.set(name, found);
  }
  return { value, parameters: joined(raw) };
}

/** `; name=value` in the form that the value needs: token, quoted string, or RFC 2231 with UTF-8. */
export function formatParameter(name: string, value: string): string {
  if (/^[!#$&+\-.^_`|~0-9A-Za-z]+$/.test(value)) return `; ${name}=${value}`;
  if (/^[\x20-\x7e]*$/.test(value)) return `; ${name}="${value.replace(/["\\]/g, "\\$&")}"`;
  return `; ${name}*=UTF-8''${percentEncoded(value)}`;
}

function percentEncoded(value: string): string {
  // RFC 5987's attr-char, a subset of RFC 2231's: encodeURIComponent leaves ! ' ( ) * too much.
  return encodeURIComponent(value.toWellFormed()).replace(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

class Scanner {
  readonly #text: string;
  #position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  skip(character: string): boolean {
    this.#blank();
    if (this.#text[this.#position] !== character) return false;
    this.#position++;
    return true;
  }

  /** Up to one of these characters, comments left out. */
  until(stops: string): string {
    let found = "";
    for (;;) {
      this.#blank();
      const character = this.#text[this.#position];
      if (character === undefined || stops.includes(character)) return found;
      found += character;
      this.#position++;
    }
  }

  /** A token or quoted string. */
  value(): string {
    this.#blank();
    if (this.#text[this.#position] !== '"') return this.until(";").trim();
    this.#position++;
    let found = "";
    for (;;) {
      const character = this.#text[this.#position++];
      if (character === undefined) return found;
      if (character === '"') break;
      found += character === "\\" ? (this.#text[this.#position++] ?? "") : character;
    }
    this.until(";");
    return found;
  }

  /** White space and comments, which nest (RFC 5322 §3.2.2). */
  #blank(): void {
    for (let depth = 0; ; this.#position++) {
      const character = this.#text[this.#position];
      if (character === undefined) return;
      if (character === "(") depth++;
      else if (character === ")" && depth > 0) depth--;
      else if (character === "\\" && depth > 0) this.#position++;
      else if (depth === 0 && !/\s/.test(character)) return;
    }
  }
}

/** Joins `name*0`, `name*1*` … and decodes `name*` (RFC 2231 §3, §4). The extended form wins over the plain one. */
function joined(raw: ReadonlyMap<string, string>): Map<string, string> {
  const plain = new Map<string, string>();
  const sections = new Map<string, Map<number, Section>>();
  for (const [key, text] of raw) {
    const match = /^([^*]+)(?:\*(0|[1-9]\d?))?(\*)?$/.exec(key);
    const [, name, index, star] = match ?? [];
    if (name === undefined) continue;
    if (index === undefined && star === undefined) {
      plain.set(name, text);
      continue;
    }
    const numbered = sections.get(name) ?? new Map<number, Section>();
    numbered.set(Number(index ?? 0), { text, encoded: star !== undefined });
    sections.set(name, numbered);
  }
  for (const [name, numbered] of sections) {
    const list: Section[] = [];
    for (let section = numbered.get(0); section !== undefined; section = numbered.get(list.length)) list.push(section);
    const value = decoded(list);
    if (value !== undefined) plain.set(name, value);
  }
  return plain;
}

interface Section {
  readonly text: string;
  readonly encoded: boolean;
}

function decoded(list: readonly Section[]): string | undefined {
  const [first] = list;
  if (first === undefined) return undefined;
  const match = first.encoded ? /^([^']*)'[^']*'(.*)$/s.exec(first.text) : null;
  if (first.encoded && match === null) return undefined;
  const charset = match?.[1]?.toLowerCase() ?? "utf-8";
  const octets = list.map(({ text, encoded }, i) => {
    const section = i === 0 && match !== null ? (match[2] ?? "") : text;
    return encoded ? percentDecoded(section) : Buffer.from(section, "utf8");
  });
  const all = Buffer.concat(octets);
  if (charset === "utf-8" || charset === "us-ascii" || charset === "") return all.toString("utf8");
  return charset === "iso-8859-1" ? all.toString("latin1") : undefined;
}

function percentDecoded(text: string): Buffer {
  const octets = Buffer.from(text, "utf8").toString("latin1");
  const plain = octets.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(plain, "latin1");
}
