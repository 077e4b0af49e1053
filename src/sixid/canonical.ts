import { createHash } from "node:crypto";
import { SuiteError } from "../pki/suite-error.ts";

/** What signed objects are made of: RFC 8785 with only strings, safe integers, booleans, arrays and objects. */
export type Canonical =
  | string
  | number
  | boolean
  | readonly Canonical[]
  | { readonly [name: string]: Canonical | undefined };

const MAX_DEPTH = 16;

/**
 * The one text of a value (RFC 8785): members sorted by UTF-16 code units, no white space. Undefined members are left out.
 * @throws SuiteError syntax for anything outside the subset (null, fractions, lone surrogates, depth over 16)
 */
export function canonicalJson(value: Canonical, depth = 0): string {
  if (depth > MAX_DEPTH) throw refused("nested too deeply");
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw refused("lone surrogate");
    return JSON.stringify(value);
  }
  if (typeof value === "boolean") return value ? "true" : "false";
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) throw refused("not a safe integer");
    return String(value);
  }
  if (Array.isArray(value)) return `[${value.map((one) => canonicalJson(one, depth + 1)).join(",")}]`;
  if (typeof value !== "object" || value === null) throw refused("no such type");
  const members = Object.entries(value as { [name: string]: Canonical | undefined })
    .filter((member): member is [string, Canonical] => member[1] !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([name, member]) => `${canonicalJson(name)}:${canonicalJson(member, depth + 1)}`);
  return `{${members.join(",")}}`;
}

/**
 * Parses a text that has to be its own canonical form; so nothing can be said twice or in two ways.
 * @throws SuiteError syntax
 */
export function parseCanonical(text: string): Canonical {
  let value: Canonical;
  try {
    value = JSON.parse(text) as Canonical;
  } catch (cause) {
    throw new SuiteError("syntax", "not JSON", { fault: "peer", cause });
  }
  if (canonicalJson(value) !== text) throw refused("not in canonical form");
  return value;
}

/** SHA-256 of a signed object's payload, 64 hex digits: what `prev` names and what pins hold. */
export function payloadHash(payload: string): string {
  return createHash("sha256").update(payload, "utf8").digest("hex");
}

function refused(why: string): SuiteError {
  return new SuiteError("syntax", "not canonical JSON", { fault: "peer", details: { why } });
}
