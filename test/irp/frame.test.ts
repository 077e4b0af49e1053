import { describe, expect, test } from "vitest";
import { FrameReader, frame, MAX_FRAME_BEFORE } from "../../src/irp/frame.ts";

const length = (n: number) => {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(n);
  return head;
};

function fed(bytes: Buffer, size: number, limit?: number): { frames: string[]; broken: boolean } {
  const reader = new FrameReader();
  if (limit !== undefined) reader.limit = limit;
  const frames: string[] = [];
  for (let at = 0; at < bytes.length; at += size)
    frames.push(...reader.push(bytes.subarray(at, at + size)).map((one) => one.toString()));
  return { frames, broken: reader.broken !== undefined };
}

describe("frames come out the same, whatever the pieces", () => {
  const bytes = Buffer.concat([frame("a"), frame("héllo"), frame("x".repeat(8_192))]);
  test.each([1, 2, 3, 4, 5, 100, 10_000])("%i octets at a time", (size) => {
    expect(fed(bytes, size)).toEqual({ frames: ["a", "héllo", "x".repeat(8_192)], broken: false });
  });
});

describe("a bad length breaks the framing, after the frames before it", () => {
  test.each<[string, Buffer]>([
    ["0", length(0)],
    ["one over the limit", length(MAX_FRAME_BEFORE + 1)],
    ["the largest there is", length(0xffff_ffff)],
    ["what a TLS record's head would be", Buffer.from("1603010200", "hex")],
    ["text", Buffer.from("GET / HTTP/1.1\r\n")],
  ])("%s", (_name, bad) => {
    const bytes = Buffer.concat([frame("good"), bad, frame("never")]);
    for (const size of [bytes.length, 1, 3]) expect(fed(bytes, size)).toEqual({ frames: ["good"], broken: true });
  });

  test("by the limit that holds now", () => {
    expect(fed(frame("x".repeat(9_000)), 1_000, 262_144).broken).toBe(false);
    expect(fed(length(262_145), 4, 262_144).broken).toBe(true);
  });
});

test("midFrame tells whether a frame has begun", () => {
  const reader = new FrameReader();
  expect(reader.midFrame).toBe(false);
  reader.push(Buffer.of(0));
  expect(reader.midFrame).toBe(true);
  reader.push(Buffer.from([0, 0, 1, 0x61]));
  expect(reader.midFrame).toBe(false);
  reader.push(Buffer.concat([frame("b"), Buffer.of(0)]));
  expect(reader.midFrame).toBe(true);
});

test("256 KiB, one octet at a time, cost no more than their octets", () => {
  const bytes = frame("x".repeat(262_144));
  const start = performance.now();
  expect(fed(bytes, 1, 262_144).frames[0]).toHaveLength(262_144);
  expect(performance.now() - start).toBeLessThan(2_000);
});

test("a frame that was handed out does not change with the buffer it came in", () => {
  const reader = new FrameReader();
  const bytes = frame("abc");
  const [one] = reader.push(bytes);
  bytes.fill(0);
  expect(one?.toString()).toBe("abc");
});
