import { once } from "node:events";
import { statSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { method, serveControl } from "../../src/node/control.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { recordLog } from "../support/record-log.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());
const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});
let n = 0;

async function start() {
  const path = join(folder.path, `${(n += 1)}.sock`);
  const log = recordLog();
  const hold = Promise.withResolvers<string>();
  const state = { aborted: 0, emitted: 0 };
  const methods = {
    echo: method(z.strictObject({ text: z.string() }), async ({ text }) => text),
    nothing: method(z.strictObject({}), async () => undefined),
    hold: method(z.strictObject({}), () => hold.promise),
    count: method(z.strictObject({ to: z.number() }), async ({ to }, emit) => {
      for (let at = 1; at <= to; at += 1) await emit(at);
      return "done";
    }),
    flood: method(z.strictObject({}), async (_params, emit, signal) => {
      for (; !signal.aborted; state.emitted += 1) await emit("x".repeat(100_000));
    }),
    wait: method(
      z.strictObject({}),
      (_params, _emit, signal) =>
        new Promise((resolve) => signal.addEventListener("abort", () => resolve((state.aborted += 1)), { once: true })),
    ),
    refuse: method(z.strictObject({}), async () => {
      throw new SuiteError("forbidden", "not you", { fault: "local", details: { why: "x" } });
    }),
    crash: method(z.strictObject({}), async () => {
      throw new Error("a bug");
    }),
  };
  open.push(await serveControl(path, methods, log));
  const socket = connect(path);
  socket.on("error", () => undefined);
  await once(socket, "connect");
  const lines: unknown[] = [];
  const waiting: ((line: unknown) => void)[] = [];
  let rest = "";
  socket.on("data", (chunk) => {
    rest += chunk.toString();
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      const line: unknown = JSON.parse(rest.slice(0, end));
      rest = rest.slice(end + 1);
      const found = waiting.shift();
      if (found === undefined) lines.push(line);
      else found(line);
    }
  });
  const next = () => (lines.length > 0 ? Promise.resolve(lines.shift()) : new Promise((found) => waiting.push(found)));
  const write = (value: unknown) => void socket.write(typeof value === "string" ? value : `${JSON.stringify(value)}\n`);
  const ask = (value: unknown) => {
    write(value);
    return next();
  };
  return { path, socket, log, hold, state, next, write, ask };
}

describe("the control socket", () => {
  test("only the owner can open it", async () => {
    const { path } = await start();
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test.each<[string, unknown, object]>([
    ["a result", { id: 1, method: "echo", params: { text: "héllo\n✓" } }, { id: 1, result: "héllo\n✓" }],
    ["no result", { id: 2, method: "nothing" }, { id: 2, result: null }],
    [
      "a refusal, by name",
      { id: 3, method: "refuse" },
      { id: 3, error: { code: "forbidden", message: "not you", details: { why: "x" } } },
    ],
    [
      "a method that there is not",
      { id: 4, method: "frob" },
      { id: 4, error: expect.objectContaining({ code: "not-found" }) },
    ],
    [
      "a method of Object's",
      { id: 5, method: "constructor" },
      { id: 5, error: expect.objectContaining({ code: "not-found" }) },
    ],
    ["__proto__", { id: 5, method: "__proto__" }, { id: 5, error: expect.objectContaining({ code: "not-found" }) }],
    [
      "parameters that do not fit",
      { id: 6, method: "echo", params: { text: 7 } },
      {
        id: 6,
        error: expect.objectContaining({ code: "syntax", details: { problem: expect.stringContaining("text: ") } }),
      },
    ],
    [
      "a parameter more",
      { id: 7, method: "echo", params: { text: "", more: 1 } },
      { id: 7, error: expect.objectContaining({ code: "syntax" }) },
    ],
    ["no JSON", "hello\n", { id: 0, error: expect.objectContaining({ code: "syntax" }) }],
    ["a list", [], { id: 0, error: expect.objectContaining({ code: "syntax" }) }],
    ["null", null, { id: 0, error: expect.objectContaining({ code: "syntax" }) }],
    ["no id", { method: "nothing" }, { id: 0, error: expect.objectContaining({ code: "syntax" }) }],
    [
      "an id that is no number",
      { id: "1", method: "nothing" },
      { id: 0, error: expect.objectContaining({ code: "syntax" }) },
    ],
  ])("answers %s", async (_name, request, expected) => {
    const { ask } = await start();
    expect(await ask(request)).toEqual(expected);
    expect(await ask({ id: 99, method: "nothing" })).toEqual({ id: 99, result: null });
  });

  test("takes a request octet by octet, cut inside of characters too, and several in one piece", async () => {
    const { socket, next, write } = await start();
    for (const octet of Buffer.from(`${JSON.stringify({ id: 1, method: "echo", params: { text: "✓é" } })}\n`)) {
      socket.write(Buffer.of(octet));
      await turn();
    }
    expect(await next()).toEqual({ id: 1, result: "✓é" });
    write(`${[2, 3].map((id) => JSON.stringify({ id, method: "nothing" })).join("\n")}\n\n\n`);
    expect([await next(), await next()]).toEqual([
      { id: 2, result: null },
      { id: 3, result: null },
    ]);
  });

  test("events come before the result, in order", async () => {
    const { ask, next } = await start();
    expect([
      await ask({ id: 1, method: "count", params: { to: 3 } }),
      await next(),
      await next(),
      await next(),
    ]).toEqual([
      { id: 1, event: 1 },
      { id: 1, event: 2 },
      { id: 1, event: 3 },
      { id: 1, result: "done" },
    ]);
  });

  test("a line over 8 MiB ends the connection, and the next one is served", async () => {
    const { socket, path } = await start();
    const closed = new Promise((resolve) => socket.once("close", resolve));
    const piece = Buffer.alloc(65_536, 0x78);
    for (let sent = 0; sent <= 8 * 1_048_576 && !socket.destroyed; sent += piece.length) socket.write(piece);
    await closed;
    const again = connect(path);
    await once(again, "connect");
    again.write('{"id":1,"method":"nothing"}\n');
    const [answer] = (await once(again, "data")) as [Buffer];
    expect(answer.toString()).toBe('{"id":1,"result":null}\n');
    again.destroy();
  });

  test("the 65th request at once is refused, and room is made by those that end", async () => {
    const { ask, write, next, hold } = await start();
    for (let id = 1; id <= 64; id += 1) write({ id, method: "hold" });
    expect(await ask({ id: 65, method: "nothing" })).toEqual({
      id: 65,
      error: expect.objectContaining({ code: "busy" }),
    });
    hold.resolve("now");
    for (let id = 1; id <= 64; id += 1) expect(await next()).toEqual({ id, result: "now" });
    expect(await ask({ id: 66, method: "nothing" })).toEqual({ id: 66, result: null });
  });

  test("hanging up cancels what is under way", async () => {
    const { ask, write, socket, state, hold } = await start();
    write({ id: 1, method: "wait" });
    hold.resolve("x");
    await ask({ id: 2, method: "nothing" });
    socket.destroy();
    while (state.aborted === 0) await turn();
    expect(state.aborted).toBe(1);
  });

  test("who does not read does not fill the node's memory", async () => {
    const { socket, write, state } = await start();
    socket.pause();
    write({ id: 1, method: "flood" });
    let before = -1;
    for (let calm = 0; calm < 50; calm += 1) {
      await turn();
      if (state.emitted !== before) calm = 0;
      before = state.emitted;
    }
    expect(state.emitted).toBeLessThan(50);
    socket.destroy();
  });

  test("a bug is told as internal, without its stack, and logged", async () => {
    const { ask, log } = await start();
    expect(await ask({ id: 1, method: "crash" })).toEqual({
      id: 1,
      error: { code: "internal", message: "unexpected failure", details: {} },
    });
    expect(log.lines).toMatchObject([{ level: "error", fields: { method: "crash" } }]);
  });

  test("a second node in the same home is refused, a dead one's socket replaced", async () => {
    const { path } = await start();
    await expect(serveControl(path, {}, recordLog())).rejects.toMatchObject({ code: "conflict" });
    await open.pop()?.close();
    const again = await serveControl(path, {}, recordLog());
    await again.close();
  });
});
