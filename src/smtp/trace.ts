import type { PeerAddress } from "../peertls-core/connection.ts";
import type { PeerCertificate } from "../pki/certificate.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import { showName } from "../pki/name.ts";
import { headerField } from "../smime/entity.ts";

/** How a mail came in. */
export interface Passage {
  /** What the client called itself. */
  helo: string;
  from: PeerAddress;
  /** Id of the connection, as in the log. */
  id: string;
  /** As `TLSv1.3`, `TLS_AES_256_GCM_SHA384`. */
  tls?: { version: string; cipher: string };
}

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** date-time of RFC 5322 §3.3, in UTC. */
export function mailDate(date: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${DAYS[date.getUTCDay()]}, ${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`;
  return `${day} ${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} +0000`;
}

/** Return-Path, as the last node writes it (RFC 5321 §4.4). */
export function returnPathLine(from: Identity | undefined): string {
  return line("Return-Path", `<${from ?? ""}>`);
}

/** Received (RFC 5321 §4.4). */
export function receivedLine(passage: Passage, owner: Identity, now: Date): string {
  const { helo, from, tls, id } = passage;
  const name = /^[A-Za-z0-9.:[\]-]{1,255}$/.test(helo) ? helo : "unknown";
  const address = from.host.includes(":") ? `[IPv6:${from.host}]` : `[${from.host}]`;
  const by = `by ${identityDomain(owner)} (SixTalk) with ESMTPS`;
  const secured = tls === undefined ? "" : ` (${tls.version} ${tls.cipher})`;
  return line("Received", `from ${name} (${address}) ${by}${secured} id ${id} for <${owner}>; ${mailDate(now)}`);
}

/** Authentication-Results of a seal that was opened and verified (RFC 8601; RFC 7281 §4). */
export function authenticationResultsLine(owner: Identity, signer: Identity): string {
  return line("Authentication-Results", `${identityDomain(owner)}; smime=pass body.smime-identifier=${signer}`);
}

/** Who brought it, by the certificate that the gate admitted. */
export function peerLine(peer: Identity, certificate: PeerCertificate): string {
  const issuer = showName(certificate.certificate.issuer)
    .replace(/[\p{C}"\\]+/gu, " ")
    .slice(0, 256);
  return line("X-SixTalk-Peer", `${peer}; key=sha256:${certificate.fingerprint}; issuer="${issuer}"`);
}

/** What the seal proved. */
export function sealLine(o: { signer: Identity; signedAt?: Date; cipher: string }): string {
  const signed = o.signedAt === undefined ? "" : ` signed=${o.signedAt.toISOString().replace(/\.\d+Z$/, "Z")};`;
  return line("X-SixTalk-Seal", `sealed; signer=${o.signer};${signed} cipher=${o.cipher}`);
}

function line(name: string, value: string): string {
  return `${headerField(name, value).raw}\r\n`;
}
