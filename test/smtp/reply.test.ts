import { describe, expect, test } from "vitest";
import { outcomeOf } from "../../src/delivery/outcome.ts";
import { SuiteError, type SuiteErrorCode } from "../../src/pki/suite-error.ts";
import { failureOf, Refusal, replyOf, replyOfThrown } from "../../src/smtp/reply.ts";

/** Every code: the record type does not compile when one is missing. */
const TABLE: Readonly<Record<SuiteErrorCode, string>> = {
  "certificate-malformed": "554 5.7.1",
  "certificate-invalid": "554 5.7.1",
  "identity-invalid": "553 5.1.3",
  "identity-mismatch": "554 5.7.1",
  "refused-by-peer": "550 5.7.1",
  "refused-by-policy": "550 5.7.1",
  unreachable: "451 4.4.1",
  "handshake-failed": "451 4.4.1",
  syntax: "501 5.5.2",
  "limit-exceeded": "552 5.3.4",
  unsupported: "555 5.5.4",
  "auth-failed": "535 5.7.8",
  forbidden: "550 5.7.1",
  "not-found": "550 5.1.1",
  conflict: "451 4.3.0",
  busy: "451 4.3.2",
  cancelled: "451 4.3.0",
  "unknown-recipient": "550 5.1.1",
  "directory-unavailable": "451 4.4.3",
  "record-rejected": "451 4.4.3",
  "record-rollback": "451 4.4.3",
  "record-fork": "451 4.4.3",
  "seal-malformed": "554 5.6.0",
  "seal-not-for-us": "554 5.7.5",
  "seal-unsupported": "554 5.7.6",
  "seal-unreadable": "554 5.6.0",
  "seal-wrong-signer": "554 5.6.0",
  "seal-untrusted": "554 5.6.0",
  "seal-not-addressed": "554 5.6.0",
  "seal-too-large": "552 5.3.4",
  "seal-rate-limited": "451 4.7.1",
  "not-sealed": "523 5.7.10",
  "recipient-unusable": "451 4.3.0",
  "source-changed": "451 4.3.0",
  "store-failed": "452 4.3.1",
  "quota-exceeded": "452 4.2.2",
  "config-invalid": "451 4.3.0",
  internal: "451 4.3.0",
};
const codes = Object.keys(TABLE) as SuiteErrorCode[];

describe("failure → reply", () => {
  test.each(codes)("%s", (code) => {
    const reply = replyOf(code);
    expect(`${reply.code} ${reply.enhanced}`).toBe(TABLE[code]);
    expect(reply.text).toMatch(/^[\x20-\x7e]{4,80}$/);
    expect(String(reply.code)[0]).toBe(reply.enhanced[0]);
  });

  test("all failures behind the use of a private key share one reply, byte for byte", () => {
    const after = ["seal-unreadable", "seal-wrong-signer", "seal-untrusted", "seal-not-addressed"] as const;
    expect(new Set(after.map((code) => JSON.stringify(replyOf(code)))).size).toBe(1);
  });

  test("at the end of DATA a syntax error is a 554; what is no SuiteError is a local fault; a refusal says itself what it is", () => {
    const syntax = new SuiteError("syntax", "x", { fault: "peer" });
    expect(replyOfThrown(syntax, "data")).toMatchObject({ code: 554, enhanced: "5.5.2" });
    expect(replyOfThrown(syntax, "command")).toMatchObject({ code: 501, enhanced: "5.5.2" });
    expect(replyOfThrown(new TypeError("x"), "data")).toMatchObject({ code: 451, enhanced: "4.3.0" });
    expect(replyOfThrown(new Refusal(554, "5.4.6", "x"), "data")).toEqual({ code: 554, enhanced: "5.4.6", text: "x" });
  });
});

describe("a peer's reply → what becomes of the mail", () => {
  test.each([
    [421, "4.3.2", "busy", "again"],
    [451, "4.7.1", "busy", "again"],
    [452, undefined, "busy", "again"],
    [523, "5.7.10", "not-sealed", "failed"],
    [550, "5.1.1", "unknown-recipient", "failed"],
    [550, "5.7.1", "refused-by-policy", "failed"],
    [550, undefined, "refused-by-policy", "failed"],
    [552, "5.3.4", "limit-exceeded", "failed"],
    [554, "5.7.5", "seal-not-for-us", "failed"],
    [554, "5.7.6", "seal-unsupported", "failed"],
    [554, "5.6.0", "seal-unreadable", "failed"],
    [554, "5.5.2", "syntax", "failed"],
    [500, undefined, "syntax", "failed"],
  ] as const)("%i %s is %s: %s", (code, enhanced, failure, next) => {
    const error = failureOf({ code, ...(enhanced === undefined ? {} : { enhanced }) });
    expect(error.code).toBe(failure);
    expect(outcomeOf(error).next).toBe(next);
  });

  test("what a SixTalk node refuses for good is not tried again, what it refuses for now is", () => {
    for (const code of codes) {
      const reply = replyOf(code);
      expect(outcomeOf(failureOf(reply)).next).toBe(reply.code < 500 ? "again" : "failed");
    }
  });
});
