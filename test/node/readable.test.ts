import { expect, test } from "vitest";
import { readableMail } from "../../src/node/readable.ts";

const mail = (encoding: string, body: string) =>
  Buffer.from(`Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: ${encoding}\r\n\r\n${body}`);

test.each([
  ["a soft line break joins, and keeps the blank before it (RFC 2045 §6.7)", "one =\r\ntwo", "one two"],
  ["white space behind a soft line break was added on the way", "one= \t\r\ntwo", "onetwo"],
  ["characters beyond ASCII are joined from their octets", "caf=C3=A9 =3D 5", "café = 5"],
])("quoted-printable: %s", (_name, body, text) => {
  expect(readableMail(mail("quoted-printable", body)).text).toBe(text);
});

test("of a mail with hundreds of thousands of parts the first thousand are read", () => {
  const before = performance.now();
  const parts = `--b\r\n\r\nx\r\n`.repeat(100_000);
  const { text } = readableMail(Buffer.from(`Content-Type: multipart/mixed; boundary=b\r\n\r\n${parts}`));
  expect(text.split("\n")).toHaveLength(1_000);
  expect(performance.now() - before).toBeLessThan(1_000);
});

test.each([
  ["blanks", " ".repeat(1_000_000)],
  ["blanks before each equals sign", `${" ".repeat(999)}=`.repeat(1_000)],
  ["equals signs", "=".repeat(1_000_000)],
  ["equals signs and blanks", "= \t".repeat(300_000)],
])("a megabyte of %s is read in less than a second", (_name, body) => {
  const before = performance.now();
  readableMail(mail("quoted-printable", body));
  expect(performance.now() - before).toBeLessThan(1_000);
});
