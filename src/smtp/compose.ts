import { type Identity, identityDomain } from "../pki/identity.ts";
import { addressesOf } from "../smime/address.ts";
import { contentTypeOf, type EntityHead, fieldOf, headerField, messageIdOf, serializeHead } from "../smime/entity.ts";
import { protectHeader } from "../smime/header-protection.ts";
import { encodeWords } from "./encoded-word.ts";
import { namesOnly } from "./grammar.ts";
import { titleOf } from "./opened.ts";
import { Refusal } from "./reply.ts";
import { mailDate } from "./trace.ts";

/** A submitted mail as it goes into the outbox. */
export interface ComposedMail {
  /** Without angle brackets. */
  readonly messageId: string;
  readonly title: string;
  /** One for those whom To and Cc name; one for each other recipient, whom nobody else's copy names. */
  readonly copies: readonly MailCopy[];
}

export interface MailCopy {
  readonly to: readonly Identity[];
  /** Head of the payload, with its blank line: every field, protected (RFC 9788). */
  readonly payloadHead: Buffer;
  /** Fields that stand outside the seal, each with its CRLF. */
  readonly outerHeader: string;
}

export interface ComposeOptions {
  owner: Identity;
  /** Of the envelope. */
  to: readonly Identity[];
  now: Date;
  random: (length: number) => Buffer;
}

/** Fields that only those who carry a mail write, and the one that must not be seen. */
const REMOVED = new Set(["bcc", "resent-bcc", "return-path", "hp-outer"]);

/**
 * Makes what gets signed out of the head of a submitted mail: adds Date and Message-ID where they are missing, removes Bcc,
 * protects the header. A Bcc recipient's copy names him alone (RFC 5322 §3.6.3): the peer opens only what is addressed to it.
 * @throws Refusal 550 5.7.1 when From or Sender is not the owner, 554 5.7.5 for mail that the program sealed itself
 */
export function composeMail(submitted: EntityHead, o: ComposeOptions): ComposedMail {
  if (!namesOnly(submitted, "From", o.owner)) throw new Refusal(550, "5.7.1", "From is not the owner of this node");
  if (fieldOf(submitted, "Sender") !== undefined && !namesOnly(submitted, "Sender", o.owner)) {
    throw new Refusal(550, "5.7.1", "Sender is not the owner of this node");
  }
  refuseSealed(submitted);
  const generated = `${o.random(16).toString("hex")}@${identityDomain(o.owner)}`;
  const fields = submitted.fields.filter(({ name }) => !REMOVED.has(name.toLowerCase()));
  if (fieldOf(submitted, "Date") === undefined) fields.push(headerField("Date", mailDate(o.now)));
  if (fieldOf(submitted, "Message-ID") === undefined) fields.push(headerField("Message-ID", `<${generated}>`));
  const named = addressesOf(submitted, "To", "Cc");
  const visible = o.to.filter((one) => named.includes(one));
  const hidden = o.to.filter((one) => !named.includes(one));
  return {
    messageId: messageIdOf({ fields }) ?? generated,
    title: titleOf(submitted),
    copies: [
      ...(visible.length === 0 ? [] : [copyFor(visible, { fields })]),
      ...hidden.map((one) => copyFor([one], { fields: [...fields, headerField("Bcc", one)] })),
    ],
  };
}

/** A text of the owner's as a mail: its head, and its body. */
export function composeText(o: {
  owner: Identity;
  name: string;
  to: readonly Identity[];
  subject: string;
  text: string;
}): { head: EntityHead; body: Buffer } {
  const text = o.text.replace(/\r\n?|\n/g, "\r\n");
  const plain = /^[\x09\x0a\x0d\x20-\x7e]*$/.test(text) && text.split("\r\n").every((line) => line.length <= 998);
  const body = plain
    ? text
    : Buffer.from(text)
        .toString("base64")
        .replace(/.{76}(?=.)/g, "$&\r\n");
  const head: EntityHead = {
    fields: [
      headerField("From", `${phrase(o.name)}<${o.owner}>`),
      headerField("To", o.to.join(", ")),
      headerField("Subject", encodeWords(o.subject)),
      headerField("MIME-Version", "1.0"),
      headerField("Content-Type", "text/plain; charset=utf-8"),
      headerField("Content-Transfer-Encoding", plain ? "7bit" : "base64"),
    ],
  };
  return { head, body: Buffer.from(body.endsWith("\r\n") ? body : `${body}\r\n`) };
}

/** A display name before an angle-addr, as RFC 5322 §3.4 and RFC 2047 §5 (3) want it. */
function phrase(name: string): string {
  const words = encodeWords(name.trim());
  if (words === "") return "";
  return `${words.startsWith("=?") ? words : `"${words.replace(/["\\]/g, "\\$&")}"`} `;
}

function copyFor(to: readonly Identity[], head: EntityHead): MailCopy {
  const { payload, outer } = protectHeader(head);
  return {
    to,
    payloadHead: serializeHead(payload),
    outerHeader: outer.fields.map(({ raw }) => `${raw}\r\n`).join(""),
  };
}

/** The node cannot see into it, and a peer takes only what it finds signed by the owner inside. */
function refuseSealed(head: EntityHead): void {
  const { value, parameters } = contentTypeOf(head);
  if (!/^application\/(?:x-)?pkcs7-mime$/.test(value)) return;
  const kind = parameters.get("smime-type")?.toLowerCase() ?? "";
  if (kind === "signed-data" || kind === "certs-only") return;
  throw new Refusal(554, "5.7.5", "Already sealed: turn encryption off in the mail program, this node signs and seals");
}
