import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "../support/tmp.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** README's commands in their order, without the remarks behind them. */
function commands(): string[] {
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const blocks = [...readme.matchAll(/^```\n([\s\S]*?)^```$/gm)].map(([, block = ""]) => block);
  return blocks
    .flatMap((block) => block.split("\n"))
    .filter((line) => line.startsWith("bin/sixtalk.js"))
    .map((line) => line.replace(/\s+#.*$/, ""));
}

test("every command of README works as typed, in its order, in an empty home", async () => {
  await using folder = await temporaryFolder();
  const running: ChildProcess[] = [];
  const typed = (command: string, ready: boolean): ChildProcess => {
    const { PATH } = process.env;
    return spawn("sh", ["-c", `exec ${command}${ready ? " --ready-fd 3" : ""}`], {
      cwd: root,
      env: { PATH, HOME: folder.path },
      stdio: ["pipe", "pipe", "pipe", ready ? "pipe" : "ignore"],
    });
  };
  let link = "";
  let passphrase = "";
  let recovery = "";
  let item = "";
  const done: string[] = [];
  try {
    for (const line of commands()) {
      const command = line
        .replace("sixtalk://…", link)
        .replace("sixtalk-recovery:…", recovery)
        .replace(" 01M88", ` ${item}`);
      const child = typed(command, command.endsWith(" start"));
      child.stdin?.on("error", () => undefined).end(/ (?:restore|recover) /.test(command) ? `${passphrase}\n` : "");
      let out = "";
      for (const stream of [child.stdout, child.stderr])
        stream?.on("data", (chunk: Buffer) => {
          out += chunk.toString();
        });
      if (command.endsWith(" start")) {
        running.push(child);
        const ready = child.stdio[3] as NodeJS.ReadableStream;
        const [told] = (await Promise.race([once(ready, "data"), once(child, "exit").then(() => [""])])) as [unknown];
        expect(String(told), `${command}\n${out}`).toContain("ports");
      } else {
        const [code] = (await once(child, "close")) as [number | null];
        expect(code, `${command}\n${out}`).toBe(0);
      }
      passphrase = /^Passphrase, [\s\S]*?\n\n {2}(\S+)\n/m.exec(out)?.[1] ?? passphrase;
      recovery = /^ {2}(sixtalk-recovery:\S+)$/m.exec(out)?.[1] ?? recovery;
      link = /'(sixtalk:[^']+)'/.exec(out)?.[1] ?? link;
      if (command.endsWith(" inbox")) item = /^(\S+) {2}/m.exec(out)?.[1] ?? "";
      done.push(out);
    }
    const all = done.join("\n");
    expect(done.length).toBeGreaterThan(15);
    expect(all).toContain("held: not admitted");
    expect(all).toMatch(/file {5}.*README\.md/);
    expect(all).toContain("→ admitted");
  } finally {
    for (const child of running.toReversed()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const exited = once(child, "exit");
      child.kill("SIGTERM");
      await exited;
    }
  }
});
