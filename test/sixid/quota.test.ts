import { expect, test } from "vitest";
import { ANONYMOUS, LISTED_DOMAIN, type Limits, OTHER_DOMAIN, PERSON, Quotas } from "../../src/sixid/server/quota.ts";

const SECOND = 1_000;
const HOUR = 3_600 * SECOND;
const START = 1_796_083_200_000;

/** Asks for names nobody has, as fast as it is allowed to. @returns the hours that it took, and the waits in seconds */
function enumerate(limits: Limits, names: number): { hours: number; waits: number[] } {
  const quotas = new Quotas();
  const waits: number[] = [];
  let now = START;
  for (let n = 0; n < names; n += 1) {
    for (;;) {
      try {
        quotas.ask("m", limits, `name${n}`, now);
        break;
      } catch (error) {
        const wait = (error as { details: { retrySeconds: number } }).details.retrySeconds;
        waits.push(wait);
        now += wait * SECOND;
      }
    }
    quotas.told("m", limits, `name${n}`, false, now);
  }
  return { hours: (now - START) / HOUR, waits };
}

test.each<[string, Limits, number, number]>([
  ["a person", PERSON, 95, 110],
  ["somebody anonymous", ANONYMOUS, 95, 110],
  ["a domain that nobody lists", OTHER_DOMAIN, 95, 110],
  ["a listed domain", LISTED_DOMAIN, 2, 5],
])("looking for 1,000 names that nobody has takes %s hours, not seconds", (_name, limits, least, most) => {
  const { hours, waits } = enumerate(limits, 1_000);
  console.info(`1,000 misses: ${hours.toFixed(1)} h, longest wait ${Math.max(...waits)} s`);
  expect(hours).toBeGreaterThan(least);
  expect(hours).toBeLessThan(most);
});

test("the first ten misses cost nothing, then each more costs twice the wait, up to an hour", () => {
  const quotas = new Quotas();
  const waits = Array.from({ length: 20 }, (_, n) => {
    // Whoever asked many at once is answered, and waits behind.
    return quotas.told("m", PERSON, `name${n}`, false, START) ?? 0;
  });
  expect(waits).toEqual([...Array(10).fill(0), 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600, 3_600]);
});

test("while somebody waits, those he was told of are answered, and one who was not there is again not there", () => {
  const quotas = new Quotas();
  quotas.told("m", PERSON, "friend", true, START);
  for (let n = 0; n < 11; n += 1) quotas.told("m", PERSON, `name${n}`, false, START);
  const ask = (name: string, at = START) => quotas.ask("m", PERSON, name, at);
  expect(() => ask("friend")).not.toThrow();
  expect(() => ask("name3")).not.toThrow();
  expect(quotas.told("m", PERSON, "name3", false, START)).toBe(60);
  expect(() => ask("new")).toThrow(expect.objectContaining({ code: "busy", details: { retrySeconds: 60 } }));
  expect(() => ask("new", START + 59_999)).toThrow();
  expect(() => ask("new", START + 60_000)).not.toThrow();
  expect(() => quotas.ask("another", PERSON, "new", START)).not.toThrow();
});

test("nobody asks more often in a minute, or for more names in a day, than he may", () => {
  const quotas = new Quotas();
  for (let n = 0; n < 120; n += 1) quotas.ask("m", PERSON, "same", START + 1);
  expect(() => quotas.ask("m", PERSON, "same", START + 1)).toThrow(
    expect.objectContaining({ details: { retrySeconds: 60 } }),
  );
  expect(() => quotas.ask("m", PERSON, "same", START + 60_000)).not.toThrow();
  for (let n = 0; n < 2_000; n += 1) quotas.told("n", PERSON, `name${n}`, true, START);
  expect(() => quotas.mayAsk("n", PERSON, "one more", START)).toThrow(expect.objectContaining({ code: "busy" }));
  expect(() => quotas.mayAsk("n", PERSON, "name7", START)).not.toThrow();
  expect(() => quotas.mayAsk("n", PERSON, "one more", START + 24 * HOUR)).not.toThrow();
});
