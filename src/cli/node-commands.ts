import { Command } from "commander";
import { asking, json, list, type Status, told } from "./asking.ts";
import { trustCommand } from "./trust-commands.ts";

const person: [string, string] = ["<identity>", "user@domain"];
const item: [string, string] = ["<id>", "the item, or the beginning of its id"];
const done = () => "done";

/** What the owner asks his running node, beside content. */
export function nodeCommands(): Command[] {
  return [
    asking({ name: "status", about: "how the node is", example: "status", method: "status", show: json }),
    asking({
      name: "lookup",
      arguments: [person],
      about: "ask the directory for a person",
      example: "lookup bob@beta.test",
      method: "lookup",
      params: ([identity]) => ({ identity }),
      show: json,
    }),
    queueCommand(),
    contactsCommand(),
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
        show: done,
      }),
    ),
    trustCommand(),
    appPasswordCommand(),
    doctorCommand(),
    asking({
      name: "events",
      options: [["--after <number>", "only those behind this one"]],
      about: "what happened, oldest first: arrivals, deliveries, refusals, requests",
      example: "events --after 120",
      method: "events",
      params: (_args, { after }) => ({ after: Number(after ?? 0) }),
      show: list(
        (one: { seq: number; at: string; body: { type: string } }) =>
          `${one.seq}  ${one.at}  ${one.body.type}  ${fieldsOf(one.body)}`,
        "nothing yet",
      ),
    }),
  ];
}

function queueCommand(): Command {
  const queue = asking({
    name: "queue",
    about: "what waits to be delivered",
    example: "queue",
    method: "queue",
    show: list(
      (one: { item: string; to: string; status: Status }) => `${one.item}  ${one.to}  ${told(one.status)}`,
      "nothing waits",
    ),
  });
  const actions = {
    retry: "try again now",
    cancel: "give up what has not arrived",
    hold: "keep it back",
    release: "let it go on",
  };
  for (const [action, about] of Object.entries(actions)) {
    queue.addCommand(
      asking({
        name: action,
        arguments: [item],
        about,
        example: `queue ${action} 01M88`,
        method: "queue.act",
        params: ([id]) => ({ id, action }),
        show: done,
      }),
    );
  }
  return queue;
}

function contactsCommand(): Command {
  return asking({
    name: "contacts",
    about: "who may come in without asking",
    example: "contacts",
    method: "contacts",
    show: list((one: { identity: string; name: string }) => `${one.identity}  ${one.name}`, "no contacts yet"),
  })
    .addCommand(
      asking({
        name: "add",
        arguments: [person],
        options: [["--name <full name>", "as you call him"]],
        about: "let a person in without asking",
        example: "contacts add bob@beta.test --name Bob",
        method: "contacts.add",
        params: ([identity = ""], { name }) => ({ identity, name: name ?? identity }),
        show: ({ added }: { added: boolean }) => (added ? "done" : "was a contact before"),
      }),
    )
    .addCommand(
      asking({
        name: "remove",
        arguments: [person],
        about: "a person has to ask again; open connections of his are closed",
        example: "contacts remove bob@beta.test",
        method: "contacts.remove",
        params: ([identity]) => ({ identity }),
        show: ({ removed }: { removed: boolean }) => (removed ? "done" : "was no contact"),
      }),
    );
}

function doctorCommand(): Command {
  return asking({
    name: "doctor",
    about: "look at all that has to be right: gate, certificates, clock, directory, addresses, lists, disk",
    example: "doctor",
    method: "doctor",
    show: (findings: { what: string; state: "ok" | "notice" | "problem"; detail: string }[]) => {
      if (findings.some(({ state }) => state === "problem")) process.exitCode = 1;
      return findings.map(({ what, state, detail }) => `${state.padEnd(7)}  ${what}: ${detail}`).join("\n");
    },
  });
}

function appPasswordCommand(): Command {
  return new Command("app-password")
    .description("passwords for your own mail, SIP and FTP programs")
    .addCommand(
      asking({
        name: "add",
        arguments: [["<label>", "which program it is for"]],
        about: "make a password; it is shown this once",
        example: "app-password add thunderbird",
        method: "app-passwords.create",
        params: ([label]) => ({ label }),
        show: (result: { password: string }) => result.password,
      }),
    )
    .addCommand(
      asking({
        name: "list",
        about: "which there are",
        example: "app-password list",
        method: "app-passwords",
        show: list(
          (one: { id: string; label: string; createdAt: string }) => `${one.id}  ${one.createdAt}  ${one.label}`,
          "none yet",
        ),
      }),
    )
    .addCommand(
      asking({
        name: "remove",
        arguments: [["<id>", "as the list shows it"]],
        about: "end a password",
        example: "app-password remove 1f0e22a4",
        method: "app-passwords.remove",
        params: ([id]) => ({ id }),
        show: ({ removed }: { removed: boolean }) => (removed ? "done" : "there is no such password"),
      }),
    )
    .addHelpText("after", "\nExample:\n  sixtalk app-password add thunderbird");
}

function fieldsOf({ type: _type, ...fields }: { type: string }): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${Array.isArray(value) ? value.join(",") : String(value)}`)
    .join(" ");
}
