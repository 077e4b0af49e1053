import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { expect, test } from "vitest";

const folder = join(import.meta.dirname, "../../src/cli");

/** Every command that src/cli makes, as `main.ts` would put it under `sixtalk`. */
async function commands(): Promise<Command[]> {
  const made: Command[] = [];
  const main = readFileSync(join(folder, "main.ts"), "utf8");
  for (const file of readdirSync(folder).filter((name) => name !== "main.ts")) {
    const exports = (await import(join(folder, file))) as Record<string, unknown>;
    for (const [name, value] of Object.entries(exports)) {
      if (!main.includes(` ${name}(`) && !main.includes(`...${name}(`)) continue;
      made.push(...[(value as () => Command | Command[])()].flat());
    }
  }
  return made;
}

function helpOf(command: Command): string {
  let text = "";
  command.configureOutput({ writeOut: (part) => (text += part) });
  command.outputHelp();
  return text;
}

/** The leaves below a command, each with the help of itself and of the groups it stands in. */
function leaves(command: Command, above: string, path: string): { path: string; help: string; command: Command }[] {
  const here = `${path} ${command.name()}`.trim();
  const help = `${above}\n${helpOf(command)}`;
  if (command.commands.length === 0) return [{ path: here, help, command }];
  return command.commands.flatMap((one) => leaves(one, help, here));
}

const all = (await commands()).flatMap((command) => leaves(command, "", ""));

test("there are commands, and none is made twice", () => {
  const paths = all.map(({ path }) => path);
  expect(paths.length).toBeGreaterThan(15);
  expect(paths.filter((path, index) => paths.indexOf(path) !== index)).toEqual([]);
});

test.each(all.map(({ path, help, command }) => [path, help, command] as const))(
  "`sixtalk %s --help` says what it does and shows an example",
  (path, help, command) => {
    expect(command.description()).not.toBe("");
    expect(help).toMatch(/\nExamples?:\n {2}sixtalk /);
    expect(help).toContain(path.split(" ")[0]);
  },
);

test("every example is of a command that there is", () => {
  const names = new Set(all.flatMap(({ path }) => [path.split(" ")[0]]));
  const typed = all.flatMap(({ help }) =>
    [...help.matchAll(/^ {2}sixtalk (?:--home \S+ )?([a-z][a-z0-9-]*)/gm)].map(([, name]) => name),
  );
  expect(typed.filter((name) => !names.has(name))).toEqual([]);
});
