import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import { Command } from "commander";
import { createDurably } from "../irp/key-file.ts";
import { makeBackup, restoreBackup } from "../node/backup.ts";
import { loadConfig } from "../node/config.ts";
import type { Home } from "../node/home.ts";
import { KeyFiles } from "../node/keys.ts";
import { exportPkcs12 } from "../node/own-pkcs12.ts";
import { readCertificates } from "../node/trust-rules.ts";
import { parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { typedPassphrases } from "../smime/passphrase.ts";
import { homeOf } from "./home.ts";
import { interruptible } from "./interruptible.ts";
import {
  askPassphrase,
  firstLine,
  type PassphraseOption,
  passphraseFor,
  readGiven,
  withPassphrase,
} from "./passphrase-option.ts";
import { besideTheOld, commandLine, quoted } from "./self.ts";

/** The owner's keys in a file: to keep, to come back from, and for his mail program. */
export function keyCommands(): Command[] {
  return [backupCommand(), restoreCommand(), exportCommand()];
}

function backupCommand(): Command {
  return withPassphrase(
    new Command("backup")
      .description(
        "write what makes you yourself to one file: keys with their whole history, settings, contacts, trust. Not what came and what waits",
      )
      .argument("<file>", "where to; must not be there yet"),
    "backup alice.p12",
    "an own passphrase, in a file's first line: 14 printable ASCII characters or more (default: one is made and shown)",
  ).action(async (path: string, o: PassphraseOption, command: Command) => {
    const home = homeOf(command);
    const { passphrase, shown } = passphraseFor(o);
    const made = await interruptible(async (signal) => {
      const backup = await makeBackup({ home, passphrase, random: randomBytes }, signal);
      writeNew(path, backup.file);
      return backup;
    });
    process.stdout.write(
      `Wrote ${path}: ${made.identity}, ${made.keys} keys, ${made.certificates} certificates, settings, contacts and trust.\n${shown}` +
        (made.domain === undefined ? "" : domainIsNotInIt(made.domain, home)) +
        `To come back from it, when this home is gone: ${commandLine(home)} restore ${quoted(path)}\n`,
    );
  });
}

function restoreCommand(): Command {
  return withPassphrase(
    new Command("restore")
      .description(
        "make an empty home that of a backup: the same person with the same keys. The node it is of must not run any more",
      )
      .argument("<file>", "what `sixtalk backup` wrote"),
    "--home ~/alice restore alice.p12",
    "the passphrase, in a file's first line (default: it is asked for)",
  ).action(async (path: string, o: PassphraseOption, command: Command) => {
    const home = homeOf(command);
    const file = readGiven(path);
    const typed = o.passphraseFile === undefined ? await askPassphrase() : firstLine(o.passphraseFile);
    const backup = { home, file, passphrases: typedPassphrases(typed) };
    const { identity, keys, domain } = await interruptible((signal) => restoreBackup(backup, signal));
    process.stdout.write(
      `You are ${identity}, with ${keys} keys. It lies in ${home.directory}.\n` +
        (domain === undefined ? "" : domainIsMissing(domain, home)) +
        (domain === undefined ? besideTheOld(home) : "") +
        `Next: ${commandLine(home)} start\n`,
    );
  });
}

function exportCommand(): Command {
  return withPassphrase(
    new Command("export-p12")
      .description("write your keys and certificates to a PKCS#12 file for your mail program")
      .argument("<file>", "where to; must not be there yet")
      .option("--legacy", "3DES and SHA-1, for programs that read nothing newer: the current key for mail alone"),
    "export-p12 alice.p12",
    "an own passphrase, in a file's first line: 14 printable ASCII characters or more; not with --legacy (default: one is made and shown)",
  ).action(async (path: string, o: PassphraseOption & { legacy?: boolean }, command: Command) => {
    const home = homeOf(command);
    const { peer } = loadConfig(home.config);
    if (peer === undefined) throw new SuiteError("config-invalid", "this home is no person's", { fault: "local" });
    const identity = parseIdentity(peer.identity);
    const keys = new KeyFiles(home).load(identity);
    const roots = readCertificates(peer.directory.anchor);
    const { passphrase, shown } = passphraseFor(o);
    const legacy = o.legacy === true;
    const what = { identity, keys, roots, passphrase, legacy, random: randomBytes };
    await interruptible(async (signal) => writeNew(path, await exportPkcs12(what, signal)));
    process.stdout.write(`Wrote ${path}: the keys of ${identity}.\n${shown}`);
  });
}

function domainIsNotInIt(domain: string, { domain: folder }: Home): string {
  return (
    `This home is also the server of ${domain}: directory, CA and accounts are NOT in this backup, and without them nobody in ${domain}\n` +
    `can be found or get certificates, you neither. Stop it, and keep a copy of this folder with the file: ${folder}\n`
  );
}

function domainIsMissing(domain: string, { domain: folder, config, directory }: Home): string {
  return (
    `This home was also the server of ${domain}, which is not restored. Before the start, put your copy of its folder to\n` +
    `  ${folder}\nand its settings back: cat ${quoted(join(directory, "domain.yaml"))} >> ${quoted(config)}\n` +
    `Without that copy ${domain} is gone: somebody has to begin it anew, with another CA.\n`
  );
}

/** Never in place of what is there. */
function writeNew(path: string, bytes: Uint8Array): void {
  let made: boolean;
  try {
    made = createDurably(resolve(path), bytes);
  } catch (cause) {
    throw new SuiteError("store-failed", "the file cannot be written", {
      fault: "local",
      cause,
      details: { file: path },
    });
  }
  if (!made)
    throw new SuiteError("conflict", "there is such a file already", { fault: "local", details: { file: path } });
}
