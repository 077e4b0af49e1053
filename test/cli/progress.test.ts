import { expect, test } from "vitest";
import { Progress } from "../../src/cli/progress.ts";
import { bytesOf } from "../support/smime.ts";

/** Pieces of 1 MiB, one each 100 ms. */
async function written(o: { isTTY?: boolean; total: number; pieces: number }): Promise<string[]> {
  let now = 0;
  const lines: string[] = [];
  const terminal = { ...(o.isTTY === undefined ? {} : { isTTY: o.isTTY }), write: (text: string) => lines.push(text) };
  const progress = new Progress("sealing", { total: o.total, terminal, now: () => now });
  async function* source() {
    for (let n = 0; n < o.pieces; n += 1) {
      now += 100;
      yield Buffer.alloc(1_048_576, n);
    }
  }
  expect((await bytesOf(progress.through(source()))).length).toBe(o.pieces * 1_048_576);
  progress.end();
  return lines;
}

test("a terminal is told at most four times a second how much has passed, of how much, and how fast; then the line is cleared", async () => {
  const lines = await written({ isTTY: true, total: 3 * 2 ** 30, pieces: 10 });
  expect(lines).toEqual([
    "\r\x1b[Ksealing: 3.0 MiB of 3.0 GiB, 10.0 MiB/s",
    "\r\x1b[Ksealing: 6.0 MiB of 3.0 GiB, 10.0 MiB/s",
    "\r\x1b[Ksealing: 9.0 MiB of 3.0 GiB, 10.0 MiB/s",
    "\r\x1b[K",
  ]);
  expect((await written({ isTTY: true, total: 0, pieces: 3 }))[0]).toBe("\r\x1b[Ksealing: 3.0 MiB, 10.0 MiB/s");
});

test("what is done at once, and what is no terminal, is told nothing", async () => {
  expect(await written({ isTTY: true, total: 1, pieces: 2 })).toEqual([]);
  expect(await written({ isTTY: false, total: 1, pieces: 10 })).toEqual([]);
  expect(await written({ total: 1, pieces: 10 })).toEqual([]);
});
