import { writeSync } from "node:fs";
import { Command } from "commander";
import { loadConfig } from "../node/config.ts";
import { serveControl } from "../node/control.ts";
import { DomainServer } from "../node/domain.ts";
import { openLog } from "../node/log.ts";
import { controlMethods } from "../node/methods.ts";
import { PeerNode } from "../node/node.ts";
import { homeOf } from "./home.ts";

export function startCommand(): Command {
  return new Command("start")
    .option("--ready-fd <n>", "write one JSON line with the bound ports to this file descriptor", Number)
    .description("run what this home is: a person's node, a domain's server, or both; ends with SIGTERM or Ctrl-C")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha start")
    .action(async (o: { readyFd?: number }, command: Command) => {
      const home = homeOf(command);
      const config = loadConfig(home.config);
      const log = openLog(home.log, "sixtalk", config.log.level);
      const clock = () => new Date();
      const stops: (() => Promise<void>)[] = [];
      const ports: Record<string, unknown> = {};
      if (config.domain !== undefined) {
        const server = await DomainServer.start({ home, config: config.domain, log, clock });
        stops.push(() => server.stop());
        Object.assign(ports, server.ports);
      }
      if (config.peer !== undefined) {
        const node = await PeerNode.start({ home, config, log, clock, cut: () => undefined });
        const control = await serveControl(home.control, controlMethods(node), log);
        stops.push(
          () => control.close(),
          () => node.stop(),
        );
        Object.assign(ports, node.ports);
      }
      const lines = Object.entries(ports as Record<string, { host: string; port: number }>).map(
        ([name, at]) => `  ${name}: ${at.host} ${at.port}`,
      );
      process.stdout.write(
        `SixTalk is running from ${home.directory}; log: ${home.log}/sixtalk.log\n${lines.join("\n")}\n`,
      );
      if (o.readyFd !== undefined) writeSync(o.readyFd, `${JSON.stringify({ ports, pid: process.pid })}\n`);
      await new Promise<void>((resolve) => {
        process.once("SIGTERM", resolve);
        process.once("SIGINT", resolve);
      });
      for (const stop of stops.reverse()) await stop();
      process.exit(0);
    });
}
