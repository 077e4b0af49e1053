import { expect, test } from "vitest";
import { RequestQuota } from "../../src/peertls-core/request-quota.ts";

const HOUR = 3_600_000;
let fresh = 0;
const asker = (change: Partial<Parameters<RequestQuota["admit"]>[0]> = {}) => {
  fresh += 1;
  return { key: `key ${fresh}`, prefix: `prefix ${fresh}`, issuer: `issuer ${fresh}`, ...change };
};

test("a key asks once a day", () => {
  const quota = new RequestQuota();
  expect(quota.admit(asker({ key: "alice" }), 0)).toBe(true);
  expect(quota.admit(asker({ key: "alice" }), 24 * HOUR - 1)).toBe(false);
  expect(quota.admit(asker({ key: "alice" }), 24 * HOUR)).toBe(true);
});

test.each([
  ["prefix", 3],
  ["issuer", 10],
] as const)("of one %s %i may ask an hour; who was refused counts against nobody", (of, most) => {
  const quota = new RequestQuota();
  for (let n = 0; n < most; n += 1) expect(quota.admit(asker({ [of]: "same" }), n)).toBe(true);
  const late = asker({ [of]: "same" });
  for (let n = 0; n < 20; n += 1) expect(quota.admit(late, most)).toBe(false);
  expect(quota.admit({ ...late, [of]: "another" }, most)).toBe(true);
  expect(quota.admit(asker({ [of]: "same" }), HOUR)).toBe(true);
  expect(quota.admit(asker({ [of]: "same" }), HOUR)).toBe(false);
});

test("a million askers cost bounded memory, and the newest still count", () => {
  const quota = new RequestQuota();
  for (let n = 0; n < 100_000; n += 1) quota.admit(asker(), n);
  const last = asker();
  expect(quota.admit(last, 100_000)).toBe(true);
  expect(quota.admit(last, 100_001)).toBe(false);
});
