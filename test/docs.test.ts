import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { configJsonSchema, loadConfig } from "../src/node/config.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const read = (name: string) => readFileSync(join(root, name), "utf8");
const pages = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "interop/README.md"];

test("config/sixtalk.schema.json is what `sixtalk config schema` prints", () => {
  expect(read("config/sixtalk.schema.json")).toBe(configJsonSchema());
});

test("config/sixtalk.yaml is valid and shows the defaults", () => {
  const { peer, trust, log } = loadConfig(join(root, "config/sixtalk.yaml"));
  expect(peer?.listen.port).toBe(4605);
  expect(peer?.outbox.lifetimeSeconds).toBe(432_000);
  expect(trust.otherwise).toBe("contacts");
  expect(log.level).toBe("info");
});

test.each(pages)("every relative link in %s leads somewhere", (page) => {
  const links = [...read(page).matchAll(/\]\((?!https?:|#)([^)#]+)[^)]*\)/g)].map(([, target = ""]) => target);
  expect(links.filter((target) => !existsSync(join(root, dirname(page), target)))).toEqual([]);
});

test("README names only commands and npm scripts that there are", () => {
  const readme = read("README.md");
  const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
  const named = [...readme.matchAll(/npm (?:run )?([a-z]+)/g)].map(([, script = ""]) => script);
  expect(named.filter((script) => script !== "ci" && scripts[script] === undefined)).toEqual([]);
  const commands = readdirSync(join(root, "src/cli"))
    .map((file) => read(relative(root, join(root, "src/cli", file))))
    .join("\n");
  const typed = [...readme.matchAll(/sixtalk(?:\.js)?(?: --home \S+)? ([a-z][a-z0-9-]+)/g)].map(
    ([, command = ""]) => command,
  );
  expect(typed.length).toBeGreaterThan(5);
  expect(typed.filter((command) => !new RegExp(`"${command}"|${command}: "`).test(commands))).toEqual([]);
});
