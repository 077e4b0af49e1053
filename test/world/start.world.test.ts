import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { LAUNCHER } from "../../src/cli/self.ts";
import { DomainServer, initDomain, invite } from "../../src/node/domain.ts";
import { enrol } from "../../src/node/enrol.ts";
import { type Home, homeAt, makeHome } from "../../src/node/home.ts";
import { parseInvitation } from "../../src/node/invitation.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { enrolPerson, startDomain } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

const SOON_MS = 20_000;

/** Runs the program on a home until it is ready or over. */
async function started(
  home: Home,
  ...words: string[]
): Promise<{ child: ChildProcess; ready: boolean; err: () => string }> {
  const args = [LAUNCHER, "--home", home.directory, ...words, "start", "--ready-fd", "3"];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe", "pipe"] });
  let err = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    err += chunk.toString();
  });
  const signal = AbortSignal.timeout(SOON_MS);
  try {
    const ready = await Promise.race([
      once(child.stdio[3] as NodeJS.ReadableStream, "data", { signal }).then(() => true),
      once(child, "close", { signal }).then(() => false),
    ]);
    return { child, ready, err: () => err };
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
}

function configure(home: Home, change: (config: Record<string, Record<string, unknown>>) => void): void {
  const config = parse(readFileSync(home.config, "utf8")) as Record<string, Record<string, unknown>>;
  change(config);
  writeFileSync(home.config, stringify(config));
}

test("a start that fails half way ends the process, and the log says why", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const taken = createServer().listen(0, "::1");
  await once(taken, "listening");
  try {
    const home = await enrolPerson(folder.path, domain, "alice");
    const { port } = taken.address() as { port: number };
    configure(home, ({ peer }) => Object.assign(peer ?? {}, { listen: { host: "::1", port } }));
    const { child, ready, err } = await started(home);
    expect({ ready, code: child.exitCode }).toEqual({ ready: false, code: 1 });
    expect(err()).toContain("another program uses this port");
    expect(readFileSync(join(home.log, "sixtalk.log"), "utf8")).toContain("the start failed");
  } finally {
    taken.close();
    await domain.server.stop();
  }
});

test("SIGHUP ends neither a domain's server nor a person's node, also with a broken configuration", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const { sixid, irp } = domain.server.ports;
  const home = await enrolPerson(folder.path, domain, "alice");
  await domain.server.stop();
  const part = { name: "alpha.test", host: "::1", sixidPort: sixid.port, irpPort: irp.port };
  writeFileSync(domain.home.config, stringify({ domain: part }));
  const server = await started(domain.home, "domain");
  const node = await started(home);
  try {
    expect([server.ready, node.ready]).toEqual([true, true]);
    writeFileSync(home.config, "peer: [\n");
    for (const { child } of [server, node]) {
      child.kill("SIGHUP");
      child.kill("SIGTERM");
      const [code, signal] = (await once(child, "close")) as [number | null, string | null];
      expect({ code, signal }).toEqual({ code: 0, signal: null });
    }
    expect(readFileSync(join(home.log, "sixtalk.log"), "utf8")).toContain("nothing was reloaded");
  } finally {
    for (const { child } of [server, node]) child.kill("SIGKILL");
  }
});

test("a node whose certificate has ended says so, and what to do", async () => {
  await using folder = await temporaryFolder();
  const past = () => new Date(Date.now() - 80 * 86_400_000);
  const name = "alpha.test";
  const at = homeAt(join(folder.path, name), {});
  makeHome(at);
  const root = derToPem(initDomain(at, name, past()).root.der, "CERTIFICATE");
  const plan = { name, host: "::1", sixidPort: 0, irpPort: 0, domains: [] };
  const server = await DomainServer.start({ home: at, config: plan, log: silentLog, clock: past });
  const home = homeAt(join(folder.path, "alice"), {});
  const { sixid, irp } = server.ports;
  const config = { ...plan, sixidPort: sixid.port, irpPort: irp.port };
  const { link } = await invite({ home: at, config, log: silentLog, clock: past }, "alice", undefined, irp);
  const o = { home, invitation: parseInvitation(link), name: "alice", label: "test", clock: past, log: silentLog };
  await enrol(o, AbortSignal.timeout(SOON_MS));
  await server.stop();
  writeFileSync(join(home.anchors, "alpha.test.pem"), root);
  const local = { smtpsPort: 0, submissionPort: 0, ftpPort: 0, sipPort: 0, sipsPort: 0 };
  const directory = { host: "::1", port: sixid.port, irpPort: irp.port, anchor: "anchors/alpha.test.pem" };
  const peer = { identity: "alice@alpha.test", name: "alice", listen: { host: "::1", port: 0 }, directory, local };
  writeFileSync(home.config, stringify({ peer }));
  const { child, ready, err } = await started(home);
  child.kill("SIGTERM");
  await once(child, "close");
  expect(ready).toBe(true);
  expect(err()).toMatch(/your certificate ended on .*\n.* init '<invitation>'\n/);
});
