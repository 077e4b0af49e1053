import { createHash } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm, unlink } from "node:fs/promises";
import { join } from "node:path";

const MINUTE = 60_000;
const LAST_RETRY_MS = 60 * MINUTE;
const SOONEST_MS = 5 * MINUTE;
const LATEST_MS = 24 * 60 * MINUTE;

/** Something that is fetched again and again, one fetch at a time; after a failure soon, then ever later up to an hour. */
export class Refreshed {
  readonly #fetch: () => Promise<Date | undefined | "over">;
  readonly #o: RefreshOptions;
  #timer: NodeJS.Timeout | undefined;
  #fetching: Promise<void> | undefined;
  #failures = 0;
  #stopped = false;

  /** @param fetch resolves with the end of what came: at half of its life it is fetched again; "over": never again */
  constructor(fetch: () => Promise<Date | undefined | "over">, options: RefreshOptions) {
    this.#fetch = fetch;
    this.#o = options;
  }

  /** In a row. */
  get failures(): number {
    return this.#failures;
  }

  /** Resolves when it has come or failed; joins a fetch that is under way. */
  now(): Promise<void> {
    this.#fetching ??= this.#once().finally(() => {
      this.#fetching = undefined;
    });
    return this.#fetching;
  }

  /** As `now`, but what was asked before this moment does not count. */
  async anew(): Promise<void> {
    await this.#fetching;
    await this.now();
  }

  /** @param milliseconds give or take a tenth */
  later(milliseconds: number): void {
    if (this.#stopped || this.#o.signal.aborted) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.now(), milliseconds * (0.9 + 0.2 * this.#o.chance()));
    this.#timer.unref();
  }

  /** For good; resolves when no fetch is under way any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#fetching;
  }

  async #once(): Promise<void> {
    if (this.#stopped) return;
    clearTimeout(this.#timer);
    try {
      const end = await this.#fetch();
      if (this.#failures > 0) this.#o.onRecovered();
      this.#failures = 0;
      if (end === "over") return;
      const half = ((end?.getTime() ?? 0) - this.#o.clock().getTime()) / 2;
      this.later(Math.min(Math.max(half, SOONEST_MS), LATEST_MS));
    } catch (error) {
      if (this.#stopped || this.#o.signal.aborted) return;
      this.#failures += 1;
      if (this.#failures === 1) this.#o.onFailure(error);
      this.later(Math.min(MINUTE * 2 ** (this.#failures - 1), LAST_RETRY_MS));
    }
  }
}

export interface RefreshOptions {
  clock: () => Date;
  /** 0 … 1 */
  chance: () => number;
  /** The first failure after a success; the others are not told one by one. */
  onFailure: (error: unknown) => void;
  onRecovered: () => void;
  signal: AbortSignal;
}

/** Fetched things on disk, each with what is known about it; whole or not there. */
export class KeptFiles {
  readonly #directory: string;

  static async open(directory: string): Promise<KeptFiles> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return new KeptFiles(directory);
  }

  private constructor(directory: string) {
    this.#directory = directory;
  }

  async write(key: string, bytes: Uint8Array, about: object): Promise<void> {
    await writeWhole(`${this.#stem(key)}.bin`, bytes);
    await this.describe(key, about);
  }

  /** Of a thing that is there. */
  async describe(key: string, about: object): Promise<void> {
    await writeWhole(`${this.#stem(key)}.json`, Buffer.from(JSON.stringify(about)));
  }

  async remove(key: string): Promise<void> {
    for (const ending of ["json", "bin"]) await rm(`${this.#stem(key)}.${ending}`, { force: true });
  }

  #stem(key: string): string {
    return join(this.#directory, createHash("sha256").update(key).digest("hex"));
  }

  /** Calls `take` for each thing; what it throws is told to `failed`, and the thing is passed over. */
  async load(
    take: (bytes: Buffer, about: unknown) => Promise<void>,
    failed: (name: string, error: unknown) => void,
  ): Promise<void> {
    const names = new Set(await readdir(this.#directory));
    for (const name of names) {
      // What was cut short: of the two files of a thing the other comes second, and goes first.
      const alone = name.endsWith(".bin") && !names.has(name.replace(/bin$/, "json"));
      if (alone || name.endsWith(".new")) await unlink(join(this.#directory, name)).catch(() => undefined);
      if (!name.endsWith(".json")) continue;
      try {
        const about = JSON.parse(await readFile(join(this.#directory, name), "utf8")) as unknown;
        await take(await readFile(join(this.#directory, name.replace(/json$/, "bin"))), about);
      } catch (error) {
        failed(name, error);
      }
    }
  }
}

/** Temporary name → synced → renamed. */
async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(bytes);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}
