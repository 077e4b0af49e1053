import { expect, test } from "vitest";
import { type Outcome, outcomeOf } from "../../src/delivery/outcome.ts";
import type { SuiteErrorCode } from "../../src/pki/suite-error.ts";
import { failure } from "./party.ts";

const row = { for: "row", next: "again" } as const;
const failed = (reason: string) => ({ for: "row", next: "failed", reason }) as Outcome;

const table: [code: SuiteErrorCode, fault: "peer" | "local" | "service", temporary: boolean, Outcome][] = [
  ["unreachable", "peer", true, { for: "peer", next: "again" }],
  ["handshake-failed", "peer", false, { for: "peer", next: "again" }],
  ["certificate-invalid", "peer", false, { for: "peer", next: "again" }],
  ["identity-mismatch", "peer", false, { for: "peer", next: "held", reason: "identity-mismatch" }],
  ["refused-by-peer", "peer", false, { for: "peer", next: "held", reason: "not-admitted" }],
  ["directory-unavailable", "service", true, { for: "directory", next: "again" }],
  ["directory-unavailable", "peer", true, row],
  ["record-rejected", "service", false, { for: "peer", next: "record-rejected" }],
  ["record-rollback", "service", false, { for: "peer", next: "record-rejected" }],
  ["record-fork", "service", false, { for: "peer", next: "record-rejected" }],
  ["unknown-recipient", "peer", false, failed("unknown")],
  ["unknown-recipient", "peer", true, row],
  ["refused-by-policy", "peer", false, failed("policy")],
  ["limit-exceeded", "peer", false, failed("too-big")],
  ["quota-exceeded", "peer", true, row],
  ["seal-rate-limited", "peer", true, row],
  ["seal-unreadable", "peer", false, failed("seal-rejected")],
  ["not-sealed", "peer", false, failed("seal-rejected")],
  ["syntax", "peer", false, failed("syntax")],
  ["forbidden", "peer", false, failed("refused")],
  ["store-failed", "peer", true, row],
  ["store-failed", "local", true, row],
  ["recipient-unusable", "peer", false, row],
  ["internal", "local", true, row],
];

test.each(table)("%s (fault: %s, temporary: %s)", (code, fault, temporary, expected) => {
  expect(outcomeOf(failure(code, { fault, temporary }))).toEqual(expected);
});
