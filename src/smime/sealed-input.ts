import { cancelled, tooLarge } from "./failure.ts";

/**
 * The bytes of a seal as they arrive: counted, bounded, ended by the signal. What goes wrong here is the carrier's doing,
 * not the seal's: `failure` keeps it, so that it is told as it is whatever becomes of the seal.
 */
export class SealedInput implements AsyncIterableIterator<Uint8Array> {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #maxBytes: number;
  readonly #signal: AbortSignal | undefined;
  #ended = false;
  #consumed = 0;
  failure: { readonly thrown: unknown } | undefined;

  constructor(source: AsyncIterable<Uint8Array>, maxBytes: number, signal: AbortSignal | undefined) {
    this.#source = source[Symbol.asyncIterator]();
    this.#maxBytes = maxBytes;
    this.#signal = signal;
  }

  get consumed(): number {
    return this.#consumed;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Uint8Array>> {
    if (this.failure !== undefined) throw this.failure.thrown;
    try {
      const next = await abortable(this.#source.next(), this.#signal);
      if (next.done) this.#ended = true;
      else this.#consumed += next.value.length;
      if (this.#consumed > this.#maxBytes) throw tooLarge(this.#maxBytes);
      return next;
    } catch (thrown) {
      this.failure = { thrown };
      throw thrown;
    }
  }

  /** Reads to the end, taking nothing. */
  async drain(): Promise<void> {
    while (!this.#ended && !(await this.next()).done);
  }

  /** Tells the source that no more is wanted. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    const closing = this.#source.return?.();
    // A generator that waits for bytes answers only when they come: nobody waits for that.
    if (this.failure === undefined) await closing;
    else closing?.catch(() => undefined);
  }
}

/** Passes a source on until the signal aborts. */
export async function* untilAborted(
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const input = new SealedInput(source, Number.POSITIVE_INFINITY, signal);
  try {
    yield* input;
  } finally {
    await input.close();
  }
}

/** Waits, but no longer than until the signal aborts. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(cancelled(signal));
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
