import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { isCancel, password } from "@clack/prompts";
import type { Command } from "commander";
import { SuiteError } from "../pki/suite-error.ts";
import { generatePassphrase } from "../smime/passphrase.ts";

export interface PassphraseOption {
  passphraseFile?: string;
}

export function withPassphrase(command: Command, example: string, about: string): Command {
  return command.option("--passphrase-file <file>", about).addHelpText("after", `\nExample:\n  sixtalk ${example}`);
}

export function passphraseFor({ passphraseFile }: PassphraseOption): { passphrase: string; shown: string } {
  if (passphraseFile !== undefined) return { passphrase: firstLine(passphraseFile), shown: "" };
  const passphrase = generatePassphrase(randomBytes);
  const shown = `\nPassphrase, shown this once; write it down, and keep it apart from the file:\n\n  ${passphrase}\n\n`;
  return { passphrase, shown };
}

export async function askPassphrase(): Promise<string> {
  if (process.stdin.isTTY) {
    const typed = await password({ message: "Passphrase of the backup" });
    if (isCancel(typed)) throw new SuiteError("cancelled", "nothing was restored", { fault: "local" });
    return typed;
  }
  for await (const line of createInterface({ input: process.stdin })) return line;
  return "";
}

export function firstLine(path: string): string {
  return readGiven(path).toString("utf8").split(/\r?\n/, 1)[0] ?? "";
}

export function readGiven(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new SuiteError("not-found", "the file cannot be read", { fault: "local", cause, details: { file: path } });
  }
}
