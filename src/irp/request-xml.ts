import type { Request } from "./messages.ts";
import { badXml, type Element, writeXml } from "./xml.ts";
import {
  attributes,
  base64,
  base64Xml,
  empty,
  type Grammar,
  type Grammars,
  hex,
  jws,
  kindOf,
  lists,
  number,
  readBy,
  reasonOf,
  single,
  statusOf,
  textOf,
  texts,
  textXml,
  writeBy,
} from "./xml-fields.ts";

type Of<T extends Request["type"]> = Request & { type: T };

/** @throws SuiteError syntax (`bad-xml`) */
export function requestOf(element: Element): Request {
  return readBy<Request>(REQUESTS, element);
}

export function requestXml(request: Request): string {
  return writeBy<Request>(REQUESTS, request);
}

/** A request without anything in it. */
function bare<T extends "starttls" | "cacerts" | "p12s">(type: T): Grammar<{ type: T }> {
  return {
    read: (element) => {
      attributes(empty(element), [], []);
      return { type };
    },
    write: () => ({}),
  };
}

/** A request for one thing by its key. */
function keyed<T extends "getUser" | "getAddr">(type: T): Grammar<{ type: T; key: string }> {
  return {
    read: (element) => {
      attributes(element, [], []);
      const key = texts(element, ["key"], []).key.trim();
      if (key === "" || key.length > 254) throw badXml("key");
      return { type, key };
    },
    write: ({ key }) => ({ children: textXml("key", key) }),
  };
}

function signed<T extends "putAddr" | "presence">(type: T): Grammar<{ type: T; jws: string }> {
  return {
    read: (element) => ({ type, jws: jws(textOf(element)) }),
    write: (request) => ({ text: request.jws }),
  };
}

const MAX_LABEL = 64;

const REQUESTS: Grammars<Request> = {
  hello: {
    read: (element) => {
      const { domain, software } = attributes(empty(element), ["domain"], ["software"]);
      return { type: "hello", domain, ...(software === undefined ? {} : { software }) };
    },
    write: ({ domain, software }) => ({ attributes: { domain, software } }),
  },
  starttls: bare("starttls"),
  auth: { read: readAuth, write: writeAuth },
  csr: {
    read: (element) => {
      const { kind, label } = attributes(element, ["kind"], ["label"]);
      if (label !== undefined && label.length > MAX_LABEL) throw badXml("label");
      const der = base64(flat(element));
      return { type: "csr", kind: kindOf(kind), der, ...(label === undefined ? {} : { label }) };
    },
    write: ({ kind, label, der }) => ({ attributes: { kind, label }, text: der.toString("base64") }),
  },
  pending: {
    read: (element) => {
      const { ref } = attributes(empty(element), ["ref"], []);
      return { type: "pending", ref: hex(ref) };
    },
    write: ({ ref }) => ({ attributes: { ref } }),
  },
  renew: {
    read: (element) => {
      const { kind, mode } = attributes(element, ["kind", "mode"], []);
      if (mode !== "same" && mode !== "new") throw badXml("mode");
      return { type: "renew", kind: kindOf(kind), mode, der: base64(flat(element)) };
    },
    write: ({ kind, mode, der }) => ({ attributes: { kind, mode }, text: der.toString("base64") }),
  },
  revoke: {
    read: (element) => {
      const { serial, reason } = attributes(empty(element), ["serial", "reason"], []);
      return { type: "revoke", serial: hex(serial), reason: reasonOf(reason) };
    },
    write: ({ serial, reason }) => ({ attributes: { serial, reason } }),
  },
  certs: {
    read: (element) => {
      const { kind, status } = attributes(element, [], ["kind", "status"]);
      const { user } = texts(element, [], ["user"]);
      return {
        type: "certs",
        ...(kind === undefined ? {} : { kind: kindOf(kind) }),
        ...(status === undefined ? {} : { status: statusOf(status) }),
        ...(user === undefined ? {} : { user: user.trim() }),
      };
    },
    write: ({ kind, status, user }) => ({ attributes: { kind, status }, children: textXml("user", user) }),
  },
  getCert: {
    read: (element) => {
      const { sha256, kind } = attributes(element, [], ["sha256", "kind"]);
      const { user } = texts(element, [], ["user"]);
      return {
        type: "getCert",
        ...(sha256 === undefined ? {} : { sha256: hex(sha256, 64) }),
        ...(kind === undefined ? {} : { kind: kindOf(kind) }),
        ...(user === undefined ? {} : { user: user.trim() }),
      };
    },
    write: ({ sha256, kind, user }) => ({ attributes: { sha256, kind }, children: textXml("user", user) }),
  },
  putCert: {
    read: (element) => {
      attributes(element, [], []);
      const { x509, csr } = lists(element, ["x509", "csr"]);
      const proof = single(csr);
      if (proof === undefined || x509.length === 0 || x509.length > 8) throw badXml("certificates and a request");
      return { type: "putCert", certificates: x509.map(base64), csr: base64(proof) };
    },
    write: ({ certificates, csr }) => ({
      children: [...certificates.map((der) => base64Xml("x509", der)), base64Xml("csr", csr)],
    }),
  },
  status: {
    read: (element) => {
      const { issuer, serial } = attributes(empty(element), ["issuer", "serial"], []);
      return { type: "status", issuer: hex(issuer, 64), serial: hex(serial) };
    },
    write: ({ issuer, serial }) => ({ attributes: { issuer, serial } }),
  },
  cacerts: bare("cacerts"),
  crl: {
    read: (element) => {
      const { issuer } = attributes(empty(element), [], ["issuer"]);
      return { type: "crl", ...(issuer === undefined ? {} : { issuer: hex(issuer, 64) }) };
    },
    write: ({ issuer }) => ({ attributes: { issuer } }),
  },
  p12s: bare("p12s"),
  putP12: {
    read: (element) => ({ type: "putP12", bytes: base64(textOf(element)) }),
    write: ({ bytes }) => ({ text: bytes.toString("base64") }),
  },
  getP12: {
    read: (element) => {
      const { version } = attributes(element, ["version"], []);
      const { recovery } = texts(element, [], ["recovery"]);
      return { type: "getP12", version: number(version), ...(recovery === undefined ? {} : { recovery }) };
    },
    write: ({ version, recovery }) => ({ attributes: { version }, children: textXml("recovery", recovery) }),
  },
  users: {
    read: (element) => {
      const { after, q } = attributes(empty(element), [], ["after", "q"]);
      return { type: "users", ...(after === undefined ? {} : { after }), ...(q === undefined ? {} : { q }) };
    },
    write: ({ after, q }) => ({ attributes: { after, q } }),
  },
  getUser: keyed("getUser"),
  putUser: {
    read: (element) => {
      attributes(element, [], []);
      const found = lists(element, ["name", "alias", "identity"]);
      const name = single(found.name);
      const identity = single(found.identity);
      return {
        type: "putUser",
        aliases: found.alias,
        ...(name === undefined ? {} : { name }),
        ...(identity === undefined ? {} : { identity: jws(identity) }),
      };
    },
    write: ({ name, aliases, identity }) => ({
      children: [
        ...textXml("name", name),
        ...aliases.flatMap((alias) => textXml("alias", alias)),
        ...textXml("identity", identity),
      ],
    }),
  },
  getAddr: keyed("getAddr"),
  putAddr: signed("putAddr"),
  presence: signed("presence"),
};

function readAuth(element: Element): Of<"auth"> {
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

function writeAuth(request: Of<"auth">) {
  if (request.method === "sca") return { attributes: { method: "sca" } };
  const [[name, text] = ["", ""]] = Object.entries(request.secret) as [string, string][];
  const children = [writeXml({ name: "user", text: request.user }), writeXml({ name, text })];
  return { attributes: { method: "upa" }, children };
}

function flat(element: Element): string {
  if (element.children.length > 0) throw badXml("element in a text");
  return element.text;
}
