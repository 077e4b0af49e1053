import { closeSync, openSync } from "node:fs";
import type { AddressInfo, Server } from "node:net";
import { devNull } from "node:os";
import type { Log } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerAddress } from "./connection.ts";

const WHY: Readonly<Record<string, string>> = {
  EADDRINUSE: "another program uses this port",
  EACCES: "ports below 1024 need a right of their own (on Linux CAP_NET_BIND_SERVICE)",
};

/** @throws SuiteError config-invalid when the address cannot be bound */
export function listening(server: Server, at: PeerAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const details = { ...at, why: WHY[cause.code ?? ""] ?? cause.code ?? "" };
      reject(new SuiteError("config-invalid", "cannot listen there", { fault: "local", cause, details }));
    });
    server.listen({ host: at.host, port: at.port }, () => {
      server.removeAllListeners("error");
      server.on("error", () => undefined); // one connection could not be accepted: the listener goes on
      resolve();
    });
  });
}

export function boundTo(server: Server): PeerAddress {
  const { address, port } = server.address() as AddressInfo;
  return { host: address, port };
}

const LOOK_MS = 1_000;

/**
 * Warns when there is no file descriptor left, and tells when there is one again. A server does not: libuv keeps one in
 * reserve, with which it accepts whoever waits and hangs up at once, without an event and without spinning (measured).
 * @returns ends that
 */
export function watchDescriptors(log: Log, everyMs = LOOK_MS): () => void {
  let short = false;
  const timer = setInterval(() => {
    const now = noneIsFree();
    if (now === short) return;
    short = now;
    if (short) log.warn({}, "no file descriptor is left: whoever connects is hung up on; raise the limit (ulimit -n)");
    else log.info({}, "file descriptors are free again");
  }, everyMs);
  timer.unref();
  return () => clearInterval(timer);
}

function noneIsFree(): boolean {
  try {
    closeSync(openSync(devNull, "r"));
    return false;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "EMFILE" || code === "ENFILE";
  }
}
