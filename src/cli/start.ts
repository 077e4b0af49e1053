import { existsSync, writeSync } from "node:fs";
import { userInfo } from "node:os";
import { Command } from "commander";
import { type Config, loadConfig } from "../node/config.ts";
import { serveControl } from "../node/control.ts";
import { DomainServer } from "../node/domain.ts";
import { firstRun } from "../node/first-run.ts";
import { serveHealth } from "../node/health.ts";
import { type Home, makeHome } from "../node/home.ts";
import { lockHome } from "../node/home-lock.ts";
import { openLog } from "../node/log.ts";
import { controlMethods } from "../node/methods.ts";
import { PeerNode } from "../node/node.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import { homeOf } from "./home.ts";
import { commandLine } from "./self.ts";

const clock = () => new Date();

/** What each port is for, as it is told at start. */
const PORTS: Record<string, string> = {
  sixid: "directory (SixID)",
  irp: "enrolment (IRP)",
  status: "revocation lists and OCSP, HTTP",
  peer: "peers: messages, mail, files",
  peerSips: "peers: SIP over TLS",
  peerSmtps: "peers: SMTP over TLS",
  smtps: "your mail program, SMTP with TLS",
  submission: "your mail program, SMTP with STARTTLS",
  ftp: "your FTP program, FTP with AUTH TLS",
  sip: "your SIP program, UDP and TCP",
  sips: "your SIP program, TLS",
  metrics: "numbers for Prometheus, HTTP",
};

export function startCommand(): Command {
  return runCommand("start")
    .description(
      "run what this home is: a person's node, a domain's server, or both; an empty home becomes a self-contained one. Ends with SIGTERM or Ctrl-C",
    )
    .addHelpText("after", "\nExample:\n  sixtalk start")
    .action(async (o: { readyFd?: number }, command: Command) => {
      const home = homeOf(command);
      makeHome(home);
      using _lock = lockHome(home);
      if (!existsSync(home.config)) await makeOwnHome(home);
      await run(home, loadConfig(home.config), o.readyFd);
    });
}

async function makeOwnHome(home: Home): Promise<void> {
  const log = openLog(home.log, "sixtalk", "info");
  const identity = await firstRun({ home, login: userInfo().username, clock, log });
  process.stdout.write(
    `There was no configuration: made a home that needs nobody else.\n` +
      `  you are    ${identity}, of a domain of your own with its directory and CA\n` +
      `  it lies in ${home.directory}: configuration (sixtalk.yaml), keys, mail, CA; back it up as a whole\n\n`,
  );
}

/** `sixtalk domain start`: the domain's part of a home alone. */
export function domainStartCommand(): Command {
  return runCommand("start")
    .description("run the domain's part of this home alone; ends with SIGTERM or Ctrl-C")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain start")
    .action(async (o: { readyFd?: number }, command: Command) => {
      const home = homeOf(command);
      const { peer: _peer, ...config } = loadConfig(home.config);
      using _lock = lockHome(home);
      await run(home, config, o.readyFd);
    });
}

function runCommand(name: string): Command {
  return new Command(name).option(
    "--ready-fd <n>",
    "write one JSON line with the bound ports to this file descriptor",
    Number,
  );
}

/** Runs until a signal ends it. SIGHUP reads a person's configuration and keys again. */
async function run(home: Home, config: Config, readyFd: number | undefined): Promise<void> {
  const log = openLog(home.log, "sixtalk", config.log.level);
  const ended = endOfProcess();
  let node: PeerNode | undefined;
  process.on("SIGHUP", () => {
    try {
      if (node === undefined) log.info({}, "nothing that could be reloaded runs");
      else node.reload(loadConfig(home.config));
    } catch (error) {
      if (node !== undefined) node.reloadFailed = true;
      log.error({ error: asSuiteError(error) }, "nothing was reloaded");
    }
  });
  const stops: (() => Promise<void>)[] = [];
  const ports: Record<string, PeerAddress> = {};
  try {
    if (config.domain !== undefined) {
      const server = await DomainServer.start({
        home,
        config: config.domain,
        dnsServers: config.dns.servers,
        log,
        clock,
      });
      stops.push(() => server.stop());
      Object.assign(ports, server.ports);
    }
    if (config.peer !== undefined) {
      const started = await PeerNode.start({ home, config, log, clock, cut: () => undefined });
      stops.push(() => started.stop());
      const control = await serveControl(home.control, controlMethods(started), log);
      stops.push(() => control.close());
      Object.assign(ports, started.ports);
      node = started;
      if (config.metrics !== undefined) {
        const health = await serveHealth(config.metrics, started, clock);
        stops.push(() => health.close());
        Object.assign(ports, { metrics: health.address });
      }
    }
  } catch (error) {
    log.error({ error: asSuiteError(error) }, "the start failed");
    throw error; // ends the process, with all that is open by now
  }
  const lines = Object.entries(ports).map(
    ([name, { host, port }]) => `  ${String(port).padEnd(5)}  ${PORTS[name] ?? name} (${host})\n`,
  );
  process.stdout.write(`SixTalk is running. Ports:\n${lines.join("")}Log: ${home.log}/sixtalk.log\n`);
  process.stdout.write(`\nNext, in another terminal:\n${nextCommands(home, config)}`);
  const ends = node?.keys.auth.certificate.validity.notAfter;
  if (ends !== undefined && ends < clock()) {
    process.stderr.write(
      `sixtalk: your certificate ended on ${ends.toISOString()}: nobody lets you in, and it can no longer be renewed.\n` +
        `Ask your domain's owner for a new invitation, stop this node, then: ${commandLine(home)} init '<invitation>'\n`,
    );
  }
  if (readyFd !== undefined) writeSync(readyFd, `${JSON.stringify({ ports, pid: process.pid })}\n`);
  await ended;
  for (const stop of stops.reverse()) await stop();
  process.exit(0);
}

function nextCommands(home: Home, config: Config): string {
  const self = commandLine(home);
  const lines: [string, string][] = [
    ...(config.peer === undefined
      ? []
      : ([
          ["status", "how the node is"],
          ["app-password add my-programs", "for your mail, SIP and FTP programs"],
        ] as [string, string][])),
    ...(config.domain === undefined
      ? []
      : ([["domain invite bob", "let somebody join the domain"]] as [string, string][])),
  ];
  return lines.map(([command, about]) => `  ${self} ${command.padEnd(30)} # ${about}\n`).join("");
}

function endOfProcess(): Promise<void> {
  return new Promise((resolve) => {
    process.once("SIGTERM", () => resolve());
    process.once("SIGINT", () => resolve());
  });
}
