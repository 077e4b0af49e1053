import { SuiteError } from "../pki/suite-error.ts";
import type { DataConnection } from "./data-channel.ts";

/** A data connection on which nothing moves for so long is given up (ftps.md §2.8). */
export const STALL_MS = 60_000;

/** How long a data connection may take to close after its transfer. */
const LINGER_MS = 10_000;

export interface TransferOptions {
  type: "A" | "I";
  stallMs: number;
  /** Told how many bytes went by, as they stand on the wire. */
  onBytes(count: number): void;
}

/**
 * What comes in, at the pace at which it is taken. Ends only if the other side ended it by close_notify: after a bare
 * FIN, a reset, a stall or an abort it throws SuiteError cancelled, as 426 is told. Leaving it does not close the stream.
 */
export async function* received(
  data: DataConnection,
  o: TransferOptions,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  const bytes = rawBytes(data, o, signal);
  yield* o.type === "A" ? fromNetwork(bytes) : bytes;
}

/** Sends all, then ends our side. @throws SuiteError cancelled (reset, stall, abort); what `bytes` throws */
export async function send(
  data: DataConnection,
  bytes: AsyncIterable<Uint8Array>,
  o: TransferOptions,
  signal: AbortSignal,
): Promise<void> {
  const { stream } = data;
  stream.resume(); // whatever comes in here is nobody's, but its end has to be seen
  for await (const chunk of o.type === "A" ? toNetwork(bytes) : bytes) {
    await moved(
      new Promise<void>((resolve, reject) => {
        stream.write(chunk, (error) => (error == null ? resolve() : reject(error)));
      }),
      o,
      signal,
    );
    o.onBytes(chunk.length);
  }
  const flushed = new Promise<void>((resolve, reject) => {
    stream.end(() => (stream.errored === null ? resolve() : reject(stream.errored)));
  });
  await moved(flushed, o, signal);
}

/** Ends a data connection whose transfer is over; it goes on in the background. */
export function closeData({ stream }: DataConnection): void {
  const timer = setTimeout(() => stream.destroy(), LINGER_MS);
  stream.once("close", () => clearTimeout(timer));
  stream.on("error", () => undefined);
  stream.resume();
  if (!stream.writableEnded) stream.end();
}

async function* rawBytes(
  data: DataConnection,
  o: TransferOptions,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  const { stream } = data;
  const chunks: AsyncIterator<Buffer> = stream.iterator({ destroyOnReturn: false });
  try {
    for (;;) {
      const step = await moved(chunks.next(), o, signal);
      if (step.done === true) break;
      o.onBytes(step.value.length);
      yield step.value;
    }
  } finally {
    // A read that is under way ends with the stream; waiting for it here would wait for the other side.
    chunks.return?.()?.catch(() => undefined);
  }
  if (!data.endedCleanly()) throw cut("fin");
  stream.end(); // our close_notify answers theirs before the file is made durable: programs wait for it
}

/** Waits for a step of the transfer, but neither for ever nor after an abort. */
async function moved<T>(step: Promise<T>, o: TransferOptions, signal: AbortSignal): Promise<T> {
  const { promise: given, reject } = Promise.withResolvers<never>();
  const aborted = () => reject(cut("abort"));
  const timer = setTimeout(() => reject(cut("stall")), o.stallMs);
  signal.addEventListener("abort", aborted, { once: true });
  try {
    if (signal.aborted) throw cut("abort");
    return await Promise.race([step, given]);
  } catch (error) {
    step.catch(() => undefined);
    throw error instanceof SuiteError ? error : cut("reset", error);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", aborted);
  }
}

function cut(how: string, cause?: unknown): SuiteError {
  return new SuiteError("cancelled", "the data connection did not come to its end", {
    fault: "peer",
    temporary: true,
    details: { how },
    ...(cause === undefined ? {} : { cause }),
  });
}

const CR = 0x0d;
const LF = 0x0a;

/** TYPE A as it is sent: every line end CRLF (RFC 959 §3.1.1.1). */
export async function* toNetwork(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, void, undefined> {
  let afterCr = false;
  for await (const chunk of bytes) {
    if (chunk.length === 0) continue;
    const text = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).toString("latin1");
    const converted = text.replace(/(?<!\r)\n/g, "\r\n");
    yield Buffer.from(afterCr && text.startsWith("\n") ? converted.slice(1) : converted, "latin1");
    afterCr = chunk.at(-1) === CR;
  }
}

/** TYPE A as it is kept: CRLF becomes LF, also one that is cut in two. */
export async function* fromNetwork(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, void, undefined> {
  let held = false;
  for await (const chunk of bytes) {
    if (chunk.length === 0) continue;
    const octets: Buffer = held && chunk[0] !== LF ? Buffer.concat([Buffer.of(CR), chunk]) : Buffer.from(chunk);
    held = octets.at(-1) === CR;
    const whole = held ? octets.subarray(0, -1) : octets;
    if (whole.length > 0) yield Buffer.from(whole.toString("latin1").replaceAll("\r\n", "\n"), "latin1");
  }
  if (held) yield Buffer.of(CR);
}
