import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import * as der from "../../src/pki/der.ts";
import { BerReader } from "../../src/smime/ber-read.ts";
import { gather, octetChunks } from "../../src/smime/ber-write.ts";
import { ByteReader, coalesce } from "../../src/smime/byte-reader.ts";
import { bytesOf, failureOf, Pieces, pseudoRandom } from "../support/smime.ts";

const reader = (hex: string | Buffer, size = Number.POSITIVE_INFINITY) =>
  new BerReader(
    new ByteReader(new Pieces(typeof hex === "string" ? Buffer.from(hex.replaceAll(" ", ""), "hex") : hex, size)),
  );
const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

describe.each([
  ["whole", Number.POSITIVE_INFINITY],
  ["one byte at a time", 1],
] as const)("fed %s", (_, size) => {
  test.each([
    ["DER as it is", "30 03 02 01 05", "3003020105"],
    ["a length that is not minimal", "30 81 03 02 01 05", "3003020105"],
    ["a length that is not minimal inside", "30 04 02 81 01 05", "3003020105"],
    ["indefinite length", "30 80 02 01 05 00 00", "3003020105"],
    ["indefinite within definite", "30 07 30 80 02 01 05 00 00", "30053003020105"],
    ["definite within indefinite", "30 80 30 81 03 02 01 05 04 00 00 00", "300730030201050400"],
    ["empty", "30 80 00 00", "3000"],
    ["six length octets", "04 86 00 00 00 00 00 01 ff", "0401ff"],
  ])("a small value becomes DER: %s", async (_, ber, expected) => {
    const source = reader(ber, size);
    expect(hexOf((await source.element()).bytes)).toBe(expected);
    await source.end();
  });

  test.each([
    ["primitive", "04 03 010203"],
    ["in pieces", "24 07 04 01 01 04 02 0203"],
    ["in pieces of indefinite length", "24 80 04 01 01 04 02 0203 00 00"],
    ["nested", "24 80 24 80 04 01 01 00 00 24 04 04 02 0203 00 00"],
  ])("an octet string streams its content: %s", async (_, ber) => {
    const source = reader(ber, size);
    expect(hexOf(await bytesOf(source.octets(0x04)))).toBe("010203");
    await source.end();
  });

  test("an implicitly tagged octet string streams, too", async () => {
    expect(hexOf(await bytesOf(reader("80 02 0102", size).octets(0x80)))).toBe("0102");
    expect(hexOf(await bytesOf(reader("a0 80 04 02 0102 00 00", size).octets(0x80)))).toBe("0102");
  });

  test("entering, peeking and leaving follow definite and indefinite lengths", async () => {
    for (const ber of ["30 08 31 03 02 01 05 04 01 aa", "30 80 31 80 02 01 05 00 00 04 01 aa 00 00"]) {
      const source = reader(ber, size);
      await source.enter(0x30);
      await source.enter(0x31);
      expect(await source.peek()).toBe(0x02);
      expect(der.readSmallInteger(await source.element(0x02))).toBe(5);
      expect(await source.peek()).toBeUndefined();
      await source.leave();
      expect(await source.optional(0x02)).toBeUndefined();
      await source.skip(10);
      await source.leave();
      await source.end();
    }
  });

  test.each([
    ["nothing", ""],
    ["a header cut off", "30"],
    ["content cut off", "04 05 00"],
    ["a high tag number", "1f 81 00 01 00"],
    ["seven length octets", "04 87 00 00 00 00 00 00 01 ff"],
    ["a primitive of indefinite length", "04 80 00 00"],
    ["a member longer than what encloses it", "30 03 04 05 00 00 00 00 00"],
    ["a member longer, inside indefinite inside definite", "30 06 30 80 04 05 00 00 00 00 00 00 00"],
    ["end of contents that is missing", "30 80 02 01 05"],
    ["end of contents where none belongs", "00 00"],
    ["33 levels", `${"3080".repeat(33)}${"0000".repeat(33)}`],
    ["33 levels of definite length", nested(33)],
    ["more than the limit", "04 05 00 00 00 00 00"],
    ["more than the limit, in pieces", "30 80 02 01 05 02 01 05 00 00"],
  ])("refused: %s", async (_, ber) => {
    expect(["seal-malformed", "syntax"]).toContain(
      (
        await failureOf(
          reader(ber, size).element(
            undefined,
            ber.startsWith("04 05") || ber.startsWith("30 80 02 01 05 02") ? 4 : 1000,
          ),
        )
      ).code,
    );
  });
});

test("a nested octet string may not be anything else, nor without end", async () => {
  for (const bad of ["24 80 02 01 05 00 00", "24 80 04 80 00 00", "30 00", `${"2480".repeat(40)}`]) {
    expect((await failureOf(bytesOf(reader(bad).octets(0x04)))).code).toBe("seal-malformed");
  }
});

test("leaving before the end and trailing bytes are refused", async () => {
  const early = reader("30 06 02 01 05 02 01 05");
  await early.enter(0x30);
  await early.element();
  expect((await failureOf(early.leave())).code).toBe("seal-malformed");
  const trailing = reader("02 01 05 00");
  await trailing.element();
  expect((await failureOf(trailing.end())).code).toBe("seal-malformed");
});

test.each(["30 03 30 05 02 01 05 00 00", "30 80 31 03 30 80 02 02 05 00 00 00", "30 02 24 03 04 01 00"])(
  "what is entered may not be longer than what encloses it: %s",
  async (ber) => {
    const source = reader(ber);
    const walk = async () => {
      for (let next = await source.peek(); next !== undefined; next = await source.peek()) {
        if (next & 0x20) await source.enter(next);
        else await source.element();
      }
    };
    expect((await failureOf(walk())).code).toBe("seal-malformed");
  },
);

test("a length past the end of a long stream is not waited for in memory", async () => {
  const source = reader(Buffer.concat([Buffer.from("0484ffffffff", "hex"), Buffer.alloc(100)]));
  expect((await failureOf(source.element())).code).toBe("seal-malformed");
});

test("octets are written as they come, small pieces joined to 64 KiB, none empty", async () => {
  const written = async (bytes: Buffer, pieces: number | (() => number)) => {
    const ber = await bytesOf(octetChunks(new Pieces(bytes, pieces)));
    const found: Uint8Array[] = [];
    for (const cursor = new der.DerCursor(ber); !cursor.done; ) found.push(cursor.next(0x04).content);
    expect(Buffer.concat(found).equals(bytes)).toBe(true);
    return found.map(({ length }) => length);
  };
  expect(await written(Buffer.alloc(0), 1)).toEqual([]);
  expect(await written(randomBytes(300_000), 262_144)).toEqual([262_144, 37_856]);
  expect(await written(randomBytes(65_536), 1)).toEqual([65_536]);
  expect(await written(randomBytes(200_000), 10_000)).toEqual([70_000, 70_000, 60_000]);
  const sizes = await written(randomBytes(3_000_000), pseudoRandom(5, 200_000));
  expect(Math.min(...sizes.slice(0, -1))).toBeGreaterThanOrEqual(65_536);
});

test.each(["0400", "040141", "2400", "24800000", "048300000141"])(
  "a hundred thousand values %s, all buffered, let others have their turn",
  async (value) => {
    const piece = Buffer.from(value, "hex");
    const many = Buffer.alloc(100_000 * piece.length, piece);
    const source = reader(Buffer.concat([Buffer.from("2480", "hex"), many, Buffer.from("0000", "hex")]));
    let [turns, done] = [0, false];
    const others = () => {
      turns += 1;
      if (!done) setImmediate(others);
    };
    setImmediate(others);
    for await (const _piece of source.octets(der.tag.octetString));
    done = true;
    expect(turns).toBeGreaterThan(40);
  },
);

test("gathering reads ahead to the limit and not one piece further", async () => {
  const source = new Pieces(randomBytes(1000), 100);
  const gathered = await gather(source, 250);
  if (!("large" in gathered)) throw new Error("not large");
  expect(source.consumed).toBe(300);
  expect((await bytesOf(gathered.large)).length).toBe(1000);
  expect(await gather(new Pieces(Buffer.from("abc"), 1), 3)).toEqual({ small: Buffer.from("abc") });
});

test("gathering copies: a source may use its buffer again", async () => {
  async function* again() {
    const buffer = Buffer.alloc(4);
    for (const text of ["one.", "two.", "tri."]) {
      buffer.write(text);
      yield buffer;
    }
  }
  expect(await gather(again(), 100)).toEqual({ small: Buffer.from("one.two.tri.") });
  const gathered = await gather(again(), 5);
  if (!("large" in gathered)) throw new Error("not large");
  expect((await bytesOf(gathered.large)).toString().slice(0, 8)).toBe("one.two.");
});

test("slices that were taken stay as they are while more is read", async () => {
  const bytes = randomBytes(5000);
  const source = new ByteReader(new Pieces(bytes, pseudoRandom(7, 50)));
  const taken: Buffer[] = [];
  const size = pseudoRandom(8, 200);
  for (;;) {
    const count = Math.min(size(), bytes.length - source.consumed);
    if (count === 0 || !(await source.fill(count))) break;
    taken.push(source.take(count));
  }
  expect(Buffer.concat(taken).equals(bytes)).toBe(true);
});

test("small pieces are joined, large ones pass, the order stays", async () => {
  const bytes = randomBytes(300_000);
  const sizes: number[] = [];
  const joined: Buffer[] = [];
  const mixed = pseudoRandom(9, 2);
  for await (const piece of coalesce(new Pieces(bytes, () => (mixed() === 1 ? 10 : 40_000)))) {
    sizes.push(piece.length);
    joined.push(piece);
  }
  expect(Buffer.concat(joined).equals(bytes)).toBe(true);
  expect(sizes.filter((size) => size >= 40_000).length).toBeGreaterThan(3);
  const small: number[] = [];
  for await (const piece of coalesce(new Pieces(bytes, 4096))) small.push(piece.length);
  expect(Math.min(...small.slice(0, -1))).toBe(65_536);
});

function nested(levels: number): string {
  let value: Buffer = Buffer.alloc(0);
  for (let i = 0; i < levels; i++) value = der.sequence(value);
  return value.toString("hex");
}

test("pieces of any size, many of them small, come as the content whole, and none overruns what encloses it", async () => {
  const next = pseudoRandom(7, 600);
  for (const indefinite of [true, false]) {
    for (let round = 0; round < 20; round += 1) {
      const parts = Array.from({ length: next() }, () => randomBytes(round % 4 === 0 ? next() * 300 : next() - 1));
      const inside = Buffer.concat(parts.map((part) => der.octetString(part)));
      const ber = indefinite
        ? Buffer.concat([Buffer.of(0x24, 0x80), inside, Buffer.alloc(2)])
        : der.encode(0x24, inside);
      const source = reader(ber, round % 2 === 0 ? undefined : next() * 100);
      expect((await bytesOf(source.octets(0x04))).equals(Buffer.concat(parts))).toBe(true);
      await source.end();
    }
  }
  const overrunning = Buffer.concat([Buffer.from("2406040101040202", "hex"), Buffer.from("0304010501", "hex")]);
  expect((await failureOf(bytesOf(reader(overrunning).octets(0x04)))).code).toBe("seal-malformed");
});
