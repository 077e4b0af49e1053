import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseIdentity } from "../../src/pki/identity.ts";
import { parseHead } from "../../src/smime/entity.ts";
import {
  forwardPath,
  namesOnly,
  parseReply,
  reversePath,
  splitMail,
  strictLines,
  withoutNul,
} from "../../src/smtp/grammar.ts";
import { bytesOf, failureOf, Pieces } from "../support/smime.ts";

describe("paths", () => {
  test.each([
    ["alice@a.test", {}, "alice@a.test"],
    ["ALICE@A.Test", { SIZE: "10", BODY: "8BITMIME" }, "alice@a.test"],
    ["", {}, undefined],
    ["ä@a.test", { SMTPUTF8: true }, "ä@a.test"],
    ["a@bücher.test", {}, "a@xn--bcher-kva.test"], // the library shows A-labels so
  ] as const)("MAIL FROM:<%s> %j is %s", (address, parameters, mailbox) => {
    expect(reversePath(address, parameters).mailbox).toBe(mailbox);
  });

  test.each([
    ["ä@a.test", {}, "5.6.7"],
    ["alice", {}, "5.1.7"],
    ['"a b"@a.test', {}, "5.1.7"],
    ["a@[127.0.0.1]", {}, "5.1.7"],
    ["alice@a.test", { REQUIRETLS: true }, "5.5.4"],
    ["alice@a.test", { RET: "HDRS" }, "5.5.4"],
  ] as const)("MAIL FROM:<%s> %j is refused with %s", (address, parameters, enhanced) => {
    expect(() => reversePath(address, parameters)).toThrow(
      expect.objectContaining({ reply: expect.objectContaining({ enhanced }) }),
    );
  });

  test.each([
    ["bob@b.test", {}, false, undefined],
    ["ö@b.test", {}, true, undefined],
    ["ö@b.test", {}, false, "5.6.7"],
    ["postmaster", {}, false, "5.1.3"],
    ["bob@b.test", { NOTIFY: "NEVER" }, false, "5.5.4"],
  ] as const)("RCPT TO:<%s> %j, SMTPUTF8 %s: %s", (address, parameters, utf8, enhanced) => {
    if (enhanced === undefined) expect(forwardPath(address, parameters, utf8)).toBe(address);
    else
      expect(() => forwardPath(address, parameters, utf8)).toThrow(
        expect.objectContaining({ reply: expect.objectContaining({ enhanced }) }),
      );
  });
});

describe("line ends of DATA", () => {
  const good = ["", "a\r\nb\r\n", "\r\n", "\r\n\r\n.\r\n", "no end"];
  const bad = ["\n", "a\nb", "\r", "a\rb", "\r\r\n", "\n\r", "a\r\n\n", "a\0b", "\r\n\r", "end\r"];
  test.each(good)("%j passes unchanged, whole and byte by byte", async (text) => {
    for (const size of [1, 2, 1_000]) {
      expect((await bytesOf(strictLines(new Pieces(Buffer.from(text), size)))).toString()).toBe(text);
    }
  });
  test.each(bad)("%j is refused, whole and byte by byte", async (text) => {
    for (const size of [1, 2, 1_000]) {
      expect(await failureOf(bytesOf(strictLines(new Pieces(Buffer.from(text), size))))).toMatchObject({
        code: "syntax",
      });
    }
  });

  test("however a text is cut, it is judged as by a regular expression", async () => {
    const octets = fc.array(fc.constantFrom("\r", "\n", "\0", ".", "a", "\r\n"), { maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(octets, fc.integer({ min: 1, max: 5 }), async (pieces, size) => {
        const text = pieces.join("");
        const allowed = !/\0|\r(?!\n)|(?<!\r)\n/.test(text);
        const passed = await bytesOf(strictLines(new Pieces(Buffer.from(text), size))).then(
          () => true,
          () => false,
        );
        expect(passed).toBe(allowed);
      }),
      { numRuns: 500 },
    );
  });

  test("the owner's own line ends are left for later, his NULs are not", async () => {
    expect((await bytesOf(withoutNul(new Pieces(Buffer.from("a\nb\rc"), 1)))).toString()).toBe("a\nb\rc");
    expect(await failureOf(bytesOf(withoutNul(new Pieces(Buffer.from("a\0"), 1))))).toMatchObject({ code: "syntax" });
  });
});

describe("the head of a mail", () => {
  test("is cut off, byte by byte too", async () => {
    for (const size of [1, 7, 1_000]) {
      const { head, body } = await splitMail(new Pieces(Buffer.from("A: 1\r\nB: 2\r\n\r\nbody\r\n"), size));
      expect(head.fields.map(({ value }) => value)).toEqual(["1", "2"]);
      expect((await bytesOf(body)).toString()).toBe("body\r\n");
    }
  });

  test.each([
    ["no field", "what is this\r\n\r\n"],
    ["64 KiB and more", `A: ${"x".repeat(65_536)}\r\n\r\n`],
    ["1,001 fields", `${"A: 1\r\n".repeat(1_001)}\r\n`],
  ])("%s is refused", async (_name, text) => {
    await expect(splitMail(new Pieces(Buffer.from(text), 4_096))).rejects.toMatchObject({
      reply: { enhanced: "5.6.0" },
    });
  });

  test("what the source fails with is not taken for a fault of the head", async () => {
    expect(await failureOf(splitMail(strictLines(new Pieces(Buffer.from("A: 1\nB: 2\r\n\r\n"), 1))))).toMatchObject({
      code: "syntax",
    });
  });
});

describe("who a field names", () => {
  const alice = parseIdentity("alice@a.test");
  test.each([
    ["From: alice@a.test", true],
    ['From: "Alice, A." <Alice@A.TEST> (me)', true],
    ["from: <alice@a.test>", true],
    ["From: boss@b.test", false],
    ["From: alice@a.test, boss@b.test", false],
    ["From: boss@b.test <alice@a.test>, <boss@b.test>", false],
    ["From: alice@a.test\r\nFrom: alice@a.test", false],
    ["From:", false],
    ["From: Alice", false],
    ["To: alice@a.test", false],
  ])("%j: %s", (head, only) => {
    expect(namesOnly(parseHead(Buffer.from(`${head}\r\n\r\n`)), "From", alice)).toBe(only);
  });
});

test.each([
  ["250 2.6.0 stored", { code: 250, enhanced: "2.6.0" }],
  ["550-5.7.1 one\n550 5.7.1 two", { code: 550, enhanced: "5.7.1" }],
  ["552 too large", { code: 552 }],
  ["451", { code: 451 }],
  ["550 5.1.11111 x", { code: 550 }],
  ["999 x", undefined],
  ["hello", undefined],
  ["", undefined],
])("the reply %j is read as %j", (text, reply) => {
  expect(parseReply(text)).toEqual(reply);
});
