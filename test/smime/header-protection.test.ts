import { describe, expect, test } from "vitest";
import { contentTypeOf, parseHead, serializeHead } from "../../src/smime/entity.ts";
import { protectedHeader, protectHeader } from "../../src/smime/header-protection.ts";

const written = [
  "From: Alice <alice@example.test>",
  "To: Bob <bob@example.test>,",
  " Carol <carol@example.test>",
  "Bcc: eve@example.test",
  "Subject: Merger with",
  " Example Corp.",
  "Keywords: secret",
  "Comments: very",
  "Date: Mon, 23 Nov 2026 09:00:00 +0000",
  "Message-ID: <m1@example.test>",
  "MIME-Version: 1.0",
  'Content-Type: multipart/mixed; boundary="b"',
  "Content-Language: en",
  "",
  "",
].join("\r\n");

const texts = (head: { fields: readonly { raw: string }[] }) => head.fields.map(({ raw }) => raw);

describe("RFC 9788", () => {
  const { payload, outer } = protectHeader(parseHead(Buffer.from(written)));

  test("§3.2.1: outside, Subject is [...], Comments and Keywords are gone, and nothing else of the content shows", () => {
    expect(texts(outer)).toEqual([
      "From: Alice <alice@example.test>",
      "To: Bob <bob@example.test>,\r\n Carol <carol@example.test>",
      "Subject: [...]",
      "Date: Mon, 23 Nov 2026 09:00:00 +0000",
      "Message-ID: <m1@example.test>",
      "MIME-Version: 1.0",
      expect.stringMatching(
        /^Content-Type: application\/pkcs7-mime; smime-type=authEnveloped-data;\r\n name="smime\.p7m"$/,
      ),
      "Content-Transfer-Encoding: base64",
      'Content-Disposition: attachment; filename="smime.p7m"',
    ]);
    expect(serializeHead(outer).toString()).not.toMatch(/Merger|secret|very|eve@|multipart/);
  });

  test("§5.2: the payload has every field, an HP-Outer for each that stands outside, and hp=cipher", () => {
    expect(texts(payload)).toEqual([
      ...written.split(/\r\n(?! )/).filter((line) => line !== "" && !line.startsWith("Content-Type")),
      "HP-Outer: From: Alice <alice@example.test>",
      "HP-Outer: To: Bob <bob@example.test>,\r\n Carol <carol@example.test>",
      "HP-Outer: Subject: [...]",
      "HP-Outer: Date: Mon, 23 Nov 2026 09:00:00 +0000",
      "HP-Outer: Message-ID: <m1@example.test>",
      'Content-Type: multipart/mixed; boundary="b";\r\n hp="cipher"',
    ]);
  });

  test("reading the payload gives the fields of the mail back, and what stood outside", () => {
    const read = protectedHeader(parseHead(serializeHead(payload)));
    expect(read.protection).toBe("cipher");
    expect(read.fields.map(({ name, value }) => `${name}: ${value}`)).toContain("Subject: Merger with Example Corp.");
    expect(read.fields.map(({ name }) => name)).toEqual([
      "From",
      "To",
      "Bcc",
      "Subject",
      "Keywords",
      "Comments",
      "Date",
      "Message-ID",
    ]);
    expect(read.outer).toContainEqual({ name: "Subject", value: "[...]" });
    expect(read.outer).toContainEqual({ name: "To", value: "Bob <bob@example.test>, Carol <carol@example.test>" });
  });
});

test("marks of an earlier protection are replaced, not believed", () => {
  const forged =
    'Subject: x\r\nHP-Outer: Subject: y\r\nContent-Type: text/plain; hp="clear"; charset=utf-8; protected-headers="v1"\r\n\r\n';
  const { payload, outer } = protectHeader(parseHead(Buffer.from(forged)));
  expect(texts(payload)).toEqual([
    "Subject: x",
    "HP-Outer: Subject: [...]",
    'Content-Type: text/plain; charset=utf-8; hp="cipher"',
  ]);
  expect(texts(outer)[0]).toBe("Subject: [...]");
});

test("a mail without Content-Type gets one that says hp=cipher", () => {
  const { payload } = protectHeader(parseHead(Buffer.from("Subject: x\r\n\r\n")));
  expect(contentTypeOf(payload)).toMatchObject({ value: "text/plain" });
  expect(contentTypeOf(payload).parameters.get("hp")).toBe("cipher");
});

test("a line near the limit is put onto its own, so that HP-Outer keeps to 998 octets", () => {
  const { payload } = protectHeader(parseHead(Buffer.from(`X-Long: ${"x".repeat(985)}\r\n\r\n`)));
  const lines = serializeHead(payload).toString().split("\r\n");
  expect(lines).toContain("HP-Outer: X-Long:");
  expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(998);
  expect(protectedHeader(payload).outer[0]?.value).toBe("x".repeat(985));
});

test("a payload that says nothing of protection is reported so", () => {
  const read = protectedHeader(parseHead(Buffer.from("From: a@x.test\r\nContent-Type: text/plain\r\n\r\n")));
  expect([read.protection, read.outer]).toEqual(["none", []]);
});
