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

interface Kept {
  client: FtpClient;
  timer: NodeJS.Timeout;
  heart: Heartbeat;
}

/** Hands sealed files to peers' nodes, over control connections that stay open for a while. */
export class FileSender {
  readonly #peerTls: PeerTls;
  readonly #times: { heartbeat?: HeartbeatTimes; answerMs?: number };
  readonly #kept = new Map<Fingerprint, Kept>();

  #stopped = false;

  constructor(peerTls: PeerTls, times: { heartbeat?: HeartbeatTimes; answerMs?: number } = {}) {
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
    const kept = this.#take(device.fingerprint);
    if (kept !== undefined) {
      const stop = mustAnswer(kept.connection, this.#times.answerMs ?? ANSWER_MS);
      try {
        return await this.#upload(kept, item, signal);
      } catch (error) {
        // A connection that was kept may have died unseen: that says nothing about the peer.
        if (asSuiteError(error).code !== "unreachable" || signal.aborted) throw error;
      } finally {
        stop();
      }
    }
    await this.#upload(await this.#dial(device, item, to, signal), item, signal);
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

  async #upload(client: FtpClient, item: Outgoing, signal: AbortSignal): Promise<void> {
    try {
      item.progress(0);
      const done = await this.#again(client, item, signal);
      if (!/^Opened [0-9a-f]{64,128}$/.test(done)) {
        throw new SuiteError("unsupported", "the peer's node did not say that it opened the seal", { fault: "peer" });
      }
      this.#keep(client);
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** A seal that is not accepted is sent once more: what was damaged on the way may come whole. */
  async #again(client: FtpClient, item: Outgoing, signal: AbortSignal): Promise<string> {
    const upload = () =>
      client.upload(`/inbox/${item.object}`, item.size, Readable.from(counted(item), { objectMode: false }), signal);
    try {
      return await upload();
    } catch (error) {
      if (asSuiteError(error).code !== "seal-unreadable" || !client.alive) throw error;
      return await upload();
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

async function* counted(item: Outgoing): AsyncGenerator<Uint8Array, void, undefined> {
  let sent = 0;
  for await (const chunk of item.open() as AsyncIterable<Buffer>) {
    yield chunk;
    sent += chunk.length;
    item.progress(sent);
  }
}
