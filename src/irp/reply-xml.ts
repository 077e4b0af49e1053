import type { CertificateFacts, ErrorCode, Reply, UserPart } from "./messages.ts";
import { badXml, type Element, writeXml } from "./xml.ts";
import {
  attributes,
  base64,
  base64Xml,
  defined,
  empty,
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
  textXml,
  writeBy,
} from "./xml-fields.ts";

/** @throws SuiteError syntax (`bad-xml`) */
export function replyOf(element: Element): Reply {
  return readBy<Reply>(REPLIES, element);
}

export function replyXml(reply: Reply): string {
  return writeBy<Reply>(REPLIES, reply);
}

const REPLIES: Grammars<Reply> = {
  hello: {
    read: (element) => {
      const { domain, versions, tls, auth } = attributes(empty(element), ["domain", "versions"], ["tls", "auth"]);
      return {
        ...{ type: "hello", domain, versions },
        ...(tls === "required" ? { tls } : {}),
        ...(auth === undefined ? {} : { auth }),
      };
    },
    write: ({ domain, versions, tls, auth }) => ({ attributes: { domain, versions, tls, auth } }),
  },
  proceed: { read: () => ({ type: "proceed" }), write: () => ({}) },
  ok: {
    read: (element) => {
      const names = ["identity", "uuid", "roles", "seq", "reannounceAfter", "observed", "version"] as const;
      const { seq, reannounceAfter, version, ...texts } = attributes(empty(element), [], names);
      return {
        ...{ type: "ok", ...texts },
        ...defined({
          seq: optionalNumber(seq),
          reannounceAfter: optionalNumber(reannounceAfter),
          version: optionalNumber(version),
        }),
      };
    },
    write: ({ type: _, ...rest }) => ({ attributes: rest }),
  },
  cert: {
    read: (element) => ({ type: "cert", ...readFacts(element), certificates: x509s(element) }),
    write: (reply) => ({ attributes: factsOf(reply), children: reply.certificates.map(x509) }),
  },
  pending: {
    read: (element) => {
      const { ref, retry } = attributes(empty(element), ["ref", "retry"], []);
      return { type: "pending", ref: hex(ref), retry: number(retry) };
    },
    write: ({ ref, retry }) => ({ attributes: { ref, retry } }),
  },
  certs: {
    read: (element) => {
      attributes(element, [], []);
      const certs = element.children.map((child) => {
        if (child.name !== "cert") throw badXml("unknown element");
        return readFacts(empty(child));
      });
      return { type: "certs", certs };
    },
    write: ({ certs }) => ({ children: certs.map((one) => writeXml({ name: "cert", attributes: factsOf(one) })) }),
  },
  status: {
    read: (element) => {
      const { state, at, reason } = attributes(empty(element), ["state"], ["at", "reason"]);
      return {
        ...{ type: "status", state: state === "unknown" ? state : statusOf(state) },
        ...(at === undefined ? {} : { at: number(at) }),
        ...(reason === undefined ? {} : { reason: reasonOf(reason) }),
      };
    },
    write: ({ state, at, reason }) => ({ attributes: { state, at, reason } }),
  },
  cacerts: {
    read: (element) => ({ type: "cacerts", certificates: x509s(element) }),
    write: ({ certificates }) => ({ children: certificates.map(x509) }),
  },
  crl: {
    read: (element) => {
      const { number: serial, next } = attributes(element, ["number", "next"], []);
      if (element.children.length > 0) throw badXml("element in a text");
      return { type: "crl", number: number(serial), next: number(next), der: base64(element.text) };
    },
    write: ({ number: serial, next, der }) => ({ attributes: { number: serial, next }, text: der.toString("base64") }),
  },
  p12s: {
    read: (element) => {
      attributes(element, [], []);
      const versions = element.children.map((child) => {
        if (child.name !== "p12") throw badXml("unknown element");
        return number(attributes(empty(child), ["version"], []).version);
      });
      return { type: "p12s", versions };
    },
    write: ({ versions }) => ({
      children: versions.map((version) => writeXml({ name: "p12", attributes: { version } })),
    }),
  },
  p12: {
    read: (element) => {
      const { version } = attributes(element, ["version"], []);
      return { type: "p12", version: number(version), bytes: base64(element.text) };
    },
    write: ({ version, bytes }) => ({ attributes: { version }, text: bytes.toString("base64") }),
  },
  users: {
    read: (element) => {
      const { more } = attributes(element, ["more"], []);
      const users = element.children.map((child) => {
        if (child.name !== "user") throw badXml("unknown element");
        return readUser(child);
      });
      return { type: "users", more: more === "true", users };
    },
    write: ({ more, users }) => ({ attributes: { more: String(more) }, children: users.map(userXml) }),
  },
  user: {
    read: (element) => ({ type: "user", ...readUser(element) }),
    write: (user) => ({ attributes: { id: user.id, name: user.name }, children: userChildren(user) }),
  },
  addr: {
    read: (element) => {
      attributes(element, [], []);
      const { addresses, presence } = lists(element, ["addresses", "presence"]);
      return { type: "addr", addresses: addresses.map(jws), presence: presence.map(jws) };
    },
    write: ({ addresses, presence }) => ({
      children: [
        ...addresses.flatMap((one) => textXml("addresses", one)),
        ...presence.flatMap((one) => textXml("presence", one)),
      ],
    }),
  },
  err: {
    read: (element) => {
      const { code, retry } = attributes(element, ["code"], ["retry"]);
      const text = textOf({ ...element, attributes: {} });
      return {
        ...{ type: "err", code: code as ErrorCode, text },
        ...(retry === undefined ? {} : { retry: number(retry) }),
      };
    },
    write: ({ code, retry, text }) => ({ attributes: { code, retry }, text }),
  },
};

function readFacts(element: Element): CertificateFacts {
  const names = ["kind", "serial", "notAfter", "renewAfter", "status"] as const;
  const { kind, serial, notAfter, renewAfter, status } = attributes(element, names, []);
  return {
    ...{ kind: kindOf(kind), serial: hex(serial), notAfter: number(notAfter) },
    ...{ renewAfter: number(renewAfter), status: statusOf(status) },
  };
}

function factsOf({ kind, serial, notAfter, renewAfter, status }: CertificateFacts) {
  return { kind, serial, notAfter, renewAfter, status };
}

function readUser(element: Element): UserPart {
  const { id, name } = attributes(element, ["id"], ["name"]);
  const { identity, alias } = lists(element, ["identity", "alias"]);
  const signed = single(identity);
  return {
    ...{ id, aliases: alias },
    ...(name === undefined ? {} : { name }),
    ...(signed === undefined ? {} : { identity: jws(signed) }),
  };
}

function userXml(user: UserPart): string {
  return writeXml({ name: "user", attributes: { id: user.id, name: user.name }, children: userChildren(user) });
}

function userChildren({ identity, aliases }: UserPart): string[] {
  return [...textXml("identity", identity), ...aliases.flatMap((alias) => textXml("alias", alias))];
}

function x509(der: Buffer): string {
  return base64Xml("x509", der);
}

function x509s(element: Element): Buffer[] {
  return element.children.map((child) => {
    if (child.name !== "x509") throw badXml("unknown element");
    return base64(textOf(child));
  });
}

function optionalNumber(text: string | undefined): number | undefined {
  return text === undefined ? undefined : number(text);
}
