import { readFileSync } from "node:fs";
import { Command } from "commander";
import { ask } from "./client.ts";
import { homeOf } from "./home.ts";

const ASK_MS = 30_000;

type Show = (result: never) => string;

/** A command that asks the running node one thing and shows the answer; `--json` prints it as it came. */
function asking(spec: {
  name: string;
  arguments?: [string, string][];
  about: string;
  example: string;
  method: string;
  params?: (args: string[]) => object;
  show: Show;
}): Command {
  const command = new Command(spec.name)
    .description(spec.about)
    .option("--json", "print JSON")
    .addHelpText("after", `\nExample:\n  sixtalk ${spec.example}`);
  for (const [name, about] of spec.arguments ?? []) command.argument(name, about);
  return command.action(async (...all: unknown[]) => {
    const self = all.at(-1) as Command;
    const args = (spec.arguments ?? []).map((_argument, at) => String(all[at]));
    const result = await ask<never>(
      homeOf(self).control,
      spec.method,
      spec.params?.(args) ?? {},
      AbortSignal.timeout(ASK_MS),
    );
    const json = self.opts<{ json?: boolean }>().json === true;
    process.stdout.write(`${json ? JSON.stringify(result) : spec.show(result)}\n`);
  });
}

interface Status {
  state: string;
  why?: string;
  reason?: string;
}

/** What became of something, in the words of the receipt and no more. */
function told(status: Status | undefined): string {
  if (status === undefined) return "unknown";
  const more = status.why ?? status.reason;
  return more === undefined ? status.state : `${status.state}: ${more.replaceAll("-", " ")}`;
}

const json: Show = (result) => JSON.stringify(result, undefined, 2);
const list =
  <T>(line: (one: T) => string, empty: string) =>
  (result: T[]) =>
    result.length === 0 ? empty : result.map(line).join("\n");

export function nodeCommands(): Command[] {
  const person: [string, string] = ["<identity>", "user@domain"];
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
        show: () => "done",
      }),
    );
  }
  trust.addCommand(
    asking({
      name: "explain",
      arguments: [["<file>", "certificate, PEM, with its chain"]],
      about: "tell step by step what the policy says of a certificate",
      example: "trust explain bob.pem",
      method: "trust.explain",
      params: ([file = ""]) => ({ pem: readFileSync(file, "utf8"), protocol: "sip" }),
      show: (result: { trace: string[]; verdict: { admit: boolean } }) =>
        `${result.trace.join("\n")}\n→ ${result.verdict.admit ? "admitted" : "refused"}`,
    }),
  );
  return [
    asking({ name: "status", about: "how the node is", example: "status", method: "status", show: json }),
    asking({
      name: "send",
      arguments: [
        ["<to>", "user@domain"],
        ["<text>", "the message"],
      ],
      about: "send a message",
      example: "send bob@beta.test 'Hello Bob'",
      method: "send",
      params: ([to, text]) => ({ to, text }),
      show: (result: { item: string; status?: Status }) => `${result.item} ${told(result.status)}`,
    }),
    asking({
      name: "lookup",
      arguments: [person],
      about: "ask the directory for a person",
      example: "lookup bob@beta.test",
      method: "lookup",
      params: ([identity]) => ({ identity }),
      show: json,
    }),
    asking({
      name: "inbox",
      about: "what has come, newest first",
      example: "inbox",
      method: "inbox",
      show: list(
        (one: { id: string; at: string; from: string; title: string }) =>
          `${one.id}  ${one.at}  ${one.from}  ${one.title}`,
        "nothing yet",
      ),
    }),
    asking({
      name: "read",
      arguments: [["<id>", "the item, or the beginning of its id"]],
      about: "show one item",
      example: "read 01M88",
      method: "read",
      params: ([id]) => ({ id }),
      show: (result: { from: string; at: string; text: string }) =>
        `From: ${result.from}\nDate: ${result.at}\n\n${result.text}`,
    }),
    asking({
      name: "queue",
      about: "what waits to be delivered",
      example: "queue",
      method: "queue",
      show: list(
        (one: { item: string; to: string; status: Status }) => `${one.item}  ${one.to}  ${told(one.status)}`,
        "nothing waits",
      ),
    }),
    asking({
      name: "contacts",
      about: "who may come in without asking",
      example: "contacts",
      method: "contacts",
      show: list((one: { identity: string; name: string }) => `${one.identity}  ${one.name}`, "no contacts yet"),
    }),
    asking({
      name: "requests",
      about: "who asked to be admitted",
      example: "requests",
      method: "requests",
      show: list(
        (one: { from: string; state: string; name: string }) => `${one.from}  ${one.name}  ${one.state}`,
        "nobody has asked",
      ),
    }),
    ...(["accept", "reject"] as const).map((decision) =>
      asking({
        name: decision,
        arguments: [person],
        about: `${decision} a request`,
        example: `${decision} alice@alpha.test`,
        method: "requests.decide",
        params: ([from]) => ({ from, decision }),
        show: () => "done",
      }),
    ),
    trust,
    asking({
      name: "app-password",
      arguments: [["<label>", "which program it is for"]],
      about: "make a password for one of your own programs; it is shown this once",
      example: "app-password baresip",
      method: "app-passwords.create",
      params: ([label]) => ({ label }),
      show: (result: { password: string }) => result.password,
    }),
  ];
}
