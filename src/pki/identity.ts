import { domainToASCII } from "node:url";
import { SuiteError } from "./suite-error.ts";

/** A person or device as `local@domain`, canonical: equal identities are equal strings. Only `parseIdentity` makes one. */
export type Identity = string & { readonly __brand: "Identity" };

/**
 * Canonical form of `local@domain`: NFC, lower case, the domain in its ASCII form. The local part is a dot-atom of
 * RFC 6531 §3.3, at most 64 octets; the whole at most 254. No quoting, no address literal, no `sip:` or `mailto:`.
 * Throws SuiteError "identity-invalid".
 */
export function parseIdentity(text: string): Identity {
  if (text.length > 254) throw invalid("too long");
  if (plain.test(text)) return checked(text.toLowerCase());
  const at = text.indexOf("@");
  if (at < 0 || at !== text.lastIndexOf("@")) throw invalid("not local@domain");
  const local = text.slice(0, at).normalize("NFC").toLowerCase().normalize("NFC");
  return checked(`${local}@${asciiDomain(text.slice(at + 1))}`);
}

/** `alice@example.com` → `example.com`: A-labels, lower case. */
export function identityDomain(identity: Identity): string {
  return identity.slice(identity.indexOf("@") + 1);
}

/** `alice@example.com` → `alice`. */
export function identityLocal(identity: Identity): string {
  return identity.slice(0, identity.indexOf("@"));
}

/** Canonical form of a domain name: A-labels, lower case, no final dot. Throws SuiteError "identity-invalid". */
export function parseDomain(text: string): string {
  if (text.length > 253) throw invalid("domain too long");
  const ascii = asciiDomain(text);
  if (!domainForm.test(ascii) || ascii.length > 253) throw invalid("not a domain name");
  return ascii;
}

// ASCII without an A-label needs no mapping: nearly everything that is parsed.
const plain = /^[a-z0-9!#$%&'*+/=?^_`{|}~.-]+@(?!(?:.*\.)?xn--)[a-z0-9.-]+$/i;

// The last label is not a number: that would be an IPv4 address in one of its many spellings.
const domainForm =
  /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*(?!\d+$|0x[0-9a-f]*$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

// RFC 6531 §3.3 lets all of non-ASCII into an atom; what cannot be seen or reverses text stays out.
const localForm = /^(?!\.)(?!.*\.\.)(?!.*\.$)(?:[a-z0-9!#$%&'*+/=?^_`{|}~.-]|[^\x00-\x7f\p{C}\p{Z}])+$/u;

function checked(canonical: string): Identity {
  const at = canonical.indexOf("@");
  const local = canonical.slice(0, at);
  if (!localForm.test(local) || Buffer.byteLength(local) > 64) throw invalid("local part");
  if (!domainForm.test(canonical.slice(at + 1))) throw invalid("domain");
  if (Buffer.byteLength(canonical) > 254) throw invalid("too long");
  return canonical as Identity;
}

function asciiDomain(domain: string): string {
  // domainToASCII follows the URL standard: it would decode %41 and read 0x7f.1 as an address.
  if (!/^[a-z0-9.-]*$/i.test(domain) && !/^(?:[a-z0-9.-]|[^\x00-\x7f\p{C}\p{Z}])+$/iu.test(domain))
    throw invalid("domain");
  return domainToASCII(domain);
}

function invalid(what: string): SuiteError {
  return new SuiteError("identity-invalid", "not an identity of the form local@domain", {
    fault: "peer",
    details: { what },
  });
}

export function isIdentity(text: string): boolean {
  try {
    parseIdentity(text);
    return true;
  } catch {
    return false;
  }
}
