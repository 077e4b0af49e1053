import type { Log } from "../../src/pki/log.ts";

export interface LogLine {
  level: "debug" | "info" | "warn" | "error";
  fields: Record<string, unknown>;
  message: string;
}

/** A log that a test can read. */
export function recordLog(): Log & { readonly lines: LogLine[] } {
  const lines: LogLine[] = [];
  const at =
    (level: LogLine["level"], bound: object) =>
    (fields: object, message: string): void =>
      void lines.push({ level, fields: { ...bound, ...fields }, message });
  const make = (bound: object): Log => ({
    debug: at("debug", bound),
    info: at("info", bound),
    warn: at("warn", bound),
    error: at("error", bound),
    child: (fields) => make({ ...bound, ...fields }),
  });
  return { ...make({}), lines };
}
