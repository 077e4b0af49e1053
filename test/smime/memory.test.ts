import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { sealWorld } from "../support/smime.ts";

const world = sealWorld({ encryptionKey: "ec" });
afterAll(() => world[Symbol.dispose]());

const size = 64 * 1_048_576;
const inFlight = 4 * 1_048_576;

test.each(["opaque", "detached"] as const)(
  "%s: 64 MiB are sealed and opened with at most 4 MiB under way",
  async (shape) => {
    let produced = 0;
    let sealed = 0;
    async function* source() {
      yield Buffer.from("To: bob@example.test\r\n\r\n");
      const block = Buffer.alloc(65_536, "a line of text\r\n");
      while (produced < size) {
        yield block; // used again and again, as a reader's buffer may be
        produced += block.length;
      }
    }
    /** Between the two: nothing is pulled before what came is sealed, nothing comes before what went is on disk. */
    async function* carried() {
      for await (const piece of world.seal(source(), { shape })) {
        sealed += piece.length;
        expect(produced - sealed).toBeLessThan(inFlight);
        const written = readdirSync(world.directory).reduce(
          (sum, name) => sum + statSync(join(world.directory, name)).size,
          0,
        );
        expect(sealed - written).toBeLessThan(2 * inFlight);
        yield piece;
      }
    }
    await using opened = await world.open(carried());
    expect(opened.content).toMatchObject({ size });
  },
);
