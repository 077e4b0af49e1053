import { createHash, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ask } from "../../src/cli/client.ts";
import { type Actor, Stage } from "../../src/cli/demo-stage.ts";

const MESSAGES = 200;
const MAILS = 50;
const FILES = 20;
const KILLS = 10;
const TO = "bob@beta.test";

interface Listed {
  id: string;
  kind: string;
  title: string;
}

/** What was asked for, by the name under which it arrives; `acknowledged` when the node said that it has it. */
interface Asked {
  kind: "message" | "mail" | "file";
  acknowledged: boolean;
  digest?: string;
}

test("killed ten times at random moments, either node, nothing acknowledged is lost and nothing comes twice", async () => {
  const seed = randomBytes(4).readUInt32BE();
  console.log(`seed ${seed}`);
  const chance = randomly(seed);
  const stage = await Stage.build();
  try {
    const [alpha, beta] = (await stage.domains(["alpha.test", "beta.test"])) as [Actor, Actor];
    const alice = await stage.person(alpha, "alice", "Alice");
    const bob = await stage.person(beta, "bob", "Bob");
    await stage.ask(alice, "contacts.add", { identity: TO, name: "Bob" });
    await stage.ask(bob, "contacts.add", { identity: "alice@alpha.test", name: "Alice" });
    const up = { alice: Promise.resolve(), bob: Promise.resolve() };
    const asked = new Map<string, Asked>();

    /** Asks until Alice's node says yes; each try has its own name, since one without an answer may have been taken. */
    const submit = async (kind: Asked["kind"], number: number): Promise<void> => {
      for (let attempt = 1; ; attempt += 1) {
        await up.alice;
        const name = `${kind}-${number}-${attempt}`;
        const one: Asked = { kind, acknowledged: false };
        asked.set(name, one);
        try {
          if (kind === "message") await stage.ask(alice, "send", { to: TO, text: name, waitSeconds: 0 });
          else if (kind === "mail")
            await stage.ask(alice, "mail", { to: [TO], subject: name, text: `${name}\n`, waitSeconds: 0 });
          else {
            const bytes = Buffer.concat([Buffer.from(name), randomBytes(500_000 + chance(1_500_000))]);
            one.digest = createHash("sha256").update(bytes).digest("hex");
            const path = join(stage.folder, name);
            writeFileSync(path, bytes);
            await stage.ask(alice, "file", { to: TO, path, watch: false });
          }
          one.acknowledged = true;
          return;
        } catch {
          // killed meanwhile; whether it was taken is not known
        }
      }
    };

    const plan: [Asked["kind"], number][] = [
      ...Array.from({ length: MESSAGES }, (_one, n) => ["message", n] as [Asked["kind"], number]),
      ...Array.from({ length: MAILS }, (_one, n) => ["mail", n] as [Asked["kind"], number]),
      ...Array.from({ length: FILES }, (_one, n) => ["file", n] as [Asked["kind"], number]),
    ].sort(() => chance(3) - 1);
    let killsLeft = KILLS;
    let passed = 0;
    const killer = (async () => {
      for (; killsLeft > 0; killsLeft -= 1) {
        // A moment in the middle of the work: after some more of it, and then some milliseconds.
        const goal = Math.min(passed + chance(Math.ceil(plan.length / KILLS)), plan.length);
        while (passed < goal) await new Promise(setImmediate);
        await new Promise((resolve) => setTimeout(resolve, chance(300)));
        const name = chance(2) === 0 ? "alice" : "bob";
        const actor = name === "alice" ? alice : bob;
        await stage.end(actor, "SIGKILL");
        up[name] = stage.start(actor);
        await up[name];
      }
    })();
    const worker = async () => {
      for (let next = plan.shift(); next !== undefined; next = plan.shift()) {
        await submit(...next);
        passed += 1;
      }
    };
    await Promise.all([killer, worker(), worker(), worker(), worker()]);

    let waiting: unknown[] = [""];
    for (let after = 0, rounds = 0; waiting.length > 0 && rounds < 300; rounds += 1) {
      waiting = await stage.ask<unknown[]>(alice, "queue");
      if (waiting.length === 0) break;
      const news = await stage.ask<{ seq: number }[]>(alice, "events", { after, waitSeconds: 2 });
      after = news.at(-1)?.seq ?? after;
    }
    expect(waiting).toEqual([]);

    const arrived = await stage.ask<Listed[]>(bob, "inbox", { limit: 1_000 });
    const titles = arrived.map(({ title }) => title);
    const acknowledged = [...asked].filter(([, one]) => one.acknowledged);
    expect(acknowledged).toHaveLength(MESSAGES + MAILS + FILES);
    expect(acknowledged.filter(([name]) => !titles.includes(name)).map(([name]) => name)).toEqual([]);
    expect(titles.filter((title, at) => titles.indexOf(title) !== at)).toEqual([]);
    expect(titles.filter((title) => !asked.has(title))).toEqual([]);
    for (const { id, kind, title } of arrived) {
      expect(kind).toBe(asked.get(title)?.kind);
      if (kind === "file") expect(await digestOf(bob, id)).toBe(asked.get(title)?.digest);
    }
  } finally {
    await stage.strike();
  }
});

async function digestOf(of: Actor, id: string): Promise<string> {
  const hash = createHash("sha256");
  const signal = AbortSignal.timeout(30_000);
  await ask(of.home.control, "read.bytes", { id, form: "raw" }, signal, ({ data }: { data: string }) => {
    hash.update(Buffer.from(data, "base64"));
  });
  return hash.digest("hex");
}

/** Numbers below a limit, repeatable by their seed (mulberry32). */
function randomly(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}
