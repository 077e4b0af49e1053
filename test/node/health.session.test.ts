import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { configSchema } from "../../src/node/config.ts";
import { examine } from "../../src/node/doctor.ts";
import { serveHealth } from "../../src/node/health.ts";
import type { Home } from "../../src/node/home.ts";
import type { PeerNode } from "../../src/node/node.ts";
import type { LocalListener } from "../../src/peertls-core/loopback.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { enrolPerson, type RunningDomain, startDomain, startNode } from "../support/people.ts";

const folder = temporaryFolder();
let domain: RunningDomain;
let home: Home;
let node: PeerNode;
let health: LocalListener;
let offset = 0;

beforeAll(async () => {
  domain = await startDomain(folder.path, "alpha.test");
  home = await enrolPerson(folder.path, domain, "alice");
  node = await startNode(home, readFileSync(home.config, "utf8"));
  health = await serveHealth({ host: "127.0.0.1", port: 0 }, node, () => new Date(Date.now() + offset));
  for await (const { body } of node.store.events.follow(0, AbortSignal.timeout(10_000)))
    if (body.type === "directory.state" && body.state === "available") break;
}, 60_000);

afterAll(async () => {
  await health.close();
  await node.stop(); // the last test has stopped the domain's server
  folder[Symbol.dispose]();
});

async function get(path: string, method = "GET"): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://127.0.0.1:${health.address.port}${path}`, { method });
  return { status: response.status, text: await response.text() };
}

const states = async (now = new Date()) =>
  Object.fromEntries((await examine(node, now, AbortSignal.timeout(5_000))).map(({ what, state }) => [what, state]));

test("a node that is all right says so, and counts", async () => {
  expect(await get("/healthz")).toEqual({ status: 200, text: "alive\n" });
  expect(await get("/readyz")).toEqual({ status: 200, text: "ready\n" });
  const { status, text } = await get("/metrics");
  expect(status).toBe(200);
  expect(text).toMatch(/^peertls_denial_mode 1$/m);
  expect(text).toMatch(/^peertls_pending_handshakes 0$/m);
  expect(Number(/^peertls_expiry_seconds\{use="auth"\} (\d+)/m.exec(text)?.[1])).toBeGreaterThan(25 * 86_400);
  expect(text).not.toMatch(/alice|alpha/); // numbers name nobody
});

test("other paths and methods are refused in HTTP's own words", async () => {
  expect((await get("/etc/passwd")).status).toBe(404);
  expect((await get("/constructor")).status).toBe(404);
  expect((await get("/metrics", "POST")).status).toBe(405);
});

test("the doctor finds nothing wrong", async () => {
  const found = await states();
  expect(Object.values(found).filter((state) => state === "problem")).toEqual([]);
  expect(Object.keys(found)).toEqual([
    "the gate's self-test",
    "own certificate (AUTH)",
    "own certificate (ENCRYPTION)",
    "own certificate's path",
    "directory and clock",
    "announced addresses",
    "disk",
  ]);
});

test("the doctor tells a certificate that ends soon, one that has ended, and a clock that is off", async () => {
  const days = (n: number) => new Date(Date.now() + n * 86_400_000);
  expect((await states(days(27)))["own certificate (AUTH)"]).toBe("notice");
  expect(await states(days(40))).toMatchObject({
    "own certificate (AUTH)": "problem",
    "own certificate's path": "problem",
    "directory and clock": "problem",
  });
  expect((await states(new Date(Date.now() - 400_000)))["directory and clock"]).toBe("problem");
});

test("a reload that cannot be is told at /readyz, and what was before stays in force", async () => {
  const text = readFileSync(home.config, "utf8");
  const certificate = join(home.keys, "auth.pem");
  const pem = readFileSync(certificate, "utf8");
  const config = () => configSchema.parse(parse(text));
  const stranger = await enrolPerson(folder.path, domain, "bob");
  writeFileSync(certificate, readFileSync(join(stranger.keys, "auth.pem"), "utf8"));
  const before = node.keys.auth.certificate.sha256;
  expect(() => node.reload(config())).toThrow();
  expect(await get("/readyz")).toMatchObject({ status: 503, text: expect.stringContaining("reload failed") });
  expect(node.keys.auth.certificate.sha256).toBe(before);
  writeFileSync(certificate, pem);
  node.reload(config());
  expect((await get("/readyz")).status).toBe(200);
});

test("an ended certificate and a directory that is away are told at /readyz and by the doctor", async () => {
  offset = 40 * 86_400_000;
  expect((await get("/readyz")).text).toContain("the own certificate has ended");
  offset = 0;
  await domain.server.stop();
  node.announcer.missed(new Error("gone"));
  await expect.poll(async () => (await get("/readyz")).text).toContain("the directory is away");
  expect(await states()).toMatchObject({ "directory and clock": "problem" });
});
