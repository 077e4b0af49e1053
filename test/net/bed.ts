import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { promisify } from "node:util";
import { ask } from "../../src/cli/client.ts";
import { type Home, homeAt } from "../../src/node/home.ts";
import type { PeerAddress } from "../../src/peertls-core/connection.ts";
import { sharedFolder } from "../support/shared.ts";

const run = promisify(execFile);
const LAUNCHER = join(import.meta.dirname, "../../bin/sixtalk.js");
const READY_MS = 30_000;

export type Host = "alice" | "bob" | "srv";

/** Hosts on a small Internet of network namespaces, and the program's processes on them. */
export class Bed {
  readonly #script: string;
  readonly #env: NodeJS.ProcessEnv;

  /** @throws Error without the test bed, or without the right to make namespaces */
  static async up(): Promise<Bed> {
    const folder = sharedFolder("testbed");
    if (folder === undefined) throw new Error("the test bed is not there");
    const bed = new Bed(join(folder, "bed.sh"));
    await bed.do("up");
    return bed;
  }

  private constructor(script: string) {
    this.#script = script;
    this.#env = { ...process.env, BED: `net${process.pid}` };
  }

  /** A command of the bed. @returns what it prints */
  async do(...args: string[]): Promise<string> {
    const { stdout } = await run("bash", [this.#script, ...args], { env: this.#env });
    return stdout.trim();
  }

  /** A command of the program, on a host. */
  async sixtalk(host: Host, home: Home, ...args: string[]): Promise<string> {
    return this.do("exec", host, process.execPath, LAUNCHER, "--home", home.directory, ...args);
  }

  /** Starts a home's node or server on a host. @returns its ports */
  async start(host: Host, home: Home): Promise<{ ports: Record<string, PeerAddress>; end: () => Promise<void> }> {
    const args = [this.#script, "exec", host, process.execPath, LAUNCHER, "--home", home.directory];
    const child = spawn("bash", [...args, "start", "--ready-fd", "3"], {
      env: this.#env,
      stdio: ["ignore", "ignore", "inherit", "pipe"],
    });
    const ready = child.stdio[3] as NodeJS.ReadableStream;
    const [line] = (await once(ready, "data", { signal: AbortSignal.timeout(READY_MS) })) as [Buffer];
    return {
      ports: (JSON.parse(line.toString()) as { ports: Record<string, PeerAddress> }).ports,
      end: async () => {
        const ended = once(child, "exit");
        child.kill("SIGTERM");
        await ended;
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.do("down"); // ends all processes on its hosts
  }
}

export const home = (folder: string, name: string): Home => homeAt(join(folder, name), {});

export function call<T>(of: Home, method: string, params: object = {}): Promise<T> {
  return ask<T>(of.control, method, params, AbortSignal.timeout(60_000));
}
