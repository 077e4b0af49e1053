import { duplexPair } from "node:stream";
import { expect, test, vi } from "vitest";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import type { LocalSocket } from "../../src/peertls-core/loopback.ts";
import type { SipRequest } from "../../src/sip/grammar.ts";
import { streamFlow } from "../../src/sip/local-flow.ts";
import { serialise } from "../../src/sip/message.ts";
import { PeerFlow } from "../../src/sip/peer-flow.ts";
import { recordLog } from "../support/record-log.ts";
import { request } from "./request.ts";

const turn = () => new Promise<void>((done) => setImmediate(done));
const message = serialise(request());

/** A flow whose peer reads nothing of what it is answered. */
function flooded(serve: (request: SipRequest, flow: PeerFlow) => Promise<void>) {
  const [stream, peer] = duplexPair();
  peer.on("error", () => undefined);
  const connection = { stream, direction: "in", id: "flood", destroy: () => void stream.destroy() };
  const log = recordLog();
  const flow = new PeerFlow(connection as unknown as PeerConnection, serve, log);
  /** Whether the peer had it all read. */
  const send = async (bytes: Buffer, times: number) => {
    for (let n = 0; n < times && !stream.destroyed; n += 1) {
      let read = false;
      peer.write(bytes, () => {
        read = true;
      });
      for (let turns = 0; turns < 10 && !read; turns += 1) await turn();
      if (!read) return false;
    }
    return true;
  };
  return { flow, stream, send, log };
}

test("a peer who asks again and again whether we are there, and reads no answer, fills no memory", async () => {
  const { stream, send } = flooded(async () => undefined);
  expect(await send(Buffer.from("\r\n\r\n".repeat(16_384)), 64)).toBe(true);
  expect(stream.destroyed).toBe(false);
  expect(stream.writableLength).toBeLessThan(100_000);
});

test("of a peer's requests only some are served at once; the others are read when these are answered", async () => {
  const held = Promise.withResolvers<void>();
  let begun = 0;
  const { send } = flooded(async () => {
    begun += 1;
    await held.promise;
  });
  expect(await send(message, 1_000)).toBe(false);
  expect(begun).toBe(64);
  held.resolve();
  await expect.poll(() => begun).toBeGreaterThan(64);
  expect(await send(message, 1_000)).toBe(true);
});

test("the rest of a message is awaited for ten seconds, but not while it is we who do not read", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const held = Promise.withResolvers<void>();
    const { stream, send } = flooded(() => held.promise);
    const begun = message.subarray(0, message.length - 2);
    await send(Buffer.concat([...Array.from({ length: 64 }, () => message), begun]), 1);
    vi.advanceTimersByTime(60_000);
    expect(stream.destroyed).toBe(false);
    held.resolve();
    await turn();
    vi.advanceTimersByTime(9_000);
    expect(stream.destroyed).toBe(false);
    vi.advanceTimersByTime(2_000);
    expect(stream.destroyed).toBe(true);
  } finally {
    vi.useRealTimers();
  }
});

test("a peer who asks without end and reads no answer has the connection closed", async () => {
  const { stream, send } = flooded(async (asked, flow) => flow.respond(asked, 200, "OK", "tag"));
  await send(Buffer.concat(Array.from({ length: 100 }, () => message)), 1_000);
  expect(stream.destroyed).toBe(true);
});

test("a program of the owner's that reads nothing has the connection closed", () => {
  const [socket] = duplexPair();
  const flow = streamFlow(socket as unknown as LocalSocket, "TCP");
  for (let n = 0; n < 10_000 && flow.alive; n += 1) flow.send(message);
  expect(socket.destroyed).toBe(true);
  expect(socket.writableLength).toBeLessThan(1_100_000);
});

test("what a peer sends amiss without end is told a few times a minute", async () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  try {
    const { log, send } = flooded(async () => undefined);
    const malformed = serialise(request({ headers: { "max-forwards": "many" } }));
    await send(malformed, 100);
    expect(log.lines.filter(({ level }) => level === "warn")).toHaveLength(21);
    vi.advanceTimersByTime(60_000);
    await send(malformed, 1);
    expect(log.lines.filter(({ level }) => level === "warn")).toHaveLength(22);
  } finally {
    vi.useRealTimers();
  }
});
