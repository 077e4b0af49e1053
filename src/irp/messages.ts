import type { CrlReason } from "../pki/distribution-point.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { replyOf, replyXml } from "./reply-xml.ts";
import { requestOf, requestXml } from "./request-xml.ts";
import { badXml, type Element, readXml, writeXml } from "./xml.ts";
import { attributes, number } from "./xml-fields.ts";

export type CertificateKind = "auth" | "encryption";
export type CertificateStatus = "good" | "revoked" | "expired";

/** What a client asks (irp.md §2.3). Serial numbers and fingerprints are lower hex, times Unix seconds. */
export type Request =
  | { type: "hello"; domain: string; software?: string }
  | { type: "starttls" }
  | { type: "auth"; method: "upa"; user: string; secret: { code: string } | { password: string } }
  | { type: "auth"; method: "sca" }
  | { type: "csr"; kind: CertificateKind; label?: string; der: Buffer }
  | { type: "pending"; ref: string }
  | { type: "renew"; kind: CertificateKind; mode: "same" | "new"; der: Buffer }
  | { type: "revoke"; serial: string; reason: CrlReason }
  | { type: "certs"; kind?: CertificateKind; status?: CertificateStatus; user?: string }
  | { type: "getCert"; sha256?: string; kind?: CertificateKind; user?: string }
  /** A certificate of another CA; `csr` proves its key. */
  | { type: "putCert"; certificates: readonly Buffer[]; csr: Buffer }
  /** `issuer`: fingerprint of the CA's key. */
  | { type: "status"; issuer: string; serial: string }
  | { type: "cacerts" }
  | { type: "crl"; issuer?: string }
  | { type: "p12s" }
  | { type: "putP12"; bytes: Buffer }
  | { type: "getP12"; version: number; recovery?: string }
  | { type: "users"; after?: string; q?: string }
  | { type: "getUser"; key: string }
  /** `identity`: the next signed object of the own record. */
  | { type: "putUser"; name?: string; aliases: readonly string[]; identity?: string }
  | { type: "getAddr"; key: string }
  | { type: "putAddr"; jws: string }
  | { type: "presence"; jws: string };

export type Reply =
  | { type: "hello"; domain: string; versions: string; tls?: "required"; auth?: string }
  | { type: "proceed" }
  | {
      type: "ok";
      identity?: string;
      uuid?: string;
      roles?: string;
      seq?: number;
      reannounceAfter?: number;
      observed?: string;
      version?: number;
    }
  /** `certificates`: leaf first; none in a list. */
  | ({ type: "cert"; certificates: readonly Buffer[] } & CertificateFacts)
  | { type: "pending"; ref: string; retry: number }
  | { type: "certs"; certs: readonly CertificateFacts[] }
  | { type: "status"; state: CertificateStatus | "unknown"; at?: number; reason?: CrlReason }
  | { type: "cacerts"; certificates: readonly Buffer[] }
  | { type: "crl"; number: number; next: number; der: Buffer }
  | { type: "p12s"; versions: readonly number[] }
  | { type: "p12"; version: number; bytes: Buffer }
  | { type: "users"; more: boolean; users: readonly UserPart[] }
  | ({ type: "user" } & UserPart)
  | { type: "addr"; addresses: readonly string[]; presence: readonly string[] }
  | { type: "err"; code: ErrorCode; retry?: number; text: string };

export interface CertificateFacts {
  kind: CertificateKind;
  serial: string;
  notAfter: number;
  renewAfter: number;
  status: CertificateStatus;
}

/** `id`: user@domain; `identity`: the signed object, absent in lists. */
export interface UserPart {
  id: string;
  name?: string;
  identity?: string;
  aliases: readonly string[];
}

export type ErrorCode =
  | "bad-frame"
  | "bad-xml"
  | "version"
  | "tls-required"
  | "bad-csr"
  | "weak-key"
  | "key-in-use"
  | "auth-required"
  | "auth-failed"
  | "forbidden"
  | "policy"
  | "not-found"
  | "stale"
  | "too-large"
  | "internal"
  | "upstream"
  | "busy";

/** @throws SuiteError syntax with `code` bad-xml or version */
export function readRequest(bytes: Buffer): { id: number; request: Request } {
  const { id, child } = envelope(bytes);
  return { id, request: requestOf(child) };
}

/** @throws SuiteError syntax */
export function readReply(bytes: Buffer): { id: number; reply: Reply } {
  const { id, child } = envelope(bytes);
  return { id, reply: replyOf(child) };
}

export function writeRequest(id: number, request: Request): string {
  return wrap(id, requestXml(request));
}

export function writeReply(id: number, reply: Reply): string {
  return wrap(id, replyXml(reply));
}

function envelope(bytes: Buffer): { id: number; child: Element } {
  const root = readXml(bytes);
  if (root.name !== "irp") throw badXml("not irp");
  const { v, id } = attributes(root, ["v", "id"], []);
  if (v !== "1") throw new SuiteError("syntax", "another version", { fault: "peer", details: { code: "version" } });
  const [child, ...more] = root.children;
  if (child === undefined || more.length > 0) throw badXml("one message a frame");
  return { id: number(id), child };
}

function wrap(id: number, xml: string): string {
  return writeXml({ name: "irp", attributes: { v: 1, id }, children: [xml] });
}
