import type { Certificate } from "./certificate.ts";
import type { NameConstraints } from "./extension.ts";
import type { GeneralName } from "./general-name.ts";
import { parseIdentity } from "./identity.ts";
import { attributeTexts, type Name, nameWithin } from "./name.ts";
import { attributeType } from "./oid.ts";

/** What may still be compared before a path counts as too complex. Shared by all certificates of one validation. */
export interface ComparisonBudget {
  left: number;
}

/** A form of name that constraints speak about. "unknown": one that cannot be judged, hence refused where constrained. */
type Form = "mail" | "dns" | "uri" | "directory" | "ip" | "unknown";

/** One name of a certificate. */
export interface ConstrainedName {
  readonly form: Form;
  /** For "unknown": which form, so that a constraint on another unknown form does not bind it. */
  readonly kind: string;
  /** In the form that it is compared in; undefined: too odd to be judged. Made when a constraint speaks about the name. */
  readonly value: () => ComparedName | undefined;
}

type ComparedName = string | Uint8Array | Name;

/**
 * Whether all names of the certificate lie within one CA's constraints (RFC 5280 §4.2.1.10, §6.1.3 b and c). "too-complex"
 * when the budget is used up.
 */
export function namesAllowed(
  names: readonly ConstrainedName[],
  constraints: NameConstraints,
  budget: ComparisonBudget,
): boolean | "too-complex" {
  budget.left -= names.length * (constraints.permitted.length + constraints.excluded.length);
  if (budget.left < 0) return "too-complex";
  return names.every((name) => {
    const permitted = constraints.permitted.filter((base) => speaksAbout(base, name));
    const excluded = constraints.excluded.filter((base) => speaksAbout(base, name));
    if (permitted.length + excluded.length === 0) return true;
    const value = name.form === "unknown" ? undefined : name.value();
    if (value === undefined) return false;
    if (excluded.some((base) => lies(value, base) || mayCover(value, base))) return false;
    return permitted.length === 0 || permitted.some((base) => lies(value, base));
  });
}

/**
 * The names of a certificate that constraints bind: the subject, all subjectAltNames, and, as mail addresses, what of the
 * subject and of `sip:` URIs is read as an identity. RFC 5280 binds emailAddress only without a subjectAltName and knows
 * nothing of UID and `sip:` users; but a CA for one domain shall not name people of another by any of them.
 */
export function constrainedNames(certificate: Certificate): ConstrainedName[] {
  const { subject } = certificate;
  const names = certificate.subjectAltNames.flatMap(constrainedName);
  if (subject.rdns.length > 0) names.push({ form: "directory", kind: "", value: () => subject });
  for (const text of attributeTexts(subject, attributeType.emailAddress)) names.push(mail(text));
  for (const text of attributeTexts(subject, attributeType.userId)) {
    const identity = identityOrNone(text); // a UID that is no identity is only a word
    if (identity !== undefined) names.push({ form: "mail", kind: "", value: () => identity });
  }
  return names;
}

function constrainedName(name: GeneralName): ConstrainedName[] {
  switch (name.type) {
    case "rfc822Name":
    case "smtpUtf8Mailbox": // RFC 9598 §6
      return [mail(name.text)];
    case "dNSName":
      return [{ form: "dns", kind: "", value: () => (dnsForm.test(name.text) ? name.text.toLowerCase() : undefined) }];
    case "uri":
      return [{ form: "uri", kind: "", value: () => uriHost(name.text) }, ...sipIdentity(name.text)];
    case "directoryName":
      return [{ form: "directory", kind: "", value: () => name.name }];
    case "ipAddress":
      return [{ form: "ip", kind: "", value: () => ([4, 16].includes(name.octets.length) ? name.octets : undefined) }];
    case "otherName":
      return [{ form: "unknown", kind: name.typeId, value: () => undefined }];
    case "other":
      return [{ form: "unknown", kind: String(name.tag), value: () => undefined }];
  }
}

function mail(text: string): ConstrainedName {
  const odd = () => (/^[\x21-\x7e]+@[a-z0-9.-]+$/i.test(text) ? text.toLowerCase() : undefined);
  return { form: "mail", kind: "", value: () => identityOrNone(text) ?? odd() };
}

function sipIdentity(uri: string): ConstrainedName[] {
  return /^sips?:[^@]*@/i.test(uri)
    ? [
        mail(
          uri
            .replace(/^sips?:/i, "")
            .replace(/[;?].*$/s, "")
            .replace(/:\d+$/, ""),
        ),
      ]
    : [];
}

function identityOrNone(text: string): string | undefined {
  try {
    return parseIdentity(text);
  } catch {
    return undefined;
  }
}

/** Host of a URI with an authority, or of a `sip:` URI; undefined without a host name (RFC 5280 refuses those). */
function uriHost(uri: string): string | undefined {
  if (/[\s\\\x00-\x1f\x7f]/.test(uri)) return undefined;
  const [, sip] = /^sips?:(?:[^@]*@)?([^@:;?]+)(?::\d+)?(?:[;?][^@]*)?$/i.exec(uri) ?? [];
  const [, web] = /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?([^/?#@:]+)(?::\d*)?(?:[/?#].*)?$/i.exec(uri) ?? [];
  const host = (sip ?? web)?.toLowerCase();
  return host !== undefined && hostForm.test(host) ? host : undefined;
}

// A host name, not an IPv4 address: the last label is not a number.
const hostForm = /^(?:[a-z0-9_-]+\.)*(?!\d+$)[a-z0-9_-]+$/;
const dnsForm = /^(?:\*\.)?(?:[a-z0-9_-]+\.)*[a-z0-9_-]+$/i;

function speaksAbout(base: GeneralName, name: ConstrainedName): boolean {
  switch (base.type) {
    case "rfc822Name":
    case "smtpUtf8Mailbox":
      return name.form === "mail";
    case "dNSName":
      return name.form === "dns";
    case "uri":
      return name.form === "uri";
    case "directoryName":
      return name.form === "directory";
    case "ipAddress":
      return name.form === "ip";
    case "otherName":
      return name.form === "unknown" && name.kind === base.typeId;
    case "other":
      return name.form === "unknown" && name.kind === String(base.tag);
  }
}

/** Whether the name lies in the subtree; both are of the same form. */
function lies(value: ComparedName, base: GeneralName): boolean {
  if (typeof value === "string") {
    if (base.type === "rfc822Name" || base.type === "smtpUtf8Mailbox") return mailLies(value, base.text.toLowerCase());
    if (base.type === "dNSName") return dnsLies(value, base.text.toLowerCase());
    return base.type === "uri" && hostLies(value, base.text.toLowerCase());
  }
  if (value instanceof Uint8Array) return base.type === "ipAddress" && addressLies(value, base.octets);
  return base.type === "directoryName" && nameWithin(base.name, value);
}

/** `alice@example.com` one mailbox, `example.com` all of that host, `.example.com` of the hosts below it. */
function mailLies(mailbox: string, base: string): boolean {
  if (base.includes("@")) return mailbox === (identityOrNone(base) ?? base);
  return hostLies(mailbox.slice(mailbox.lastIndexOf("@") + 1), base);
}

/** `example.com` that host alone, `.example.com` the hosts below it, nothing: every host. */
function hostLies(host: string, base: string): boolean {
  return base === "" || (base.startsWith(".") ? host.endsWith(base) : host === base);
}

/** `example.com` that name and all below it. The leading dot of some CAs means: only below. */
function dnsLies(name: string, base: string): boolean {
  return (
    base === "" || (!base.startsWith(".") && name === base) || name.endsWith(base.startsWith(".") ? base : `.${base}`)
  );
}

/** A wildcard that could stand for an excluded name. */
function mayCover(value: ComparedName, base: GeneralName): boolean {
  if (base.type !== "dNSName" || typeof value !== "string" || !value.startsWith("*.")) return false;
  return base.text.toLowerCase().endsWith(value.slice(1));
}

/** The base is an address and a mask of the same length. */
function addressLies(address: Uint8Array, base: Uint8Array): boolean {
  if (base.length !== 2 * address.length) return false;
  return address.every((octet, i) => {
    const mask = base[address.length + i] ?? 0;
    return (octet & mask) === ((base[i] ?? 0) & mask);
  });
}
