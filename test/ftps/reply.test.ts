import { expect, test } from "vitest";
import { failureOf, formatReply, REPLIES, type Reply, reply, replyOf } from "../../src/ftps/reply.ts";
import type { SuiteErrorCode } from "../../src/pki/suite-error.ts";

/** architecture.md §6; a code that is missing here does not compile. */
const CODES: Readonly<Record<SuiteErrorCode, number>> = {
  "certificate-malformed": 530,
  "certificate-invalid": 530,
  "identity-invalid": 550,
  "identity-mismatch": 530,
  "refused-by-peer": 530,
  "refused-by-policy": 530,
  unreachable: 425,
  "handshake-failed": 425,
  syntax: 501,
  "limit-exceeded": 552,
  unsupported: 504,
  "auth-failed": 530,
  forbidden: 550,
  "not-found": 550,
  conflict: 450,
  busy: 450,
  cancelled: 426,
  "unknown-recipient": 550,
  "directory-unavailable": 451,
  "record-rejected": 451,
  "record-rollback": 451,
  "record-fork": 451,
  "seal-malformed": 553,
  "seal-not-for-us": 553,
  "seal-unsupported": 553,
  "seal-unreadable": 553,
  "seal-wrong-signer": 553,
  "seal-untrusted": 553,
  "seal-not-addressed": 553,
  "seal-too-large": 552,
  "seal-rate-limited": 451,
  "not-sealed": 553,
  "recipient-unusable": 451,
  "source-changed": 451,
  "store-failed": 452,
  "quota-exceeded": 452,
  "config-invalid": 451,
  internal: 451,
};

test("every failure has its reply, and all refusals of a seal are one text", () => {
  for (const [code, expected] of Object.entries(CODES) as [SuiteErrorCode, number][]) {
    expect([code, replyOf(code).code]).toEqual([code, expected]);
  }
  const texts = Object.entries(CODES).filter(([, code]) => code === 553);
  expect(new Set(texts.map(([code]) => replyOf(code as SuiteErrorCode).text))).toEqual(new Set(["Seal not accepted."]));
});

test.each<[string, Reply, string]>([
  ["one line", reply(200, "ok"), "200 ok\r\n"],
  ["several", reply(211, ["Features:", "SIZE", "End."]), "211-Features:\r\n SIZE\r\n211 End.\r\n"],
  [
    "what would end the line",
    reply(500, 'Command "A\r\n226 B\u007f" not understood.'),
    '500 Command "A??226 B?" not understood.\r\n',
  ],
  ["the same in one of several", reply(213, ["A", "B\r\nC", "D"]), "213-A\r\n B??C\r\n213 D\r\n"],
  ["a line that looks like the last", reply(213, ["A", "213 x", "B"]), "213-A\r\n 213 x\r\n213 B\r\n"],
])("a reply is written as RFC 959 §4.2 says: %s", (_name, what, expected) => {
  expect(formatReply(what)).toBe(expected);
});

test("no text of the table breaks its line", () => {
  for (const one of Object.values(REPLIES)) expect(formatReply(one)).toMatch(/^\d{3} [\x20-\x7e]+\r\n$/);
});

test.each([
  [553, "seal-unreadable", false],
  [552, "limit-exceeded", false],
  [550, "forbidden", false],
  [530, "refused-by-policy", false],
  [421, "busy", true],
  [425, "busy", true],
  [426, "busy", true],
  [450, "conflict", true],
  [451, "busy", true],
  [452, "busy", true],
  [500, "unsupported", false],
  [504, "unsupported", false],
])("a peer's %d means %s", (code, expected, temporary) => {
  expect(failureOf(code)).toMatchObject({ code: expected, temporary, details: { reply: code } });
});
