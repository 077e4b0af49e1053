import { type Identity, parseIdentity } from "../pki/identity.ts";
import type { EntityHead } from "./entity.ts";

/** Addresses of one field that are looked at. */
const maxAddresses = 1_000;

/** All identities in the fields of these names, such as From or To and Cc. What is no identity is passed over. */
export function addressesOf(head: EntityHead, ...fieldNames: readonly string[]): Identity[] {
  const wanted = new Set(fieldNames.map((name) => name.toLowerCase()));
  const found = new Set<Identity>();
  for (const { name, value } of head.fields) {
    if (!wanted.has(name.toLowerCase())) continue;
    for (const address of parseAddresses(value)) {
      const identity = identityOrNone(address);
      if (identity !== undefined) found.add(identity);
    }
  }
  return [...found];
}

/** The addr-specs of an address-list (RFC 5322 §3.4): display names, comments and group names left out. */
export function parseAddresses(value: string): string[] {
  const addresses: string[] = [];
  let text = "";
  let angle: string | undefined;
  let inAngle = false;
  const finish = () => {
    const address = (angle ?? text).replace(/\s+/g, "").replace(/^@[^:]*:/, ""); // obs-route of RFC 5322 §4.4
    if (address.includes("@") && addresses.length < maxAddresses) addresses.push(address);
    text = "";
    angle = undefined;
  };
  for (let i = 0; i < value.length; i++) {
    const character = value[i] ?? "";
    if (character === "(") i = endOfComment(value, i);
    else if (character === '"') {
      const end = endOfQuoted(value, i);
      const quoted = value.slice(i, end + 1);
      if (inAngle) angle += quoted;
      else text += quoted;
      i = end;
    } else if (inAngle) {
      if (character === ">") inAngle = false;
      else angle += character;
    } else if (character === "<") {
      inAngle = true;
      angle = "";
    } else if (character === "," || character === ";") finish();
    else if (character === ":")
      text = ""; // the end of a group's name
    else text += character;
  }
  if (!inAngle) finish();
  return addresses;
}

function endOfComment(value: string, start: number): number {
  let depth = 0;
  for (let i = start; i < value.length; i++) {
    if (value[i] === "\\") i++;
    else if (value[i] === "(") depth++;
    else if (value[i] === ")" && --depth === 0) return i;
  }
  return value.length;
}

function endOfQuoted(value: string, start: number): number {
  for (let i = start + 1; i < value.length; i++) {
    if (value[i] === "\\") i++;
    else if (value[i] === '"') return i;
  }
  return value.length;
}

function identityOrNone(text: string): Identity | undefined {
  try {
    return parseIdentity(text);
  } catch {
    return undefined;
  }
}
