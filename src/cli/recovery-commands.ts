import { randomBytes } from "node:crypto";
import { Command } from "commander";
import { loadConfig } from "../node/config.ts";
import { depositBackup, parseRecovery, recoverHome } from "../node/recovery.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { typedPassphrases } from "../smime/passphrase.ts";
import { homeOf } from "./home.ts";
import { interruptible } from "./interruptible.ts";
import { askPassphrase, firstLine, type PassphraseOption, passphraseFor, withPassphrase } from "./passphrase-option.ts";
import { besideTheOld, commandLine } from "./self.ts";

const clock = () => new Date();
/** How often a passphrase may be mistyped before the command gives up. */
const TRIES = 5;

/** A backup that the directory of one's domain keeps, and the way back from it on an empty machine. */
export function recoveryCommands(): Command[] {
  return [depositCommand(), recoverCommand()];
}

function depositCommand(): Command {
  return withPassphrase(
    new Command("deposit")
      .description(
        "leave a backup with the directory of your domain, encrypted so that only you open it; `recover` comes back from it",
      )
      .option("--new-code", "another recovery link, that opens instead of the one before"),
    "deposit",
    "an own passphrase, in a file's first line: 14 printable ASCII characters or more (default: one is made and shown)",
  ).action(async (o: PassphraseOption & { newCode?: boolean }, command: Command) => {
    const home = homeOf(command);
    const { peer, dns } = loadConfig(home.config);
    if (peer === undefined) throw new SuiteError("config-invalid", "this home is no person's", { fault: "local" });
    const { passphrase, shown } = passphraseFor(o);
    const what = {
      home,
      peer,
      dnsServers: dns.servers,
      passphrase,
      newCode: o.newCode === true,
      random: randomBytes,
      clock,
    };
    const { version, link } = await interruptible((signal) => depositBackup(what, signal));
    process.stdout.write(
      `Backup ${version} lies with the directory.\n${shown}` +
        (link === undefined
          ? "The recovery link is the one that you have.\n"
          : `Recovery link, shown this once; write it down, and keep it apart from the passphrase:\n\n  ${link}\n\n`) +
        "To come back, on any machine with an empty home: sixtalk recover '<recovery link>'\n",
    );
  });
}

function recoverCommand(): Command {
  return withPassphrase(
    new Command("recover")
      .argument("<link>", "the recovery link that `sixtalk deposit` showed")
      .option("--dns <server...>", "DNS servers to ask where the directory is, as [::1]:5353 (default: this machine's)")
      .description(
        "make an empty home that of the backup which your domain's directory keeps: the same person with the same keys",
      ),
    "recover 'sixtalk-recovery:alice@alpha.test?code=…&root=…'",
    "the passphrase, in a file's first line (default: it is asked for)",
  ).action(async (link: string, o: PassphraseOption & { dns?: string[] }, command: Command) => {
    const home = homeOf(command);
    const sheet = parseRecovery(link);
    const again = o.passphraseFile === undefined && process.stdin.isTTY ? TRIES : 1;
    const passphrases = async (tries: number) => {
      if (tries >= again) return undefined;
      if (tries > 0) process.stderr.write("That is not the passphrase of this backup.\n");
      return typedPassphrases(o.passphraseFile === undefined ? await askPassphrase() : firstLine(o.passphraseFile));
    };
    const what = { home, sheet, dnsServers: o.dns ?? [], passphrases, clock };
    const { identity, keys } = await interruptible((signal) => recoverHome(what, signal));
    process.stdout.write(
      `You are ${identity}, with ${keys} keys. It lies in ${home.directory}.\n` +
        `If your old device may be in other hands: ${commandLine(home)} rekey --now\n` +
        `${besideTheOld(home)}Next: ${commandLine(home)} start\n`,
    );
  });
}
