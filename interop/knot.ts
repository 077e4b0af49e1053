import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../src/node/free-port.ts";
import { watched } from "./pair.ts";

/** Knot DNS with some zones, on loopback. */
export interface Knot extends AsyncDisposable {
  /** As the configuration takes it. */
  readonly server: string;
  /** Puts another content into a zone; resolves when it is served. */
  change(zone: string, records: readonly string[]): Promise<void>;
}

/** @param zones the records of each, as they stand in a zone file, by names relative to it */
export async function startKnot(folder: string, zones: Readonly<Record<string, readonly string[]>>): Promise<Knot> {
  const directory = join(folder, "knot");
  mkdirSync(directory, { recursive: true });
  const port = await freePort("::1", 0);
  let serial = 0;
  const write = (zone: string, records: readonly string[]) => {
    serial += 1;
    const lines = [
      `$ORIGIN ${zone}.`,
      "$TTL 1",
      `@ SOA ns hostmaster ${serial} 60 60 600 1`,
      "@ NS ns",
      "ns AAAA ::1",
      ...records,
    ];
    writeFileSync(join(directory, `${zone}.zone`), `${lines.join("\n")}\n`);
    return new RegExp(`\\[${zone}\\.\\] loaded, serial .*-> ${serial}\\b`);
  };
  const loaded = Object.entries(zones).map(([zone, records]) => write(zone, records));
  const configuration = join(directory, "knot.conf");
  const lines = [
    ...["server:", `  rundir: ${directory}`, `  listen: ::1@${port}`],
    ...["database:", `  storage: ${directory}`],
    ...["log:", "  - target: stdout", "    any: info"],
    ...["template:", "  - id: default", `    storage: ${directory}`, '    file: "%s.zone"'],
    ...["zone:", ...Object.keys(zones).map((zone) => `  - domain: ${zone}`)],
  ];
  writeFileSync(configuration, `${lines.join("\n")}\n`);
  const server = spawn("knotd", ["-c", configuration], { stdio: ["ignore", "pipe", "pipe"] });
  const told = watched(server);
  for (const line of loaded) await told.shows(line);
  await told.shows("server started");
  return {
    server: `[::1]:${port}`,
    async change(zone, records) {
      const line = write(zone, records);
      server.kill("SIGHUP");
      await told.shows(line);
    },
    async [Symbol.asyncDispose]() {
      const ended = once(server, "exit");
      server.kill("SIGTERM");
      await ended;
    },
  };
}
