import { once } from "node:events";
import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { listenLocalHttp } from "../../src/peertls-core/local-http.ts";
import type { LocalListener } from "../../src/peertls-core/loopback.ts";

let listener: LocalListener;

beforeAll(async () => {
  listener = await listenLocalHttp({ host: "127.0.0.1", port: 0 }, async (path) =>
    path === "/here" ? { status: 200, type: "text/plain", body: "found" } : undefined,
  );
});

afterAll(() => listener.close());

/** The status line's number for a request target that no URL parser has tidied. */
async function statusOf(target: string): Promise<number> {
  const socket = connect(listener.address.port, "127.0.0.1");
  let heard = "";
  socket.setEncoding("latin1").on("data", (text: string) => {
    heard += text;
  });
  socket.write(`GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
  await once(socket, "close");
  return Number(heard.split(" ")[1]);
}

test.each([
  ["/here", 200],
  ["/here?when=now", 200],
  ["//", 404],
  ["//[", 404],
  ["http://[/here", 404],
  ["/%", 404],
])("a request for %s is answered with %i, and ends nothing", async (target, status) => {
  expect(await statusOf(target)).toBe(status);
});
