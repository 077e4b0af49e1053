import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { temporaryFolder } from "../support/tmp.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** A shell as the new user has it: in the project's folder, with an empty home. */
function shell(home: string, command: string, ready = false): ChildProcess {
  const { PATH } = process.env;
  return spawn("sh", ["-c", command], {
    cwd: root,
    env: { PATH, HOME: home },
    stdio: ["ignore", "pipe", "pipe", ready ? "pipe" : "ignore"],
  });
}

async function typed(home: string, command: string): Promise<string> {
  const child = shell(home, command);
  let out = "";
  let err = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    out += chunk.toString();
  });
  child.stderr?.on("data", (chunk: Buffer) => {
    err += chunk.toString();
  });
  const [code] = (await once(child, "close")) as [number | null];
  expect(code, `${command}\n${out}${err}`).toBe(0);
  return out;
}

/** Starts what runs on, and waits until it is ready. `exec`, so that the signal reaches it and no shell. */
async function started(home: string, command: string): Promise<{ child: ChildProcess; printed: () => string }> {
  const child = shell(home, `exec ${command} --ready-fd 3`, true);
  let out = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
  const ready = child.stdio[3] as NodeJS.ReadableStream;
  const [line] = (await Promise.race([once(ready, "data"), once(child, "exit").then(() => [""])])) as [unknown];
  expect(String(line), out).toContain('"ports"');
  return { child, printed: () => out };
}

const commandsIn = (text: string) =>
  [...text.matchAll(/^ {2}(\S*sixtalk(?:\.js)? [^#\n]*?)\s*(?:#.*)?$/gm)].map(([, command = ""]) => command);

test("on an empty home the first start makes a home of its own, and every command that is printed works as typed", async () => {
  await using folder = await temporaryFolder();
  const home = folder.path;
  const running: ChildProcess[] = [];
  try {
    const first = await started(home, "./bin/sixtalk.js start");
    running.push(first.child);
    const said = first.printed();
    expect(said).toContain("made a home that needs nobody else");
    expect(said).toContain(`it lies in ${home}/.sixtalk`);
    const config = parse(readFileSync(join(home, ".sixtalk/sixtalk.yaml"), "utf8")) as {
      peer: { identity: string; listen: { port: number } };
    };
    const me = config.peer.identity;
    expect(me).toMatch(/@home\.arpa$/);
    expect(said).toContain(me);
    expect(said).toContain(String(config.peer.listen.port));

    const next = commandsIn(said);
    expect(next).toHaveLength(3);
    const answers = [];
    for (const command of next) answers.push(await typed(home, command));
    expect(answers[0]).toContain(`"identity": "${me}"`);
    expect(answers[1]).toMatch(/^[a-z2-9]{26}\n$/);

    // The invitation names two commands: one for Bob's machine, one to try it here.
    const join2 = commandsIn(answers[2] ?? "").find((command) => command.includes("--home"));
    const enrolled = await typed(home, join2 ?? "");
    const [start = ""] = /\S*sixtalk(?:\.js)? .*start$/m.exec(enrolled) ?? [];
    const second = await started(home, start);
    running.push(second.child);
    const bob = start.replace(/ start$/, "");
    expect(await typed(home, `${bob} send ${me} 'Hello from Bob'`)).toContain("held: not admitted");
    await typed(home, `./bin/sixtalk.js accept bob@home.arpa`);
    expect(await typed(home, `${bob} send ${me} 'Hello again'`)).toContain("delivered");
    expect(await typed(home, "./bin/sixtalk.js inbox")).toContain("Hello again");

    // A second start of a home that runs is told why, and leaves it alone.
    const again = shell(home, "./bin/sixtalk.js start");
    let problem = "";
    again.stderr?.on("data", (chunk: Buffer) => {
      problem += chunk.toString();
    });
    expect(await once(again, "close")).toEqual([1, null]);
    expect(problem).toContain("running already");
    expect(await typed(home, "./bin/sixtalk.js status")).toContain(me);
  } finally {
    for (const child of running.toReversed()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const exited = once(child, "exit");
      child.kill("SIGTERM");
      await exited;
    }
  }
});
