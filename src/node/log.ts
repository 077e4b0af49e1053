import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { pino } from "pino";
import type { Log } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";

/** Of lines that could not be written; what comes on top is lost. */
const MAX_WAITING_BYTES = 1_048_576;

/**
 * Writes JSON lines to `DIRECTORY/NAME.log`, synchronously enough that the last line before a crash is there. Errors are told by code
 * and fields: a message, a body, a key or a password never gets in.
 */
export function openLog(
  directory: string,
  name: string,
  level: "debug" | "info" | "warn" | "error",
): Log & { flush(): void } {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const destination = pino.destination({
    dest: join(directory, `${name}.log`),
    sync: true,
    mkdir: true,
    mode: 0o600,
    maxLength: MAX_WAITING_BYTES,
  });
  destination.on("error", () => undefined); // as when the disk is full: lines wait for the next that can be written
  const logger = pino(
    {
      level,
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { error: errorFields },
    },
    destination,
  );
  return Object.assign(logger as unknown as Log, { flush: () => destination.flushSync() });
}

function errorFields(error: unknown): unknown {
  if (error instanceof SuiteError) {
    return {
      ...error.details, // first: none of them stands in the place of what follows
      code: error.code,
      fault: error.fault,
      temporary: error.temporary,
      message: error.message,
      cause: causeOf(error.cause),
    };
  }
  return causeOf(error);
}

function causeOf(cause: unknown): unknown {
  if (cause instanceof SuiteError) return errorFields(cause);
  if (cause instanceof Error)
    return { name: cause.name, message: cause.message, code: (cause as { code?: unknown }).code, stack: cause.stack };
  return cause;
}
