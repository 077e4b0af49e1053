import { SuiteError } from "../pki/suite-error.ts";
import { type SipRequest, value, values } from "./grammar.ts";
import { type NameAddr, parseNameAddr } from "./headers.ts";
import type { LocalFlow } from "./local-flow.ts";
import { parseSipUri } from "./uri.ts";

/** Where one of the owner's programs can be reached. */
export interface Binding {
  contact: string;
  flow: LocalFlow;
  /** The app password by which it registered. */
  app: string;
  callId: string;
  cseq: number;
  /** Unix milliseconds. */
  expires: number;
}

const DEFAULT_SECONDS = 600;
const MIN_SECONDS = 60;
const MAX_SECONDS = 3_600;
const MAX_BINDINGS = 10;

/** The registrar of one address of record, the owner's (RFC 3261 §10.3). */
export class Registrar {
  readonly #bindings = new Map<string, Binding>();
  readonly #clock: () => Date;

  constructor(clock: () => Date) {
    this.#clock = clock;
  }

  get bindings(): Binding[] {
    const now = this.#clock().getTime();
    for (const [key, binding] of this.#bindings)
      if (binding.expires <= now || !binding.flow.alive) this.#bindings.delete(key);
    return [...this.#bindings.values()];
  }

  /**
   * All of a REGISTER's changes or none.
   * @returns the Contact values of the answer
   * @throws SuiteError syntax (400), limit-exceeded with `minExpires` (423), forbidden (403: too many), conflict (500: older CSeq)
   */
  register(request: SipRequest, flow: LocalFlow, app: string): string[] {
    const now = this.#clock().getTime();
    const callId = value(request.headers, "call-id") ?? "";
    const cseq = Number.parseInt(value(request.headers, "cseq") ?? "0", 10);
    const header = value(request.headers, "expires");
    const contacts = values(request.headers, "contact");
    const changes = new Map<string, Binding | undefined>();
    if (contacts.includes("*")) {
      if (contacts.length > 1 || header !== "0")
        throw new SuiteError("syntax", "* removes all and stands alone with Expires 0", { fault: "peer" });
      for (const [key, binding] of this.#bindings) changes.set(key, this.#inOrder(binding, callId, cseq, undefined));
    } else {
      for (const text of contacts) {
        const contact = contactOf(text);
        const key = keyOf(contact.uriText);
        const seconds = lifetime(contact.parameters.get("expires") ?? header);
        const known = this.#bindings.get(key);
        const next =
          seconds === 0
            ? undefined
            : { contact: contact.uriText, flow, app, callId, cseq, expires: now + seconds * 1000 };
        changes.set(key, known === undefined ? next : this.#inOrder(known, callId, cseq, next));
      }
    }
    const after = new Map(this.bindings.map((binding) => [keyOf(binding.contact), binding]));
    for (const [key, binding] of changes) {
      if (binding === undefined) after.delete(key);
      else after.set(key, binding);
    }
    if (after.size > MAX_BINDINGS)
      throw new SuiteError("forbidden", "too many programs are registered", { fault: "peer" });
    this.#bindings.clear();
    for (const [key, binding] of after) this.#bindings.set(key, binding);
    return [...after.values()].map(
      (binding) => `<${binding.contact}>;expires=${Math.max(0, Math.round((binding.expires - now) / 1000))}`,
    );
  }

  #inOrder(known: Binding, callId: string, cseq: number, next: Binding | undefined): Binding | undefined {
    if (known.callId === callId && cseq <= known.cseq)
      throw new SuiteError("conflict", "an older request", { fault: "peer" });
    return next;
  }
}

/** @throws SuiteError syntax, also for another scheme: a program that is no SIP program cannot be reached */
function contactOf(text: string): NameAddr {
  try {
    return parseNameAddr(text);
  } catch (cause) {
    if (!(cause instanceof SuiteError) || cause.code !== "unsupported") throw cause;
    throw new SuiteError("syntax", "a Contact is no SIP URI", { fault: "peer", cause });
  }
}

/** Two contacts are one if user, host and port are (§19.1.4, as far as registrations need it). */
function keyOf(uriText: string): string {
  const uri = parseSipUri(uriText);
  return `${uri.user ?? ""}@${uri.host}:${uri.port ?? ""};${uri.parameters.get("transport")?.toLowerCase() ?? ""}`;
}

function lifetime(text: string | undefined): number {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return DEFAULT_SECONDS;
  const seconds = Number(text);
  if (seconds > 0 && seconds < MIN_SECONDS) {
    throw new SuiteError("limit-exceeded", "registered for too short a time", {
      fault: "peer",
      details: { minExpires: MIN_SECONDS },
    });
  }
  return Math.min(seconds, MAX_SECONDS);
}
