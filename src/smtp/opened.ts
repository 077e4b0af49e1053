import type { OpenedFacts } from "../delivery/inbox.ts";
import type { PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type EntityHead, fieldOf, headerField, parseHead } from "../smime/entity.ts";
import { protectedHeader } from "../smime/header-protection.ts";
import { decodeWords } from "./encoded-word.ts";
import { namesOnly } from "./grammar.ts";
import { authenticationResultsLine, type Passage, peerLine, receivedLine, returnPathLine, sealLine } from "./trace.ts";

/** The fields that the stored mail shows, all of them out of what was signed. */
const SHOWN = ["From", "To", "Cc", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "Reply-To"];
const MAX_TITLE = 256;

export interface Reception {
  owner: Identity;
  /** Who brought it and has to have written it. */
  peer: { identity: Identity; certificate: PeerCertificate };
  /** Of MAIL FROM. */
  returnPath: Identity | undefined;
  passage: Passage;
  now: Date;
}

/**
 * The header lines that stand before an opened mail in the store: how it came, what its seal proved, and the fields that
 * its sender signed. Nothing from outside the signature gets in.
 * @throws SuiteError seal-wrong-signer when the signed From is not the peer, seal-malformed when the entity has fields beside its MIME ones
 */
export function presentMail(facts: OpenedFacts, o: Reception): string {
  const signed: EntityHead = { fields: protectedHeader(facts.head).fields };
  if (!namesOnly(signed, "From", o.peer.identity)) {
    throw new SuiteError("seal-wrong-signer", "the signed From is not the peer", { fault: "peer" });
  }
  refuseStrayFields(facts.bytes);
  const { signedAt, cipher } = facts;
  return [
    returnPathLine(o.returnPath),
    receivedLine(o.passage, o.owner, o.now),
    authenticationResultsLine(o.owner, o.peer.identity),
    peerLine(o.peer.identity, o.peer.certificate),
    sealLine({ signer: o.peer.identity, cipher, ...(signedAt === undefined ? {} : { signedAt }) }),
    // Written anew: a fold of white space alone, as signed, would be the end of the header to some programs.
    ...SHOWN.flatMap((name) => fieldOf(signed, name) ?? []).map((one) => `${headerField(one.name, one.value).raw}\r\n`),
    "MIME-Version: 1.0\r\n",
  ].join("");
}

/** What lists show of an opened mail: the signed Subject. */
export function titleOf(head: EntityHead): string {
  const subject = decodeWords(fieldOf(head, "Subject")?.value ?? "").replace(/\p{C}+/gu, " ");
  return subject.slice(0, MAX_TITLE).toWellFormed();
}

/**
 * The entity's own head is encrypted but not signed, and in the stored mail it goes on where our lines end: a second From,
 * or a verdict of somebody else's making, must not stand there.
 */
function refuseStrayFields(bytes: Uint8Array | undefined): void {
  if (bytes === undefined) return;
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
  const end = /\r?\n\r?\n/.exec(text)?.index ?? text.length;
  const head = parseHead(bytes.subarray(0, end));
  if (head.fields.every(({ name }) => /^(?:content-.*|mime-version)$/i.test(name))) return;
  throw new SuiteError("seal-malformed", "the sealed entity has fields outside its signature", { fault: "peer" });
}
