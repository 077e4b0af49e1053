import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  dataToken,
  hostPort,
  type Line,
  LineReader,
  MAX_LINE,
  networkProtocol,
  parseCommand,
  parseDataToken,
  parseHash,
  parseObjectState,
  timeVal,
} from "../../src/ftps/grammar.ts";

function linesOf(bytes: Buffer, size: number): Line[] {
  const reader = new LineReader();
  const lines: Line[] = [];
  for (let at = 0; at < bytes.length; at += size) {
    reader.push(bytes.subarray(at, at + size));
    for (let line = reader.next(); line !== undefined; line = reader.next()) lines.push(line);
  }
  return lines;
}

const line = (text: string): Line => ({ kind: "line", text });
const bytes = (...parts: (string | number[])[]) =>
  Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : Buffer.from(part))));

const cases: [string, Buffer, Line[]][] = [
  [
    "CRLF and LF end a line, one CR before LF goes",
    bytes("NOOP\r\nPWD\nX\r\r\n"),
    [line("NOOP"), line("PWD"), line("X\r")],
  ],
  ["an empty line is a line", bytes("\r\n\n"), [line(""), line("")]],
  ["without its end it is none yet", bytes("NOOP"), []],
  ["spaces stay", bytes("STOR  a b \r\n"), [line("STOR  a b ")]],
  ["Telnet IP and Synch go", bytes([0xff, 0xf4, 0xff, 0xf2], "ABOR\r\n"), [line("ABOR")]],
  ["IAC before a Data Mark that came as urgent data", bytes([0xff, 0xf4, 0xff], "ABOR\r\n"), [line("ABOR")]],
  ["Telnet options go with their byte", bytes([0xff, 0xfd, 0x06, 0xff, 0xfb, 0x41], "NOOP\r\n"), [line("NOOP")]],
  ["UTF-8", bytes("CWD \u00e9\u{1f600}\r\n"), [line("CWD \u00e9\u{1f600}")]],
  ["not UTF-8, and the next line", bytes("CWD ", [0xc3, 0x28], "\r\nPWD\r\n"), [{ kind: "not-utf8" }, line("PWD")]],
  ["the longest line", bytes(`${"x".repeat(MAX_LINE)}\n`), [line("x".repeat(MAX_LINE))]],
  ["one byte more, with its end", bytes(`${"x".repeat(MAX_LINE + 1)}\n`), [{ kind: "too-long" }]],
  ["one byte more, without", bytes("x".repeat(MAX_LINE + 1)), [{ kind: "too-long" }]],
];

test.each(cases)(
  "a control connection is cut into lines alike, whole and byte by byte: %s",
  (_name, input, expected) => {
    expect(linesOf(input, input.length)).toEqual(expected);
    expect(linesOf(input, 1).slice(0, expected.length)).toEqual(expected);
  },
);

test("any bytes at any cuts give the same lines", () => {
  const input = fc
    .uint8Array({ maxLength: 300 })
    .map((octets) => Buffer.from(octets).map((one) => (one < 40 ? 0x0a : one)));
  fc.assert(
    fc.property(input, fc.integer({ min: 1, max: 50 }), (octets, size) => {
      expect(linesOf(Buffer.from(octets), size)).toEqual(linesOf(Buffer.from(octets), 300));
    }),
  );
});

test.each([
  ["noop", { verb: "NOOP" }],
  ["STOR a", { verb: "STOR", argument: "a" }],
  ["stor  a ", { verb: "STOR", argument: " a " }],
  ["CWD ", { verb: "CWD" }],
  ["", { verb: "" }],
])("the command %j", (text, expected) => {
  expect(parseCommand(text)).toEqual(expected);
});

test("PASV names host and port as RFC 959 §4.1.2 does, also of an IPv4 address in IPv6 form", () => {
  expect(hostPort("127.0.0.1", 50_001)).toBe("127,0,0,1,195,81");
  expect(hostPort("::ffff:10.1.2.3", 21)).toBe("10,1,2,3,0,21");
  expect([networkProtocol("127.0.0.1"), networkProtocol("::1"), networkProtocol("::ffff:1.2.3.4")]).toEqual([
    "1",
    "2",
    "1",
  ]);
});

describe("the token of a data channel", () => {
  test("is 26 characters that tell 16 bytes apart", () => {
    expect(dataToken(Buffer.alloc(16))).toBe("a".repeat(26));
    expect(dataToken(Buffer.alloc(16, 0xff))).toBe(`${"7".repeat(25)}4`);
    expect(dataToken(Buffer.from("000102030405060708090a0b0c0d0e0f", "hex"))).toBe("aaaqeayeaudaocajbifqydiob4");
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (octets) => {
        expect(dataToken(octets)).toMatch(/^[a-z2-7]{26}$/);
      }),
    );
  });

  test("is read from our 229, and from nothing else", () => {
    const token = "7q3kzm2vbn5w4xhd6tprcyfa3e";
    expect(parseDataToken(`229 Entering Extended Passive Mode, data ${token} (|||4605|)`)).toBe(token);
    for (const other of [
      "229 Entering Extended Passive Mode (|||4605|)",
      `229 Entering Extended Passive Mode, data ${token}a (|||4605|)`,
      `229 Entering Extended Passive Mode, data ${token.toUpperCase()} (|||4605|)`,
      `200 data ${token} (|||4605|)`,
      "",
    ]) {
      expect(() => parseDataToken(other)).toThrow(expect.objectContaining({ code: "unsupported" }) as Error);
    }
  });
});

test("times are told as RFC 3659 §2.3 does, in UTC", () => {
  expect(timeVal(new Date("2026-01-02T03:04:05.678Z"))).toBe("20260102030405");
});

describe("what a peer says of an object that was sent before", () => {
  const mlst = (facts: string) => `250-Listing "/inbox/x.p7m":\n ${facts} /inbox/x.p7m\n250 End MLST.`;
  test.each([
    ["type=file;perm=;size=5;x.state=opened;x.digest=00ff;", { state: "opened", digest: "00ff" }],
    ["Type=file;Size=5;X.State=partial;", { state: "partial" }],
    ["type=file;size=5;x.state=opened;", undefined],
    ["type=file;size=5;x.state=other;", undefined],
    ["type=file;size=5;", undefined],
    ["", undefined],
  ])("%j is %j", (facts, state) => {
    expect(parseObjectState(mlst(facts))).toEqual(state);
  });

  test("is not taken from a file's name", () => {
    expect(parseObjectState("250-Listing:\n type=file; /x.state=partial; x\n250 End.")).toBeUndefined();
  });

  test.each([
    [`213 SHA-256 0-70 ${"A".repeat(64)} /x`, { size: 70, sha256: "a".repeat(64) }],
    [`213 SHA-1 0-70 ${"a".repeat(40)} /x`, undefined],
    [`213 SHA-256 5-70 ${"a".repeat(64)} /x`, undefined],
    [`213 SHA-256 0-9999999999999999 ${"a".repeat(64)} /x`, undefined],
    ["", undefined],
  ])("%j is %j", (reply, hash) => {
    expect(parseHash(reply)).toEqual(hash);
  });
});
