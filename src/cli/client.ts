import { readLines } from "../node/control.ts";
import { dialUnix } from "../peertls-core/loopback.ts";
import { SuiteError, type SuiteErrorCode } from "../pki/suite-error.ts";

interface Answer {
  event?: unknown;
  result?: unknown;
  error?: { code: SuiteErrorCode; message: string; details: Record<string, string> };
}

const MAX_LINE = 64 * 1_048_576;

/**
 * Asks the running node one thing.
 * @param onEvent what the node tells on the way to its answer; while it is pending the node waits
 * @throws SuiteError unreachable when none runs; else what the node answers
 */
export async function ask<T>(
  control: string,
  method: string,
  params: object,
  signal: AbortSignal,
  onEvent: (event: never) => Promise<void> | void = () => undefined,
): Promise<T> {
  const socket = await dialUnix(control, signal);
  try {
    return await new Promise<T>((resolve, reject) => {
      const lost = () =>
        reject(new SuiteError("unreachable", "the node closed the connection", { fault: "local", temporary: true }));
      socket.once("close", lost);
      socket.once("error", lost);
      signal.addEventListener("abort", () => socket.destroy(), { once: true });
      let handled: Promise<void> = Promise.resolve();
      const take = async (answer: Answer) => {
        if (answer.error !== undefined) {
          const { code, message, details } = answer.error;
          throw new SuiteError(code, message, { fault: "local", details });
        }
        if ("event" in answer) await onEvent(answer.event as never);
        else if ("result" in answer) resolve(answer.result as T);
      };
      readLines(socket, MAX_LINE, (line) => {
        const answer = JSON.parse(line) as Answer;
        socket.pause();
        handled = handled.then(() => take(answer)).then(() => void socket.resume(), reject);
      });
      socket.write(`${JSON.stringify({ id: 1, method, params })}\n`);
    });
  } finally {
    socket.destroy();
  }
}
