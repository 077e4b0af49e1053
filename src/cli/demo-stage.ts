import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { freePort } from "../node/free-port.ts";
import { type Home, homeAt } from "../node/home.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { ask } from "./client.ts";
import { LAUNCHER } from "./self.ts";

export const HOST = "::1";
const READY_MS = 30_000;
const ASK_MS = 60_000;

/** A home and the process that runs it. */
export interface Actor {
  name: string;
  home: Home;
  ports: Record<string, PeerAddress>;
  process: ChildProcess | undefined;
}

/** Where the demonstration plays: homes in a folder of its own, and a process of the real program for each. */
export class Stage {
  readonly folder: string;
  readonly #actors: Actor[] = [];

  static async build(): Promise<Stage> {
    return new Stage(await mkdtemp(join(tmpdir(), "sixtalk-demo-")));
  }

  private constructor(folder: string) {
    this.folder = folder;
  }

  /**
   * Domains that know each other, with directory and CA each, running.
   * @param o.change what else is put into a domain's configuration
   */
  async domains(
    names: readonly string[],
    o: {
      sixidPorts?: readonly number[];
      irpPorts?: readonly number[];
      change?: (name: string, config: Record<string, Record<string, unknown>>) => void;
    } = {},
  ): Promise<Actor[]> {
    const planned = [];
    for (const [index, name] of names.entries()) {
      const sixidPort = o.sixidPorts?.[index] ?? (await freePort(HOST, 0));
      planned.push({ name, sixidPort, irpPort: o.irpPorts?.[index] ?? (await freePort(HOST, 0)) });
    }
    const actors: Actor[] = [];
    for (const { name, sixidPort, irpPort } of planned) {
      const actor = this.#actor(name);
      const ports = ["--sixid-port", String(sixidPort), "--irp-port", String(irpPort)];
      await this.command(actor, "domain", "init", name, "--host", HOST, ...ports);
      actors.push(actor);
    }
    for (const actor of actors) {
      const others = planned.filter(({ name }) => name !== actor.name);
      this.configure(actor, ({ domain }) =>
        Object.assign(domain ?? {}, {
          domains: others.map(({ name, sixidPort }) => ({
            domain: name,
            host: HOST,
            port: sixidPort,
            anchor: rootOf(homeAt(join(this.folder, name), {})),
          })),
        }),
      );
      this.configure(actor, (config) => o.change?.(actor.name, config));
      await this.start(actor);
    }
    return actors;
  }

  /** Invites a person, enrols him, and starts his node. */
  async person(
    domain: Actor,
    user: string,
    fullName: string,
    o: { invite?: readonly string[]; init?: readonly string[] } = {},
  ): Promise<Actor> {
    const invitation = await this.command(domain, "domain", "invite", user, "--name", fullName, ...(o.invite ?? []));
    const link = /'(sixtalk:[^']+)'/.exec(invitation)?.[1] ?? "";
    const actor = this.#actor(user);
    await this.command(actor, "init", link, "--name", fullName, "--local-only", ...(o.init ?? []));
    this.configure(actor, ({ peer }) =>
      Object.assign(peer ?? {}, {
        listen: { host: HOST, port: 0 },
        local: { smtpsPort: 0, submissionPort: 0, ftpPort: 0, sipPort: 0, sipsPort: 0 },
        outbox: { retrySeconds: [0, 1, 2] },
      }),
    );
    await this.start(actor);
    return actor;
  }

  configure(actor: Actor, change: (config: Record<string, Record<string, unknown>>) => void): void {
    const config = parse(readFileSync(actor.home.config, "utf8")) as Record<string, Record<string, unknown>>;
    change(config);
    writeFileSync(actor.home.config, stringify(config));
  }

  /** Runs one command of the program to its end. @returns what it printed @throws SuiteError internal when it failed */
  async command(actor: Actor, ...args: string[]): Promise<string> {
    const child = spawn(process.execPath, [LAUNCHER, "--home", actor.home.directory, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    let problem = "";
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      problem += chunk.toString();
    });
    const [code] = (await once(child, "close")) as [number | null];
    if (code === 0) return out;
    throw new SuiteError("internal", "a command of the demonstration failed", {
      fault: "local",
      details: { command: args.join(" "), problem },
    });
  }

  async start(actor: Actor): Promise<void> {
    const args = [LAUNCHER, "--home", actor.home.directory, "start", "--ready-fd", "3"];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "inherit", "pipe"] });
    actor.process = child;
    const ready = child.stdio[3] as NodeJS.ReadableStream;
    const signal = AbortSignal.timeout(READY_MS);
    const [line] = (await Promise.race([
      once(ready, "data", { signal }),
      once(child, "exit", { signal }).then(() => [""]),
    ])) as [Buffer | string];
    if (String(line) === "")
      throw new SuiteError("internal", "a process of the demonstration did not start", {
        fault: "local",
        details: { of: actor.name, log: actor.home.log },
      });
    actor.ports = (JSON.parse(String(line)) as { ports: Record<string, PeerAddress> }).ports;
  }

  async end(actor: Actor, signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const child = actor.process;
    actor.process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill(signal);
    await exited;
  }

  ask<T>(actor: Actor, method: string, params: object = {}): Promise<T> {
    return ask<T>(actor.home.control, method, params, AbortSignal.timeout(ASK_MS));
  }

  /** Ends all processes and removes the folder. */
  async strike(): Promise<void> {
    for (const actor of this.#actors.toReversed()) await this.end(actor, "SIGTERM");
    await rm(this.folder, { recursive: true, force: true });
  }

  #actor(name: string): Actor {
    const actor = { name, home: homeAt(join(this.folder, name), {}), ports: {}, process: undefined };
    this.#actors.push(actor);
    return actor;
  }
}

/** A domain's root certificate, PEM. */
export function rootOf(home: Home): string {
  return join(home.domain, "ca", "root.pem");
}
