import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "../support/tmp.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Starts a home; resolves with its ready line, or with what it says when it ends by itself. */
async function start(home: string) {
  const child = spawn(process.execPath, [join(root, "bin/sixtalk.js"), "--home", home, "start", "--ready-fd", "3"], {
    stdio: ["ignore", "ignore", "pipe", "pipe"],
  });
  let problem = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    problem += chunk.toString();
  });
  const closed = once(child, "close");
  const ready = child.stdio[3] as NodeJS.ReadableStream;
  const runs = await Promise.race([once(ready, "data").then(() => true), closed.then(() => false)]);
  return { child, closed, runs, problem: () => problem };
}

test("of four that start an empty home at the same moment one makes it and runs, the others say why they do not", async () => {
  await using folder = await temporaryFolder();
  const home = join(folder.path, "home");
  const all = await Promise.all([1, 2, 3, 4].map(() => start(home)));
  const running = all.filter(({ runs }) => runs);
  try {
    expect(running).toHaveLength(1);
    for (const one of all.filter(({ runs }) => !runs)) expect(one.problem()).toContain("this home is running already");
    expect(readFileSync(join(home, "sixtalk.yaml"), "utf8").match(/^peer:/gm)).toHaveLength(1);
    // Killed, it holds nothing any more.
    running[0]?.child.kill("SIGKILL");
    await running[0]?.closed;
    const again = await start(home);
    running.push(again);
    expect(again.runs, again.problem()).toBe(true);
  } finally {
    for (const { child, closed } of running) {
      child.kill("SIGTERM");
      await closed;
    }
  }
});
