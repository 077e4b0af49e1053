import { describe, expect, test } from "vitest";
import { type Reply, type Request, readReply, readRequest, writeReply, writeRequest } from "../../src/irp/messages.ts";
import { closes, errorReply } from "../../src/irp/reply.ts";
import { ruling, type SessionState } from "../../src/irp/session.ts";
import { readXml, writeXml } from "../../src/irp/xml.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";

const irp = (inner: string, attributes = 'v="1" id="7"') => Buffer.from(`<irp ${attributes}>${inner}</irp>`);
const der = Buffer.from([0x30, 0x01, 0xff]);
const jws = "eyJh.eyJi.c2ln";
const facts = { kind: "auth", serial: "5f", notAfter: 2, renewAfter: 1, status: "good" } as const;

describe("every message is read as it was written", () => {
  test.each<Request>([
    { type: "hello", domain: "alpha.test" },
    { type: "hello", domain: "alpha.test", software: `a<b>&"'c` },
    { type: "starttls" },
    { type: "auth", method: "sca" },
    { type: "auth", method: "upa", user: "alice@alpha.test", secret: { code: "7K3M-9" } },
    { type: "auth", method: "upa", user: "alice", secret: { password: " <&> \"'\u00e9 " } },
    { type: "csr", kind: "auth", der, label: "laptop" },
    { type: "csr", kind: "encryption", der },
    { type: "renew", kind: "auth", mode: "same", der },
    { type: "renew", kind: "encryption", mode: "new", der },
    { type: "cacerts" },
    { type: "pending", ref: "00ff" },
    { type: "revoke", serial: "5f00", reason: "keyCompromise" },
    { type: "certs" },
    { type: "certs", kind: "auth", status: "revoked", user: "bob@alpha.test" },
    { type: "getCert", sha256: "ab".repeat(32) },
    { type: "getCert", kind: "encryption", user: "bob@alpha.test" },
    { type: "putCert", certificates: [der, der], csr: der },
    { type: "status", issuer: "ab".repeat(32), serial: "5f" },
    { type: "crl" },
    { type: "crl", issuer: "cd".repeat(32) },
    { type: "p12s" },
    { type: "putP12", bytes: der },
    { type: "getP12", version: 3 },
    { type: "getP12", version: 3, recovery: " 7K3M <&> " },
    { type: "users" },
    { type: "users", after: "bob", q: "a & b" },
    { type: "getUser", key: "+4989123" },
    { type: "putUser", aliases: [] },
    { type: "putUser", name: "Zoë <x>", aliases: ["a", "b"], identity: jws },
    { type: "getAddr", key: "bob@alpha.test" },
    { type: "putAddr", jws },
    { type: "presence", jws },
  ])("request %j", (request) => {
    expect(readRequest(Buffer.from(writeRequest(7, request)))).toEqual({ id: 7, request });
  });

  test.each<Reply>([
    { type: "hello", domain: "alpha.test", versions: "1", tls: "required" },
    { type: "hello", domain: "alpha.test", versions: "1 2", auth: "upa sca" },
    { type: "proceed" },
    { type: "ok", identity: "alice@alpha.test", uuid: "u", roles: "" },
    {
      type: "cert",
      kind: "auth",
      serial: "5f",
      notAfter: 1_798_000_000,
      renewAfter: 1_797_000_000,
      status: "good",
      certificates: [der, der],
    },
    { type: "cacerts", certificates: [] },
    { type: "ok" },
    { type: "ok", seq: 1_796_083_200_123, reannounceAfter: 3_300, observed: "2001:db8::5" },
    { type: "ok", version: 4 },
    { type: "pending", ref: "00ff", retry: 60 },
    { type: "certs", certs: [] },
    { type: "certs", certs: [facts, { ...facts, kind: "encryption", status: "revoked" }] },
    { type: "status", state: "unknown" },
    { type: "status", state: "revoked", at: 7, reason: "superseded" },
    { type: "crl", number: 4, next: 1_798_000_000, der },
    { type: "p12s", versions: [] },
    { type: "p12s", versions: [1, 2] },
    { type: "p12", version: 2, bytes: der },
    {
      type: "users",
      more: true,
      users: [
        { id: "a@b.test", name: "A & B", aliases: [] },
        { id: "c@b.test", aliases: ["x"] },
      ],
    },
    { type: "user", id: "a@b.test", identity: jws, aliases: ["x", "y"] },
    { type: "addr", addresses: [], presence: [] },
    { type: "addr", addresses: [jws], presence: [jws, jws] },
    { type: "err", code: "busy", retry: 8, text: "a < b" },
    { type: "err", code: "forbidden", text: "" },
  ])("reply %j", (reply) => {
    expect(readReply(Buffer.from(writeReply(7, reply)))).toEqual({ id: 7, reply });
  });

  test("base64 may be wrapped, and stand in white space", () => {
    expect(readRequest(irp('<csr kind="auth">\n  MA\n H/ \n</csr>'))).toMatchObject({ request: { der } });
  });
});

describe("refused as bad-xml", () => {
  const deep = (n: number) => "<a>".repeat(n) + "</a>".repeat(n);
  test.each<[string, Buffer]>([
    ["nothing", Buffer.alloc(0)],
    ["no XML", Buffer.from("hello")],
    ["bytes that are no UTF-8", Buffer.from([0x3c, 0xff, 0x2f, 0x3e])],
    ["a byte order mark before nothing", Buffer.from("\ufeff")],
    ["a NUL", irp('<hello domain="a\0b"/>')],
    ["a carriage return", irp("<starttls\r/>")],
    ["an XML declaration", Buffer.from('<?xml version="1.0"?><irp v="1" id="1"><starttls/></irp>')],
    ["a DTD with entities", Buffer.from('<!DOCTYPE x [<!ENTITY a "b">]><irp v="1" id="1"><starttls/></irp>')],
    ["an external entity", Buffer.from('<!DOCTYPE x SYSTEM "file:///etc/passwd"><irp v="1" id="1"><starttls/></irp>')],
    ["an unknown entity", irp('<hello domain="&a;"/>')],
    ["a reference to a character that XML does not have", irp('<hello domain="&#0;"/>')],
    ["a comment", irp("<starttls/><!-- x -->")],
    ["CDATA", irp("<starttls><![CDATA[x]]></starttls>")],
    ["a processing instruction", irp("<starttls/><?x y?>")],
    ["a name space", irp("<starttls/>", 'xmlns="x" v="1" id="1"')],
    ["two roots", Buffer.from('<irp v="1" id="1"><starttls/></irp><irp v="1" id="2"><starttls/></irp>')],
    ["an unclosed element", Buffer.from('<irp v="1" id="1"><starttls/>')],
    ["another root", Buffer.from('<irq v="1" id="1"><starttls/></irq>')],
    ["no id", irp("<starttls/>", 'v="1"')],
    ["an id that is no number", irp("<starttls/>", 'v="1" id="-1"')],
    ["an id of 16 digits", irp("<starttls/>", 'v="1" id="1234567890123456"')],
    ["an attribute more", irp("<starttls/>", 'v="1" id="1" x="y"')],
    ["an attribute twice", irp("<starttls/>", 'v="1" id="1" id="2"')],
    ["no message", irp("")],
    ["text for a message", irp("starttls")],
    ["two messages", irp("<starttls/><cacerts/>")],
    ["an unknown message", irp("<frob/>")],
    ["a message of Object's", irp("<constructor/>")],
    ["text beside the message", irp("x<starttls/>")],
    ["text in starttls", irp("<starttls>x</starttls>")],
    ["an element in starttls", irp("<starttls><x/></starttls>")],
    ["an element in hello", irp('<hello domain="a"><x/></hello>')],
    ["hello without domain", irp("<hello/>")],
    ["hello with an unknown attribute", irp('<hello domain="a" evil="b"/>')],
    ["text in auth sca", irp('<auth method="sca">x</auth>')],
    ["an unknown method", irp('<auth method="magic"/>')],
    ["auth without user", irp('<auth method="upa"><code>1</code></auth>')],
    ["auth without secret", irp('<auth method="upa"><user>a</user></auth>')],
    ["auth with both secrets", irp('<auth method="upa"><user>a</user><code>1</code><password>2</password></auth>')],
    ["auth with two users", irp('<auth method="upa"><user>a</user><user>b</user><code>1</code></auth>')],
    ["auth with an unknown element", irp('<auth method="upa"><user>a</user><code>1</code><x/></auth>')],
    ["a user with an attribute", irp('<auth method="upa"><user x="y">a</user><code>1</code></auth>')],
    ["a user with an element", irp('<auth method="upa"><user><b/></user><code>1</code></auth>')],
    ["__proto__ for an element", irp('<auth method="upa"><user>a</user><code>1</code><__proto__>x</__proto__></auth>')],
    ["an unknown kind", irp('<csr kind="root">AAAA</csr>')],
    ["an empty request", irp('<csr kind="auth"/>')],
    ["a request that is no base64", irp('<csr kind="auth">A*A</csr>')],
    ["a renewal without mode", irp('<renew kind="auth">AAAA</renew>')],
    ["a reply for a request", irp("<proceed/>")],
    ["a label of 65 letters", irp(`<csr kind="auth" label="${"a".repeat(65)}">AAAA</csr>`)],
    ["an attribute of 513 letters", irp(`<hello domain="${"a".repeat(513)}"/>`)],
    ["a revocation without reason", irp('<revoke serial="5f"/>')],
    ["a reason that leaves a list", irp('<revoke serial="5f" reason="removeFromCRL"/>')],
    ["a reason of Object's", irp('<revoke serial="5f" reason="constructor"/>')],
    ["a serial number in capitals", irp('<revoke serial="5F" reason="unspecified"/>')],
    ["a serial number of 33 octets", irp(`<revoke serial="${"5f".repeat(33)}" reason="unspecified"/>`)],
    ["a hash that is too short", irp('<getCert sha256="ab"/>')],
    ["a status that there is not", irp('<certs status="unknown"/>')],
    ["two users", irp("<certs><user>a</user><user>b</user></certs>")],
    ["text for a user", irp("<certs>bob</certs>")],
    ["a certificate without proof", irp("<putCert><x509>AAAA</x509></putCert>")],
    ["a proof without certificate", irp("<putCert><csr>AAAA</csr></putCert>")],
    ["nine certificates", irp(`<putCert>${"<x509>AAAA</x509>".repeat(9)}<csr>AAAA</csr></putCert>`)],
    ["two names", irp("<putUser><name>a</name><name>b</name></putUser>")],
    ["an object that is not signed", irp("<putAddr>eyJh.eyJi</putAddr>")],
    ["a key that is empty", irp("<getUser><key> </key></getUser>")],
    ["a key without its element", irp("<getAddr>bob@alpha.test</getAddr>")],
    ["a backup that is none", irp("<putP12/>")],
    ["a version that is none", irp('<getP12 version="last"/>')],
    ["2,049 elements side by side", irp("<a/>".repeat(2_048))],
    ["a thousand levels", irp(deep(1_000))],
    ["a hundred thousand levels", irp(deep(100_000))],
  ])("%s", (_name, bytes) => {
    const start = performance.now();
    expect(() => readRequest(bytes)).toThrow(
      expect.objectContaining({ code: "syntax", details: expect.objectContaining({ code: "bad-xml" }) }),
    );
    expect(performance.now() - start).toBeLessThan(1_000);
  });

  test("another version has its own code", () => {
    for (const v of ["2", "", "1.0"])
      expect(() => readRequest(irp("<starttls/>", `v="${v}" id="1"`))).toThrow(
        expect.objectContaining({ details: expect.objectContaining({ code: "version" }) }),
      );
  });
});

test.each([
  ["<a/>".repeat(2_048), "too many elements"],
  ['<hello domain="a" xmlns="b"/>', "name space"],
  ["<hello\r/>", "control character"],
  ["<!-- -->", "declaration, comment or instruction"],
])("the parser does not get to see %s", (inner, why) => {
  expect(() => readXml(irp(inner))).toThrow(expect.objectContaining({ details: { code: "bad-xml", why } }));
});

test("what is written cannot become markup", () => {
  const text = `</x><y a="b">&amp;'`;
  expect(readXml(Buffer.from(writeXml({ name: "x", attributes: { a: text, b: undefined, c: 1 }, text })))).toEqual({
    name: "x",
    attributes: { a: text, c: "1" },
    text,
    children: [],
  });
});

describe("state × request (irp.md §2.2)", () => {
  const later = ["pending", "revoke", "certs", "getCert", "putCert", "status", "p12s", "putP12", "getP12"] as const;
  const people = ["users", "getUser", "putUser", "getAddr", "putAddr", "presence"] as const;
  const types: Request["type"][] = ["hello", "starttls", "auth", "csr", "renew", "cacerts", "crl", ...later, ...people];
  const rest = (told: string) => Array.from({ length: later.length + people.length }, () => told);
  test.each<[SessionState, string[]]>([
    ["plain", ["yes", "yes", ...Array.from({ length: 5 }, () => "tls-required!"), ...rest("tls-required!")]],
    ["tls", ["yes", "bad-xml!", "yes", "auth-required", "auth-required", "yes", "yes", ...rest("auth-required")]],
    ["ready", ["yes", "bad-xml!", "yes", "yes", "yes", "yes", "yes", ...rest("yes")]],
  ])("%s", (state, expected) => {
    const told = types.map((type) => {
      const one = ruling(state, type);
      return one.allowed ? "yes" : `${one.code}${one.close ? "!" : ""}`;
    });
    expect(told).toEqual(expected);
    for (const type of types) {
      const one = ruling(state, type);
      if (!one.allowed) expect(closes(one.code)).toBe(one.close);
    }
  });
});

describe("failures as replies", () => {
  test.each<[SuiteError | Error, object]>([
    [new SuiteError("auth-failed", "wrong", { fault: "peer" }), { code: "auth-failed", text: "wrong" }],
    [new SuiteError("busy", "wait", { fault: "peer", details: { retrySeconds: 4 } }), { code: "busy", retry: 4 }],
    [new SuiteError("conflict", "x", { fault: "peer", details: { code: "key-in-use" } }), { code: "key-in-use" }],
    [new SuiteError("conflict", "x", { fault: "peer", details: { code: "made-up" } }), { code: "stale" }],
    [new SuiteError("store-failed", "x", { fault: "local" }), { code: "busy" }],
    [new SuiteError("internal", "a secret path", { fault: "local" }), { code: "internal", text: "internal error" }],
    [new Error("a secret path"), { code: "internal", text: "internal error" }],
  ])("%s", (error, expected) => {
    const reply = errorReply(error);
    expect(reply).toMatchObject(expected);
    expect(JSON.stringify(reply)).not.toContain("secret path");
  });
});
