import { SuiteError } from "../pki/suite-error.ts";
import { badXml, type Element, readXml, writeXml } from "./xml.ts";

export type CertificateKind = "auth" | "encryption";

/** What a client asks (irp.md §2.3), as far as this version knows it. */
export type Request =
  | { type: "hello"; domain: string; software?: string }
  | { type: "starttls" }
  | { type: "auth"; method: "upa"; user: string; secret: { code: string } | { password: string } }
  | { type: "auth"; method: "sca" }
  | { type: "csr"; kind: CertificateKind; label?: string; der: Buffer }
  | { type: "renew"; kind: CertificateKind; mode: "same" | "new"; der: Buffer }
  | { type: "cacerts" };

export type Reply =
  | { type: "hello"; domain: string; versions: string; tls?: "required"; auth?: string }
  | { type: "proceed" }
  | { type: "ok"; identity: string; uuid: string; roles: string }
  | {
      type: "cert";
      kind: CertificateKind;
      serial: string;
      notAfter: number;
      renewAfter: number;
      certificates: readonly Buffer[];
    }
  | { type: "cacerts"; certificates: readonly Buffer[] }
  | { type: "err"; code: ErrorCode; retry?: number; text: string };

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

function requestOf(element: Element): Request {
  switch (element.name) {
    case "hello": {
      const { domain, software } = attributes(empty(element), ["domain"], ["software"]);
      return { type: "hello", domain, ...(software === undefined ? {} : { software }) };
    }
    case "starttls":
      attributes(empty(element), [], []);
      return { type: "starttls" };
    case "auth": {
      const { method } = attributes(element, ["method"], []);
      if (method === "sca") {
        empty(element);
        return { type: "auth", method: "sca" };
      }
      if (method !== "upa") throw badXml("method");
      const { user, code, password } = texts(element, ["user"], ["code", "password"]);
      if (code !== undefined && password === undefined)
        return { type: "auth", method: "upa", user: user.trim(), secret: { code } };
      if (password !== undefined && code === undefined)
        return { type: "auth", method: "upa", user: user.trim(), secret: { password } };
      throw badXml("code or password");
    }
    case "csr": {
      const { kind, label } = attributes(element, ["kind"], ["label"]);
      return { type: "csr", kind: kindOf(kind), der: base64(element.text), ...(label === undefined ? {} : { label }) };
    }
    case "renew": {
      const { kind, mode } = attributes(element, ["kind", "mode"], []);
      if (mode !== "same" && mode !== "new") throw badXml("mode");
      return { type: "renew", kind: kindOf(kind), mode, der: base64(element.text) };
    }
    case "cacerts":
      attributes(empty(element), [], []);
      return { type: "cacerts" };
    default:
      throw badXml("unknown element");
  }
}

function requestXml(request: Request): string {
  switch (request.type) {
    case "hello":
      return writeXml({ name: "hello", attributes: { domain: request.domain, software: request.software } });
    case "starttls":
    case "cacerts":
      return writeXml({ name: request.type });
    case "auth": {
      if (request.method === "sca") return writeXml({ name: "auth", attributes: { method: "sca" } });
      const [[name, text] = ["", ""]] = Object.entries(request.secret) as [string, string][];
      const children = [writeXml({ name: "user", text: request.user }), writeXml({ name, text })];
      return writeXml({ name: "auth", attributes: { method: "upa" }, children });
    }
    case "csr":
      return writeXml({
        name: "csr",
        attributes: { kind: request.kind, label: request.label },
        text: request.der.toString("base64"),
      });
    case "renew":
      return writeXml({
        name: "renew",
        attributes: { kind: request.kind, mode: request.mode },
        text: request.der.toString("base64"),
      });
  }
}

function replyOf(element: Element): Reply {
  switch (element.name) {
    case "hello": {
      const { domain, versions, tls, auth } = attributes(element, ["domain", "versions"], ["tls", "auth"]);
      return {
        type: "hello",
        domain,
        versions,
        ...(tls === "required" ? { tls } : {}),
        ...(auth === undefined ? {} : { auth }),
      };
    }
    case "proceed":
      return { type: "proceed" };
    case "ok": {
      const { identity, uuid, roles } = attributes(element, ["identity", "uuid", "roles"], []);
      return { type: "ok", identity, uuid, roles };
    }
    case "cert": {
      const { kind, serial, notAfter, renewAfter } = attributes(
        element,
        ["kind", "serial", "notAfter", "renewAfter"],
        [],
      );
      return {
        type: "cert",
        kind: kindOf(kind),
        serial,
        notAfter: number(notAfter),
        renewAfter: number(renewAfter),
        certificates: x509s(element),
      };
    }
    case "cacerts":
      return { type: "cacerts", certificates: x509s(element) };
    case "err": {
      const { code, retry } = attributes(element, ["code"], ["retry"]);
      return {
        type: "err",
        code: code as ErrorCode,
        text: element.text,
        ...(retry === undefined ? {} : { retry: number(retry) }),
      };
    }
    default:
      throw badXml("unknown element");
  }
}

function replyXml(reply: Reply): string {
  switch (reply.type) {
    case "hello":
      return writeXml({
        name: "hello",
        attributes: { domain: reply.domain, versions: reply.versions, tls: reply.tls, auth: reply.auth },
      });
    case "proceed":
      return writeXml({ name: "proceed" });
    case "ok":
      return writeXml({ name: "ok", attributes: { identity: reply.identity, uuid: reply.uuid, roles: reply.roles } });
    case "cert": {
      const { kind, serial, notAfter, renewAfter } = reply;
      return writeXml({
        name: "cert",
        attributes: { kind, serial, notAfter, renewAfter },
        children: reply.certificates.map(x509),
      });
    }
    case "cacerts":
      return writeXml({ name: "cacerts", children: reply.certificates.map(x509) });
    case "err":
      return writeXml({ name: "err", attributes: { code: reply.code, retry: reply.retry }, text: reply.text });
  }
}

function x509(der: Buffer): string {
  return writeXml({ name: "x509", text: der.toString("base64") });
}

function x509s(element: Element): Buffer[] {
  return element.children.map((child) => {
    if (child.name !== "x509") throw badXml("unknown element");
    return base64(child.text);
  });
}

/** All that is needed is there, nothing is there that is not known. */
function attributes<N extends string, O extends string>(
  element: Element,
  needed: readonly N[],
  optional: readonly O[],
): Record<N, string> & Partial<Record<O, string>> {
  for (const name of Object.keys(element.attributes)) {
    if (!(needed as readonly string[]).includes(name) && !(optional as readonly string[]).includes(name))
      throw badXml("unknown attribute");
  }
  for (const name of needed) if (element.attributes[name] === undefined) throw badXml("missing attribute");
  return element.attributes as Record<N, string> & Partial<Record<O, string>>;
}

function texts<N extends string, O extends string>(
  element: Element,
  needed: readonly N[],
  optional: readonly O[],
): Record<N, string> & Partial<Record<O, string>> {
  const found: Record<string, string> = {};
  for (const child of element.children) {
    if (found[child.name] !== undefined) throw badXml("repeated element");
    attributes(child, [], []);
    if (child.children.length > 0) throw badXml("element in a text");
    found[child.name] = child.text;
  }
  return attributes({ ...element, attributes: found }, needed, optional);
}

function empty(element: Element): Element {
  if (element.children.length > 0 || element.text.trim() !== "") throw badXml("content where there is none");
  return element;
}

function kindOf(text: string): CertificateKind {
  if (text !== "auth" && text !== "encryption") throw badXml("kind");
  return text;
}

function number(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw badXml("number");
  return Number(text);
}

function base64(text: string): Buffer {
  const clean = text.replace(/\s+/g, "");
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(clean)) throw badXml("base64");
  return Buffer.from(clean, "base64");
}
