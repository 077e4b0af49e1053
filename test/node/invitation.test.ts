import { describe, expect, test } from "vitest";
import { formatInvitation, type Invitation, parseInvitation } from "../../src/node/invitation.ts";
import { parseIdentity } from "../../src/pki/identity.ts";

const invitation: Invitation = {
  identity: parseIdentity("alice@alpha.test"),
  at: { irp: { host: "::1", port: 4604 }, sixidPort: 4606 },
  code: "7K3M-9ABC",
  rootHash: "0123456789abcdef0123456789abcdef",
};
const link = "sixtalk://[::1]:4604/alice@alpha.test?sixid=4606&code=7K3M-9ABC&root=0123456789abcdef0123456789abcdef";

test("an invitation is written as one link", () => {
  expect(formatInvitation(invitation)).toBe(link);
});

test.each<[string, Partial<Invitation>]>([
  ["IPv6", {}],
  ["IPv4", { at: { irp: { host: "192.0.2.1", port: 1 }, sixidPort: 4606 } }],
  ["other ports", { at: { irp: { host: "2001:db8::1", port: 65_535 }, sixidPort: 1 } }],
  ["letters beyond ASCII", { identity: parseIdentity("jürgen@alpha.test") }],
  ["odd characters in the user", { identity: parseIdentity("a+b%c/d@alpha.test") }],
])("%s comes back as it was", (_name, change) => {
  const one = { ...invitation, ...change };
  expect(parseInvitation(formatInvitation(one))).toEqual(one);
});

test("white space around a pasted link does not matter, and the directory's port may be left out", () => {
  expect(parseInvitation(` ${link}\n`)).toEqual(invitation);
  expect(parseInvitation(link.replace("sixid=4606&", "")).at?.sixidPort).toBe(4606);
});

test("one that says nothing of servers leaves them to the DNS", () => {
  const { at: _at, ...rest } = invitation;
  const short = "sixtalk:alice@alpha.test?code=7K3M-9ABC&root=0123456789abcdef0123456789abcdef";
  expect(formatInvitation(rest)).toBe(short);
  expect(parseInvitation(short)).toEqual(rest);
});

describe("no invitation", () => {
  test.each<[string, string]>([
    ["nothing", ""],
    ["another scheme", link.replace("sixtalk:", "https:")],
    ["a name for the host", link.replace("[::1]", "alpha.test")],
    ["no port", link.replace(":4604", "")],
    ["no person", link.replace("alice@alpha.test", "")],
    ["no code", link.replace("7K3M-9ABC", "")],
    ["no root", link.replace(/&root=.*/, "")],
    ["a root of 31 digits", link.slice(0, -1)],
    ["a root in capitals", link.replace("abcdef0", "ABCDEF0")],
    ["a port over 65535", link.replace(":4604", ":99999")],
    ["another one", link.replace("sixid=4606", "sixid=65536")],
    ["a port that is no number", link.replace("sixid=4606", "sixid=x")],
    ["cut off", link.slice(0, 40)],
  ])("%s", (_name, text) => {
    expect(() => parseInvitation(text)).toThrow(expect.objectContaining({ code: "syntax" }));
  });

  test("for somebody who cannot be", () => {
    expect(() => parseInvitation(link.replace("alice@alpha.test", "alice"))).toThrow(
      expect.objectContaining({ code: "identity-invalid" }),
    );
  });
});
