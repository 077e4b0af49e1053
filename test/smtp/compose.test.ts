import { describe, expect, test } from "vitest";
import { parseIdentity } from "../../src/pki/identity.ts";
import { addressesOf } from "../../src/smime/address.ts";
import { type EntityHead, fieldOf, parseHead, serializeHead } from "../../src/smime/entity.ts";
import { protectedHeader } from "../../src/smime/header-protection.ts";
import { composeMail, composeText } from "../../src/smtp/compose.ts";
import { decodeWords } from "../../src/smtp/encoded-word.ts";

const alice = parseIdentity("alice@a.test");
const bob = parseIdentity("bob@b.test");
const carol = parseIdentity("carol@c.test");
const now = new Date("2026-11-25T09:05:03Z");
const random = (length: number) => Buffer.alloc(length, 0xab);

const head = (text: string) => parseHead(Buffer.from(text.replace(/\r?\n/g, "\r\n")));
const compose = (text: string, to = [bob]) => composeMail(head(text), { owner: alice, to, now, random });
const payloadOf = (copy: { payloadHead: Buffer } | undefined): EntityHead =>
  parseHead(copy?.payloadHead ?? Buffer.alloc(0));
const names = (one: EntityHead) => one.fields.map(({ name }) => name);

describe("a submitted mail", () => {
  test("is hidden behind an outer header that tells the subject to nobody", () => {
    const { copies, title, messageId } = compose(
      "From: Alice <alice@a.test>\nTo: bob@b.test\nSubject: secret plans\nKeywords: x\nMessage-ID: <1@a.test>\nDate: Mon, 23 Nov 2026 10:00:00 +0000\nContent-Type: text/plain\n\n",
    );
    const [copy] = copies;
    expect(copies).toHaveLength(1);
    expect({ title, messageId }).toEqual({ title: "secret plans", messageId: "1@a.test" });
    expect(copy?.outerHeader).toContain("\r\nSubject: [...]\r\n");
    expect(copy?.outerHeader).not.toMatch(/secret|Keywords/);
    expect(copy?.outerHeader.endsWith("\r\n")).toBe(true);
    expect(copy?.outerHeader).not.toContain("\r\n\r\n");
    expect(fieldOf(head(copy?.outerHeader ?? ""), "Content-Type")?.value).toMatch(
      /^application\/pkcs7-mime; smime-type=authEnveloped-data/,
    );
    const payload = payloadOf(copy);
    expect(protectedHeader(payload).protection).toBe("cipher");
    expect(fieldOf(payload, "Subject")?.value).toBe("secret plans");
    expect(copy?.payloadHead.subarray(-4).toString()).toBe("\r\n\r\n");
  });

  test("gets the Date and the Message-ID that it lacks, and nothing else", () => {
    const [copy] = compose("From: alice@a.test\nTo: bob@b.test\n\n").copies;
    const added = protectedHeader(payloadOf(copy)).fields;
    expect(added.map(({ raw }) => raw)).toEqual([
      "From: alice@a.test",
      "To: bob@b.test",
      "Date: Wed, 25 Nov 2026 09:05:03 +0000",
      `Message-ID: <${"ab".repeat(16)}@a.test>`,
    ]);
    expect(compose("From: alice@a.test\nTo: bob@b.test\n\n").messageId).toBe(`${"ab".repeat(16)}@a.test`);
  });

  test("loses Bcc; a hidden recipient's own copy names him, and only him", () => {
    const { copies } = compose("From: alice@a.test\nTo: bob@b.test\nBCC: carol@c.test, x@y.test\n\n", [bob, carol]);
    expect(copies.map(({ to }) => to)).toEqual([[bob], [carol]]);
    const [forBob, forCarol] = copies;
    expect(names(payloadOf(forBob))).not.toContain("Bcc");
    expect(`${forBob?.payloadHead}${forBob?.outerHeader}`).not.toMatch(/carol|x@y/);
    expect(addressesOf(payloadOf(forCarol), "Bcc")).toEqual([carol]);
    expect(forCarol?.outerHeader).not.toMatch(/carol|bcc/i);
  });

  test("to hidden recipients alone makes a copy for each", () => {
    const { copies } = compose("From: alice@a.test\nSubject: x\n\n", [bob, carol]);
    expect(copies.map(({ to }) => to)).toEqual([[bob], [carol]]);
  });

  test.each([
    ["no From", "To: bob@b.test\n\n", "5.7.1"],
    ["another From", "From: bob@b.test\n\n", "5.7.1"],
    ["two From fields", "From: alice@a.test\nFrom: alice@a.test\n\n", "5.7.1"],
    ["another Sender", "From: alice@a.test\nSender: bob@b.test\n\n", "5.7.1"],
    ["sealed", "From: alice@a.test\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\n\n", "5.7.5"],
    [
      "sealed, by GCM",
      "From: alice@a.test\nContent-Type: application/x-pkcs7-mime; smime-type=authEnveloped-data\n\n",
      "5.7.5",
    ],
    ["sealed, perhaps", "From: alice@a.test\nContent-Type: application/pkcs7-mime\n\n", "5.7.5"],
  ])("with %s is refused", (_what, text, enhanced) => {
    expect(() => compose(text)).toThrow(expect.objectContaining({ reply: expect.objectContaining({ enhanced }) }));
  });

  test.each([
    ["clear-signed", 'Content-Type: multipart/signed; boundary=b; protocol="application/pkcs7-signature"'],
    ["opaque-signed", "Content-Type: application/pkcs7-mime; smime-type=signed-data"],
    ["Sender", "Sender: Alice <alice@a.test>"],
  ])("%s by the owner passes", (_what, field) => {
    expect(compose(`From: alice@a.test\nTo: bob@b.test\n${field}\n\n`).copies).toHaveLength(1);
  });

  test("a Message-ID that is none does not become an id", () => {
    expect(compose("From: alice@a.test\nMessage-ID: what\n\n").messageId).toBe(`${"ab".repeat(16)}@a.test`);
  });
});

describe("a text", () => {
  const mail = (o: { name?: string; subject?: string; text: string }) =>
    composeText({
      owner: alice,
      name: o.name ?? "Alice A.",
      to: [bob, carol],
      subject: o.subject ?? "Hi",
      text: o.text,
    });

  test("in ASCII stays as it is, with CRLF", () => {
    const { head: made, body } = mail({ text: "one\ntwo" });
    expect(serializeHead(made).toString()).toContain(
      'From: "Alice A." <alice@a.test>\r\nTo: bob@b.test, carol@c.test\r\nSubject: Hi\r\n',
    );
    expect(body.toString()).toBe("one\r\ntwo\r\n");
  });

  test("of other letters, or of very long lines, goes in base64", () => {
    for (const text of ["Grüße\n".repeat(50), "x".repeat(2_000)]) {
      const { head: made, body } = mail({ text });
      expect(fieldOf(made, "Content-Transfer-Encoding")?.value).toBe("base64");
      expect(
        Math.max(
          ...body
            .toString()
            .split("\r\n")
            .map((line) => line.length),
        ),
      ).toBeLessThanOrEqual(76);
      expect(Buffer.from(body.toString(), "base64").toString()).toBe(text.replaceAll("\n", "\r\n"));
    }
  });

  test.each([['Zoë, the "Great"'], ['a "quoted" \\ name'], ["line\r\nBcc: x@y.test"]])(
    "name and subject %j stay in their fields",
    (text) => {
      const { head: made } = mail({ name: text, subject: text, text: "x" });
      const again = parseHead(serializeHead(made));
      expect(names(again)).toEqual(names(made));
      expect(addressesOf(again, "From")).toEqual([alice]);
      expect(decodeWords(fieldOf(again, "Subject")?.value ?? "")).toBe(text.replace(/[\r\n]+/g, " "));
    },
  );
});
