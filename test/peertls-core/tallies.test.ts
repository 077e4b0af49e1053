import fc from "fast-check";
import { Counter, Histogram, Registry } from "prom-client";
import { expect, test } from "vitest";
import { CounterTally, HistogramTally } from "../../src/peertls-core/tallies.ts";

const counting = { name: "things_total", help: "things by colour", labelNames: ["colour", "size"] };
const timing = { name: "thing_seconds", help: "how long", buckets: [0.1, 0.5, 1] };

/** The lines of an exposition that carry numbers. */
async function numbers(registry: Registry): Promise<string[]> {
  return (await registry.metrics()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
}

test("what is counted is told by series, as often as it was counted", async () => {
  const registry = new Registry();
  const tally = new CounterTally(counting, registry);
  expect(await numbers(registry)).toEqual([]);
  tally.add("red", () => ({ colour: "red", size: "s" }));
  tally.add("red", () => ({ colour: "red", size: "s" }));
  tally.add("blue", () => ({ colour: "blue", size: "s" }), 5);
  tally.add("blue", () => ({ colour: "blue", size: "s" }), 2);
  tally.add("none", () => ({ colour: "none", size: "s" }), 0);
  const expected = [
    'things_total{colour="red",size="s"} 2',
    'things_total{colour="blue",size="s"} 7',
    'things_total{colour="none",size="s"} 0',
  ];
  expect(await numbers(registry)).toEqual(expected);
  expect(await numbers(registry)).toEqual(expected); // asking adds nothing
  tally.add("red", () => ({ colour: "red", size: "s" }));
  expect((await numbers(registry))[0]).toBe('things_total{colour="red",size="s"} 3');
});

test("labels are made for the first of a series alone", () => {
  const registry = new Registry();
  const [counter, histogram] = [new CounterTally(counting, registry), timer(registry, ["colour"])];
  let made = 0;
  const labels = () => {
    made += 1;
    return { colour: "red" };
  };
  for (let n = 0; n < 5; n += 1) counter.add("red", labels);
  expect(made).toBe(1);
  for (let n = 0; n < 5; n += 1) histogram.observe("red", labels, n);
  expect(made).toBe(2);
});

test.each<[string, number[], [number, number, number, number], string]>([
  ["nothing yet", [], [0, 0, 0, 0], "0"],
  ["below the first bound", [0.05], [1, 1, 1, 1], "0.05"],
  ["a bound itself lies within", [0.1, 0.5, 1], [1, 2, 3, 3], "1.6"],
  ["just above a bound does not", [0.1000001], [0, 1, 1, 1], "0.1000001"],
  ["above all bounds", [1.5, 100], [0, 0, 0, 2], "101.5"],
  ["nothing at all took no time", [0, 0], [2, 2, 2, 2], "0"],
])("%s: each bucket counts all at or below its bound", async (_, values, buckets, sum) => {
  const registry = new Registry();
  const tally = timer(registry, []);
  for (const value of values) tally.observe("", () => ({}), value);
  expect(await numbers(registry)).toEqual([
    ...["0.1", "0.5", "1", "+Inf"].map((le, at) => `thing_seconds_bucket{le="${le}"} ${buckets[at]}`),
    `thing_seconds_sum ${sum}`,
    `thing_seconds_count ${buckets[3]}`,
  ]);
});

test("with labels nothing is shown before it was counted; without, from the beginning", async () => {
  const labelled = new Registry();
  timer(labelled, ["colour"]);
  expect(await numbers(labelled)).toEqual([]);
  const plain = new Registry();
  timer(plain, []);
  expect(await numbers(plain)).toHaveLength(6);
});

test("a histogram that is reset begins at nothing", async () => {
  const registry = new Registry();
  const tally = timer(registry, ["colour"]);
  tally.observe("red", () => ({ colour: "red" }), 1);
  tally.reset();
  tally.observe("red", () => ({ colour: "red" }), 0.2);
  expect(await numbers(registry)).toContain('thing_seconds_sum{colour="red"} 0.2');
  expect(await numbers(registry)).toContain('thing_seconds_count{colour="red"} 1');
});

test("whatever is counted, the exposition is to the letter the one that prom-client makes itself", async () => {
  const colour = fc.constantFrom("red", "green", 'a "quoted" \\ one\n');
  const size = fc.constantFrom("s", "l");
  // Sums of quarters are the same in any order.
  const value = fc.nat(8).map((n) => n / 4);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.record({ colour, size, value }), { maxLength: 40 }), async (counted) => {
      const [ours, theirs] = [new Registry(), new Registry()];
      const tally = { counter: new CounterTally(counting, ours), timer: timer(ours, ["colour", "size"]) };
      const model = {
        counter: new Counter({ ...counting, registers: [theirs] }),
        timer: new Histogram({ ...timing, labelNames: ["colour", "size"], registers: [theirs] }),
      };
      for (const { value: by, ...labels } of counted) {
        const key = `${labels.colour} ${labels.size}`;
        tally.counter.add(key, () => labels, by);
        tally.timer.observe(key, () => labels, by);
        model.counter.inc(labels, by);
        model.timer.observe(labels, by);
      }
      expect(await ours.metrics()).toBe(await theirs.metrics());
    }),
    { numRuns: 100 },
  );
});

function timer(registry: Registry, labelNames: string[]): HistogramTally {
  return new HistogramTally({ ...timing, labelNames }, registry);
}
