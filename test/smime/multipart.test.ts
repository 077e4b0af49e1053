import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { decodeBase64, encodeBase64 } from "../../src/smime/base64.ts";
import { ByteReader } from "../../src/smime/byte-reader.ts";
import { parseHead } from "../../src/smime/entity.ts";
import { boundaryOf, MultipartReader } from "../../src/smime/multipart.ts";
import { bytesOf, failureOf, Pieces, pseudoRandom } from "../support/smime.ts";

async function cut(body: string, size: number | (() => number)): Promise<string[]> {
  const multipart = new MultipartReader(new ByteReader(new Pieces(Buffer.from(body, "latin1"), size)), "b");
  await multipart.preamble();
  const parts = [await bytesOf(multipart.part()), await bytesOf(multipart.part())];
  await multipart.end();
  return parts.map((part) => part.toString("latin1"));
}

describe("multipart", () => {
  test.each([
    ["plain", "--b\r\none\r\n--b\r\ntwo\r\n--b--\r\n", ["one", "two"]],
    [
      "line ends of the part itself are kept",
      "--b\r\none\r\n\r\n--b\r\ntwo\r\n\r\n\r\n--b--",
      ["one\r\n", "two\r\n\r\n"],
    ],
    ["bare LF", "--b\none\n\n--b\ntwo\n--b--\n", ["one\n", "two"]],
    ["LF delimiters around CRLF content", "--b\none\r\n\n--b\ntwo\n--b--\n", ["one\r\n", "two"]],
    [
      "preamble and epilogue",
      "pre\r\namble\r\n--b\r\none\r\n--b\r\ntwo\r\n--b--\r\nepi\r\n--b\r\nlogue",
      ["one", "two"],
    ],
    ["white space behind the boundary", "--b \t\r\none\r\n--b \r\ntwo\r\n--b-- \r\n", ["one", "two"]],
    [
      "lines that only begin like the boundary",
      "--b\r\n--bc\r\n--b-\r\n --b\r\nx--b\r\n--\r\n--b\r\ntwo\r\n--b--",
      ["--bc\r\n--b-\r\n --b\r\nx--b\r\n--", "two"],
    ],
    ["empty parts", "--b\r\n\r\n--b\r\n\r\n--b--", ["", ""]],
    ["CR before the delimiter's line end", "--b\r\none\r\r\n--b\r\ntwo\r\n--b--", ["one\r", "two"]],
    ["delimiters one after the other", "--b\r\n\r\n\r\n--b\r\n\n--b--", ["\r\n", ""]],
  ])("%s: the raw parts, however the bytes come", async (_, body, expected) => {
    for (const size of [1, 2, 3, 5, pseudoRandom(1, 8), 1000]) expect(await cut(body, size)).toEqual(expected);
  });

  test.each([
    ["no boundary at all", "one two three"],
    ["one part", "--b\r\none\r\n--b--\r\n"],
    ["three parts", "--b\r\none\r\n--b\r\ntwo\r\n--b\r\nthree\r\n--b--\r\n"],
    ["cut in a part", "--b\r\none\r\n--b\r\ntwo"],
    ["cut in the last delimiter", "--b\r\none\r\n--b\r\ntwo\r\n--b"],
    ["a preamble of 70 KiB", `${"x".repeat(70_000)}\r\n--b\r\none\r\n--b\r\ntwo\r\n--b--\r\n`],
    ["a delimiter with 2 KiB of spaces", `--b\r\none\r\n--b${" ".repeat(2000)}\r\ntwo\r\n--b--\r\n`],
  ])("refused: %s", async (_, body) => {
    for (const size of [100_000, 1000]) expect((await failureOf(cut(body, size))).code).toBe("seal-malformed");
  });

  test("a large part streams in constant memory", async () => {
    const body = Buffer.concat([Buffer.from("--b\r\n"), Buffer.alloc(5_000_000, "x\r\n-"), Buffer.from("\r\n--b--")]);
    const multipart = new MultipartReader(new ByteReader(new Pieces(body, 10_000)), "b");
    await multipart.preamble();
    let size = 0;
    for await (const piece of multipart.part()) {
      size += piece.length;
      expect(piece.length).toBeLessThan(11_000);
    }
    expect(size).toBe(5_000_000);
  });

  test.each(["", "x".repeat(71), "a\u00e4", "ends in space "])("the boundary %j is refused", (boundary) => {
    const head = parseHead(Buffer.from(`Content-Type: multipart/signed; boundary="${boundary}"\r\n`));
    expect(() => boundaryOf(head)).toThrow(expect.objectContaining({ code: "seal-malformed" }));
  });
});

describe("base64", () => {
  test("is written in lines of 76 columns ended by CRLF, and reads back", async () => {
    for (const size of [0, 1, 2, 3, 56, 57, 58, 114, 1000, 100_000]) {
      const bytes = randomBytes(size);
      for (const pieces of [pseudoRandom(size, 100), 100_000]) {
        const text = await bytesOf(encodeBase64(new Pieces(bytes, pieces)));
        const lines = text.toString("latin1").split("\r\n");
        expect(lines.pop()).toBe("");
        expect(lines.join("")).toBe(bytes.toString("base64"));
        expect(lines.slice(0, -1).every((line) => line.length === 76)).toBe(true);
        expect((await bytesOf(decodeBase64(new Pieces(text, pieces)))).equals(bytes)).toBe(true);
      }
    }
  });

  test("white space is passed over wherever it stands, one byte at a time", async () => {
    expect((await bytesOf(decodeBase64(new Pieces(Buffer.from(" aG\r\nV\tsb\nG8= \r\n\r\n"), 1)))).toString()).toBe(
      "hello",
    );
  });

  test.each(["aGVs!G8=", "aGVsbG8", "aGVsbG8=aGVs", "aGVsbG8=\r\naGVs", "a===", "aG=s", "-_-_", "aGVs\0bG8="])(
    "%j is refused",
    async (text) => {
      for (const size of [1, 100]) {
        expect((await failureOf(bytesOf(decodeBase64(new Pieces(Buffer.from(text), size))))).code).toBe(
          "seal-malformed",
        );
      }
    },
  );
});
