import { join } from "node:path";
import { Command } from "commander";
import { stringify } from "yaml";
import { writeDurably } from "../irp/key-file.ts";
import { loadConfig } from "../node/config.ts";
import { initDomain, invite } from "../node/domain.ts";
import { makeHome } from "../node/home.ts";
import { parseDomain } from "../pki/identity.ts";
import { silentLog } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { homeOf } from "./home.ts";

const clock = () => new Date();

export function domainCommand(): Command {
  const domain = new Command("domain").description("run the directory and CA of an Internet domain");
  domain
    .command("init")
    .argument("<domain>", "the Internet domain, as alpha.test")
    .option("--host <address>", "IP address to listen on", "::")
    .option("--sixid-port <port>", "directory", Number, 4606)
    .option("--irp-port <port>", "enrolment", Number, 4604)
    .description("make the CA of a domain and an empty directory")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain init alpha.test --host ::1")
    .action((name: string, o: { host: string; sixidPort: number; irpPort: number }, command: Command) => {
      const home = homeOf(command);
      const wanted = parseDomain(name);
      makeHome(home);
      initDomain(home, wanted, clock());
      writeDurably(
        home.config,
        stringify({ domain: { name: wanted, host: o.host, sixidPort: o.sixidPort, irpPort: o.irpPort } }),
      );
      const ca = join(home.domain, "ca");
      process.stdout.write(
        `Made the CA and the directory of ${wanted} in ${home.directory}.\n` +
          `The root key is ${join(ca, "root.key")}, its passphrase ${join(ca, "passphrase")}: keep a copy of both elsewhere.\n` +
          `Next: sixtalk --home ${home.directory} domain invite USER, then sixtalk --home ${home.directory} start\n`,
      );
    });
  domain
    .command("invite")
    .argument("<user>", "user name, or user@domain")
    .option("--name <full name>", "as others will see it")
    .option("--reach <address>", "IP address under which the invited finds this server", "::1")
    .description("make an account and a one-time invitation, good for 7 days")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain invite alice --name 'Alice Example'")
    .action(async (user: string, o: { name?: string; reach: string }, command: Command) => {
      const home = homeOf(command);
      const { domain: config } = loadConfig(home.config);
      if (config === undefined) throw new SuiteError("config-invalid", "this home has no domain", { fault: "local" });
      const made = await invite({ home, config, log: silentLog, clock }, user, o.name, {
        host: o.reach,
        port: config.irpPort,
      });
      process.stdout.write(
        `Invitation for ${made.identity}, until ${made.expires.toISOString()}:\n\n  sixtalk init '${made.link}'\n`,
      );
    });
  return domain;
}
