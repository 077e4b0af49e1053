import { expect, test } from "vitest";
import { DenialLog } from "../../src/peertls-core/denials.ts";
import type { Denial } from "../../src/peertls-core/door.ts";
import { recordLog } from "../support/record-log.ts";

const denial: Denial = {
  at: new Date(0),
  direction: "in",
  protocol: "sip",
  reason: "not-admitted",
  alert: 49,
  address: { host: "::1", port: 1 },
};

test("a hundred denials a minute are told one by one; of more it is told how many they were", () => {
  const log = recordLog();
  let now = 0;
  const denials = new DenialLog(log, () => now);
  for (let n = 0; n < 100; n += 1) denials.tell(denial, "contacts");
  expect(log.lines).toHaveLength(100);
  expect(log.lines[0]).toMatchObject({
    level: "warn",
    message: "peer denied",
    fields: { reason: "not-admitted", alert: 49, address: { host: "::1" }, entry: "contacts" },
  });
  now = 59_999;
  for (let n = 0; n < 7; n += 1) denials.tell(denial);
  denials.tell({ ...denial, reason: "expired" });
  expect(log.lines).toHaveLength(100);
  now = 60_000;
  denials.tell({ ...denial, reason: "blocked" });
  expect(log.lines).toHaveLength(102);
  expect(log.lines[100]?.fields).toEqual({ reasons: { "not-admitted": 7, expired: 1 } });
  expect(log.lines[101]?.fields).toMatchObject({ reason: "blocked" });
  denials.tellRest();
  expect(log.lines).toHaveLength(102);
});
