import { homedir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { globalAddresses } from "../node/addresses.ts";
import { loadConfig } from "../node/config.ts";
import { initDomain, invite } from "../node/domain.ts";
import { makeHome } from "../node/home.ts";
import { joinedConfig, writeConfig } from "../node/new-config.ts";
import { identityLocal, parseDomain } from "../pki/identity.ts";
import { silentLog } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { caCommands } from "./domain-ca.ts";
import { peopleCommands } from "./domain-people.ts";
import { homeOf } from "./home.ts";
import { commandLine, quoted } from "./self.ts";
import { domainStartCommand } from "./start.ts";

/** Where others find a server that listens there: its address, or this machine's best one. */
function reachOf(host: string): string {
  if (host !== "::" && host !== "0.0.0.0") return host;
  return globalAddresses()[0] ?? (host === "::" ? "::1" : "127.0.0.1");
}

const clock = () => new Date();

interface InitOptions {
  host: string;
  sixidPort: number;
  irpPort: number;
  statusPort?: number;
  statusUrl?: string;
}

function statusPart({ host, statusPort, statusUrl }: InitOptions): object {
  if (statusPort === undefined && statusUrl === undefined) return {};
  return { status: { host, port: statusPort ?? 8604, ...(statusUrl === undefined ? {} : { url: statusUrl }) } };
}

export function domainCommand(): Command {
  const domain = new Command("domain").description("run the directory and CA of an Internet domain");
  domain
    .command("init")
    .argument("<domain>", "the Internet domain, as alpha.test")
    .option("--host <address>", "IP address to listen on", "::")
    .option("--sixid-port <port>", "directory", Number, 4606)
    .option("--irp-port <port>", "enrolment", Number, 4604)
    .option("--status-port <port>", "revocation lists and OCSP by plain HTTP, customarily 8604; absent: none", Number)
    .option("--status-url <url>", "where others find that port, as http://ca.alpha.test:8604; certificates name it")
    .description("make the CA of a domain and an empty directory")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain init alpha.test --host ::1")
    .action((name: string, o: InitOptions, command: Command) => {
      const home = homeOf(command);
      const wanted = parseDomain(name);
      const { host, sixidPort, irpPort } = o;
      const part = { domain: { name: wanted, host, sixidPort, irpPort, ...statusPart(o) } };
      joinedConfig(home, part); // complains before anything is made
      makeHome(home);
      initDomain(home, wanted, clock());
      writeConfig(home, part);
      const self = commandLine(home);
      const ca = join(home.domain, "ca");
      process.stdout.write(
        `Made the CA and the directory of ${wanted} in ${home.directory}.\n` +
          `The root key is ${join(ca, "root.key")}, its passphrase ${join(ca, "passphrase")}: keep a copy of both elsewhere.\n` +
          `Next:\n  ${self} domain start\n  ${self} domain invite alice\n`,
      );
    });
  domain
    .command("invite")
    .argument("<user>", "user name, or user@domain")
    .option("--name <full name>", "as others will see it")
    .option(
      "--reach <address>",
      "IP address under which the invited finds this server, or `dns`: by SRV records (default: this machine's global one)",
    )
    .description("make an account and a one-time invitation, good for 7 days")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain invite alice --name 'Alice Example'")
    .action(async (user: string, o: { name?: string; reach?: string }, command: Command) => {
      const home = homeOf(command);
      const { domain: config } = loadConfig(home.config);
      if (config === undefined) throw new SuiteError("config-invalid", "this home has no domain", { fault: "local" });
      const reach = o.reach === "dns" ? o.reach : { host: o.reach ?? reachOf(config.host), port: config.irpPort };
      const made = await invite({ home, config, log: silentLog, clock }, user, o.name, reach);
      const { identity, link, expires, enrolled } = made;
      const own = `${commandLine(undefined)} --home ${quoted(join(homedir(), `.sixtalk-${identityLocal(identity)}`))}`;
      process.stdout.write(
        `Invitation for ${identity}, good once, until ${expires.toISOString()}.\n` +
          `On that person's machine:\n  sixtalk init '${link}'\n` +
          `To try it on this one:\n  ${own} init '${link}'\n`,
      );
      if (enrolled) {
        process.stderr.write(
          `Note: ${identity} is enrolled already. The link gives new certificates to the home that has the keys; ` +
            "another home takes the place of all devices, once one of them agrees or after a day. " +
            "A second device comes out of a backup: `sixtalk recover` or `restore`, then `devices add`.\n",
        );
      }
    });
  domain.addCommand(domainStartCommand());
  for (const command of [...peopleCommands(), ...caCommands()]) domain.addCommand(command);
  return domain;
}
