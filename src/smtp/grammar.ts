import { type Identity, parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { parseAddresses } from "../smime/address.ts";
import { type EntityHead, type SplitEntity, splitEntity } from "../smime/entity.ts";
import { Refusal } from "./reply.ts";

/** Parameters of MAIL and RCPT by their upper-case names; `true` for a keyword without a value. */
export type Parameters = Readonly<Record<string, string | true>>;

/** Of MAIL FROM. `mailbox` is undefined for the null path `<>`. */
export interface ReversePath {
  readonly mailbox: Identity | undefined;
}

const MAIL_PARAMETERS = new Set(["SIZE", "BODY", "SMTPUTF8", "AUTH"]);

/** @param address what stands between the angle brackets. @throws Refusal 553, 555 */
export function reversePath(address: string, parameters: Parameters): ReversePath {
  for (const name of Object.keys(parameters)) {
    if (!MAIL_PARAMETERS.has(name)) throw new Refusal(555, "5.5.4", "Parameter not supported");
  }
  return { mailbox: address === "" ? undefined : mailbox(address, parameters["SMTPUTF8"] === true, "5.1.7") };
}

/** @param utf8 whether MAIL said SMTPUTF8. @throws Refusal 553, 555 */
export function forwardPath(address: string, parameters: Parameters, utf8: boolean): Identity {
  if (Object.keys(parameters).length > 0) throw new Refusal(555, "5.5.4", "Parameter not supported");
  return mailbox(address, utf8, "5.1.3");
}

function mailbox(address: string, utf8: boolean, enhanced: "5.1.3" | "5.1.7"): Identity {
  const local = address.slice(0, Math.max(0, address.lastIndexOf("@")));
  // RFC 6531 §3.4. Of the local part alone: the library shows domains in Unicode, however they came.
  if (!utf8 && /[^\x00-\x7f]/.test(local)) throw new Refusal(553, "5.6.7", "Non-ASCII address without SMTPUTF8");
  try {
    return parseIdentity(address);
  } catch {
    throw new Refusal(553, enhanced, "Not an address of the form local@domain");
  }
}

/**
 * Passes DATA on and refuses what could end a mail for somebody else: bare CR, bare LF, NUL (RFC 5321 §2.3.8, §4.1.1.4).
 * @throws SuiteError syntax
 */
export async function* strictLines(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let afterCr = false;
  for await (const chunk of source) {
    if (chunk.length === 0) continue;
    if (!endsLinesByCrlf(chunk, afterCr) || chunk.includes(0)) throw bareLineEnd();
    afterCr = chunk[chunk.length - 1] === 0x0d;
    yield chunk;
  }
  if (afterCr) throw bareLineEnd();
}

/** Passes the owner's own DATA on; its line ends are made CRLF later. @throws SuiteError syntax for NUL */
export async function* withoutNul(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    if (chunk.includes(0)) throw bareLineEnd();
    yield chunk;
  }
}

/** Every CR of the chunk stands before an LF, every LF behind a CR; a CR at its end is left to the next chunk. */
function endsLinesByCrlf(chunk: Uint8Array, afterCr: boolean): boolean {
  if (afterCr !== (chunk[0] === 0x0a)) return false;
  for (let lf = chunk.indexOf(0x0a, 1); lf >= 0; lf = chunk.indexOf(0x0a, lf + 1)) {
    if (chunk[lf - 1] !== 0x0d) return false;
  }
  for (let cr = chunk.indexOf(0x0d); cr >= 0 && cr < chunk.length - 1; cr = chunk.indexOf(0x0d, cr + 1)) {
    if (chunk[cr + 1] !== 0x0a) return false;
  }
  return true;
}

function bareLineEnd(): SuiteError {
  return new SuiteError("syntax", "a mail has a bare CR, a bare LF or a NUL", { fault: "peer" });
}

/** Cuts the head, of at most 64 KiB, from a mail. @throws Refusal 554 5.6.0 when it is none; what the source throws */
export async function splitMail(source: AsyncIterable<Uint8Array>): Promise<SplitEntity> {
  let failure: { thrown: unknown } | undefined;
  async function* watched() {
    try {
      yield* source;
    } catch (thrown) {
      failure = { thrown };
      throw thrown;
    }
  }
  try {
    return await splitEntity(watched());
  } catch {
    if (failure !== undefined) throw failure.thrown;
    throw new Refusal(554, "5.6.0", "The header cannot be read");
  }
}

/** Whether there is exactly one field of this name and every address in it is this person's. */
export function namesOnly(head: EntityHead, fieldName: string, identity: Identity): boolean {
  const fields = head.fields.filter((field) => field.name.toLowerCase() === fieldName.toLowerCase());
  const [field] = fields;
  if (field === undefined || fields.length > 1) return false;
  const addresses = parseAddresses(field.value);
  return addresses.length > 0 && addresses.every((address) => isIdentity(address, identity));
}

function isIdentity(address: string, identity: Identity): boolean {
  try {
    return parseIdentity(address) === identity;
  } catch {
    return false;
  }
}

/** A reply of a peer as nodemailer hands it over: its lines joined, the last one counts. Undefined if it is none. */
export function parseReply(text: string): { code: number; enhanced?: string } | undefined {
  const match = /^([2-5]\d\d)(?:[ -]([245]\.\d{1,3}\.\d{1,3})(?= |$))?/.exec(text.slice(text.lastIndexOf("\n") + 1));
  if (match?.[1] === undefined) return undefined;
  return { code: Number(match[1]), ...(match[2] === undefined ? {} : { enhanced: match[2] }) };
}
