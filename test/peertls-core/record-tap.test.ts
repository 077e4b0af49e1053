import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { afterEach, expect, test } from "vitest";
import { RecordTap } from "../../src/peertls-core/record-tap.ts";

const open: { close(): void }[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.close();
});

/** A tap on a connection, and its other end. */
async function tapped(): Promise<{ tap: RecordTap; other: Socket }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const other = connect({ host: "127.0.0.1", port: (server.address() as { port: number }).port });
  const [socket] = (await once(server, "connection")) as [Socket];
  const tap = new RecordTap(socket);
  open.push({
    close() {
      tap.destroy();
      other.destroy();
      server.close();
    },
  });
  return { tap, other };
}

function record(type: number, length: number): Buffer {
  return Buffer.concat([Buffer.of(type, 3, 3, length >> 8, length & 255), Buffer.alloc(length, 0x5a)]);
}

const cases: [string, readonly Buffer[], boolean][] = [
  ["TLS 1.3: data, then a record of 19 bytes", [record(23, 500), record(23, 19)], true],
  ["TLS 1.2: data, then an alert", [record(23, 500), record(21, 26)], true],
  ["nothing", [], false],
  ["data alone", [record(23, 500)], false],
  ["a record of 18 bytes", [record(23, 18)], false],
  ["a record of 20 bytes", [record(23, 20)], false],
  ["data behind the record of 19 bytes", [record(23, 19), record(23, 500)], false],
  ["a record that is not whole", [record(23, 19).subarray(0, 23)], false],
  ["a header that is not whole, behind a whole record", [record(23, 19), Buffer.of(23, 3, 3)], false],
  ["a header alone", [record(23, 19), Buffer.of(23, 3, 3, 0, 19)], false],
  ["an empty record last", [record(23, 19), record(23, 0)], false],
  ["a handshake record last", [record(22, 19)], false],
];

test.each(cases)(
  "%s: whether that was a clean end is the same in one piece and byte by byte",
  async (_name, parts, clean) => {
    const bytes = Buffer.concat(parts);
    for (const size of [bytes.length || 1, 1]) {
      const { tap, other } = await tapped();
      const seen: Buffer[] = [];
      tap.on("data", (chunk: Buffer) => seen.push(chunk));
      other.setNoDelay(true);
      for (let at = 0; at < bytes.length; at += size) {
        await new Promise<void>((resolve) => other.write(bytes.subarray(at, at + size), () => resolve()));
      }
      other.end();
      await once(tap, "end");
      expect(Buffer.concat(seen).equals(bytes)).toBe(true);
      expect(tap.endedCleanly).toBe(clean);
    }
  },
);

test("what is written goes through, and destroying the tap closes the connection", async () => {
  const { tap, other } = await tapped();
  tap.write("hello");
  const [chunk] = (await once(other, "data")) as [Buffer];
  expect(chunk.toString()).toBe("hello");
  const closed = once(other, "close");
  tap.destroy();
  await closed;
});

test("whoever reads slowly holds back the sender: no more than some buffers are kept", async () => {
  const { tap, other } = await tapped();
  const all = 64 * 1024 * 1024;
  const block = record(23, 16_000);
  let taken = 0;
  let written = 0;
  const push = () => {
    while (written < all) {
      written += block.length;
      if (!other.write(block)) {
        other.once("drain", push);
        return;
      }
    }
  };
  push();
  const full = () => tap.readableLength >= tap.readableHighWaterMark;
  while (!full()) await new Promise((resolve) => setImmediate(resolve));
  for (let turn = 0; turn < 200; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  expect(tap.readableLength).toBeLessThan(1_000_000);
  expect(written).toBeLessThan(all);
  for await (const chunk of tap) {
    taken += (chunk as Buffer).length;
    if (taken > 32 * 1024 * 1024) break;
  }
  expect(taken).toBeGreaterThan(32 * 1024 * 1024);
});

test.each([true, false])("a record of 19 bytes that comes in two chunks, and holds data: %s", async (holdsData) => {
  const { tap, other } = await tapped();
  other.setNoDelay(true);
  const bytes = Buffer.concat([record(23, 500), record(23, 19)]);
  const secured = new Duplex({ read() {} });
  let consumed = 0;
  let some = Promise.withResolvers<void>();
  tap.on("data", (chunk: Buffer) => {
    consumed += chunk.length;
    if (consumed >= 505 && secured.readableLength === 0) secured.push(Buffer.alloc(484));
    if (consumed === bytes.length && holdsData) secured.push(Buffer.alloc(2));
    some.resolve();
  });
  tap.watch(secured);
  other.write(bytes.subarray(0, 525));
  while (consumed < 525) await some.promise.then(() => (some = Promise.withResolvers()));
  other.end(bytes.subarray(525));
  await once(tap, "end");
  expect(tap.endedCleanly).toBe(!holdsData);
});
