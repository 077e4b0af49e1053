import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { Command } from "commander";
import { SuiteError } from "../pki/suite-error.ts";
import { asking, list } from "./asking.ts";

interface PastApproach {
  at: string;
  outcome: string;
  protocol: string;
  claims: string[];
  why: string;
  address: { host: string };
}

const person: [string, string] = ["<identity>", "user@domain"];
const done = () => "done";
const nameOf = ({ claims, address }: PastApproach) => (claims.length > 0 ? claims.join(", ") : address.host);

/** Who may come in, why, and what other rules would change. */
export function trustCommand(): Command {
  const trust = new Command("trust").description("who may come in");
  for (const name of ["allow", "block"] as const) {
    trust.addCommand(
      asking({
        name,
        arguments: [person],
        about: `${name} a person`,
        example: `trust ${name} carol@alpha.test`,
        method: `trust.${name}`,
        params: ([identity]) => ({ identity }),
        show: done,
      }),
    );
  }
  trust.addCommand(
    asking({
      name: "explain",
      arguments: [["<who>", "a person, or a PEM file with a certificate and its chain"]],
      about: "tell step by step what the policy says",
      example: "trust explain bob@beta.test",
      method: "trust.explain",
      params: ([who = ""]) => (who.includes("@") ? { identity: who } : { pem: pemIn(who), protocol: "sip" }),
      show: (result: { trace: string[]; verdict: { admit: boolean } }) =>
        `${result.trace.join("\n")}\n→ ${result.verdict.admit ? "admitted" : "refused"}`,
    }),
  );
  trust.addCommand(
    asking({
      name: "history",
      options: [["--denied", "only those who were refused"]],
      about: "who came to the gate lately, newest first",
      example: "trust history --denied",
      method: "trust.history",
      params: (_args, { denied }) => ({ limit: 100, ...(denied === undefined ? {} : { outcome: "denied" }) }),
      show: list(
        (one: PastApproach) =>
          `${one.at}  ${one.outcome.padEnd(8)}  ${one.protocol.padEnd(7)}  ${nameOf(one)}  ${one.why}`,
        "nobody came yet",
      ),
    }),
  );
  trust.addCommand(
    asking({
      name: "try",
      arguments: [["<file>", "a configuration"]],
      about: "tell who of those who came lately would fare differently by that file's rules; nothing is changed",
      example: "trust try new.yaml",
      method: "trust.try",
      params: ([file = ""]) => ({ path: resolve(file) }),
      show: list(
        ({ was, would }: { was: PastApproach; would: { admit: boolean; reason?: string; by?: { entry: string } } }) =>
          would.admit
            ? `${nameOf(was)} (${was.protocol}) would come in, by ${would.by?.entry}; was refused: ${was.why}`
            : `${nameOf(was)} (${was.protocol}) would be refused: ${would.reason}; was admitted, by ${was.why}`,
        "nobody would fare differently",
      ),
    }),
  );
  return trust.addHelpText("after", "\nExample:\n  sixtalk trust explain bob@beta.test");
}

/** @throws SuiteError not-found */
function pemIn(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new SuiteError("not-found", "there is no such file that can be read", {
      fault: "local",
      cause,
      details: { file },
    });
  }
}
