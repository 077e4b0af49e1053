import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";

type Told = { port?: number; taken?: number; level?: string; message?: string };

/** A child that may have 64 files open. */
function startChild() {
  const script = join(import.meta.dirname, "descriptors-child.ts");
  const child = spawn("/bin/sh", ["-c", 'ulimit -n 64; exec "$0" "$1"', process.execPath, script], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  const all: Told[] = [];
  child.on("message", (told) => all.push(told as Told));
  const next = async (fits: (told: Told) => boolean): Promise<Told> => {
    for (;;) {
      const at = all.findIndex(fits);
      const [found] = at < 0 ? [] : all.splice(at, 1);
      if (found !== undefined) return found;
      await once(child, "message", { signal: AbortSignal.timeout(15_000) });
    }
  };
  return {
    next,
    logged: () => all.filter(({ level }) => level !== undefined),
    ask: (what: string, fits: (told: Told) => boolean) => {
      child.send(what);
      return next(fits);
    },
    [Symbol.dispose]: () => void child.kill("SIGKILL"),
  };
}

/** What a visitor hears until the end. */
async function visit(port: number): Promise<string> {
  const socket = connect({ host: "::1", port });
  let heard = "";
  for await (const chunk of socket) heard += String(chunk);
  return heard;
}

test("without file descriptors visitors are hung up on at once, and each change is told once", async () => {
  using child = startChild();
  const { port = 0 } = await child.next((told) => told.port !== undefined);
  expect(await visit(port)).toBe("hello");

  const { taken } = await child.ask("take", (told) => (told.taken ?? 0) > 0);
  expect(taken).toBeGreaterThan(10);
  expect(await child.next(({ level }) => level === "warn")).toMatchObject({
    message: expect.stringMatching(/^no file/),
  });
  for (let n = 0; n < 20; n += 1) expect(await visit(port)).toBe("");

  await child.ask("free", (told) => told.taken === 0);
  expect(await child.next(({ level }) => level === "info")).toMatchObject({
    message: "file descriptors are free again",
  });
  expect(await visit(port)).toBe("hello");
  expect(child.logged()).toEqual([]);
});
