import { describe, expect, test } from "vitest";
import { parseIdentity } from "../../src/pki/identity.ts";
import { addressesOf, parseAddresses } from "../../src/smime/address.ts";
import {
  canonicalLines,
  contentTypeOf,
  fieldOf,
  headerField,
  messageIdOf,
  parseHead,
  serializeHead,
  splitEntity,
} from "../../src/smime/entity.ts";
import { fileFacts, fileHead, safeFileName } from "../../src/smime/file-name.ts";
import { formatParameter, parseParameterised } from "../../src/smime/parameter.ts";
import { bytesOf, failureOf, Pieces } from "../support/smime.ts";

describe("heads", () => {
  const text = "From: a@x.test\r\nSubject: one\r\n two\r\n\tthree\r\nX-Empty:\r\n\r\n";

  test("fields are unfolded for their value and kept as they stand", () => {
    const head = parseHead(Buffer.from(text));
    expect(head.fields.map(({ name, value }) => [name, value])).toEqual([
      ["From", "a@x.test"],
      ["Subject", "one two\tthree"],
      ["X-Empty", ""],
    ]);
    expect(serializeHead(head).toString()).toBe(text);
  });

  test("bare LF ends lines, too, and is written as CRLF", () => {
    expect(serializeHead(parseHead(Buffer.from(text.replaceAll("\r\n", "\n")))).toString()).toBe(text);
  });

  test.each([
    ["a bare CR", "A: b\rC: d\r\n\r\n"],
    ["a NUL", "A: b\0\r\n\r\n"],
    ["no colon", "A: b\r\nnonsense\r\n\r\n"],
    ["a space at the very beginning", " A: b\r\n\r\n"],
    ["1001 fields", `${"A: b\r\n".repeat(1001)}\r\n`],
    ["more than 64 KiB", `A: ${"b".repeat(65_536)}\r\n\r\n`],
  ])("refused: %s", (_, bad) => {
    expect(() => parseHead(Buffer.from(bad))).toThrow(expect.objectContaining({ code: "syntax" }));
  });

  test("UTF-8 is read as such, anything else as ISO 8859-1", () => {
    expect(fieldOf(parseHead(Buffer.from("Subject: Grüße\r\n")), "subject")?.value).toBe("Grüße");
    expect(fieldOf(parseHead(Buffer.from("Subject: Gr\xfc\xdfe\r\n", "latin1")), "subject")?.value).toBe("Grüße");
  });

  test.each(["x\r\nBcc: eve@x.test", "x\ny", "x\0"])(
    "a value that would become more than one field is refused: %j",
    (value) => {
      expect(() => headerField("Subject", value)).toThrow(expect.objectContaining({ code: "syntax" }));
      expect(() => headerField("Sub ject", "x")).toThrow(expect.objectContaining({ code: "syntax" }));
    },
  );

  test("a long field is folded at spaces and reads back as it was", () => {
    const value = Array.from({ length: 30 }, (_, i) => `person-number-${i}@example.test`).join(", ");
    const { raw } = headerField("To", value);
    expect(raw.split("\r\n").length).toBeGreaterThan(10);
    expect(Math.max(...raw.split("\r\n").map((line) => line.length))).toBeLessThanOrEqual(78);
    expect(parseHead(Buffer.from(`${raw}\r\n`)).fields[0]?.value).toBe(value);
  });

  test("splitting finds the blank line however the bytes come, and leaves the body untouched", async () => {
    for (const [entity, head, body] of [
      ["A: b\r\n\r\n\r\nbody", "A: b\r\n\r\n", "\r\nbody"],
      ["A: b\n\nbody\n", "A: b\n\n", "body\n"],
      ["\r\nbody", "\r\n", "body"],
      ["A: b\r\n", "A: b\r\n", ""],
      ["A: b\r\n\r\n", "A: b\r\n\r\n", ""],
    ] as const) {
      for (const size of [1, 2, 3, 100]) {
        const split = await splitEntity(new Pieces(Buffer.from(entity), size));
        expect([split.headBytes.toString(), (await bytesOf(split.body)).toString()]).toEqual([head, body]);
      }
    }
  });

  test("an endless head is given up at 64 KiB", async () => {
    const source = new Pieces(Buffer.alloc(20_000_000, "A: b\r\n"), 1000);
    expect((await failureOf(splitEntity(source))).code).toBe("seal-malformed");
    expect(source.consumed).toBeLessThan(70_000);
  });

  test("messageIdOf gives the id without its brackets", () => {
    expect(messageIdOf(parseHead(Buffer.from("Message-ID: (c) <a.b@x.test>\r\n")))).toBe("a.b@x.test");
    expect(messageIdOf(parseHead(Buffer.from("Message-ID: none\r\n")))).toBeUndefined();
  });
});

test.each([
  ["a\nb\r\nc\rd", "a\r\nb\r\nc\r\nd"],
  ["\r\r\n\n", "\r\n\r\n\r\n"],
  ["a\r", "a\r\n"],
  ["\r\n\r\n", "\r\n\r\n"],
  ["", ""],
])("%j is %j in canonical lines, however it is cut", async (text, expected) => {
  for (const size of [1, 2, 3, 100]) {
    expect((await bytesOf(canonicalLines(new Pieces(Buffer.from(text), size)))).toString()).toBe(expected);
  }
});

describe("parameters", () => {
  test.each([
    ["text/plain", "text/plain", {}],
    ["Text/Plain; Charset=utf-8 ; format=flowed", "text/plain", { charset: "utf-8", format: "flowed" }],
    [
      'multipart/signed (why) ; boundary="a;b\\"c" ; micalg = sha-256',
      "multipart/signed",
      { boundary: 'a;b"c', micalg: "sha-256" },
    ],
    ["attachment; filename*=UTF-8''na%C3%AFve%20file.txt", "attachment", { filename: "naïve file.txt" }],
    ["attachment; filename*=ISO-8859-1'de'%FCber", "attachment", { filename: "über" }],
    ["attachment; filename=plain; filename*=UTF-8''b%65tter", "attachment", { filename: "better" }],
    ['attachment; filename*0="one "; filename*1="two"', "attachment", { filename: "one two" }],
    ["attachment; filename*1*=%32; filename*0*=UTF-8''%31; filename*2=3", "attachment", { filename: "123" }],
    ["attachment; filename*0*=UTF-8''a%C3; filename*1*=%A4", "attachment", { filename: "aä" }],
    ["attachment; filename*0=a; filename*2=c", "attachment", { filename: "a" }],
    ["attachment; filename*=nonsense", "attachment", {}],
    ["a/b; x=1; x=2; ; y", "a/b", { x: "1" }],
  ])("%s", (text, value, parameters) => {
    const parsed = parseParameterised(text);
    expect([parsed.value, Object.fromEntries(parsed.parameters)]).toEqual([value, parameters]);
  });

  test.each(["plain.txt", 'with "quotes" \\ and ; more', "ünï – ☃.txt", "a'b(c)*.txt", "100 %", ""])(
    "%j is written so that it reads back",
    (name) => {
      const written = `attachment${formatParameter("filename", name)}`;
      expect(written).toMatch(/^[\x20-\x7e]*$/);
      expect(parseParameterised(written).parameters.get("filename")).toBe(name);
    },
  );

  test("1,000,000 parameters are refused at once", () => {
    expect(() => parseParameterised(`a${";b=c".repeat(10)}`)).not.toThrow();
    const many = Array.from({ length: 100_000 }, (_, i) => `;b${i}=c`).join("");
    expect(() => contentTypeOf({ fields: [headerField("Content-Type", `a${many}`)] })).toThrow(
      "not a well-formed seal",
    );
  });
});

test.each([
  ["a@x.test", ["a@x.test"]],
  ["A <a@x.test>, b@x.test", ["a@x.test", "b@x.test"]],
  ['"Doe, John <x@y.test>" <a@x.test>', ["a@x.test"]],
  ["team: a@x.test, B <b@x.test>;, c@x.test", ["a@x.test", "b@x.test", "c@x.test"]],
  ["undisclosed-recipients:;", []],
  ["a(comment, with <e@x.test>)@x.test", ["a@x.test"]],
  ["<@relay.test:a@x.test>", ["a@x.test"]],
  ["bob@x.test <eve@x.test>", ["eve@x.test"]],
  ["<bob@x.test", []],
  ['"bob@x.test', []],
  ["", []],
])("addresses of %j", (value, expected) => {
  expect(parseAddresses(value).filter((address) => !address.startsWith('"'))).toEqual(expected);
});

test("addresses of several fields come canonical and once; what is no identity is passed over", () => {
  const head = parseHead(
    Buffer.from("To: Bob <BOB@Example.Test>, not-one\r\nCC: bob@example.test, a@x.test\r\nFrom: c@x.test\r\n"),
  );
  expect(addressesOf(head, "to", "Cc")).toEqual(["bob@example.test", "a@x.test"]);
});

describe("file names", () => {
  test.each([
    ["report.pdf", "report.pdf"],
    ["/etc/passwd", "passwd"],
    ["..\\..\\windows\\system.ini", "system.ini"],
    ["../..", "file"],
    [".bashrc", "bashrc"],
    ["a:b", "a_b"],
    ["nul\0l\n.txt", "null.txt"],
    ["photo\u202egpj.exe", "photogpj.exe"],
    ["CON", "_CON"],
    ["lpt1.txt", "_lpt1.txt"],
    ["console.log", "console.log"],
    ["e\u0301.txt", "\u00e9.txt"],
    ["name. . ", "name"],
    ["", "file"],
    ["\ud800.txt", "txt"],
  ])("%j is kept as %j", (name, expected) => {
    expect(safeFileName(name)).toBe(expected);
  });

  test("a name is cut to 255 octets between characters, keeping its extension", () => {
    const name = safeFileName(`${"☃".repeat(200)}.jpeg`);
    expect(Buffer.byteLength(name)).toBe(254);
    expect(name).toMatch(/^☃+\.jpeg$/u);
  });

  test("a file's facts come back from its head", () => {
    const facts = {
      name: "Ämter.mkv",
      mediaType: "video/x-matroska",
      size: 1_610_612_736,
      modified: new Date("2026-11-23T09:00:00Z"),
    };
    const identity = parseIdentity("a@x.test");
    const head = fileHead({ ...facts, from: identity, to: [identity], date: new Date(0), messageId: "1@x.test" });
    expect(fileFacts(parseHead(serializeHead(head)))).toEqual(facts);
    expect(serializeHead(head).toString()).toContain("Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n");
  });

  test("facts of a head without any are harmless", () => {
    const head = parseHead(
      Buffer.from('Content-Type: ../../x; name="../y"\r\nContent-Disposition: inline; size=-1\r\n'),
    );
    expect(fileFacts(head)).toEqual({ name: "y", mediaType: "application/octet-stream" });
  });
});
