import { closeSync, openSync } from "node:fs";
import { createServer } from "node:net";
import { devNull } from "node:os";
import { boundTo, listening, watchDescriptors } from "../../src/peertls-core/listening.ts";

// A process with few file descriptors: it uses them all up and lets them go as it is told, and tells what it logs.

const tell = (message: object) => process.send?.(message);
const at = (level: string) => (_fields: object, message: string) => void tell({ level, message });
const log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error"), child: () => log };
const server = createServer((socket) => socket.end("hello"));
await listening(server, { host: "::1", port: 0 });
watchDescriptors(log, 5);
tell({ port: boundTo(server).port });

const taken: number[] = [];
function takeAll(): void {
  try {
    for (;;) taken.push(openSync(devNull, "r"));
  } catch {
    tell({ taken: taken.length });
  }
}

/** When the last visitor's is free again. */
function takeSoon(): void {
  server.getConnections((_error, count) => void (count === 0 ? takeAll() : setImmediate(takeSoon)));
}

process.on("message", (what) => {
  if (what === "take") takeSoon();
  else {
    for (const one of taken.splice(0)) closeSync(one);
    tell({ taken: 0 });
  }
});
