import { expect, test } from "vitest";
import { COMMENT, eventText, StreamReader } from "../../src/sixid/server-sent-events.ts";

const read = (text: string | Buffer, size = Number.POSITIVE_INFINITY) => {
  const reader = new StreamReader();
  const bytes = Buffer.from(text);
  const events = [];
  for (let at = 0; at < bytes.length; at += size) events.push(...reader.push(bytes.subarray(at, at + size)));
  return events.map(({ type, data }) => [type, data]);
};

test.each<[string, string, string[][]]>([
  ["our own", eventText({ type: "record", data: '{"a":1}' }) + COMMENT, [["record", '{"a":1}']]],
  [
    "CRLF, CR and LF",
    "event: a\r\ndata: 1\r\n\r\nevent: b\rdata: 2\r\revent: c\ndata: 3\n\n",
    [
      ["a", "1"],
      ["b", "2"],
      ["c", "3"],
    ],
  ],
  ["no type", "data: 1\n\n", [["message", "1"]]],
  ["several lines of data, no space", "data:1\ndata: 2\ndata:  3\n\n", [["message", "1\n2\n 3"]]],
  ["no data", "event: a\n\ndata: 1\n\n", [["message", "1"]]],
  ["comments, ids, retries and other fields", ": hi\nid: 7\nretry: 3\nother\ndata: 1\n: hi\n\n", [["message", "1"]]],
  ["what is not whole yet", "data: 1\n\ndata: 2\n", [["message", "1"]]],
  ["text beyond ASCII", "data: Grüße 🎉\n\n", [["message", "Grüße 🎉"]]],
])("%s: read alike in any pieces", (_name, text, expected) => {
  for (const size of [Number.POSITIVE_INFINITY, 1, 2, 3, 7]) expect([size, read(text, size)]).toEqual([size, expected]);
});

test("an event that never ends is given up at a mebibyte, in one line or in many", () => {
  expect(() => read(`data: ${"x".repeat(1_100_000)}`, 65_536)).toThrow(/too large/);
  expect(() => read("data: xxxxxxxxxxxxxxxx\n".repeat(60_000), 65_536)).toThrow(/too large/);
  expect(read(`${":".repeat(100)}\n`.repeat(60_000), 65_536)).toEqual([]);
});
