import { existsSync } from "node:fs";
import { Command } from "commander";
import { loadConfig } from "../node/config.ts";
import { enrol } from "../node/enrol.ts";
import { type Home, makeHome } from "../node/home.ts";
import { parseInvitation } from "../node/invitation.ts";
import { newPeerConfig, writeConfig } from "../node/new-config.ts";
import { deviceLabel } from "../node/own-record.ts";
import { type Identity, identityLocal } from "../pki/identity.ts";
import { silentLog } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { homeOf } from "./home.ts";
import { commandLine } from "./self.ts";

export function initCommand(): Command {
  return new Command("init")
    .argument("<invitation>", "the link that your domain's owner gave you")
    .option("--name <full name>", "as others see it")
    .option(
      "--dns <server...>",
      "DNS servers to ask where your domain's servers are, as [::1]:5353 (default: this machine's)",
    )
    .option("--local-only", "announce loopback and private addresses too: for trying it out on one machine")
    .description("enrol: make keys, get certificates, publish your record")
    .addHelpText("after", "\nExample:\n  sixtalk init 'sixtalk://[::1]:4604/alice@alpha.test?sixid=4606&code=…&root=…'")
    .action(async (link: string, o: { name?: string; dns?: string[]; localOnly?: boolean }, command: Command) => {
      const home = homeOf(command);
      const invitation = parseInvitation(link);
      const name = o.name ?? identityLocal(invitation.identity);
      refuseAnother(home, invitation.identity);
      makeHome(home);
      const { root, furtherRoots } = await enrol(
        {
          ...{ home, invitation, name, label: deviceLabel(), clock: () => new Date(), log: silentLog },
          ...(o.dns === undefined ? {} : { dnsServers: o.dns }),
        },
        AbortSignal.timeout(60_000),
      );
      if (!hasPeer(home)) {
        const { identity, at } = invitation;
        const directory = at === undefined ? {} : { ...at.irp, port: at.sixidPort, irpPort: at.irp.port };
        const nonGlobal = o.localOnly === true || (at !== undefined && isLoopback(at.irp.host));
        writeConfig(home, {
          peer: await newPeerConfig(home, { identity, name, directory, root, furtherRoots, nonGlobal }),
          ...(o.dns === undefined ? {} : { dns: { servers: o.dns } }),
        });
      }
      process.stdout.write(
        `You are ${invitation.identity}. Keys and state lie in ${home.directory}.\nNext: ${commandLine(home)} start\n`,
      );
    });
}

/** Enrolling again goes on with what is there; a home is one person's. @throws SuiteError conflict */
function refuseAnother(home: Home, identity: Identity): void {
  if (!hasPeer(home)) return;
  const there = loadConfig(home.config).peer?.identity;
  if (there !== identity)
    throw new SuiteError("conflict", "this home is somebody else's; choose another with --home", {
      fault: "local",
      details: { home: home.directory, of: there ?? "" },
    });
}

function hasPeer(home: Home): boolean {
  return existsSync(home.config) && loadConfig(home.config).peer !== undefined;
}

function isLoopback(host: string): boolean {
  return host === "::1" || host.startsWith("127.");
}
