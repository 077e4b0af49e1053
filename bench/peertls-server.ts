// Our side of bench/peertls: the gate on a port, with 10,000 allow and 10,000 block entries. Folder with keys as argument; answers
// "welcome" and closes ("keep": stays open; "bulk": sends 64 KiB pieces without end). Reads commands from standard input.
import { createPrivateKey, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Registry } from "prom-client";
import type { PeerConnection } from "../src/peertls-core/connection.ts";
import { Gate } from "../src/peertls-core/gate.ts";
import { DEFAULT_LIMITS } from "../src/peertls-core/limits.ts";
import { Trust } from "../src/peertls-core/trust.ts";
import { parseCertificate } from "../src/pki/certificate.ts";
import { silentLog } from "../src/pki/log.ts";
import { pemToDer } from "../src/pki/pem.ts";

const [folder = "", mode = "welcome", entries = "10000"] = process.argv.slice(2);
const certificates = (name: string) =>
  pemToDer(readFileSync(join(folder, name), "utf8"), "CERTIFICATE").map((der) => parseCertificate(der));
const [certificate, ...chain] = certificates("server.pem");
const [root] = certificates("root.pem");
if (certificate === undefined || root === undefined) throw new Error("no certificates");

const many = Array.from({ length: Number(entries) }, (_one, n) => n);
const registry = new Registry();
const gate = new Gate({
  credentials: {
    privateKey: createPrivateKey(readFileSync(join(folder, "server.key"), "utf8")),
    certificate,
    chain,
  },
  trust: new Trust({
    anchors: [
      {
        name: "bench",
        certificate: root,
        domains: ["bench.test"],
        organisations: [],
        identitiesFrom: ["rfc822Name"],
      },
    ],
    block: many.map((n) => ({ identity: `blocked${n}@bench.test` })),
    allow: many.map((n) => ({ identity: `peer${n}@bench.test` })),
    rules: [{ domain: "bench.test" }],
    otherwise: "deny",
    contacts: [],
    requestsOnPort: false,
  }),
  limits: {
    ...DEFAULT_LIMITS,
    pendingTotal: 100_000,
    pendingPerPrefix: 100_000,
    acceptsPerSecond: 1e9,
    acceptBurst: 1e9,
    acceptsPerSecondAdmitted: 1e9,
    connectionsPerKey: 1_000_000,
  },
  clock: () => new Date(),
  random: randomBytes,
  log: silentLog,
  registry,
});

const piece = randomBytes(65_536);
function answer({ stream }: PeerConnection): void {
  stream.on("error", () => undefined);
  if (mode === "bulk") {
    const more = () => {
      while (stream.write(piece));
    };
    stream.on("drain", more);
    more();
  } else if (mode === "keep") {
    stream.write("welcome");
    stream.resume();
  } else {
    stream.resume();
    stream.end("welcome");
  }
}

const door = {
  choose: () => undefined,
  implied: { kind: "protocol", protocol: "sip" } as const,
  admitted: answer,
};
const server = createServer({ noDelay: true }, (raw) => gate.accept(raw, door));
server.listen({ host: "127.0.0.1", port: 0, backlog: 4_096 }, () => {
  process.stdout.write(`${(server.address() as { port: number }).port}\n`);
});

process.stdin.on("data", (command: Buffer) => {
  void tell(command.toString().trim());
});

async function tell(command: string): Promise<void> {
  if (command === "gc") {
    (globalThis as { gc?: () => void }).gc?.();
    process.stdout.write(`${gate.connections.length}\n`);
  }
  if (command === "gate") {
    const [metric] = (await registry.getMetricsAsJSON()).filter(({ name }) => name === "peertls_gate_seconds");
    const value = (suffix: string) =>
      metric?.values.find((one) => "metricName" in one && one.metricName === `peertls_gate_seconds_${suffix}`)?.value;
    process.stdout.write(`${value("sum")} ${value("count")}\n`);
  }
}
