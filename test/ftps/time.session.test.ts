import { describe, expect, test } from "vitest";
import { LoginGuard, serveLocal } from "../../src/ftps/local.ts";
import type { Session, SessionLimits } from "../../src/ftps/session.ts";
import type { Tree } from "../../src/ftps/tree.ts";
import { listenLocal } from "../../src/peertls-core/loopback.ts";
import { silentLog } from "../../src/pki/log.ts";
import { within } from "../delivery/party.ts";
import { bytesOf } from "../support/smime.ts";
import { FileWorld } from "./file-node.ts";
import { Talk } from "./talk.ts";

const world = new FileWorld();

describe("time", () => {
  async function door(limits: Partial<SessionLimits>, files: Tree = tree) {
    const sessions: Session[] = [];
    const { access, tls } = { access: { verify: () => "test" }, tls: world.localTls() };
    const listener = await listenLocal({ host: "127.0.0.1", port: 0 }, (socket) => {
      const guard = new LoginGuard(() => 0);
      const options = {
        access: access as never,
        tls,
        guard,
        tree: () => files,
        clock: () => new Date(),
        log: silentLog,
      };
      sessions.push(serveLocal(socket, { ...options, maxFileBytes: 1_000_000, limits }));
    });
    return { port: listener.address.port, sessions, [Symbol.asyncDispose]: () => listener.close() };
  }
  const root = { name: "/", kind: "folder" as const, perm: "el" };
  const tree: Tree = {
    entry: async () => root,
    list: async () => [],
    read: () => Promise.reject(new Error("no")),
    mayWrite: async () => undefined,
    write: async (_path: string, bytes: AsyncIterable<Uint8Array>) => ({ text: String((await bytesOf(bytes)).length) }),
    remove: async () => undefined,
  };

  test("whoever says nothing, does not log in or stays idle gets 421, also if bytes drip in", async () => {
    await using first = await door({ clearMs: 50 });
    const silent = await Talk.local(first.port);
    await silent.answer(421);
    await silent.end();
    await using second = await door({ loginMs: 50 });
    const anonymous = await Talk.local(second.port);
    await anonymous.secure();
    await anonymous.answer(421);
    await using third = await door({ idleMs: 50 });
    const idle = await Talk.owner(third.port, "x");
    const drip = setInterval(() => idle.stream.write("N"), 10);
    await idle.answer(421);
    clearInterval(drip);
    await idle.end();
  });

  test("our close_notify answers theirs before the file is durable", async () => {
    const seen = Promise.withResolvers<void>();
    const write = async (_path: string, bytes: AsyncIterable<Uint8Array>) => {
      await bytesOf(bytes);
      await within(seen.promise, "close_notify");
      return { text: "durable" };
    };
    await using running = await door({}, { ...tree, write });
    const talk = await Talk.owner(running.port, "x");
    const data = await talk.data();
    data.fin = false; // no end but that of TLS
    await talk.ask("STOR x", 150);
    data.tls.once("end", seen.resolve).resume();
    data.tls.end("bytes");
    expect((await talk.answer(226)).text).toBe("durable");
    talk.stream.destroy();
  });

  test("data that does not move gets 426, and a transfer is not idle", async () => {
    await using running = await door({ idleMs: 60, stallMs: 300 });
    const talk = await Talk.owner(running.port, "x");
    const data = await talk.data();
    await talk.ask("STOR x", 150);
    await data.write(Buffer.from("begun"));
    await talk.answer(426);
    talk.stream.destroy();
    await Promise.all(running.sessions.map(({ ended }) => ended));
  });
});
