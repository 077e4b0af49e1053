import { describe, expect, test } from "vitest";
import { makeCpim, parseCpim } from "../../src/sip/cpim.ts";

const made = {
  from: "sip:alice@a.test",
  to: "sip:bob@b.test",
  dateTime: "2026-11-25T09:00:00.000Z",
  messageId: "id1",
  contentType: "text/plain; charset=utf-8",
  body: Buffer.from("héllo\r\n\r\nworld"),
};
const cpim = (outer: readonly string[], inner: readonly string[] = ["Content-Type: text/plain"], body = "x") =>
  Buffer.from([...outer, "", ...inner, "", body].join("\r\n"));
const parties = ["From: <sip:a@a.test>", "To: <sip:b@b.test>"];

test("what is made is read as the same, and the body may hold blank lines", () => {
  expect(parseCpim(makeCpim(made))).toEqual(made);
});

test("the bytes are those of RFC 3862 and RFC 5438 §6.3", () => {
  expect(makeCpim({ ...made, body: Buffer.from("x") }).toString()).toBe(
    [
      "From: <sip:alice@a.test>",
      "To: <sip:bob@b.test>",
      "DateTime: 2026-11-25T09:00:00.000Z",
      "NS: imdn <urn:ietf:params:imdn>",
      "imdn.Message-ID: id1",
      "imdn.Disposition-Notification: positive-delivery, negative-delivery, display",
      "",
      "Content-Type: text/plain; charset=utf-8",
      "Content-Length: 1",
      "",
      "x",
    ].join("\r\n"),
  );
});

describe("read (RFC 3862)", () => {
  test.each<[string, Buffer, object]>([
    [
      "another prefix for IMDN",
      cpim([...parties, "NS: i <urn:ietf:params:imdn>", "i.Message-ID: 7"]),
      { messageId: "7" },
    ],
    [
      "a prefix that names another space is not IMDN's",
      cpim([...parties, "NS: x <urn:other>", "x.Message-ID: 7"]),
      { messageId: "" },
    ],
    [
      "a formal name before the URI",
      cpim(['From: "A <x>" <sip:a@a.test>', "To: B <sip:b@b.test>"]),
      { from: "sip:a@a.test", to: "sip:b@b.test" },
    ],
    ["no DateTime, no Message-ID", cpim(parties), { dateTime: "", messageId: "" }],
    ["no Content-Type: plain text", cpim(parties, ["Content-ID: <1@a>"]), { contentType: "text/plain" }],
    ["content-type in other letters", cpim(parties, ["content-TYPE: text/html"]), { contentType: "text/html" }],
  ])("%s", (_name, bytes, expected) => {
    expect(parseCpim(bytes)).toMatchObject(expected);
  });

  test.each<[string, Buffer]>([
    ["nothing", Buffer.alloc(0)],
    ["no blank line", Buffer.from("From: <sip:a@a>\r\nTo: <sip:b@b>\r\n")],
    ["no second blank line", Buffer.from(`${parties.join("\r\n")}\r\n\r\nContent-Type: text/plain\r\n`)],
    ["no From", cpim(["To: <sip:b@b.test>"])],
    ["no To", cpim(["From: <sip:a@a.test>"])],
    ["a From without brackets", cpim(["From: sip:a@a.test", "To: <sip:b@b.test>"])],
    ["a from in small letters: names are case-sensitive (§3.1)", cpim(["from: <sip:a@a.test>", "To: <sip:b@b.test>"])],
    ["a line without colon", cpim([...parties, "nonsense"])],
    ["LF alone", Buffer.from(cpim(parties).toString().replaceAll("\r\n", "\n"))],
    ["a header over 16 KiB", cpim([...parties, `Subject: ${"x".repeat(17_000)}`])],
    ["a content header over 16 KiB", cpim(parties, [`X: ${"x".repeat(17_000)}`])],
  ])("%s is refused", (_name, bytes) => {
    expect(() => parseCpim(bytes)).toThrow(expect.objectContaining({ code: "syntax" }));
  });
});
