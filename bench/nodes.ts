// Figures of two whole nodes on one machine, each a process of its own: what a user would see, not a ratio to a rival.

import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Actor, Stage } from "../src/cli/demo-stage.ts";

const TO = "bob@beta.test";
const stage = await Stage.build();
try {
  const [alpha, beta] = (await stage.domains(["alpha.test", "beta.test"])) as [Actor, Actor];
  const alice = await stage.person(alpha, "alice", "Alice");
  const bob = await stage.person(beta, "bob", "Bob");
  await stage.ask(alice, "contacts.add", { identity: TO, name: "Bob" });
  await stage.ask(bob, "contacts.add", { identity: "alice@alpha.test", name: "Alice" });
  await idle("send", { to: TO, text: "warm-up" });
  row("node, idle: RSS", `${memory(bob)} MB`);

  for (const [what, count, ask] of [
    ["messages", 1_400, (n: number) => stage.ask(alice, "send", { to: TO, text: `message ${n}`, waitSeconds: 0 })],
    [
      "mails of 2 KB",
      500,
      (n: number) =>
        stage.ask(alice, "mail", { to: [TO], subject: `mail ${n}`, text: "x".repeat(2_000), waitSeconds: 0 }),
    ],
  ] as const) {
    const began = performance.now();
    const cpu = cpuSeconds(alice) + cpuSeconds(bob);
    let next = 0;
    const worker = async () => {
      while (next < count) await ask(next++);
    };
    await Promise.all(Array.from({ length: 16 }, worker));
    await emptied();
    const seconds = (performance.now() - began) / 1000;
    const used = cpuSeconds(alice) + cpuSeconds(bob) - cpu;
    row(
      `${what}, accepted and delivered`,
      `${Math.round(count / seconds)} /s, ${((used / count) * 1000).toFixed(1)} ms CPU each (both nodes)`,
    );
  }

  const megabytes = 256;
  const path = join(stage.folder, "large.bin");
  writeFileSync(path, randomBytes(megabytes * 1_000_000));
  const began = performance.now();
  const cpu = cpuSeconds(alice) + cpuSeconds(bob);
  await idle("file", { to: TO, path });
  const seconds = (performance.now() - began) / 1000;
  row(
    `file of ${megabytes} MB, read, sealed, sent, opened, stored`,
    `${Math.round(megabytes / seconds)} MB/s, ${(cpuSeconds(alice) + cpuSeconds(bob) - cpu).toFixed(1)} s CPU`,
  );
  row("node after all: RSS", `${memory(alice)} MB (sender), ${memory(bob)} MB (receiver)`);

  async function idle(method: string, params: object): Promise<void> {
    await stage.ask(alice, method, params);
    await emptied();
  }

  async function emptied(): Promise<void> {
    for (let after = 0; (await stage.ask<unknown[]>(alice, "queue")).length > 0; ) {
      const news = await stage.ask<{ seq: number }[]>(alice, "events", { after, waitSeconds: 0.2 });
      after = news.at(-1)?.seq ?? after;
    }
  }
} finally {
  await stage.strike();
}

function row(what: string, figure: string): void {
  process.stdout.write(`${what.padEnd(52)} ${figure}\n`);
}

function memory({ process: child }: Actor): number {
  const status = readFileSync(`/proc/${child?.pid}/status`, "utf8");
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024);
}

/** User and system time of the process, in ticks of 10 ms. */
function cpuSeconds({ process: child }: Actor): number {
  const fields = readFileSync(`/proc/${child?.pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
