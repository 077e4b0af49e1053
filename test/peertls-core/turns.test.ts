import { expect, test } from "vitest";
import { Turns } from "../../src/peertls-core/turns.ts";

test("so many of one name run at once, in order, whatever becomes of them; another name waits for none", async () => {
  const turns = new Turns(2);
  const begun: string[] = [];
  const ends = new Map<string, PromiseWithResolvers<string>>();
  const run = (name: string, what: string) => {
    const end = Promise.withResolvers<string>();
    ends.set(what, end);
    return turns.run(name, () => {
      begun.push(what);
      return end.promise;
    });
  };
  const all = ["a", "b", "c", "d"].map((what) => run("one", what));
  const other = run("other", "x");
  expect(begun).toEqual(["a", "b", "x"]);
  ends.get("b")?.reject(new Error("b failed"));
  await expect(all[1]).rejects.toThrow("b failed");
  expect(begun).toEqual(["a", "b", "x", "c"]);
  for (const what of ["a", "c", "d", "x"]) ends.get(what)?.resolve(what);
  expect(await Promise.all([all[0], all[2], all[3], other])).toEqual(["a", "c", "d", "x"]);
});
