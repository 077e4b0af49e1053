import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { temporaryFolder } from "../support/openssl.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const folder = temporaryFolder();
const running: ChildProcess[] = [];

/** Runs one command of the command line to its end. */
async function sixtalk(home: string, ...args: string[]): Promise<{ out: string; err: string; code: number | null }> {
  const child = spawn(process.execPath, [join(root, "bin/sixtalk.js"), "--home", join(folder.path, home), ...args]);
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => {
    out += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk.toString();
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { out, err, code };
}

/** Starts a home and waits for its ready line. */
async function start(home: string): Promise<{ child: ChildProcess; ports: Record<string, { port: number }> }> {
  const args = [join(root, "bin/sixtalk.js"), "--home", join(folder.path, home), "start", "--ready-fd", "3"];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe", "pipe"] });
  running.push(child);
  const ready = child.stdio[3] as NodeJS.ReadableStream;
  const line = await Promise.race([once(ready, "data"), once(child, "exit").then(() => ["{}"])]);
  return { child, ...(JSON.parse(String(line[0])) as { ports: Record<string, { port: number }> }) };
}

afterAll(async () => {
  for (const child of running.reverse()) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill("SIGTERM");
    await once(child, "exit");
  }
  folder[Symbol.dispose]();
});

/** Ports that the system chooses, in a configuration that was written with the standard ones. */
function choosePorts(home: string, change: (config: Record<string, Record<string, unknown>>) => void): void {
  const file = join(folder.path, home, "sixtalk.yaml");
  const config = parse(readFileSync(file, "utf8")) as Record<string, Record<string, unknown>>;
  change(config);
  writeFileSync(file, stringify(config));
}

/** Asks Alice's node until it says that its queue is empty; each question is a process of its own. */
async function nothingWaits(): Promise<void> {
  let waiting = "?";
  for (let n = 0; n < 50 && waiting !== "nothing waits\n"; n++) waiting = (await sixtalk("alice", "queue")).out;
  expect(waiting).toBe("nothing waits\n");
}

const local = { host: "127.0.0.1", smtpsPort: 0, submissionPort: 0, ftpPort: 0, sipPort: 0, sipsPort: 0 };

test("from nothing: a domain, two people, a refusal, an acceptance, a message, a kill and a return", async () => {
  expect(
    (await sixtalk("domain", "domain", "init", "alpha.test", "--host", "::1", "--sixid-port", "0", "--irp-port", "0"))
      .code,
  ).toBe(0);
  const { ports } = await start("domain");
  choosePorts("domain", ({ domain }) =>
    Object.assign(domain ?? {}, { sixidPort: ports["sixid"]?.port, irpPort: ports["irp"]?.port }),
  );
  for (const user of ["alice", "bob"]) {
    const { out } = await sixtalk("domain", "domain", "invite", user);
    const link = /'(sixtalk:[^']+)'/.exec(out)?.[1] ?? "";
    expect(await sixtalk(user, "init", link, "--local-only")).toMatchObject({ code: 0, err: "" });
    choosePorts(user, ({ peer }) =>
      Object.assign(peer ?? {}, { listen: { host: "::1", port: 0 }, local, outbox: { retrySeconds: [0, 1] } }),
    );
    expect((await sixtalk(user, "config", "check")).out).toContain("is valid");
  }
  await start("alice");
  let bob = await start("bob");

  expect((await sixtalk("alice", "send", "bob@alpha.test", "Hello Bob")).out).toContain("held: not admitted");
  expect((await sixtalk("bob", "requests")).out).toContain("alice@alpha.test");
  expect((await sixtalk("bob", "accept", "alice@alpha.test")).out).toBe("done\n");
  expect((await sixtalk("alice", "send", "bob@alpha.test", "again")).out).toContain("delivered");
  await nothingWaits();
  const inbox = (await sixtalk("bob", "inbox")).out;
  expect(inbox).toContain("Hello Bob");
  expect((await sixtalk("bob", "read", inbox.split(" ")[0] ?? "")).out).toContain("From: alice@alpha.test");

  bob.child.kill("SIGKILL");
  await once(bob.child, "exit");
  expect((await sixtalk("bob", "status")).err).toContain("no node is running");
  expect((await sixtalk("alice", "send", "bob@alpha.test", "while you were away")).out).toContain(
    "queued: unreachable",
  );
  bob = await start("bob");
  await nothingWaits();
  expect((await sixtalk("bob", "inbox")).out.match(/while you were away/g)).toHaveLength(1);

  expect((await sixtalk("bob", "trust", "block", "alice@alpha.test")).code).toBe(0);
  expect((await sixtalk("alice", "send", "bob@alpha.test", "let me in")).out).toContain("held: not admitted");
});
