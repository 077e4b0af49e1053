import type { Readable } from "node:stream";
import { SuiteError } from "../pki/suite-error.ts";

export interface DataLimits {
  /** Octets of one mail. */
  maxBytes: number;
  /** DATA without a byte. */
  silenceMs: number;
  /** All of DATA, and what it gets on top for what has come. */
  wholeMs: number;
  bytesPerSecond: number;
}

/**
 * The bytes of one DATA as they arrive, unstuffed: counted, bounded in size and time. They are read through `bytes`, and what
 * is left through `drain`; leaving the iteration early leaves the stream open.
 */
export class Incoming {
  readonly #chunks: AsyncIterator<Uint8Array>;
  readonly #limits: DataLimits;
  /** Milliseconds that the sender was waited for. */
  #waited = 0;
  #received = 0;
  #ended = false;
  /** Why no more is to be had: too large, too slow or gone. The connection is over with it. */
  failure: SuiteError | undefined;

  constructor(stream: Readable, limits: DataLimits) {
    this.#chunks = stream.iterator({ destroyOnReturn: false });
    this.#limits = limits;
  }

  async *bytes(): AsyncGenerator<Uint8Array> {
    for (let chunk = await this.#next(); chunk !== undefined; chunk = await this.#next()) yield chunk;
  }

  /** Takes what is left for nothing; the reply to a mail comes behind its end. @throws as `bytes` */
  async drain(): Promise<void> {
    while ((await this.#next()) !== undefined);
  }

  /** @throws SuiteError limit-exceeded, cancelled (temporary) */
  async #next(): Promise<Uint8Array | undefined> {
    if (this.failure !== undefined) throw this.failure;
    if (this.#ended) return undefined;
    try {
      const next = await this.#timely();
      if (next.done) {
        this.#ended = true;
        return undefined;
      }
      this.#received += next.value.length;
      if (this.#received > this.#limits.maxBytes) {
        const details = { maxBytes: this.#limits.maxBytes };
        throw new SuiteError("limit-exceeded", "the mail is too large", { fault: "peer", details });
      }
      return next.value;
    } catch (thrown) {
      this.failure = thrown instanceof SuiteError ? thrown : lost("gone", thrown);
      throw this.failure;
    }
  }

  /** Only the time that the sender takes counts, not ours. */
  #timely(): Promise<IteratorResult<Uint8Array>> {
    const { silenceMs, wholeMs, bytesPerSecond } = this.#limits;
    const left = wholeMs + (this.#received / bytesPerSecond) * 1_000 - this.#waited;
    const began = performance.now();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(lost("slow")), Math.max(0, Math.min(silenceMs, left)));
      this.#chunks
        .next()
        .then(resolve, reject)
        .finally(() => {
          clearTimeout(timer);
          this.#waited += performance.now() - began;
        });
    });
  }
}

function lost(why: "gone" | "slow", cause?: unknown): SuiteError {
  return new SuiteError("cancelled", "the rest of the mail did not come", {
    fault: "peer",
    temporary: true,
    details: { why },
    cause,
  });
}
