import { SuiteError } from "../pki/suite-error.ts";

/** RFC 959 leaves the length open; this is more than twice the longest path. */
export const MAX_LINE = 8_192;

const LF = 0x0a;
const CR = 0x0d;
/** Telnet (RFC 854): IAC and the first of the commands that take an option byte. */
const IAC = 0xff;
const FIRST_COMMAND = 0xf0;
const WILL = 0xfb;

/** One line of a control connection, without its end. */
export type Line = { kind: "line"; text: string } | { kind: "too-long" } | { kind: "not-utf8" };

/**
 * Cuts a control connection into lines: each ends at LF, one CR before it is dropped; Telnet commands are dropped (RFC 959
 * §4.1.3 ABOR: programs send IP and Synch before it). Lines are taken one by one, so that whoever reads decides how far.
 */
export class LineReader {
  #bytes: Buffer = Buffer.alloc(0);
  #searched = 0;

  /** Bytes that no line was made of yet. */
  get pending(): number {
    return this.#bytes.length;
  }

  push(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
  }

  /** The next whole line. After `too-long` the stream cannot be followed any more. */
  next(): Line | undefined {
    const end = this.#bytes.indexOf(LF, this.#searched);
    if (end < 0 && this.#bytes.length <= MAX_LINE) {
      this.#searched = this.#bytes.length;
      return undefined;
    }
    if (end < 0 || end > MAX_LINE) {
      this.#bytes = Buffer.alloc(0);
      this.#searched = 0;
      return { kind: "too-long" };
    }
    const line = withoutTelnet(this.#bytes.subarray(0, end > 0 && this.#bytes[end - 1] === CR ? end - 1 : end));
    this.#bytes = this.#bytes.subarray(end + 1);
    this.#searched = 0;
    try {
      return { kind: "line", text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(line) };
    } catch {
      return { kind: "not-utf8" };
    }
  }
}

function withoutTelnet(line: Buffer): Buffer {
  if (!line.includes(IAC)) return line;
  const kept: number[] = [];
  for (let at = 0; at < line.length; at += 1) {
    const byte = line[at] ?? 0;
    if (byte !== IAC) {
      kept.push(byte);
      continue;
    }
    const command = line[at + 1] ?? 0;
    // A Data Mark that came as urgent data is missing here: then what follows IAC is no command, and stays.
    if (command >= WILL && command < IAC) at += 2;
    else if (command >= FIRST_COMMAND && command < IAC) at += 1;
  }
  return Buffer.from(kept);
}

export interface Command {
  /** Upper case. */
  verb: string;
  /** All behind one space, spaces kept; undefined if there is none or it is empty. */
  argument?: string;
}

export function parseCommand(line: string): Command {
  const space = line.indexOf(" ");
  if (space < 0) return { verb: line.toUpperCase() };
  const verb = line.slice(0, space).toUpperCase();
  const argument = line.slice(space + 1);
  return argument === "" ? { verb } : { verb, argument };
}

/** RFC 959 §4.1.2: `h1,h2,h3,h4,p1,p2`. */
export function hostPort(host: string, port: number): string {
  return `${host.replace(/^::ffff:/i, "").replaceAll(".", ",")},${port >> 8},${port & 255}`;
}

/** RFC 2428 §2: 1 is IPv4, 2 is IPv6. An IPv4 address may stand in its IPv6 form. */
export function networkProtocol(host: string): "1" | "2" {
  return host.includes(":") && !host.toLowerCase().startsWith("::ffff:") ? "2" : "1";
}

/** The token of our own 229 (ftps.md §2.2). @throws SuiteError unsupported if the peer speaks another FTP */
export function parseDataToken(reply: string): string {
  const token = /^229 [^\r\n(]*\bdata ([a-z2-7]{26}) \(\|\|\|\d{1,5}\|\)/.exec(reply)?.[1];
  if (token !== undefined) return token;
  throw new SuiteError("unsupported", "the peer's node announces no data channel as ours do", { fault: "peer" });
}

/** How far an object is that was sent before. */
export type ObjectState = { state: "opened"; digest: string } | { state: "partial" };

/** What a peer's 250 to MLST says of an object of ours (ftps.md §2.5); nothing if it is of another kind. */
export function parseObjectState(reply: string): ObjectState | undefined {
  const facts = /^ ?(?:[a-z0-9.-]+=[^;\r\n]*;)+(?= )/im.exec(reply)?.[0] ?? "";
  const fact = (name: string) =>
    facts
      .trim()
      .split(";")
      .find((one) => one.toLowerCase().startsWith(`${name}=`))
      ?.slice(name.length + 1);
  const digest = fact("x.digest");
  switch (fact("x.state")) {
    case "opened":
      return digest === undefined ? undefined : { state: "opened", digest };
    case "partial":
      return { state: "partial" };
    default:
      return undefined;
  }
}

/** A 213 to HASH: of how many bytes it is, and which. */
export function parseHash(reply: string): { size: number; sha256: string } | undefined {
  const match = /^213 SHA-256 0-(\d{1,15}) ([0-9a-f]{64}) /i.exec(reply);
  return match === null ? undefined : { size: Number(match[1]), sha256: (match[2] ?? "").toLowerCase() };
}

const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";

/** 16 random bytes as 26 characters a–z2–7. */
export function dataToken(bytes: Uint8Array): string {
  let bits = 0n;
  for (const byte of bytes) bits = (bits << 8n) | BigInt(byte);
  bits <<= 2n; // 130 bits are 26 whole characters
  let token = "";
  for (let digit = 0; digit < 26; digit += 1, bits >>= 5n) token = (BASE32[Number(bits & 31n)] ?? "") + token;
  return token;
}

/** RFC 3659 §2.3: `YYYYMMDDHHMMSS`, UTC. */
export function timeVal(date: Date): string {
  return date.toISOString().replace(/[-:T]/g, "").slice(0, 14);
}
