import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { firstDevice, wayTo } from "../delivery/devices.ts";
import type { Outgoing } from "../delivery/endpoint.ts";
import { Heartbeat, type HeartbeatTimes, mustAnswer } from "../peertls-core/heartbeat.ts";
import type { PeerTls } from "../peertls-core/peertls.ts";
import type { Fingerprint } from "../pki/certificate.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import type { PeerDevice, PeerRecord } from "../sixid/directory.ts";
import { FtpClient } from "./client.ts";

/** A control connection is kept for the next file. */
const KEPT_MS = 60_000;
/** So long a control connection that was kept may take for its first reply. */
const ANSWER_MS = 10_000;

/** Before an upload that was cut goes on, while more arrives each time: at once, then after so many milliseconds. */
const AGAIN_MS = [0, 1_000, 4_000, 16_000];

interface Times {
  heartbeat?: HeartbeatTimes;
  answerMs?: number;
  againMs?: readonly number[];
}

interface Kept {
  client: FtpClient;
  timer: NodeJS.Timeout;
  heart: Heartbeat;
}

/** Hands sealed files to peers' nodes, over control connections that stay open for a while. */
export class FileSender {
  readonly #peerTls: PeerTls;
  readonly #times: Times;
  readonly #kept = new Map<Fingerprint, Kept>();

  #stopped = false;

  constructor(peerTls: PeerTls, times: Times = {}) {
    this.#peerTls = peerTls;
    this.#times = times;
  }

  /**
   * Uploads to the first device that takes it.
   * @throws SuiteError as `PeerTls.dial`, and what the peer's reply means
   */
  async deliver(item: Outgoing, to: PeerRecord, signal: AbortSignal): Promise<void> {
    await firstDevice(to, signal, (device) => this.#toDevice(device, item, to, signal));
  }

  /** What is being sent goes on; nothing is kept open behind it. */
  stop(): void {
    this.#stopped = true;
    for (const fingerprint of [...this.#kept.keys()]) this.#take(fingerprint)?.close();
  }

  async #toDevice(device: PeerDevice, item: Outgoing, to: PeerRecord, signal: AbortSignal): Promise<void> {
    const course: Course = { resume: item.again === true, from: 0, moved: false };
    const pauses = this.#times.againMs ?? AGAIN_MS;
    for (let tries = 0; ; tries += 1) {
      const { from } = course;
      course.moved = false;
      try {
        return await this.#once(device, item, to, course, signal);
      } catch (error) {
        // It goes on while that brings it further: a peer that loses what came is no better than one that is away.
        const further = course.moved && (tries === 0 || course.from > from);
        const pause = further ? pauses[tries] : undefined;
        if (asSuiteError(error).code !== "unreachable" || signal.aborted || pause === undefined) throw error;
        await paused(pause, signal);
        course.resume = true;
      }
    }
  }

  async #once(device: PeerDevice, item: Outgoing, to: PeerRecord, course: Course, signal: AbortSignal): Promise<void> {
    const kept = this.#take(device.fingerprint);
    if (kept !== undefined) {
      const stop = mustAnswer(kept.connection, this.#times.answerMs ?? ANSWER_MS);
      try {
        return await this.#upload(kept, item, course, signal);
      } catch (error) {
        // A connection that was kept may have died unseen: that says nothing about the peer.
        if (asSuiteError(error).code !== "unreachable" || signal.aborted) throw error;
        course.resume ||= course.moved;
      } finally {
        stop();
      }
    }
    await this.#upload(await this.#dial(device, item, to, signal), item, course, signal);
  }

  async #dial(device: PeerDevice, item: Outgoing, to: PeerRecord, signal: AbortSignal): Promise<FtpClient> {
    const { expected, routes } = wayTo(device, to);
    const client = new FtpClient(await this.#peerTls.dial(expected, "ftps", routes, signal), this.#peerTls);
    try {
      await client.login(item.envelope.from, signal);
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  async #upload(client: FtpClient, item: Outgoing, course: Course, signal: AbortSignal): Promise<void> {
    try {
      item.progress(0);
      const digest = await this.#again(client, item, course, signal);
      if (item.digest !== undefined && item.digest !== digest) {
        throw new SuiteError("seal-unreadable", "the peer's node opened another seal", { fault: "peer" });
      }
      this.#keep(client);
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /**
   * A seal that is not accepted is sent once more, from the start: what was damaged on the way may come whole.
   * @returns the digest that the peer's node found
   */
  async #again(client: FtpClient, item: Outgoing, course: Course, signal: AbortSignal): Promise<string> {
    const path = `/inbox/${item.object}`;
    const upload = async (from: number) => {
      const bytes = Readable.from(counted(item, from, course), { objectMode: false });
      const done = await client.upload(path, item.size, bytes, from, signal);
      const digest = /^Opened ([0-9a-f]{64,128})$/.exec(done)?.[1];
      if (digest !== undefined) return digest;
      throw new SuiteError("unsupported", "the peer's node did not say that it opened the seal", { fault: "peer" });
    };
    course.from = 0;
    if (course.resume) {
      const sent = await client.sent(path, signal);
      if (sent?.opened !== undefined && (item.digest ?? sent.opened) === sent.opened) return sent.opened;
      if (sent?.opened === undefined && sent !== undefined && (await isPrefix(item, sent, signal)))
        course.from = sent.size;
    }
    try {
      return await upload(course.from);
    } catch (error) {
      if (asSuiteError(error).code !== "seal-unreadable" || !client.alive) throw error;
      return await upload(0);
    }
  }

  #take(fingerprint: Fingerprint): FtpClient | undefined {
    const kept = this.#kept.get(fingerprint);
    if (kept === undefined) return undefined;
    clearTimeout(kept.timer);
    kept.heart.stop();
    this.#kept.delete(fingerprint);
    return kept.client.alive ? kept.client : undefined;
  }

  #keep(client: FtpClient): void {
    if (this.#stopped) return client.close();
    const { fingerprint } = client.connection;
    const other = this.#take(fingerprint);
    other?.close();
    const timer = setTimeout(() => this.#take(fingerprint)?.close(), KEPT_MS);
    timer.unref();
    const heart = new Heartbeat(client.connection, () => client.beat(), this.#times.heartbeat);
    this.#kept.set(fingerprint, { client, timer, heart });
  }
}

/** How far the sending of one object is. */
interface Course {
  /** Some of it may be there. */
  resume: boolean;
  /** Where the last upload began. */
  from: number;
  /** Bytes went out since the last connection was made. */
  moved: boolean;
}

async function* counted(item: Outgoing, from: number, course: Course): AsyncGenerator<Uint8Array, void, undefined> {
  let sent = from;
  if (from > 0) item.progress(sent);
  for await (const chunk of item.open(from) as AsyncIterable<Buffer>) {
    course.moved = true;
    yield chunk;
    sent += chunk.length;
    item.progress(sent);
  }
}

/** Whether what the peer has is how our bytes begin. */
async function isPrefix(
  item: Outgoing,
  { size, sha256 }: { size: number; sha256: string },
  signal: AbortSignal,
): Promise<boolean> {
  if (size === 0 || size > item.size) return false;
  const hash = createHash("sha256");
  let left = size;
  for await (const chunk of item.open() as AsyncIterable<Buffer>) {
    signal.throwIfAborted();
    hash.update(chunk.subarray(0, left));
    left -= Math.min(left, chunk.length);
    if (left === 0) break;
  }
  return hash.digest("hex") === sha256;
}

function paused(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(over, milliseconds);
    signal.addEventListener("abort", over, { once: true });
    function over() {
      clearTimeout(timer);
      signal.removeEventListener("abort", over);
      if (signal.aborted)
        reject(new SuiteError("cancelled", "the transfer was given up", { fault: "local", temporary: true }));
      else resolve();
    }
  });
}
