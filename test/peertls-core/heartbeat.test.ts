import { duplexPair } from "node:stream";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Heartbeat, mustAnswer } from "../../src/peertls-core/heartbeat.ts";

const turn = () => new Promise<void>((done) => setImmediate(done));

function party() {
  const [stream, peer] = duplexPair();
  stream.on("data", () => undefined);
  const connection = { stream, destroy: () => void stream.destroy() };
  return { connection, stream, peer };
}

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));
afterEach(() => void vi.useRealTimers());

describe("a heart", () => {
  /** When it beat, in seconds, within so many of them. */
  async function beats(seconds: number, o: { answers?: boolean; usedAt?: number[] } = {}) {
    const { connection, stream, peer } = party();
    const at: number[] = [];
    let now = 0;
    const heart = new Heartbeat(connection, () => {
      at.push(now);
      if (o.answers !== false) peer.write("\r\n");
    });
    let died: number | undefined;
    while (now < seconds) {
      now += 1;
      vi.advanceTimersByTime(1_000);
      await turn();
      if (stream.destroyed) died ??= now;
      if (o.usedAt?.includes(now)) heart.used();
    }
    heart.stop();
    return { at, died };
  }

  test("beats each 15 s for two minutes, then each 60 s", async () => {
    const { at, died } = await beats(300);
    expect(at).toEqual([15, 30, 45, 60, 75, 90, 105, 120, 180, 240, 300]);
    expect(died).toBeUndefined();
  });

  test("beats faster again as soon as something goes over the connection", async () => {
    const { at } = await beats(215, { usedAt: [190] });
    expect(at).toEqual([15, 30, 45, 60, 75, 90, 105, 120, 180, 205]);
  });

  test("is not put off by use", async () => {
    const usedAt = Array.from({ length: 40 }, (_, n) => n);
    expect((await beats(35, { usedAt })).at).toEqual([15, 30]);
  });

  test("ends a connection on which two beats brought nothing", async () => {
    expect(await beats(100, { answers: false })).toEqual({ at: [15, 30], died: 45 });
  });

  test("takes anything heard for life", async () => {
    const { connection, stream, peer } = party();
    let beat = 0;
    const heart = new Heartbeat(connection, () => (beat += 1));
    for (let n = 0; n < 10; n += 1) {
      vi.advanceTimersByTime(29_000);
      peer.write("x");
      await turn();
    }
    expect([stream.destroyed, beat > 8]).toEqual([false, true]);
    heart.stop();
  });

  test("that was stopped neither beats nor listens, also from within a beat", async () => {
    const { connection, stream } = party();
    let beat = 0;
    const heart = new Heartbeat(connection, () => {
      beat += 1;
      heart.stop();
    });
    vi.advanceTimersByTime(600_000);
    expect([beat, stream.destroyed, stream.listenerCount("data")]).toEqual([1, false, 1]);
  });
});

describe("a connection that was kept", () => {
  test("is destroyed when it does not answer in time, not before", () => {
    const { connection, stream } = party();
    mustAnswer(connection, 10_000);
    vi.advanceTimersByTime(9_999);
    expect(stream.destroyed).toBe(false);
    vi.advanceTimersByTime(1);
    expect(stream.destroyed).toBe(true);
  });

  test("is left alone once the peer said anything, and that is told once", async () => {
    const { connection, stream, peer } = party();
    let told = 0;
    mustAnswer(connection, 10_000, () => (told += 1));
    for (let n = 0; n < 2; n += 1) {
      peer.write("2");
      await turn();
    }
    vi.advanceTimersByTime(60_000);
    expect([told, stream.destroyed, stream.listenerCount("data")]).toEqual([1, false, 1]);
  });

  test("is left alone when the watch was ended", () => {
    const { connection, stream } = party();
    mustAnswer(connection, 10_000)();
    vi.advanceTimersByTime(60_000);
    expect([stream.destroyed, stream.listenerCount("data")]).toEqual([false, 1]);
  });
});
