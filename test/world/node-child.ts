import { readFileSync, writeSync } from "node:fs";
import { parse } from "yaml";
import type { CutPoint } from "../../src/delivery/cut-point.ts";
import { configSchema } from "../../src/node/config.ts";
import { serveControl } from "../../src/node/control.ts";
import { homeAt } from "../../src/node/home.ts";
import { controlMethods } from "../../src/node/methods.ts";
import { PeerNode } from "../../src/node/node.ts";
import { silentLog } from "../../src/pki/log.ts";

/**
 * A person's node that sends files above 1 MiB in parts of 512 KiB: `node-child.ts HOME [CUTPOINT:N]`. Kills itself at the
 * N-th pass of the cut point; else runs until it is killed. Says on fd 3 when it is ready.
 */
const [directory = "", cutSpec = ""] = process.argv.slice(2);
const [point, count = "1"] = cutSpec.split(":");
let left = Number(count);
const home = homeAt(directory, {});
const node = await PeerNode.start({
  home,
  config: configSchema.parse(parse(readFileSync(home.config, "utf8"))),
  log: silentLog,
  clock: () => new Date(),
  parts: { above: 1_048_576, bytes: 524_288 },
  cut(passed: CutPoint) {
    if (passed !== point) return;
    left -= 1;
    if (left === 0) process.kill(process.pid, "SIGKILL");
  },
});
await serveControl(home.control, controlMethods(node), silentLog);
writeSync(3, "ready");
