import { describe, expect, test } from "vitest";
import { delayAfter, expiryGuard, expiryOf, SCHEDULE } from "../../src/delivery/schedule.ts";

describe("delay before an attempt (delivery.md §1.4)", () => {
  const rows: [failures: number, seconds: number][] = [
    [0, 0],
    [1, 15],
    [2, 60],
    [3, 300],
    [4, 900],
    [5, 1800],
    [6, 3600],
    [7, 3600],
    [1000, 3600],
  ];
  test.each(rows)("after %d failures it is %d s", (failures, seconds) => {
    expect(delayAfter(failures, 0.5)).toBe(seconds * 1000);
  });

  test("jitter makes it at most a tenth shorter or longer", () => {
    expect(delayAfter(1, 0)).toBe(13_500);
    expect(delayAfter(1, 0.999_999_999)).toBe(16_500);
  });

  test("a schedule of its own repeats its last delay", () => {
    expect(delayAfter(5, 0.5, [0, 1])).toBe(1_000);
    expect(SCHEDULE[0]).toBe(0);
  });
});

describe("expiry", () => {
  const accepted = new Date("2026-11-23T00:00:00Z");
  const rows: [name: string, seconds: number | undefined, expected: string][] = [
    ["five days by default", undefined, "2026-11-28T00:00:00.000Z"],
    ["not before a minute", 1, "2026-11-23T00:01:00.000Z"],
    ["not after 30 days", 1e9, "2026-12-23T00:00:00.000Z"],
  ];
  test.each(rows)("is %s", (_, seconds, expected) => {
    expect(expiryOf(accepted, seconds).toISOString()).toBe(expected);
  });

  test("waits a minute after a start", () => {
    expect(expiryGuard(1_000_000, 5).mayExpireAt(1_000_001, 6)).toBe(60_005);
  });

  test("waits a minute after the wall clock jumped a day, and only once", () => {
    const guard = expiryGuard(0, 0);
    expect(guard.mayExpireAt(100_000, 100_000)).toBe(60_000);
    expect(guard.mayExpireAt(86_500_000, 100_100)).toBe(160_100);
    expect(guard.mayExpireAt(86_600_000, 200_100)).toBe(160_100);
  });
});
