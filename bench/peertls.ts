// PeerTLS beside nginx and openssl, as peertls.md §6 asks: `npm run bench -- peertls [--smoke]`. Server on core 1, load on core 0.

import { execFileSync } from "node:child_process";
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Certificate, parseCertificate } from "../src/pki/certificate.ts";
import { parseIdentity } from "../src/pki/identity.ts";
import { derToPem } from "../src/pki/pem.ts";
import { issueAuth, issueDomainServer, issueIssuingCa, issueRoot } from "../src/pki/profile.ts";
import { ceiling, compare, cpuSeconds, ended, pinned, residentKilobytes, type Sample } from "./support.ts";

const smoke = process.argv.includes("--smoke");
const ROUNDS = smoke ? 1 : 5;
const HANDSHAKES = smoke ? 200 : 1_500;
const IDLE = smoke ? 200 : 4_000;
const MEGABYTES = smoke ? 100 : 1_500;
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "sixtalk-bench-"));
const serial = () => randomBytes(16);
const now = new Date();
const newKey = () => generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
const spkiOf = (key: KeyObject) => createPublicKey(key).export({ type: "spki", format: "der" });
const pemKey = (key: KeyObject) => key.export({ type: "pkcs8", format: "pem" }) as string;

function files(): void {
  const rootKey = newKey();
  const root = parseCertificate(issueRoot({ domain: "bench.test", privateKey: rootKey, now, serial: serial() }));
  const caKey = newKey();
  const ca = parseCertificate(
    issueIssuingCa({
      domain: "bench.test",
      issuer: { certificate: root, privateKey: rootKey },
      spki: spkiOf(caKey),
      now,
      serial: serial(),
    }),
  );
  const issuer = { certificate: ca, privateKey: caKey };
  const pem = (...certificates: Certificate[]) => certificates.map((one) => derToPem(one.der, "CERTIFICATE")).join("");
  const serverKey = newKey();
  const server = parseCertificate(
    issueDomainServer({ issuer, spki: spkiOf(serverKey), domain: "bench.test", now, serial: serial() }),
  );
  writeFileSync(join(folder, "root.pem"), pem(root));
  writeFileSync(join(folder, "server.pem"), pem(server, ca));
  writeFileSync(join(folder, "server.key"), pemKey(serverKey));
  authority = { issuer: { certificate: ca, privateKey: caKey }, chain: pem(ca) };
}

let authority: { issuer: { certificate: Certificate; privateKey: KeyObject }; chain: string };
let people = 0;

/** As many people as handshakes, none of whom was ever seen. */
function freshLeaves(): void {
  const leafKey = newKey();
  const spki = spkiOf(leafKey);
  const key = pemKey(leafKey);
  const leaves = Array.from({ length: HANDSHAKES }, () => {
    people += 1;
    const identity = parseIdentity(`peer${people}@bench.test`);
    const { issuer } = authority;
    const der = issueAuth({ issuer, spki, identity, name: `Peer ${people}`, now, serial: serial() });
    return { key, cert: derToPem(der, "CERTIFICATE") + authority.chain };
  });
  writeFileSync(join(folder, "leaves.json"), JSON.stringify(leaves));
}

interface Server {
  port: number;
  pid: number;
  ask(command: string): Promise<string>;
  end(): Promise<void>;
}

async function ourServer(mode: "welcome" | "keep" | "bulk", entries = 10_000): Promise<Server> {
  const args = ["--expose-gc", here("./peertls-server.ts"), folder, mode, String(entries)];
  const { child, pid, line } = await pinned(1, process.execPath, args, { ready: true });
  return {
    port: Number(line),
    pid,
    ask: (command) =>
      new Promise((resolve) => {
        child.stdout?.once("data", (chunk: Buffer) => resolve(chunk.toString().trim()));
        child.stdin?.write(`${command}\n`);
      }),
    end: () => ended(child),
  };
}

async function nginx(keep: boolean): Promise<Server> {
  const port = await freePort();
  const home = join(folder, keep ? "nginx-keep" : "nginx");
  mkdirSync(home, { recursive: true });
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((one) => `${one}_temp_path ${home}/${one};`);
  writeFileSync(
    join(home, "nginx.conf"),
    `daemon off; master_process off; pid ${home}/pid; error_log ${home}/error.log;
events { worker_connections 16384; }
http { ${paths.join(" ")} access_log off; keepalive_timeout 600s;
  server { listen 127.0.0.1:${port} ssl backlog=4096; ssl_certificate ${folder}/server.pem; ssl_certificate_key ${folder}/server.key;
    ssl_protocols TLSv1.3; ssl_verify_client on; ssl_verify_depth 3; ssl_client_certificate ${folder}/root.pem; ssl_session_cache off;
    ssl_session_tickets on; location / { return 200 "welcome"; } } }
`,
  );
  const { child, pid } = await pinned(1, "nginx", ["-p", home, "-e", `${home}/error.log`, "-c", `${home}/nginx.conf`]);
  await listening(port);
  return { port, pid, ask: () => Promise.resolve(""), end: () => ended(child) };
}

async function opensslServer(): Promise<Server> {
  const port = await freePort();
  writeFileSync(join(folder, "big.bin"), randomBytes(MEGABYTES * 1_000_000 + 1_000_000));
  const keys = [
    "-cert",
    join(folder, "server.pem"),
    "-key",
    join(folder, "server.key"),
    "-CAfile",
    join(folder, "root.pem"),
  ];
  const how = ["-tls1_3", "-Verify", "3", "-WWW", "-ciphersuites", "TLS_AES_128_GCM_SHA256", "-quiet"];
  const args = ["-C", folder, "openssl", "s_server", "-accept", `127.0.0.1:${port}`, ...keys, ...how];
  const { child, pid } = await pinned(1, "env", args);
  await listening(port);
  return { port, pid, ask: () => Promise.resolve(""), end: () => ended(child) };
}

async function load(server: Server, mode: string, count: number, request = ""): Promise<Sample> {
  const before = cpuSeconds(server.pid);
  const args = [here("./peertls-load.ts"), String(server.port), mode, String(count), folder, request];
  const { child, line } = await pinned(0, process.execPath, args, { ready: true });
  await ended(child);
  return { units: Number(line), cpuSeconds: cpuSeconds(server.pid) - before };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function listening(port: number): Promise<void> {
  for (let tries = 0; tries < 100; tries += 1) {
    const up = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("connect", () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", () => setTimeout(resolve, 50, false));
    });
    if (up) return;
  }
  throw new Error(`nobody listens on ${port}`);
}

const GET = "GET / HTTP/1.0\\r\\n\\r\\n";
const printed = (command: string, ...args: string[]) => execFileSync(command, args).toString();
const versions = [
  `Node ${process.version} (OpenSSL ${process.versions.openssl})`,
  printed("openssl", "version").split(" (")[0],
  `nginx ${printed("dpkg-query", "-W", "-f", ["$", "{Version}"].join(""), "nginx-light")}`,
].join("; ");

try {
  files();
  freshLeaves();
  const ours = await ourServer("welcome");
  const rival = await nginx(false);
  const shared = { area: "peertls", unit: "handshakes", rounds: ROUNDS, versions };
  const half = Math.ceil(HANDSHAKES / 2);
  await compare({
    ...shared,
    case: "mutual TLS 1.3 P-256, leaves never seen, 10,000 + 10,000 entries, beside nginx",
    target: 1,
    ours: () => {
      freshLeaves();
      return load(ours, "full", HANDSHAKES);
    },
    rival: () => load(rival, "full", HANDSHAKES, GET),
  });
  const gateCost = async (server: Server) => {
    const [sum = 0, count = 1] = (await server.ask("gate")).split(" ").map(Number);
    return (sum / count) * 1000;
  };
  const many = await gateCost(ours);
  ceiling({
    area: "peertls",
    case: "gate, leaves never seen, 10,000 + 10,000 entries",
    unit: "ms",
    ours: many,
    target: 0.25,
  });
  const bare = await ourServer("welcome", 0);
  for (let round = 0; round <= ROUNDS; round += 1) {
    freshLeaves();
    await load(bare, "full", HANDSHAKES);
  }
  const ratio = many / (await gateCost(bare));
  ceiling({
    area: "peertls",
    case: "gate with 10,000 + 10,000 entries, beside none",
    unit: "×",
    ours: ratio,
    target: 1.1,
  });
  await bare.end();
  await compare({
    ...shared,
    case: "resumed",
    target: 1,
    ours: () => load(ours, "resumed", half),
    rival: () => load(rival, "resumed", half, GET),
  });
  await ours.end();
  await rival.end();

  const keeping = await ourServer("keep");
  await load(keeping, "full", 50);
  await keeping.ask("gc");
  const before = residentKilobytes(keeping.pid);
  const held = await pinned(
    0,
    process.execPath,
    [here("./peertls-load.ts"), String(keeping.port), "keep", String(IDLE), folder],
    { ready: true },
  );
  await keeping.ask("gc");
  ceiling({
    area: "peertls",
    case: `idle connection, ${IDLE} of them, after gc`,
    unit: "kB RSS",
    ours: (residentKilobytes(keeping.pid) - before) / IDLE,
    target: 75,
  });
  await ended(held.child);
  await keeping.end();

  const bulk = await ourServer("bulk");
  const www = await opensslServer();
  await compare({
    area: "peertls",
    case: "bulk AES-128-GCM, 64 KiB writes, beside openssl s_server -WWW",
    unit: "MB",
    rounds: ROUNDS,
    versions,
    target: 0.9,
    ours: () => load(bulk, "bulk", MEGABYTES),
    rival: () => load(www, "bulk", MEGABYTES, "GET /big.bin HTTP/1.0\\r\\n\\r\\n"),
  });
  await bulk.end();
  await www.end();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
