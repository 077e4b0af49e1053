import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { installIssuing, requestIssuing, signIssuing } from "../irp/ca-succession.ts";
import type { Registered } from "../irp/register.ts";
import { type Config, type DomainConfig, loadConfig } from "../node/config.ts";
import { caOptions, DomainCa } from "../node/domain-ca.ts";
import type { Home } from "../node/home.ts";
import { type CrlReason, crlReasons } from "../pki/distribution-point.ts";
import { parseDomain, parseIdentity } from "../pki/identity.ts";
import { silentLog } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { homeOf } from "./home.ts";
import { visibleLine } from "./terminal.ts";

const clock = () => new Date();
const BY = "operator";
const LISTED = 1_000;
const REASONS = Object.values(crlReasons).filter((reason) => reason !== "removeFromCRL");

/** What the owner of a domain does about its certificates. A running server sees it at once. */
export function caCommands(): Command[] {
  return [certificates(), revoke(), renewNow(), pending(), decide("approve"), decide("refuse"), audit(), ca()];
}

function certificates(): Command {
  return new Command("certificates")
    .argument("[user]", "user name, or user@domain; all if absent")
    .description("list what the CA has issued, the newest first")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain certificates alice")
    .action(async (user: string | undefined, _o: object, command: Command) => {
      await withCa(command, ({ authority }, { name }) => {
        const identity =
          user === undefined ? {} : { identity: parseIdentity(user.includes("@") ? user : `${user}@${name}`) };
        const found = authority.register.list({ ...identity, limit: LISTED });
        return found.length === 0 ? "none\n" : found.map(lineOf).join("");
      });
    });
}

function lineOf({ serial, kind, identity, certificate, revoked, label }: Registered): string {
  const { notAfter } = certificate.validity;
  const state =
    revoked === undefined
      ? notAfter < clock()
        ? "expired"
        : "good"
      : `revoked (${revoked.reason}, ${day(revoked.at)})`;
  const about = `${serial}  ${kind.padEnd(10)}  ${day(notAfter)}  ${identity}  ${state}`;
  return visibleLine(label === "" ? about : `${about}  ${label}`).concat("\n");
}

function day(time: Date): string {
  return time.toISOString().slice(0, 10);
}

function revoke(): Command {
  return new Command("revoke")
    .argument("<serial>", "serial number, as `domain certificates` shows it")
    .option("--reason <reason>", `why: ${REASONS.join(", ")}`, "unspecified")
    .description("take a certificate back: its key is nobody's any more")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain revoke 5f03…9c --reason keyCompromise")
    .action(async (serial: string, o: { reason: string }, command: Command) => {
      const reason = REASONS.find((one) => one === o.reason) as CrlReason | undefined;
      if (reason === undefined)
        throw new SuiteError("syntax", "there is no such reason", { fault: "local", details: { reason: o.reason } });
      await withCa(command, ({ authority }) =>
        authority.revoke(serial.toLowerCase(), reason, BY)
          ? "Revoked; the list is signed.\n"
          : "It was revoked already.\n",
      );
    });
}

function renewNow(): Command {
  return new Command("renew-now")
    .description("after an incident: have every good certificate renewed as soon as its node asks")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain renew-now")
    .action(async (_o: object, command: Command) => {
      await withCa(
        command,
        ({ authority }) => `${authority.register.renewAll(clock(), BY)} certificates are due now.\n`,
      );
    });
}

function pending(): Command {
  return new Command("pending")
    .description("list the requests that wait to be approved")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain pending")
    .action(async (_o: object, command: Command) => {
      await withCa(command, ({ approvals }) => {
        const waiting = approvals.waiting();
        const lines = waiting.map(
          (one) => `${one.ref}  ${one.kind.padEnd(10)}  ${day(one.at)}  ${one.identity}  ${one.label}`,
        );
        return waiting.length === 0 ? "nothing waits\n" : lines.map((line) => `${visibleLine(line)}\n`).join("");
      });
    });
}

function decide(name: "approve" | "refuse"): Command {
  return new Command(name)
    .argument("<request>", "its name, as `domain pending` shows it")
    .description(`${name} a request for a certificate`)
    .addHelpText("after", `\nExample:\n  sixtalk --home ./alpha domain ${name} 0b77…`)
    .action(async (ref: string, _o: object, command: Command) => {
      await withCa(command, ({ approvals }) => {
        approvals.decide(ref, name === "approve" ? "approved" : "refused", BY, clock());
        return name === "approve" ? "Approved.\n" : "Refused.\n";
      });
    });
}

function audit(): Command {
  const command = new Command("audit").description("what was issued and revoked, as a chain of entries");
  command
    .command("verify")
    .description("check that the chain is whole, and that register and audit tell the same")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain audit verify")
    .action(async (_o: object, self: Command) => {
      await withCa(self, ({ authority }) => {
        const verdict = authority.register.audit();
        if (verdict.holds) return `${verdict.entries} entries hold; the last is ${verdict.head || "none"}\n`;
        throw new SuiteError("store-failed", "the audit does not hold", {
          fault: "local",
          details: { entry: verdict.seq, why: verdict.why },
        });
      });
    });
  return command;
}

function ca(): Command {
  const command = new Command("ca").description("the issuing CA below a root that is kept offline");
  command
    .command("csr")
    .description("make the key of the next issuing CA, and print its request for the root's owner")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain ca csr > next.csr")
    .action((_o: object, self: Command) => {
      const home = homeOf(self);
      process.stdout.write(requestIssuing(caOptions(home, domainOf(home), clock())));
    });
  command
    .command("sign")
    .argument("<request>", "file that `domain ca csr` printed")
    .requiredOption("--domain <domain>", "the Internet domain that it may certify names of")
    .requiredOption("--root <directory>", "where root.pem, root.key and passphrase lie")
    .description("sign it with the root's key and print the certificate; needs no network and no home")
    .addHelpText(
      "after",
      "\nExample:\n  sixtalk domain ca sign next.csr --domain alpha.test --root /media/key > next.pem",
    )
    .action((request: string, o: { domain: string; root: string }) => {
      const file = (name: string) => join(o.root, name);
      const pem = signIssuing({
        ...{ rootFile: file("root.pem"), rootKeyFile: file("root.key"), passphraseFile: file("passphrase") },
        ...{ domain: parseDomain(o.domain), csr: readFileSync(request, "utf8"), now: clock(), random: randomBytes },
      });
      process.stdout.write(pem);
    });
  command
    .command("install")
    .argument("<certificate>", "file that `domain ca sign` printed")
    .description("put it in force; the issuing CA before it stays published as long as it is valid")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain ca install next.pem")
    .action((certificate: string, _o: object, self: Command) => {
      const home = homeOf(self);
      installIssuing(caOptions(home, domainOf(home), clock()), readFileSync(certificate, "utf8"));
      process.stdout.write("It is in force; a running server takes it within ten minutes, or at its next start.\n");
    });
  return command;
}

async function withCa(command: Command, body: (ca: DomainCa, config: DomainConfig) => string): Promise<void> {
  const home = homeOf(command);
  const config = domainOf(home);
  const opened = new DomainCa({ home, config, log: silentLog, clock });
  try {
    process.stdout.write(body(opened, config));
  } finally {
    await opened.stop();
  }
}

function domainOf(home: Home): DomainConfig {
  const { domain }: Config = loadConfig(home.config);
  if (domain === undefined) throw new SuiteError("config-invalid", "this home has no domain", { fault: "local" });
  return domain;
}
