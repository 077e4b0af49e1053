import { describe, expect, test } from "vitest";
import { parseIdentity } from "../../src/pki/identity.ts";
import { makeCpim } from "../../src/sip/cpim.ts";
import { localParties, peerParties, registeredParties } from "../../src/sip/identity.ts";
import { arrivedMessage, instantMessage, storedText, textOf } from "../../src/sip/instant.ts";
import { precondition } from "../../src/sip/precondition.ts";
import { request } from "./request.ts";

const alice = parseIdentity("alice@a.test");
const bob = parseIdentity("bob@b.test");
const cpim = (o: { from?: string; type?: string; body?: string | Buffer; id?: string } = {}) =>
  makeCpim({
    from: o.from ?? "sip:alice@a.test",
    to: "sip:bob@b.test",
    dateTime: "2026-11-25T09:00:00Z",
    messageId: o.id ?? "m1",
    contentType: o.type ?? "text/plain",
    body: Buffer.from(o.body ?? "hello"),
  });
const arrived = (bytes: Buffer, headers: Record<string, string> = {}) =>
  arrivedMessage({ ...request({ headers: { "content-type": "message/cpim", ...headers } }), body: bytes }, alice);

describe("a text becomes CPIM and comes back", () => {
  test.each(["hello", "héllo ✓ \r\n\r\n\0", "", "\ufeffx"])("%j", (text) => {
    const { bytes } = instantMessage({ from: alice, to: bob, text, id: "1", now: new Date() });
    expect(storedText(bytes)).toBe(text);
  });

  test("its title is one line of at most 80 characters", () => {
    const title = (text: string) => instantMessage({ from: alice, to: bob, text, id: "1", now: new Date() }).title;
    expect(title("  a\r\n\tb ")).toBe("a b");
    expect(title("x".repeat(80))).toBe("x".repeat(80));
    expect(title("x".repeat(81))).toBe(`${"x".repeat(79)}…`);
  });
});

describe("the text of the owner's program", () => {
  const from = (type: string | undefined, body: Buffer | string, more: Record<string, string> = {}) =>
    textOf({
      ...request({ headers: { ...(type === undefined ? {} : { "content-type": type }), ...more } }),
      body: Buffer.from(body),
    });

  test.each<[string, string | undefined, Buffer | string]>([
    ["plain", "text/plain", "hello"],
    ["without a type", undefined, "hello"],
    ["with a character set", 'Text/Plain ; charset="UTF-8"', "hello"],
    ["in ASCII", "text/plain;charset=us-ascii", "hello"],
    ["in CPIM", "message/CPIM", cpim()],
  ])("%s", (_name, type, body) => {
    expect(from(type, body)).toBe("hello");
  });

  test.each<[string, string, Buffer | string, string, Record<string, string>?]>([
    ["HTML", "text/html", "x", "unsupported"],
    ["a type that begins alike", "text/plainer", "x", "unsupported"],
    ["another character set", "text/plain;charset=iso-8859-1", "x", "unsupported"],
    ["HTML in CPIM", "message/cpim", cpim({ type: "text/html" }), "unsupported"],
    ["a type in CPIM that begins alike", "message/cpim", cpim({ type: "text/plain-x" }), "unsupported"],
    ["compressed", "text/plain", "x", "unsupported", { "content-encoding": "gzip" }],
    ["bytes that are no UTF-8", "text/plain", Buffer.of(0xff), "syntax"],
    ["broken CPIM", "message/cpim", "x", "syntax"],
  ])("%s is refused", (_name, type, body, code, more = {}) => {
    expect(() => from(type, body, more)).toThrow(expect.objectContaining({ code }));
  });
});

describe("a peer's message", () => {
  test("is kept as it came, by its Message-ID", () => {
    const bytes = cpim();
    expect(arrived(bytes)).toEqual({ bytes, messageId: "m1", title: "hello" });
  });

  test("without Message-ID is known by Call-ID and CSeq", () => {
    expect(arrived(cpim({ id: "" })).messageId).toBe("c1 1 MESSAGE");
  });

  test.each<[string, Buffer, string, Record<string, string>?]>([
    ["whose CPIM names another sender", cpim({ from: "sip:eve@a.test" }), "forbidden"],
    ["whose CPIM names nobody", cpim({ from: "sip:a.test" }), "syntax"],
    ["whose CPIM sender has another scheme", cpim({ from: "mailto:alice@a.test" }), "syntax"],
    ["that is not CPIM", Buffer.from("hello"), "unsupported", { "content-type": "text/plain" }],
    ["that is a picture in CPIM", cpim({ type: "image/png" }), "unsupported"],
    ["in another character set", cpim({ type: "text/plain; charset=utf-16" }), "unsupported"],
    ["that is no UTF-8", cpim({ body: Buffer.of(0xff) }), "syntax"],
    ["that is compressed", cpim(), "unsupported", { "content-encoding": "gzip" }],
  ])("%s is refused", (_name, bytes, code, headers = {}) => {
    expect(() => arrived(bytes, headers)).toThrow(expect.objectContaining({ code }));
  });
});

describe("who may send what (sip.md §2.5)", () => {
  const peer = (o: Parameters<typeof request>[0] = {}) => peerParties(request(o), [alice], bob);

  test("a peer writes as whom its certificate names", () => {
    expect(peer()).toEqual({ from: alice, to: bob });
    expect(peer({ headers: { from: "<sips:ALICE@A.test>;tag=1" } })).toEqual({ from: alice, to: bob });
    expect(peer({ headers: { "p-asserted-identity": "<sip:alice@a.test>" } })).toEqual({ from: alice, to: bob });
  });

  test.each<[string, Parameters<typeof request>[0], string]>([
    ["under another name", { headers: { from: "<sip:eve@a.test>;tag=1" } }, "forbidden"],
    ["under no name", { headers: { from: "<sip:a.test>;tag=1" } }, "syntax"],
    ["under a telephone number", { headers: { from: "<tel:+1>;tag=1" } }, "syntax"],
    [
      "with another name in the display name's clothes",
      { headers: { from: '"<sip:alice@a.test>" <sip:eve@a.test>;tag=1' } },
      "forbidden",
    ],
    ["with a second @, escaped", { headers: { from: "<sip:alice%40a.test@e.test>;tag=1" } }, "syntax"],
    ["with a second @, escaped twice", { headers: { from: "<sip:alice%2540a.test@e.test>;tag=1" } }, "forbidden"],
    ["asserting another identity", { headers: { "p-asserted-identity": "<sip:eve@a.test>" } }, "forbidden"],
    [
      "asserting another identity in second place",
      { headers: { "p-asserted-identity": "<sip:alice@a.test>, <sip:eve@a.test>" } },
      "forbidden",
    ],
    [
      "asserting another identity in a second field",
      { headers: { "p-asserted-identity": ["<sip:alice@a.test>", "<sip:eve@a.test>"] } },
      "forbidden",
    ],
    ["to somebody who is not hosted here", { uri: "sip:carol@b.test" }, "unknown-recipient"],
    ["to somebody else in To", { headers: { to: "<sip:carol@b.test>" } }, "unknown-recipient"],
    ["to another scheme", { uri: "tel:+1" }, "unsupported"],
  ])("not %s", (_name, o, code) => {
    expect(() => peer(o)).toThrow(expect.objectContaining({ code }));
  });

  test("the owner's program writes as the owner, to anybody", () => {
    expect(localParties(request(), alice)).toEqual({ from: alice, to: bob });
    expect(() => localParties(request(), bob)).toThrow(expect.objectContaining({ code: "forbidden" }));
  });

  test("it registers the owner, and nobody else", () => {
    const register = (from: string, to: string) =>
      registeredParties(request({ method: "REGISTER", uri: "sip:a.test", headers: { from, to } }), alice);
    expect(register("<sip:alice@a.test>", "sip:alice@a.test")).toEqual({ from: alice, to: alice });
    expect(() => register("<sip:eve@a.test>", "<sip:alice@a.test>")).toThrow(
      expect.objectContaining({ code: "forbidden" }),
    );
    expect(() => register("<sip:alice@a.test>", "<sip:eve@a.test>")).toThrow(
      expect.objectContaining({ code: "unknown-recipient" }),
    );
    expect(() => register("<http://a.test>", "isbn:1")).toThrow(expect.objectContaining({ code: "syntax" }));
  });
});

test.each<[string, Parameters<typeof request>[0], object | undefined]>([
  ["nothing special", {}, undefined],
  ["another scheme", { uri: "nobodyKnowsThisScheme:x" }, { status: 416 }],
  ["an extension", { headers: { require: "a, b" } }, { status: 420, extra: [{ name: "unsupported", value: "a, b" }] }],
  [
    "extensions in two fields",
    { headers: { require: ["a", "b"] } },
    { status: 420, extra: [{ name: "unsupported", value: "a, b" }] },
  ],
  ["an empty Require", { headers: { require: "" } }, undefined],
])("what a request needs before all else: %s", (_name, o, expected) => {
  if (expected === undefined) expect(precondition(request(o))).toBeUndefined();
  else expect(precondition(request(o))).toMatchObject(expected);
});
