import { Command } from "commander";
import { loadConfig } from "../node/config.ts";
import { lockHome } from "../node/home-lock.ts";
import { rekey } from "../node/rekey.ts";
import { silentLog } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { homeOf } from "./home.ts";
import { commandLine } from "./self.ts";

const REKEY_MS = 120_000;

export function rekeyCommand(): Command {
  return new Command("rekey")
    .option("--now", "drop the old key at once: for one that somebody else may have")
    .description("give this device another key, so that those who know the old one follow; the node must not run")
    .addHelpText("after", "\nExample:\n  sixtalk rekey      # and once more a day or two later, to drop the old key")
    .action(async (given: { now?: boolean }, command: Command) => {
      const home = homeOf(command);
      const { peer: config, dns } = loadConfig(home.config);
      if (config === undefined) throw new SuiteError("config-invalid", "this home is no person's", { fault: "local" });
      using _lock = lockHome(home);
      const o = {
        home,
        config,
        dnsServers: dns.servers,
        clock: () => new Date(),
        log: silentLog,
        now: given.now === true,
      };
      const { certificate, bothListed } = await rekey(o, AbortSignal.timeout(REKEY_MS));
      process.stdout.write(
        `This device's key is sha256:${certificate.fingerprint}, certified until ${certificate.validity.notAfter.toISOString()}.\n` +
          (bothListed
            ? `Your record lists the old one beside it, so that those who know you follow. In a day or two, to drop it: ${commandLine(home)} rekey\n`
            : "The old one is dropped and revoked.\n"),
      );
    });
}
