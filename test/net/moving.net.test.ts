import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as until } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import type { NodeEvent } from "../../src/delivery/event-types.ts";
import type { Home } from "../../src/node/home.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { Bed, call, type Host, home } from "./bed.ts";

// Alice sends one message a second while Bob's provider gives his home other prefixes. Both are behind firewalls that let their
// peer ports through; the servers of their domains are two addresses of a third host.

const SECONDS = 120;
const folder = temporaryFolder();
const [alpha, beta] = [home(folder.path, "alpha"), home(folder.path, "beta")];
const [alice, bob] = [home(folder.path, "alice"), home(folder.path, "bob")];
let bed: Bed;
let endBeta: () => Promise<void>;

function configure(of: Home, change: (config: Record<string, Record<string, unknown>>) => void): void {
  const config = parse(readFileSync(of.config, "utf8")) as Record<string, Record<string, unknown>>;
  change(config);
  writeFileSync(of.config, stringify(config));
}

async function person(host: Host, of: Home, domain: Home, reach: string): Promise<void> {
  const said = await bed.sixtalk("srv", domain, "domain", "invite", host, "--reach", reach);
  const link = /'(sixtalk:[^']+)'/.exec(said)?.[1] ?? "";
  await bed.sixtalk(host, of, "init", link);
  configure(of, (config) => {
    Object.assign(config["peer"] ?? {}, { announce: { allowNonGlobal: true } }); // the bed has documentation addresses
  });
  await bed.do("pinhole", host, "4605");
  await bed.start(host, of);
}

beforeAll(async () => {
  bed = await Bed.up();
  const servers = [
    [alpha, "alpha.test", "2001:db8:ff::10"],
    [beta, "beta.test", "2001:db8:ff::11"],
  ] as const;
  for (const [of, name, at] of servers) await bed.sixtalk("srv", of, "domain", "init", name, "--host", at);
  for (const [of, name] of servers)
    configure(of, (config) => {
      const others = servers.filter(([, other]) => other !== name);
      const domains = others.map(([other, domain, host]) => ({ domain, host, anchor: `${other.domain}/ca/root.pem` }));
      Object.assign(config["domain"] ?? {}, { domains });
    });
  await bed.start("srv", alpha);
  endBeta = (await bed.start("srv", beta)).end;
  await person("alice", alice, alpha, "2001:db8:ff::10");
  await person("bob", bob, beta, "2001:db8:ff::11");
  await call(alice, "contacts.add", { identity: "bob@beta.test", name: "Bob" });
  await call(bob, "contacts.add", { identity: "alice@alpha.test", name: "Alice" });
}, 60_000);

afterAll(async () => {
  await bed[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

interface Told {
  seq: number;
  at: string;
  body: NodeEvent;
}

/** The messages that came to Bob: text and time, as his node stored them. */
async function received(prefix: string): Promise<{ text: string; at: number }[]> {
  const found: { text: string; at: number }[] = [];
  for (let after = 0; ; ) {
    const events = await call<Told[]>(bob, "events", { after, waitSeconds: 0 });
    for (const { seq, at, body } of events) {
      after = seq;
      if (body.type === "item.received" && body.title.startsWith(prefix))
        found.push({ text: body.title, at: Date.parse(at) });
    }
    if (events.length === 0) return found;
  }
}

/** Sends one message a second; `at`: what happens in which second. */
async function sending(prefix: string, at: Record<number, () => Promise<unknown>>): Promise<void> {
  const began = Date.now();
  for (let second = 0; second < SECONDS; second += 1) {
    await call(alice, "send", { to: "bob@beta.test", text: `${prefix} ${second}`, waitSeconds: 0 });
    await at[second]?.();
    await until(Math.max(0, began + 1_000 * (second + 1) - Date.now()));
  }
}

async function told(prefix: string): Promise<{ longest: number; texts: string[] }> {
  await expect.poll(async () => (await received(prefix)).length, { timeout: 60_000 }).toBe(SECONDS);
  const came = await received(prefix);
  const gaps = came.slice(1).map(({ at }, index) => at - (came[index]?.at ?? 0));
  return { longest: Math.max(...gaps), texts: came.map(({ text }) => text) };
}

const moveTo = (prefix: string) => async () => {
  await bed.do("move", "bob", prefix);
  await bed.do("pinhole", "bob", "4605");
};
const all = (prefix: string) => Array.from({ length: SECONDS }, (_, second) => `${prefix} ${second}`);

test("while Bob's prefix changes three times, all come, once, in their order, with no gap above 3 s", async () => {
  await sending("moving", {
    20: moveTo("2001:db8:e"),
    55: moveTo("2001:db8:f"),
    90: moveTo("2001:db8:b"),
  });
  const { longest, texts } = await told("moving");
  process.stdout.write(`longest gap with three moves: ${longest} ms\n`);
  expect(texts).toEqual(all("moving"));
  expect(longest).toBeLessThanOrEqual(3_000);
}, 240_000);

test("the same while the directory of Bob's domain is unreachable for 30 s", async () => {
  await sending("alone", {
    20: async () => {
      await endBeta();
    },
    30: moveTo("2001:db8:e"),
    50: () => bed.start("srv", beta),
    80: moveTo("2001:db8:f"),
  });
  const { longest, texts } = await told("alone");
  process.stdout.write(`longest gap with the directory unreachable: ${longest} ms\n`);
  expect(texts.toSorted()).toEqual(all("alone").toSorted());
  expect(longest).toBeLessThanOrEqual(3_000);
}, 240_000);
