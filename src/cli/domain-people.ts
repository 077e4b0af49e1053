import { Command } from "commander";
import { loadConfig } from "../node/config.ts";
import type { DomainOptions } from "../node/domain.ts";
import { changePerson, domainZone, listPeople, type Person } from "../node/domain-people.ts";
import { silentLog } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { homeOf } from "./home.ts";
import { visibleLine } from "./terminal.ts";

/** What the owner of a domain does about its people. A running server sees it at once. */
export function peopleCommands(): Command[] {
  return [users(), status("block", "blocked"), status("unblock", "active"), remove(), role(), zone()];
}

function users(): Command {
  return new Command("users")
    .argument("[part]", "of a user's identity or name; all if absent")
    .description("list the people of the domain")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain users")
    .action(async (part: string | undefined, _o: object, command: Command) => {
      const found = await listPeople(optionsOf(command), part);
      process.stdout.write(found.length === 0 ? "nobody\n" : found.map(lineOf).join(""));
    });
}

function lineOf({ identity, name, status: state, roles, devices }: Person): string {
  const enrolled = devices === 0 ? "not enrolled" : devices === 1 ? "1 device" : `${devices} devices`;
  const facts = [identity, name, enrolled, ...(state === "active" ? [] : [state]), ...roles];
  return `${visibleLine(facts.join("  "))}\n`;
}

function status(verb: "block" | "unblock", to: "blocked" | "active"): Command {
  return new Command(verb)
    .argument("<user>", "user name, or user@domain")
    .description(verb === "block" ? "shut somebody out of the directory and of enrolment" : "let somebody in again")
    .addHelpText("after", `\nExample:\n  sixtalk --home ./alpha domain ${verb} alice`)
    .action(async (user: string, _o: object, command: Command) => {
      process.stdout.write(`${await changePerson(optionsOf(command), user, { status: to })} is ${to}.\n`);
    });
}

function remove(): Command {
  return new Command("remove")
    .argument("<user>", "user name, or user@domain")
    .requiredOption("--yes", "really: nothing of it comes back")
    .description("remove somebody and all that the directory has of him; the name is nobody else's for a year")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain remove alice --yes")
    .action(async (user: string, _o: object, command: Command) => {
      const identity = await changePerson(optionsOf(command), user, { status: "removed" });
      process.stdout.write(`${identity} is removed. Certificates are good until they are revoked or end.\n`);
    });
}

const ROLES = ["admin", "officer"] as const;

function role(): Command {
  return new Command("role")
    .argument("<user>", "user name, or user@domain")
    .argument("[roles...]", `of ${ROLES.join(", ")}; none if absent`)
    .description("say what somebody may do for others")
    .addHelpText("after", "\nExample:\n  sixtalk --home ./alpha domain role alice admin")
    .action(async (user: string, given: string[], _o: object, command: Command) => {
      const roles = ROLES.filter((one) => given.includes(one));
      if (roles.length < given.length)
        throw new SuiteError("syntax", "there is no such role", {
          fault: "local",
          details: { given: given.join(" ") },
        });
      const identity = await changePerson(optionsOf(command), user, { roles });
      process.stdout.write(`${identity}: ${roles.length === 0 ? "no role" : roles.join(", ")}\n`);
    });
}

function zone(): Command {
  return new Command("zone")
    .requiredOption("--host <name>", "DNS name of the server, as sixid.alpha.test")
    .option("--address <address...>", "IP addresses of that name, if they are to stand in the zone, too", [])
    .description("print what the domain's zone is to tell: SRV, TLSA and SMIMEA records")
    .addHelpText(
      "after",
      "\nExample:\n  sixtalk --home ./alpha domain zone --host sixid.alpha.test --address 2001:db8::1 >> alpha.test.zone",
    )
    .action(async ({ host, address }: { host: string; address: string[] }, command: Command) => {
      const { text, leftOut } = await domainZone(optionsOf(command), { host, addresses: address });
      process.stdout.write(text);
      for (const identity of leftOut) process.stderr.write(`Left out: ${identity}, whose record does not hold now.\n`);
    });
}

/** @throws SuiteError config-invalid */
function optionsOf(command: Command): DomainOptions {
  const home = homeOf(command);
  const { domain: config } = loadConfig(home.config);
  if (config === undefined) throw new SuiteError("config-invalid", "this home has no domain", { fault: "local" });
  return { home, config, log: silentLog, clock: () => new Date() };
}
