import { describe, expect, test } from "vitest";
import { contentTypeOf, parseHead, serializeHead } from "../../src/smime/entity.ts";
import { fieldProtection, isLegacyDisplay, protectedHeader, protectHeader } from "../../src/smime/header-protection.ts";

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

describe("RFC 9788 §4.3.1: how a field was protected, by what stands inside and what really lies around", () => {
  const both = { encrypted: true, signed: true };
  const signed = { encrypted: false, signed: true };
  const encrypted = { encrypted: true, signed: false };
  const neither = { encrypted: false, signed: false };
  const payload = (type: string) =>
    parseHead(
      Buffer.from(
        `From: a@x.test\r\nSubject: Merger\r\nHP-Outer: from: a@x.test\r\nHP-Outer: Subject: [...]\r\nContent-Type: text/plain${type}\r\n\r\n`,
      ),
    );
  const states = (type: string, layers: typeof both) => {
    const header = protectedHeader(payload(type));
    return header.fields.map((field) => `${field.name} ${fieldProtection(header, field, layers)}`);
  };

  test.each([
    ['; hp="cipher"', both, "From signed-only", "Subject signed-and-encrypted"],
    // Encrypted, but by nobody who stands for it: what it says is shown as authentic by nobody.
    ['; hp="cipher"', encrypted, "From unprotected", "Subject encrypted-only"],
    // The claim alone hides nothing (§2.1.1).
    ['; hp="cipher"', signed, "From signed-only", "Subject signed-only"],
    ['; hp="cipher"', neither, "From unprotected", "Subject unprotected"],
    // Encryption may have been added on the way: the writer did not mean to hide anything.
    ['; hp="clear"', both, "From signed-only", "Subject signed-only"],
    ['; hp="clear"', signed, "From signed-only", "Subject signed-only"],
    ['; hp="clear"', encrypted, "From unprotected", "Subject unprotected"],
    ['; protected-headers="v1"', both, "From signed-only", "Subject signed-only"],
    ['; protected-headers="v1"', encrypted, "From unprotected", "Subject unprotected"],
    ["", both, "From unprotected", "Subject unprotected"],
  ] as const)("%s, %o", (type, layers, from, subject) => {
    expect(states(type, layers)).toEqual([from, subject]);
  });

  test("HP-Outer counts in a payload that says cipher, and is no field of the mail in any", () => {
    for (const type of ['; hp="clear"', '; protected-headers="v1"', "", '; hp="other"']) {
      const read = protectedHeader(payload(type));
      expect([read.outer, read.fields.map(({ name }) => name)]).toEqual([[], ["From", "Subject"]]);
    }
  });

  test("a field that stands outside in another value was hidden; in another fold or case of its name it was not", () => {
    const head = parseHead(
      Buffer.from(
        "To: Bob <b@x.test>,\r\n Carol <c@x.test>\r\nCc: d@x.test\r\nHP-Outer: TO: Bob <b@x.test>, Carol <c@x.test>\r\n" +
          'HP-Outer: Cc: D@x.test\r\nContent-Type: text/plain; hp="CIPHER"\r\n\r\n',
      ),
    );
    const header = protectedHeader(head);
    expect(header.fields.map((field) => fieldProtection(header, field, both))).toEqual([
      "signed-only",
      "signed-and-encrypted",
    ]);
  });
});

describe("the draft before RFC 9788", () => {
  const type = (text: string) => parseHead(Buffer.from(`Content-Type: ${text}\r\n\r\n`));

  test.each([
    ['text/plain; protected-headers="v1"', "v1"],
    ["multipart/mixed; boundary=b; Protected-Headers=V1", "v1"],
    ['text/plain; protected-headers="v2"', "none"],
    ['text/plain; protected-headers="v1"; hp="cipher"', "cipher"],
    // Who says hp means RFC 9788, even if it is not said well.
    ['text/plain; protected-headers="v1"; hp="strong"', "none"],
    ['text/plain; hp=""', "none"],
  ])("%s: %s", (text, protection) => {
    expect(protectedHeader(type(text)).protection).toBe(protection);
  });

  test("its legacy display is a part of text that is marked, nothing else", () => {
    const marked = ['text/plain; protected-headers="v1"', 'text/rfc822-headers; protected-headers="v1"'];
    expect(marked.map((text) => isLegacyDisplay(type(text)))).toEqual([true, true]);
    const others = ["text/plain", 'multipart/mixed; protected-headers="v1"', 'text/html; protected-headers="v1"'];
    expect(others.map((text) => isLegacyDisplay(type(text)))).toEqual([false, false, false]);
  });
});
