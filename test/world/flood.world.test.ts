import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import type { TrustRules } from "../../src/peertls-core/policy.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { silentLog } from "../../src/pki/log.ts";
import { makeTestDomain, type TestPerson } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const alice = alpha.person({ identity: "alice@alpha.test" });
const bob = alpha.person({ identity: "bob@alpha.test" });
const FLOODER = fileURLToPath(new URL("../support/flooder.ts", import.meta.url));
const ADMITTED_MS = 2_000;

function rulesFor(contact: TestPerson): TrustRules {
  const anchor = {
    name: "alpha",
    certificate: alpha.root.certificate,
    domains: ["alpha.test"],
    organisations: [],
    identitiesFrom: ["rfc822Name"] as const,
  };
  const none = { block: [], allow: [], rules: [] };
  return { anchors: [anchor], ...none, otherwise: "contacts", contacts: [contact.identity], requestsOnPort: true };
}

async function core(of: TestPerson, contact: TestPerson, dropped?: Map<string, number>): Promise<PeerTls> {
  const made = await makePeerTls({
    credentials: of.auth,
    trust: new Trust(rulesFor(contact)),
    clock: () => new Date(),
    random: randomBytes,
    log: silentLog,
    ...(dropped === undefined
      ? {}
      : { onDropped: (reason) => void dropped.set(reason, (dropped.get(reason) ?? 0) + 1) }),
  });
  made.onPeer("sip", (connection) => {
    connection.stream.on("error", () => undefined);
    connection.stream.write("welcome");
  });
  return made;
}

let node: PeerTls;
let peer: PeerTls;
let port: number;
const dropped = new Map<string, number>();

beforeAll(async () => {
  node = await core(bob, alice, dropped);
  peer = await core(alice, bob);
  ({ port } = await node.listen({ host: "::", port: 0 }));
});

afterAll(async () => {
  await node.close();
  await peer.close();
});

/** Milliseconds that an admitted peer's dial takes, until the node has let it in. */
async function admission(host: string): Promise<number> {
  const began = performance.now();
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const route = { kind: "direct" as const, address: { host, port } };
  const connection = await peer.dial(expected, "sip", [route], AbortSignal.timeout(20_000));
  await connection.confirmed;
  connection.destroy();
  return performance.now() - began;
}

/** Opens a connection that never says anything. Resolves when it is open or was turned away. */
function silent(open: Set<Socket>, host: string, localAddress?: string): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, ...(localAddress === undefined ? {} : { localAddress }) });
    open.add(socket);
    socket.on("error", () => undefined);
    socket.once("connect", () => resolve());
    socket.once("close", () => {
      open.delete(socket);
      resolve();
    });
  });
}

function end(open: Set<Socket>): void {
  for (const socket of open) socket.destroy();
}

test("2,000 half-open handshakes from 500 prefixes keep no admitted peer out, and cost bounded memory", async () => {
  await admission("::1"); // code and caches are warm
  const before = process.memoryUsage().rss;
  const open = new Set<Socket>();
  try {
    for (let n = 0; n < 2_000; n += 1) await silent(open, "127.0.0.1", `127.0.${1 + (n % 2)}.${1 + (n % 250)}`);
    const took = await admission("::1");
    const grown = (process.memoryUsage().rss - before) / 1_048_576;
    console.log(
      `admitted in ${took.toFixed(0)} ms under 2,000 half-open; RSS + ${grown.toFixed(0)} MB, both ends; ${told()}`,
    );
    expect(took).toBeLessThan(ADMITTED_MS);
    expect(grown).toBeLessThan(200);
  } finally {
    end(open);
  }
});

test("5,000 connects a second from one /64 keep no admitted peer out", async () => {
  const flooder = spawn(process.execPath, [FLOODER, "::1", String(port)], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    await once(flooder.stdout, "data");
    const perSecond: number[] = [];
    flooder.stdout.on("data", (line: Buffer) => perSecond.push(Number(line)));
    const times: number[] = [];
    while (perSecond.length < 4) times.push(await admission("127.0.0.1"));
    const worst = Math.max(...times);
    const [median = 0] = perSecond.toSorted((a, b) => a - b).slice(2);
    console.log(
      `${median} connects/s from one /64: ${times.length} admissions in 4 s, the slowest ${worst.toFixed(0)} ms; ${told()}`,
    );
    expect(worst).toBeLessThan(ADMITTED_MS);
    expect((dropped.get("rate") ?? 0) + (dropped.get("pending-prefix") ?? 0)).toBeGreaterThan(1_000);
  } finally {
    flooder.kill();
    await once(flooder, "exit");
  }
});

test("200 clients that drip a byte each 5 s are gone after 10 s, and keep no admitted peer out", async () => {
  const open = new Set<Socket>();
  const before = dropped.get("handshake-timeout") ?? 0;
  try {
    for (let n = 0; n < 200; n += 1) await silent(open, "127.0.0.1", `127.0.9.${1 + n}`);
    const drip = () => {
      for (const socket of open) socket.write(Buffer.of(0x16));
    };
    drip();
    const again = setInterval(drip, 5_000);
    const took = await admission("::1");
    expect(took).toBeLessThan(ADMITTED_MS);
    await expect.poll(() => open.size, { timeout: 15_000, interval: 250 }).toBe(0);
    clearInterval(again);
    expect((dropped.get("handshake-timeout") ?? 0) - before).toBe(200);
  } finally {
    end(open);
  }
});

function told(): string {
  return `dropped so far: ${[...dropped].map(([reason, count]) => `${reason} ${count}`).join(", ")}`;
}
