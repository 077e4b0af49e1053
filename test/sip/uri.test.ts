import { describe, expect, test } from "vitest";
import { addressOfRecord, parseSipUri, sipUriOf } from "../../src/sip/uri.ts";

describe("a SIP URI (RFC 3261 §19.1) is read", () => {
  test.each<[string, string, object]>([
    ["plain", "sip:alice@atlanta.com", { scheme: "sip", user: "alice", host: "atlanta.com" }],
    ["without user", "sip:atlanta.com", { scheme: "sip", host: "atlanta.com" }],
    ["secure, in capitals", "SIPS:Alice@ATLANTA.com", { scheme: "sips", user: "Alice", host: "atlanta.com" }],
    ["with port", "sip:a@b.test:5062", { port: 5062 }],
    ["with the highest port", "sip:a@b.test:65535", { port: 65_535 }],
    ["with a password, which is dropped", "sip:alice:secret@b.test", { user: "alice" }],
    [
      "with parameters, case-insensitive names",
      "sip:a@b.test;Transport=TCP;lr",
      {
        parameters: new Map([
          ["transport", "TCP"],
          ["lr", ""],
        ]),
      },
    ],
    ["with IPv6 (RFC 5118)", "sip:a@[2001:DB8::10]:5070", { host: "[2001:db8::10]", port: 5070 }],
    [
      "with escapes, undone once (§19.1.4)",
      "sip:%61lice%2525@b.test;%6C%72;n%61me=v%61lue%25%34%31",
      {
        user: "alice%25",
        parameters: new Map([
          ["lr", ""],
          ["name", "value%41"],
        ]),
      },
    ],
    ["with an escaped NUL", "sip:null-%00-null@b.test", { user: "null-\0-null" }],
    [
      "with headers, kept apart",
      "sip:a@b.test;x=y?Route=%3Csip:c%3E",
      { headers: "Route=%3Csip:c%3E", parameters: new Map([["x", "y"]]) },
    ],
    [
      "with ; and ? in the user (RFC 4475 §3.1.1.9)",
      "sip:user;par=u%40example.net?x@b.test",
      { user: "user;par=u@example.net?x", parameters: new Map() },
    ],
    [
      "with every odd character of RFC 4475 §3.1.1.2",
      "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
      { user: "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*" },
    ],
    ["as a telephone number", "sip:+19725552222@gw1.example.net;unknownparam", { user: "+19725552222" }],
  ])("%s", (_name, text, expected) => {
    expect(parseSipUri(text)).toMatchObject(expected);
  });

  test.each<[string, string, string]>([
    ["nothing", "", "syntax"],
    ["without scheme", "alice@b.test", "syntax"],
    ["of another scheme", "tel:+1", "unsupported"],
    ["of a compound scheme", "soap.beep://192.0.2.103:3002", "unsupported"],
    ["an empty host", "sip:alice@", "syntax"],
    ["an empty user", "sip:@b.test", "syntax"],
    ["white space in the host", "sip:a@b test", "syntax"],
    ["white space before", " sip:a@b.test", "syntax"],
    ["a space in the user", "sip:a b@c.test", "syntax"],
    ["two @", "sip:a@b@c.test", "syntax"],
    ["a bad escape", "sip:%zz@b.test", "syntax"],
    ["a cut escape", "sip:%4@b.test", "syntax"],
    ["an escape that is no UTF-8", "sip:%ff@b.test", "syntax"],
    ["an overlong escape", "sip:%c0%80@b.test", "syntax"],
    ["a port over 65535", "sip:a@b.test:65536", "syntax"],
    ["a port that is no number", "sip:a@b.test:50a", "syntax"],
    ["an empty port", "sip:a@b.test:", "syntax"],
    ["an empty parameter", "sip:a@b.test;;lr", "syntax"],
    ["a space in a parameter", "sip:a@b.test;x=a b", "syntax"],
    ["two = in a parameter", "sip:a@b.test;x=a=b", "syntax"],
    ["angle brackets", "<sip:a@b.test>", "syntax"],
    ["a quote in a parameter", 'sip:a@b.test;x="y"', "syntax"],
    ["a space in the headers", "sip:a@b.test?a=b c", "syntax"],
    ["over 4096 characters", `sip:${"a".repeat(4_100)}@b.test`, "syntax"],
    ["an unclosed IPv6 literal", "sip:a@[::1", "syntax"],
  ])("but not %s", (_name, text, code) => {
    expect(() => parseSipUri(text)).toThrow(expect.objectContaining({ code }));
  });
});

describe("an identity as a SIP URI", () => {
  test.each([
    ["alice@alpha.test", "sip:alice@alpha.test"],
    ["a;b%c#d@alpha.test", "sip:a%3Bb%25c%23d@alpha.test"],
    ["jürgen@xn--mnchen-3ya.de", "sip:j%C3%BCrgen@xn--mnchen-3ya.de"],
    ["a`{|}^@alpha.test", "sip:a%60%7B%7C%7D%5E@alpha.test"],
  ])("%s", (identity, uri) => {
    expect(sipUriOf(identity)).toBe(uri);
    expect(addressOfRecord(parseSipUri(uri))).toBe(identity);
  });

  test("without user there is no address of record", () => {
    expect(addressOfRecord(parseSipUri("sip:alpha.test"))).toBeUndefined();
  });
});
