import { expect, test } from "vitest";
import { derToPem, pemToDer } from "../../src/pki/pem.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";

const one = derToPem(Buffer.alloc(100, 1), "CERTIFICATE");
const two = derToPem(Buffer.alloc(3, 2), "CERTIFICATE");
const key = derToPem(Buffer.alloc(5, 3), "PRIVATE KEY");

test("blocks of the wanted label come in order, text and other blocks between them do not", () => {
  const found = pemToDer(`Subject: x\n${one}\r\n${key}words${two.replaceAll("\n", "\r\n")}`, "CERTIFICATE");
  expect(found.map((der) => [der.length, der[0]])).toEqual([
    [100, 1],
    [3, 2],
  ]);
  expect(pemToDer(one + key)).toHaveLength(2);
});

test("lines have 64 characters", () => {
  expect(one.split("\n").map((line) => line.length)).toEqual([27, 64, 64, 8, 25, 0]);
});

test.each([
  ["no block", "hello"],
  ["no block of that label", key],
  ["labels that differ", one.replace("END CERTIFICATE", "END X509 CRL")],
  ["a block cut off", one.slice(0, -20)],
  ["no base64", one.replace("AQEB", "AQ!B")],
  ["base64 of a wrong length", one.replace("AQEB", "AQE")],
  ["an empty block", derToPem(new Uint8Array(), "CERTIFICATE")],
  ["more than 1 MiB", `${" ".repeat(1 << 20)}${one}`],
])("%s is refused", (_, text) => {
  expect(() => pemToDer(text, "CERTIFICATE")).toThrow(expect.objectContaining({ code: "syntax" }));
});

test("a private key next to its certificate is not mistaken for one", () => {
  expect(() => pemToDer(key, "CERTIFICATE")).toThrow(SuiteError);
});
