import { describe, expect, test } from "vitest";
import { Refreshed } from "../../src/peertls-core/refreshed.ts";
import { type Source, Sources } from "../../src/peertls-core/sources.ts";

interface Named extends Source {
  readonly name: string;
}

function made(limits: { anchor: number; total: number }) {
  const dropped: string[] = [];
  const sources = new Sources<Named>(limits, ({ name }) => void dropped.push(name));
  const add = (anchor: string, name: string) => {
    const options = { clock: () => new Date(), chance: () => 0, signal: AbortSignal.abort() };
    const refreshed = new Refreshed(async () => "over", { ...options, onFailure: () => {}, onRecovered: () => {} });
    return sources.add(name, { anchor, name, refreshed });
  };
  const names = () => [...sources].map(({ name }) => name);
  return { sources, add, names, dropped };
}

describe("sources", () => {
  test("of one anchor's the one that was used longest ago makes room", () => {
    const { sources, add, names, dropped } = made({ anchor: 3, total: 10 });
    for (const name of ["a", "b", "c"]) expect(add("alpha", name)).toBe(true);
    sources.get("alpha", "a");
    expect(add("alpha", "d")).toBe(true);
    expect(names()).toEqual(["c", "a", "d"]);
    expect(dropped).toEqual(["b"]);
  });

  test("another anchor's are left alone, also when there is no room at all", () => {
    const { sources, add, names, dropped } = made({ anchor: 3, total: 4 });
    for (const name of ["a", "b", "c"]) add("alpha", name);
    expect([add("beta", "x"), add("beta", "y")]).toEqual([true, false]);
    expect(add("alpha", "d")).toBe(true); // in the place of its own
    expect(names()).toEqual(["b", "c", "d", "x"]);
    expect(dropped).toEqual(["a"]);
    sources.delete("alpha", "b");
    expect(add("beta", "y")).toBe(true);
    expect([...sources.of("beta")].map(({ name }) => name)).toEqual(["x", "y"]);
  });

  test("one key of two anchors is two sources; one that took the place of another is not that one", () => {
    const { sources, add } = made({ anchor: 3, total: 10 });
    add("alpha", "a");
    add("beta", "a");
    const first = sources.get("alpha", "a") as Named;
    expect(first).not.toBe(sources.get("beta", "a"));
    sources.delete("alpha", "a");
    sources.delete("alpha", "a");
    expect(sources.get("alpha", "a")).toBeUndefined();
    add("alpha", "a");
    expect(sources.has("a", first)).toBe(false);
    expect(sources.has("a", sources.get("alpha", "a") as Named)).toBe(true);
  });
});
