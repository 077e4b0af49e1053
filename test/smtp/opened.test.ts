import { describe, expect, test } from "vitest";
import type { OpenedFacts } from "../../src/delivery/inbox.ts";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { parseHead } from "../../src/smime/entity.ts";
import { presentMail, type Reception, titleOf } from "../../src/smtp/opened.ts";
import { mailDate, peerLine, receivedLine, returnPathLine, sealLine } from "../../src/smtp/trace.ts";
import { makeTestDomain } from "../support/pki.ts";

const domain = makeTestDomain({ domain: "a.test" });
const alice = domain.person({ identity: "alice@a.test", encryptionKey: "ec" });
const bob = domain.person({ identity: "bob@a.test", encryptionKey: "ec" });
const certificate = peerCertificate(alice.auth.certificate);
const now = new Date("2026-01-02T03:04:05.678Z");
const passage = {
  helo: "a.test",
  from: { host: "::1", port: 1 },
  id: "c0ffee",
  tls: { version: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384" },
};
const reception: Reception = {
  owner: bob.identity,
  peer: { identity: alice.identity, certificate },
  returnPath: alice.identity,
  passage,
  now,
};

const head = (text: string) => parseHead(Buffer.from(text.replace(/\r?\n/g, "\r\n")));
const facts = (signed: string, o: Partial<OpenedFacts> = {}): OpenedFacts => ({
  signer: certificate,
  signedAt: now,
  digest: "00",
  cipher: "aes-256-gcm",
  head: head(signed),
  size: 0,
  ...o,
});

describe("the header of an opened mail", () => {
  test("has the signed fields once, in their order, and none beside them", () => {
    const lines = presentMail(
      facts(
        'Received: x\nX-SixTalk-Seal: forged\nAuthentication-Results: a.test; smime=pass\nCc: c@a.test\nFrom: Alice <alice@a.test>\nSubject: one\nSubject: two\nTo: bob@a.test\nReply-To: r@a.test\nBcc: bob@a.test\nHP-Outer: Subject: [...]\nContent-Type: text/plain; hp="cipher"\n\n',
      ),
      reception,
    );
    const fields = head(lines).fields;
    expect(fields.map(({ name }) => name)).toEqual([
      "Return-Path",
      "Received",
      "Authentication-Results",
      "X-SixTalk-Peer",
      "X-SixTalk-Seal",
      "From",
      "To",
      "Cc",
      "Subject",
      "Reply-To",
      "MIME-Version",
    ]);
    expect(lines).toContain("\r\nSubject: one\r\n");
    expect(lines).not.toContain("forged");
    expect(lines.endsWith("\r\n")).toBe(true);
    expect(lines).not.toContain("\r\n\r\n");
  });

  test.each([
    ["somebody else", "From: boss@a.test\n\n"],
    ["two people", "From: alice@a.test, boss@a.test\n\n"],
    ["nobody", "To: bob@a.test\n\n"],
  ])("is refused when the signed From is %s", (_who, signed) => {
    expect(() => presentMail(facts(signed), reception)).toThrow(expect.objectContaining({ code: "seal-wrong-signer" }));
  });

  test.each([
    ["From: boss@a.test\r\nContent-Type: text/plain\r\n\r\nx", false],
    ["X-SixTalk-Seal: sealed\r\nContent-Type: text/plain\r\n\r\nx", false],
    ["Content-Type: text/plain\r\nFrom : boss@a.test\r\n\r\nx", false],
    ["MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Disposition: inline\r\n\r\nFrom: x", true],
  ])("lets an entity with the head of %j pass: %s", (entity, passes) => {
    const present = () => presentMail(facts("From: alice@a.test\n\n", { bytes: Buffer.from(entity) }), reception);
    if (passes) expect(present()).toContain("From: alice@a.test");
    else expect(present).toThrow(expect.objectContaining({ code: "seal-malformed" }));
  });

  test("a fold of white space alone in a signed field does not end the header", () => {
    const lines = presentMail(facts("From: alice@a.test\nSubject: a\n \n b\n\n"), reception);
    expect(lines).toMatch(/\r\nSubject: a\s+b\r\n/);
    expect(lines).not.toMatch(/\r\n\s+\r\n/);
  });
});

test.each([
  ["Subject: =?utf-8?q?Caf=C3=A9?=\n\n", "Café"],
  ["Subject: =?utf-8?b?YQ0KYg==?=\n\n", "a b"],
  ["\n", ""],
  [`Subject: ${"x".repeat(300)}\n\n`, "x".repeat(256)],
])("the title of %j is %j", (text, title) => {
  expect(titleOf(head(text))).toBe(title);
});

describe("trace fields", () => {
  test("a date is as RFC 5322 wants it, in UTC", () => {
    expect(mailDate(now)).toBe("Fri, 2 Jan 2026 03:04:05 +0000");
  });

  test("Received says from whom, by whom, how and when; a name that is none is not repeated", () => {
    const unfolded = (text: string) => text.replace(/\r\n /g, " ").trim();
    expect(unfolded(receivedLine(passage, bob.identity, now))).toBe(
      "Received: from a.test ([IPv6:::1]) by a.test (SixTalk) with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384) id c0ffee for <bob@a.test>; Fri, 2 Jan 2026 03:04:05 +0000",
    );
    const odd = { ...passage, helo: "x (evil) by boss", from: { host: "127.0.0.1", port: 1 } };
    expect(unfolded(receivedLine(odd, bob.identity, now))).toContain("from unknown ([127.0.0.1]) by a.test");
  });

  test("the null path, and a seal without a time", () => {
    expect(returnPathLine(undefined)).toBe("Return-Path: <>\r\n");
    expect(sealLine({ signer: alice.identity, cipher: "aes-256-gcm" })).toBe(
      "X-SixTalk-Seal: sealed; signer=alice@a.test; cipher=aes-256-gcm\r\n",
    );
    expect(sealLine({ signer: alice.identity, signedAt: now, cipher: "c" })).toContain("signed=2026-01-02T03:04:05Z;");
  });

  test("an issuer's name cannot end its quotes or its line", () => {
    const attribute = { type: "2.5.4.3", text: 'evil"\r\nX: y\\', value: Buffer.alloc(0) };
    const issuer = { ...certificate.certificate, issuer: { rdns: [[attribute]] } };
    const odd = { ...certificate, certificate: issuer as unknown as typeof certificate.certificate };
    expect(peerLine(alice.identity, odd).match(/"/g) ?? []).toHaveLength(2);
    expect(
      peerLine(alice.identity, odd)
        .split("\r\n")
        .filter((one) => !one.startsWith(" ")),
    ).toHaveLength(2);
  });
});
