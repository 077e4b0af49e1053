import { contentTypeOf, type EntityHead, fieldOf, type HeaderField, headerField } from "./entity.ts";
import { formatParameter } from "./parameter.ts";

/** A mail's header cut in two (RFC 9788 §5.2). */
export interface ProtectedMail {
  /** Head of the payload, the entity that gets signed: every field, and how the outer ones look. */
  readonly payload: EntityHead;
  /** The whole outer header: what the world may see, and the MIME fields of the sealed body in base64. */
  readonly outer: EntityHead;
}

/** A header as the signed payload has it. */
export interface ProtectedHeader {
  /**
   * What the payload says of itself: `cipher`, also hidden from the world; `clear`, only signed; `v1`, written by the draft
   * before RFC 9788 (`protected-headers="v1"`), which says nothing of what was hidden; `none`, nothing. It is a claim: what
   * protects the payload are the layers around it (RFC 9788 §2.1.1).
   */
  readonly protection: "cipher" | "clear" | "v1" | "none";
  /** The fields of the mail itself, without those that describe the MIME part or the outer header. */
  readonly fields: readonly HeaderField[];
  /** What stood outside, as the signer wrote it; of `cipher` only, others have nothing to say of it (RFC 9788 §2.2). */
  readonly outer: readonly { readonly name: string; readonly value: string }[];
}

/** How one field was protected (RFC 9788 §4.3). */
export type FieldProtection = "signed-and-encrypted" | "encrypted-only" | "signed-only" | "unprotected";

/**
 * Moves all fields of a mail onto its payload and leaves outside what hcp_baseline (RFC 9788 §3.2.1) does: Subject becomes
 * `[...]`, Comments and Keywords go. Bcc goes outside, too.
 */
export function protectHeader(head: EntityHead): ProtectedMail {
  const own = head.fields.filter((field) => !is(field, "HP-Outer"));
  const outside = own.filter((field) => !isStructural(field)).flatMap((field) => outerField(field) ?? []);
  const payload = own.filter((field) => !is(field, "Content-Type"));
  return {
    payload: { fields: [...payload, ...outside.map(hpOuter), protectedContentType(head)] },
    outer: { fields: [...outside, ...sealedMime()] },
  };
}

/** Gives the protected fields of a signed payload's head back. They count only if the signature holds. */
export function protectedHeader(payload: EntityHead): ProtectedHeader {
  const protection = protectionOf(payload);
  const outer = payload.fields.flatMap((field) => (is(field, "HP-Outer") ? (readHpOuter(field.value) ?? []) : []));
  return {
    protection,
    fields: payload.fields.filter((field) => !isStructural(field) && !is(field, "HP-Outer")),
    outer: protection === "cipher" ? outer : [],
  };
}

/**
 * HeaderFieldProtection (RFC 9788 §4.3.1) of one of `header.fields`, from what is inside alone. `layers`: what really lies
 * around the payload. Only what its writer meant to hide is taken for hidden: encryption may have been added on the way.
 */
export function fieldProtection(
  header: ProtectedHeader,
  field: HeaderField,
  layers: { readonly encrypted: boolean; readonly signed: boolean },
): FieldProtection {
  if (header.protection === "none") return "unprotected";
  const exposed = header.outer.some((one) => is(field, one.name) && one.value === field.value);
  if (layers.encrypted && header.protection === "cipher" && !exposed) {
    return layers.signed ? "signed-and-encrypted" : "encrypted-only";
  }
  return layers.signed ? "signed-only" : "unprotected";
}

/** Whether a part only repeats hidden fields for programs that know no protected header: the draft's legacy display. */
export function isLegacyDisplay(part: EntityHead): boolean {
  const { value, parameters } = contentTypeOf(part);
  return /^text\/(?:plain|rfc822-headers)$/.test(value) && parameters.has("protected-headers");
}

/** A parameter that RFC 9788 does not define is none of its (§2.1.1); both kinds at once are the newer one. */
function protectionOf(payload: EntityHead): ProtectedHeader["protection"] {
  const { parameters } = contentTypeOf(payload);
  const hp = parameters.get("hp")?.toLowerCase();
  if (hp === "cipher" || hp === "clear") return hp;
  return hp === undefined && parameters.get("protected-headers")?.toLowerCase() === "v1" ? "v1" : "none";
}

/** The MIME fields of a sealed mail's outer header (RFC 8551 §3.5.1). */
function sealedMime(): HeaderField[] {
  return [
    headerField("MIME-Version", "1.0"),
    headerField("Content-Type", 'application/pkcs7-mime; smime-type=authEnveloped-data; name="smime.p7m"'),
    headerField("Content-Transfer-Encoding", "base64"),
    headerField("Content-Disposition", 'attachment; filename="smime.p7m"'),
  ];
}

function outerField(field: HeaderField): HeaderField | undefined {
  switch (field.name.toLowerCase()) {
    case "subject":
      return headerField("Subject", "[...]");
    case "comments":
    case "keywords":
    case "bcc":
      return undefined;
    default:
      return field;
  }
}

/** RFC 9788 §2.2: the outer field, name and all, as the value of a field of the payload. */
function hpOuter(field: HeaderField): HeaderField {
  const inner = field.raw.slice(field.name.length + field.raw.slice(field.name.length).indexOf(":") + 1);
  const [firstLine = ""] = inner.split("\r\n", 1);
  // A line holds 998 octets (RFC 5322 §2.1.1): a long one goes onto a line of its own.
  const fold = Buffer.byteLength(`HP-Outer: ${field.name}:${firstLine}`) > 998 ? "\r\n" : "";
  return {
    name: "HP-Outer",
    value: `${field.name}: ${field.value}`,
    raw: `HP-Outer: ${field.name}:${fold}${fold !== "" && !/^[ \t]/.test(inner) ? " " : ""}${inner}`,
  };
}

function readHpOuter(value: string): { name: string; value: string } | undefined {
  const colon = value.indexOf(":");
  return colon < 1 ? undefined : { name: value.slice(0, colon).trim(), value: value.slice(colon + 1).trim() };
}

/** Content-Type with `hp="cipher"`; parameters of an earlier protection are dropped. */
function protectedContentType(head: EntityHead): HeaderField {
  const field = fieldOf(head, "Content-Type");
  const { value, parameters } = contentTypeOf(head);
  const marked = ["hp", "hp-legacy-display", "protected-headers"].some((name) => parameters.has(name));
  if (field !== undefined && !marked) {
    const raw = `${field.raw.replace(/[;\s]+$/, "")};\r\n hp="cipher"`;
    return { name: field.name, value: `${field.value.replace(/[;\s]+$/, "")}; hp="cipher"`, raw };
  }
  const kept = [...parameters].filter(([name]) => !["hp", "hp-legacy-display", "protected-headers"].includes(name));
  const text = kept.map(([name, parameter]) => formatParameter(name, parameter)).join("");
  return headerField("Content-Type", `${value}${text}; hp="cipher"`);
}

/** Fields that describe the MIME structure, not the mail (RFC 9788 §1.8). */
function isStructural({ name }: HeaderField): boolean {
  return /^(?:content-.*|mime-version)$/i.test(name);
}

function is(field: HeaderField, name: string): boolean {
  return field.name.toLowerCase() === name.toLowerCase();
}
