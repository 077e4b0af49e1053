import { createHash } from "node:crypto";
import { parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { canonicalJson } from "./canonical.ts";

/** What a person can be found by. An e-mail address without `mailto:` is an identity. */
export interface LookupKey {
  kind: "identity" | "uuid" | "fingerprint" | "email" | "phone";
  value: string;
}

export type AliasKind = "email" | "phone";

/** What else a person is called. `salt`: 16 random bytes, base64url; nobody guesses the value from the digest without it. */
export interface PersonAlias {
  kind: AliasKind;
  value: string;
  salt: string;
}

/** @throws SuiteError syntax */
export function parseLookupKey(text: string): LookupKey {
  if (text.length <= MOST) {
    if (text.startsWith("+")) return { kind: "phone", value: parsePhone(text) };
    if (/^tel:/i.test(text)) return { kind: "phone", value: parsePhone(text.slice(4)) };
    if (/^mailto:/i.test(text)) return { kind: "email", value: parseEmail(text.slice(7)) };
    if (text.includes("@")) return { kind: "identity", value: parseEmail(text) };
    const lower = text.toLowerCase();
    if (UUID.test(lower)) return { kind: "uuid", value: lower };
    const fingerprint = lower.replace(/^sha256:/, "");
    if (/^[0-9a-f]{64}$/.test(fingerprint)) return { kind: "fingerprint", value: fingerprint };
  }
  throw refused();
}

/** @throws SuiteError syntax */
export function parseAlias(kind: AliasKind, text: string): string {
  return kind === "phone" ? parsePhone(text) : parseEmail(text);
}

/** As a record lists it, so that it is told only to whom the server tells it. */
export function aliasDigest({ kind, value, salt }: PersonAlias): string {
  return createHash("sha256")
    .update(canonicalJson([salt, kind, value]), "utf8")
    .digest("hex");
}

const MOST = 300;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** E.164 and nothing else: `+`, country, number, 7 to 15 digits; no spaces, no national forms. */
function parsePhone(text: string): string {
  if (!/^\+[1-9][0-9]{6,14}$/.test(text)) throw refused();
  return text;
}

function parseEmail(text: string): string {
  try {
    return parseIdentity(text);
  } catch (cause) {
    throw refused(cause);
  }
}

function refused(cause?: unknown): SuiteError {
  return new SuiteError("syntax", "nothing that a person is found by", {
    fault: "peer",
    ...(cause === undefined ? {} : { cause }),
  });
}
