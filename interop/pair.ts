import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { type Actor, Stage } from "../src/cli/demo-stage.ts";
import type { NodeEvent } from "../src/delivery/event-types.ts";

/** Two domains and a person in each, every one a process of the real program; the two know each other. */
export interface Pair extends AsyncDisposable {
  readonly stage: Stage;
  readonly alpha: Actor;
  readonly beta: Actor;
  readonly alice: Actor;
  readonly bob: Actor;
}

export async function startPair(): Promise<Pair> {
  const stage = await Stage.build();
  try {
    const [alpha, beta] = (await stage.domains(["alpha.test", "beta.test"])) as [Actor, Actor];
    const alice = await stage.person(alpha, "alice", "Alice Example");
    const bob = await stage.person(beta, "bob", "Bob Example");
    await stage.ask(alice, "contacts.add", { identity: "bob@beta.test", name: "Bob" });
    await stage.ask(bob, "contacts.add", { identity: "alice@alpha.test", name: "Alice" });
    return { stage, alpha, beta, alice, bob, [Symbol.asyncDispose]: () => stage.strike() };
  } catch (error) {
    await stage.strike();
    throw error;
  }
}

/** The first event of that type, kept or to come, that fits. */
export async function eventOf<T extends NodeEvent["type"]>(
  stage: Stage,
  of: Actor,
  type: T,
  fits: (body: NodeEvent & { type: T }) => boolean,
): Promise<NodeEvent & { type: T }> {
  let after = 0;
  for (let tries = 0; tries < 20; ) {
    const news = await stage.ask<{ seq: number; body: NodeEvent }[]>(of, "events", { after, waitSeconds: 3 });
    if (news.length === 0) tries += 1;
    for (const { seq, body } of news) {
      after = seq;
      if (body.type === type && fits(body as NodeEvent & { type: T })) return body as NodeEvent & { type: T };
    }
  }
  throw new Error(`${of.name} saw no ${type}`);
}

export interface Ran {
  code: number | null;
  out: string;
  err: string;
}

/** Runs a program to its end, at most a minute. */
export async function run(program: string, args: readonly string[], input?: string | Buffer): Promise<Ran> {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], timeout: 60_000 });
  const out: Buffer[] = [];
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk.toString();
  });
  child.stdin.on("error", () => undefined); // a program that reads nothing may be gone
  child.stdin.end(input);
  const [code] = (await once(child, "close")) as [number | null];
  return { code, out: Buffer.concat(out).toString("latin1"), err };
}

/** Collects what a running program prints; `shows` resolves when that has been printed. */
export function watched(child: ChildProcess): { shows(text: string | RegExp): Promise<void>; text(): string } {
  let text = "";
  const waiting = new Set<() => void>();
  const take = (chunk: Buffer) => {
    text += chunk.toString();
    for (const look of waiting) look();
  };
  child.stdout?.on("data", take);
  child.stderr?.on("data", take);
  return {
    text: () => text,
    shows: (wanted) =>
      new Promise((resolve, reject) => {
        const end = setTimeout(() => {
          waiting.delete(look);
          reject(new Error(`not shown: ${String(wanted)}; shown:\n${text.slice(-2_000)}`));
        }, 30_000);
        const look = () => {
          if (typeof wanted === "string" ? !text.includes(wanted) : !wanted.test(text)) return;
          clearTimeout(end);
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      }),
  };
}

/** The certificate that the owner's programs are told to trust. */
export function localCa(actor: Actor): string {
  return join(actor.home.anchors, "local-ca.pem");
}

export async function appPassword(stage: Stage, actor: Actor): Promise<string> {
  const { password } = await stage.ask<{ password: string }>(actor, "app-passwords.create", { label: "interop" });
  return password;
}
