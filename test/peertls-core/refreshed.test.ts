import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Refreshed } from "../../src/peertls-core/refreshed.ts";

const options = {
  clock: () => new Date(),
  chance: () => 0,
  onFailure: () => undefined,
  onRecovered: () => undefined,
  signal: new AbortController().signal,
};

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => void vi.useRealTimers());

test("what failed is fetched again", async () => {
  let fetches = 0;
  const refreshed = new Refreshed(async () => Promise.reject(new Error(`${++fetches}`)), options);
  await refreshed.now();
  await vi.advanceTimersByTimeAsync(61_000);
  expect(fetches).toBe(2);
  await refreshed.stop();
});

test("what was stopped while it was being fetched is not fetched again, however that ended", async () => {
  for (const end of ["fails", "comes"]) {
    const { promise, resolve, reject } = Promise.withResolvers<Date>();
    let fetches = 0;
    const refreshed = new Refreshed(() => {
      fetches += 1;
      return promise;
    }, options);
    const fetched = refreshed.now();
    const stopped = refreshed.stop();
    if (end === "fails") reject(new Error("no answer"));
    else resolve(new Date(Date.now() + 3_600_000));
    await Promise.all([fetched, stopped]);
    expect(vi.getTimerCount()).toBe(0);
    await refreshed.now();
    expect(fetches).toBe(1);
  }
});
