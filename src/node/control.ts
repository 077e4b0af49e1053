import { once } from "node:events";
import { z } from "zod";
import { type LocalSocket, listenUnix } from "../peertls-core/loopback.ts";
import type { Log } from "../pki/log.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";

/**
 * How the command line talks to the running node: JSON lines over a Unix socket that only the owner can open.
 * Request `{id, method, params}`; then any number of `{id, event}`, then `{id, result}` or `{id, error}`.
 * Closing the socket cancels what is under way.
 */
export interface Method<P = unknown> {
  params: z.ZodType<P>;
  /** @param emit resolves when the other side has room for more */
  run(params: P, emit: (event: unknown) => Promise<void>, signal: AbortSignal): Promise<unknown>;
}

/** Binds the parameters' schema and the function that takes them. */
export function method<P>(params: z.ZodType<P>, run: Method<P>["run"]): Method {
  return { params, run } as Method;
}

/** Room for the longest text that a method takes, however it is escaped: the method says that it is too long, not the line. */
const MAX_LINE = 8 * 1_048_576;
const MAX_IN_FLIGHT = 64;

const request = z.strictObject({ id: z.number().int(), method: z.string().max(64), params: z.unknown().optional() });

export function serveControl(
  path: string,
  methods: Readonly<Record<string, Method>>,
  log: Log,
): Promise<{ close(): Promise<void> }> {
  return listenUnix(path, (socket) => {
    const gone = new AbortController();
    let inFlight = 0;
    socket.once("close", () => gone.abort());
    const send = (value: unknown) => {
      if (!socket.destroyed) socket.write(`${JSON.stringify(value)}\n`);
    };
    const emit = async (value: unknown) => {
      send(value);
      if (socket.writableNeedDrain) await once(socket, "drain", { signal: gone.signal }).catch(() => undefined);
    };
    readLines(socket, MAX_LINE, (line) => {
      let id = 0;
      const fail = (error: SuiteError) =>
        send({ id, error: { code: error.code, message: error.message, details: error.details } });
      const asked = request.safeParse(parseJson(line));
      if (!asked.success) return fail(new SuiteError("syntax", "not a request", { fault: "local" }));
      id = asked.data.id;
      const known = Object.hasOwn(methods, asked.data.method) ? methods[asked.data.method] : undefined;
      if (known === undefined)
        return fail(
          new SuiteError("not-found", "no such method", { fault: "local", details: { method: asked.data.method } }),
        );
      if (inFlight >= MAX_IN_FLIGHT)
        return fail(new SuiteError("busy", "too many requests at once", { fault: "local", temporary: true }));
      const params = known.params.safeParse(asked.data.params ?? {});
      if (!params.success) {
        const problem = params.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`).join("; ");
        return fail(new SuiteError("syntax", "the parameters do not fit", { fault: "local", details: { problem } }));
      }
      inFlight += 1;
      known
        .run(params.data, (event) => emit({ id, event }), gone.signal)
        .then(
          (result) => send({ id, result: result ?? null }),
          (thrown: unknown) => {
            const error = asSuiteError(thrown);
            if (error.code === "internal") log.error({ method: asked.data.method, error }, "a control request failed");
            fail(error);
          },
        )
        .finally(() => {
          inFlight -= 1;
        });
    });
  });
}

/** Calls `line` for each line of a stream, without its end; a line over the limit ends the stream. */
export function readLines(socket: LocalSocket, limit: number, line: (text: string) => void): void {
  let rest = "";
  socket.setEncoding("utf8");
  socket.on("data", (chunk: unknown) => {
    rest += String(chunk);
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      const one = rest.slice(0, end);
      rest = rest.slice(end + 1);
      if (one !== "") line(one);
    }
    if (rest.length > limit) socket.destroy();
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
