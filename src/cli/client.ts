import { readLines } from "../node/control.ts";
import { dialUnix } from "../peertls-core/loopback.ts";
import { SuiteError, type SuiteErrorCode } from "../pki/suite-error.ts";

interface Answer {
  result?: unknown;
  error?: { code: SuiteErrorCode; message: string; details: Record<string, string> };
}

/** Asks the running node one thing. @throws SuiteError unreachable when none runs; else what the node answers */
export async function ask<T>(control: string, method: string, params: object, signal: AbortSignal): Promise<T> {
  const socket = await dialUnix(control, signal);
  try {
    return await new Promise<T>((resolve, reject) => {
      const lost = () =>
        reject(new SuiteError("unreachable", "the node closed the connection", { fault: "local", temporary: true }));
      socket.once("close", lost);
      socket.once("error", lost);
      readLines(socket, 64 * 1024 * 1024, (line) => {
        const answer = JSON.parse(line) as Answer;
        if (answer.error !== undefined) {
          const { code, message, details } = answer.error;
          reject(new SuiteError(code, message, { fault: "local", details }));
        } else if ("result" in answer) resolve(answer.result as T);
      });
      socket.write(`${JSON.stringify({ id: 1, method, params })}\n`);
    });
  } finally {
    socket.destroy();
  }
}
