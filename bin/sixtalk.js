#!/usr/bin/env node
// The launcher: plain old JavaScript, so that a Node that is too old can still read it. Such a Node hands over to the
// one that `npm ci` brought along (node_modules/.bin/node); without it, one clear sentence says what is missing.
import { spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(realpathSync(fileURLToPath(import.meta.url))));
const main = join(root, "src", "cli", "main.ts");
const version = process.versions.node.split(".").map(Number);
const recent = version[0] > 24 || (version[0] === 24 && version[1] >= 12);

if (recent && existsSync(join(root, "node_modules"))) {
  await import(main);
} else {
  const bundled = join(root, "node_modules", ".bin", "node");
  if (!existsSync(bundled)) {
    process.stderr.write(
      `sixtalk: Node 24.12 or newer and the installed dependencies are needed (this is ${process.version}); run "npm ci" in ${root}\n`,
    );
    process.exit(1);
  }
  const child = spawn(bundled, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("exit", (code, signal) => {
    if (signal) process.kill(process.pid, signal === "SIGKILL" ? "SIGTERM" : signal);
    process.exit(code === null ? 1 : code);
  });
}
