import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { ask } from "../../src/cli/client.ts";
import type { CutPoint } from "../../src/delivery/cut-point.ts";
import type { Home } from "../../src/node/home.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { enrolPerson, type RunningDomain, startDomain } from "../support/people.ts";

type Name = "alice" | "bob";

const CHILD = fileURLToPath(new URL("./node-child.ts", import.meta.url));
const folder = temporaryFolder();
const running = new Map<Name, ChildProcess>();
let domain: RunningDomain;
let homes: Record<Name, Home>;

async function start(name: Name, cut = ""): Promise<void> {
  const child = spawn(process.execPath, [CHILD, homes[name].directory, cut], {
    stdio: ["ignore", "ignore", "inherit", "pipe"],
  });
  running.set(name, child);
  const ready = child.stdio[3] as NodeJS.ReadableStream;
  await once(ready, "data", { signal: AbortSignal.timeout(30_000) });
}

async function ended(name: Name): Promise<void> {
  const child = running.get(name);
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  await once(child, "exit", { signal: AbortSignal.timeout(30_000) });
}

async function kill(name: Name): Promise<void> {
  running.get(name)?.kill("SIGKILL");
  await ended(name);
}

const say = <T>(name: Name, method: string, params: object = {}): Promise<T> =>
  ask<T>(homes[name].control, method, params, AbortSignal.timeout(30_000));

/** Alice sends a file of random bytes. */
async function send(name: string, size: number): Promise<Buffer> {
  const bytes = randomBytes(size);
  const path = join(folder.path, name);
  writeFileSync(path, bytes);
  await say("alice", "file", { to: "bob@alpha.test", path, watch: false });
  return bytes;
}

async function delivered(): Promise<void> {
  await expect.poll(() => say<unknown[]>("alice", "queue"), { timeout: 30_000, interval: 50 }).toEqual([]);
}

/** SHA-256 of each file of this name that Bob has. */
async function digests(name: string): Promise<string[]> {
  const items = await say<{ id: string; title: string }[]>("bob", "inbox", { limit: 1_000 });
  const found: string[] = [];
  for (const { id, title } of items) {
    if (title !== name) continue;
    const hash = createHash("sha256");
    const signal = AbortSignal.timeout(30_000);
    await ask(homes.bob.control, "read.bytes", { id, form: "raw" }, signal, ({ data }: { data: string }) => {
      hash.update(Buffer.from(data, "base64"));
    });
    found.push(hash.digest("hex"));
  }
  return found;
}

const digestOf = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

/** Files that either node keeps for what is under way. */
function underWay(): string[] {
  const places = [
    join(homes.alice.delivery, "attempt"),
    ...["transfer", "unfinished", join("content", "tmp")].map((name) => join(homes.bob.delivery, name)),
  ];
  return places.flatMap((place) =>
    readdirSync(place, { recursive: true, encoding: "utf8" }).filter((name) => statSync(join(place, name)).isFile()),
  );
}

beforeAll(async () => {
  domain = await startDomain(folder.path, "alpha.test");
  homes = {
    alice: await enrolPerson(folder.path, domain, "alice"),
    bob: await enrolPerson(folder.path, domain, "bob"),
  };
  await start("bob");
  await start("alice");
  await say("alice", "contacts.add", { identity: "bob@alpha.test", name: "Bob" });
  await say("bob", "contacts.add", { identity: "alice@alpha.test", name: "Alice" });
  await kill("alice");
  await kill("bob");
}, 60_000);
afterEach(async () => {
  await kill("alice");
  await kill("bob");
});
afterAll(async () => {
  await domain.server.stop();
  folder[Symbol.dispose]();
});

test("a file in parts arrives equal, once, and nothing is left of its way", async () => {
  await start("bob");
  await start("alice");
  const bytes = await send("whole", 3_000_001);
  await delivered();
  expect(await digests("whole")).toEqual([digestOf(bytes)]);
  expect(underWay()).toEqual([]);
});

test.each<[Name, CutPoint, number]>([
  ["bob", "inbox.part-opened", 1],
  ["bob", "inbox.part-opened", 3],
  ["bob", "inbox.part-recorded", 2],
  ["bob", "inbox.object-noted", 2],
  ["bob", "content.renamed", 1],
  ["bob", "inbox.manifest-committed", 1],
  ["alice", "outbox.sealed", 3],
  ["alice", "outbox.part-acknowledged", 2],
  ["alice", "outbox.sent", 1],
])(
  "%s's node, killed at %s (%d), goes on where it was: nothing is lost, nothing comes twice",
  async (name, at, pass) => {
    await start("bob", name === "bob" ? `${at}:${pass}` : "");
    await start("alice", name === "alice" ? `${at}:${pass}` : "");
    const file = `${name}-${at}-${pass}`;
    const bytes = await send(file, 2_500_000).catch(() => Buffer.alloc(0)); // she may be gone before she answers
    await ended(name);
    await start(name);
    await delivered();
    const [digest, ...more] = await digests(file);
    expect(more).toEqual([]);
    if (bytes.length > 0) expect(digest).toBe(digestOf(bytes));
    else expect(digest).toHaveLength(64);
    expect(underWay()).toEqual([]);
  },
);

test("both nodes, killed again and again at any moment, bring a file over in the end", async () => {
  await start("bob");
  await start("alice");
  const bytes = await send("restless", 12_000_000);
  for (let time = 0; time < 6; time += 1) {
    const name = time % 2 === 0 ? "bob" : "alice";
    await new Promise((resolve) => setTimeout(resolve, 100 + 57 * time));
    await kill(name);
    await start(name);
  }
  await delivered();
  expect(await digests("restless")).toEqual([digestOf(bytes)]);
  expect(underWay()).toEqual([]);
});
