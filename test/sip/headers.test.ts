import { describe, expect, test } from "vitest";
import { splitList } from "../../src/sip/grammar.ts";
import { parseAuthParameters, parseNameAddr, parseVia } from "../../src/sip/headers.ts";

describe("Via (RFC 3261 §20.42)", () => {
  test.each<[string, string, object]>([
    [
      "plain",
      "SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bK77",
      { transport: "UDP", host: "pc33.atlanta.com", parameters: new Map([["branch", "z9hG4bK77"]]) },
    ],
    [
      "with port and an empty rport (RFC 3581)",
      "SIP/2.0/TCP 10.1.1.1:4540;rport;branch=z",
      {
        port: 4540,
        parameters: new Map<string, string | undefined>([
          ["rport", undefined],
          ["branch", "z"],
        ]),
      },
    ],
    [
      "with white space everywhere (RFC 4475 §3.1.1.1)",
      "SIP  / 2.0  / TCP     spindle.example.com   ; branch  =   z9hG4bK9ikj8  ",
      { transport: "TCP", host: "spindle.example.com", parameters: new Map([["branch", "z9hG4bK9ikj8"]]) },
    ],
    [
      "IPv6, received with and without brackets (RFC 5118 §4.5)",
      "SIP/2.0/UDP [2001:db8::9:1]:6050;received=2001:db8::9:255;x=[::1]",
      {
        host: "[2001:db8::9:1]",
        port: 6050,
        parameters: new Map([
          ["received", "2001:db8::9:255"],
          ["x", "[::1]"],
        ]),
      },
    ],
    ["an unknown transport", "SIP/2.0/unknown t1.example.com", { transport: "UNKNOWN" }],
    [
      "a quoted value with a semicolon",
      'SIP/2.0/UDP a;x="b;c";y',
      {
        parameters: new Map<string, string | undefined>([
          ["x", "b;c"],
          ["y", undefined],
        ]),
      },
    ],
  ])("%s", (_name, text, expected) => {
    expect(parseVia(text)).toMatchObject(expected);
  });

  test.each([
    ["empty", ""],
    ["another version", "SIP/3.0/UDP a"],
    ["no host", "SIP/2.0/UDP"],
    ["empty parameters (RFC 4475 §3.1.2.1)", "SIP/2.0/UDP 192.0.2.15;;,;,,"],
    ["a comma behind", "SIP/2.0/UDP a;b=c,d"],
    ["nonsense behind the host", "SIP/2.0/UDP a b"],
    ["65 parameters", `SIP/2.0/UDP a${Array.from({ length: 65 }, (_one, n) => `;p${n}=1`).join("")}`],
  ])("%s is malformed", (_name, text) => {
    expect(() => parseVia(text)).toThrow(expect.objectContaining({ code: "syntax" }));
  });
});

describe("From, To, Contact (§20.10)", () => {
  test.each<[string, string, object]>([
    [
      "quoted display name",
      '"A. G. Bell" <sip:agb@bell.test>;tag=a48s',
      { display: "A. G. Bell", uriText: "sip:agb@bell.test", parameters: new Map([["tag", "a48s"]]) },
    ],
    ["token display name", "Anonymous  User <sip:c8@p.test>", { display: "Anonymous  User" }],
    ["no space before < (RFC 4475 §3.1.1.6)", "caller<sip:caller@example.com>;tag=323", { display: "caller" }],
    ["no display name", "<sip:a@b.test>", { display: "" }],
    ["escapes in quotes", '"a \\"b\\" \\\\" <sip:a@b.test>', { display: 'a "b" \\' }],
    ["an angle bracket and a comma in quotes", '"a <b>, c" <sip:a@b.test>', { display: "a <b>, c" }],
    ["unquoted letters beyond ASCII, as programs write them", "Jürgen <sip:a@b.test>", { display: "Jürgen" }],
    [
      "parameters of the URI stay in it",
      "<sip:a@b.test;x=y>;z",
      { uriText: "sip:a@b.test;x=y", parameters: new Map([["z", undefined]]) },
    ],
    [
      "without brackets parameters are the field's (RFC 4475 §3.3.12)",
      "sip:+1@gw1.example.net;unknownparam",
      { uriText: "sip:+1@gw1.example.net", parameters: new Map([["unknownparam", undefined]]) },
    ],
    [
      "white space around parameters",
      "sip:a@b.test ;   tag    = 1918181833n",
      { parameters: new Map([["tag", "1918181833n"]]) },
    ],
    [
      "headers of the URI in brackets (RFC 4475 §3.3.14)",
      "<sip:a@b.test?Route=%3Csip:c%3E>",
      { uriText: "sip:a@b.test?Route=%3Csip:c%3E" },
    ],
  ])("%s", (_name, text, expected) => {
    expect(parseNameAddr(text)).toMatchObject(expected);
  });

  test.each<[string, string, string]>([
    ["empty", "", "syntax"],
    ["an open quote (RFC 4475 §3.1.2.6)", '"Mr. J. User <sip:j.user@example.com>', "syntax"],
    ["an open bracket", "<sip:a@b.test", "syntax"],
    ["spaces inside the brackets (RFC 4475 §3.1.2.14)", '"Watson, Thomas" < sip:t.watson@example.org >', "syntax"],
    ["an unquoted comma (RFC 4475 §3.1.2.15)", "Bell, Alexander <sip:a.g.bell@example.com>;tag=43", "syntax"],
    ["headers without brackets (RFC 4475 §3.1.2.13)", "sip:user@example.com?Route=%3Csip:sip.example.com%3E", "syntax"],
    ["text behind the bracket", "<sip:a@b.test> x", "syntax"],
    ["an empty parameter", "<sip:a@b.test>;;tag=1", "syntax"],
    ["two addresses", "<sip:a@b.test>, <sip:c@d.test>", "syntax"],
    ["another scheme", "<isbn:2983792873>", "unsupported"],
  ])("%s is malformed", (_name, text, code) => {
    expect(() => parseNameAddr(text)).toThrow(expect.objectContaining({ code }));
  });

  test("white space and open quotes cost no more time than their length", () => {
    const start = performance.now();
    for (const text of [
      `a${" ".repeat(60_000)}b`,
      `"${"\\".repeat(60_000)}`,
      `<sip:a@b.test>${";a ".repeat(20_000)}`,
      "a ".repeat(30_000),
    ])
      expect(() => {
        parseNameAddr(text);
        throw new Error("read");
      }).toThrow();
    parseAuthParameters(`Digest ${"a".repeat(60_000)}`);
    expect(performance.now() - start).toBeLessThan(500);
  });
});

describe("credentials (§25.1)", () => {
  test("quotes and their escapes go; names are case-insensitive; commas in quotes stay", () => {
    const { scheme, parameters } = parseAuthParameters(
      'Digest Username="a, \\"b\\"", realm=r,nc=00000001 , qop = auth',
    );
    expect(scheme).toBe("digest");
    expect([...parameters]).toEqual([
      ["username", 'a, "b"'],
      ["realm", "r"],
      ["nc", "00000001"],
      ["qop", "auth"],
    ]);
  });

  test.each(["", "Digest", ",", "Dig/est a=b"])("%j is malformed", (text) => {
    expect(() => parseAuthParameters(text)).toThrow(expect.objectContaining({ code: "syntax" }));
  });
});

test.each<[string, string[]]>([
  ["a, b ,c", ["a", "b", "c"]],
  ['"a, b" <sip:c,d@e>, f', ['"a, b" <sip:c,d@e>', "f"]],
  ['"\\", " <x>, y', ['"\\", " <x>', "y"]],
  ["", []],
  [",,", []],
  ["<a,", ["<a,"]],
])("the list %j has its commas outside quotes and brackets", (text, parts) => {
  expect(splitList(text)).toEqual(parts);
});
