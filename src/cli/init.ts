import { existsSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { stringify } from "yaml";
import { writeDurably } from "../irp/key-file.ts";
import { deviceLabel, enrol } from "../node/enrol.ts";
import { makeHome } from "../node/home.ts";
import { parseInvitation } from "../node/invitation.ts";
import { identityDomain, identityLocal } from "../pki/identity.ts";
import { silentLog } from "../pki/log.ts";
import { derToPem } from "../pki/pem.ts";
import { homeOf } from "./home.ts";

export function initCommand(): Command {
  return new Command("init")
    .argument("<invitation>", "the link that your domain's owner gave you")
    .option("--name <full name>", "as others see it")
    .option("--local-only", "announce loopback and private addresses too: for trying it out on one machine")
    .description("enrol: make keys, get certificates, publish your record")
    .addHelpText("after", "\nExample:\n  sixtalk init 'sixtalk://[::1]:4604/alice@alpha.test?sixid=4606&code=…&root=…'")
    .action(async (link: string, o: { name?: string; localOnly?: boolean }, command: Command) => {
      const home = homeOf(command);
      const invitation = parseInvitation(link);
      const name = o.name ?? identityLocal(invitation.identity);
      makeHome(home);
      const { root } = await enrol(
        { home, invitation, name, label: deviceLabel(), clock: () => new Date(), log: silentLog },
        AbortSignal.timeout(60_000),
      );
      const domain = identityDomain(invitation.identity);
      const anchor = join("anchors", `${domain}.pem`);
      writeDurably(join(home.directory, anchor), derToPem(root.der, "CERTIFICATE"), 0o644);
      if (!existsSync(home.config)) {
        const { host, port } = invitation.irp;
        const directory = { host, port: invitation.sixidPort, irpPort: port, anchor };
        const announce = o.localOnly === true ? { announce: { allowNonGlobal: true } } : {};
        writeDurably(home.config, stringify({ peer: { identity: invitation.identity, name, ...announce, directory } }));
      }
      process.stdout.write(
        `You are ${invitation.identity}. Keys and state lie in ${home.directory}.\nNext: sixtalk --home ${home.directory} start\n`,
      );
    });
}
