import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { LAUNCHER } from "../../src/cli/self.ts";
import { loadConfig } from "../../src/node/config.ts";
import { homeAt } from "../../src/node/home.ts";
import { temporaryFolder } from "../support/tmp.ts";

async function sixtalk(home: string, ...args: string[]): Promise<string> {
  const child = spawn(process.execPath, [LAUNCHER, "--home", home, ...args]);
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => void (said += chunk.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  expect(code, said).toBe(0);
  return said;
}

async function running(home: string): Promise<ChildProcess> {
  const args = ["--home", home, "start", "--ready-fd", "3"];
  const child = spawn(process.execPath, [LAUNCHER, ...args], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const ready = child.stdio[3] as NodeJS.ReadableStream;
  const [line] = (await Promise.race([once(ready, "data"), once(child, "exit").then(() => [""])])) as [unknown];
  expect(String(line)).toContain('"ports"');
  return child;
}

async function stopped(child: ChildProcess): Promise<void> {
  child.kill("SIGTERM");
  await once(child, "exit");
}

test("of a home that is its domain's server too, the person is backed up; it is said what else is needed, and with that all is back", async () => {
  await using folder = await temporaryFolder();
  const home = homeAt(join(folder.path, "home"), {});
  const copy = join(folder.path, "copy");
  const file = join(folder.path, "me.p12");
  await stopped(await running(home.directory)); // a home that needs nobody else
  const { peer, domain } = loadConfig(home.config);
  const ca = readFileSync(join(home.domain, "ca/root.pem"), "utf8");

  const made = await sixtalk(home.directory, "backup", file);
  expect(made).toContain("This home is also the server of home.arpa");
  expect(made).toContain(`keep a copy of this folder with the file: ${home.domain}\n`);
  const [, passphrase = ""] = /^ {2}((?:[0-9A-Z]{4}-){5}[0-9A-Z]{4})$/m.exec(made) ?? [];
  cpSync(home.domain, copy, { recursive: true });
  rmSync(home.directory, { recursive: true });

  const args = ["--home", home.directory, "restore", file];
  const child = spawn(process.execPath, [LAUNCHER, ...args], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(`${passphrase}\n`);
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => void (said += chunk.toString()));
  expect(await once(child, "close")).toEqual([0, null]);
  expect(said).toContain("This home was also the server of home.arpa, which is not restored.");
  expect(said).toContain(home.domain);
  const [, appending = ""] = /its settings back: (.*)\n/.exec(said) ?? [];

  // As it stands it is a person's home, and makes no CA that nobody knows.
  expect(loadConfig(home.config).domain).toBeUndefined();
  await stopped(await running(home.directory));
  expect(existsSync(home.domain)).toBe(false);

  cpSync(copy, home.domain, { recursive: true });
  expect(await once(spawn("sh", ["-c", appending]), "close")).toEqual([0, null]);
  expect(loadConfig(home.config)).toMatchObject({ domain, peer: { identity: peer?.identity } });
  const again = await running(home.directory);
  try {
    expect(readFileSync(join(home.domain, "ca/root.pem"), "utf8")).toBe(ca);
    const record = JSON.parse(await sixtalk(home.directory, "lookup", peer?.identity ?? "", "--json")) as {
      name: string;
    };
    expect(record.name).toBe(peer?.name);
  } finally {
    await stopped(again);
  }
  expect(readdirSync(folder.path).toSorted()).toEqual(["copy", "home", "me.p12"]);
});
