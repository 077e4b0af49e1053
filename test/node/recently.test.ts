import { expect, test } from "vitest";
import { Recently } from "../../src/node/recently.ts";

const MINUTE = 60_000;

test("one and the same is told once a minute", () => {
  const recently = new Recently();
  const told = [0, 1, MINUTE - 1, MINUTE, MINUTE + 1].map((now) => recently.isNew("mallory", now));
  expect(told).toEqual([true, false, false, true, false]);
});

test("of strangers with a new key each time twenty a minute are told, however many come", () => {
  const recently = new Recently();
  const told = (from: number, now: number) =>
    Array.from({ length: 10_000 }, (_, n) => recently.isNew(`key ${from + n}`, now)).filter(Boolean).length;
  expect(told(0, 0)).toBe(20);
  expect(told(10_000, MINUTE - 1)).toBe(0);
  expect(recently.isNew("key 5000", MINUTE)).toBe(true); // what was not told is not known
  expect(told(20_000, MINUTE)).toBe(19);
});
