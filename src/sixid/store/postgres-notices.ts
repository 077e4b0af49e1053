import { Client, type ClientConfig, type Pool } from "pg";
import { Listeners } from "./listeners.ts";
import type { Change } from "./store.ts";

const CHANNEL = "sixid";
/** Changes are told to the others apart from the transactions that made them: NOTIFY in one takes a lock of the whole database. */
const EVERY_MS = 20;
const AGAIN_MS = 250;
const MOST_AGAIN_MS = 5_000;
const ALIVE_MS = 10_000;
/** A payload has to be under 8,000 bytes; a change takes some 45. */
const AT_ONCE = 150;
const KINDS: readonly string[] = ["record", "request", "root"] satisfies Change["what"][];

/** Tells the changes of this process here at once, and to the others on the same database soon; and hears of theirs. */
export class Notices {
  readonly #pool: Pool;
  readonly #settings: ClientConfig;
  readonly #self: string;
  readonly #listeners = new Listeners();
  readonly #waiting = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> | undefined;
  #client: Client | undefined;
  #alive: NodeJS.Timeout | undefined;
  #again: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param self what tells this process from others */
  static async open(pool: Pool, settings: ClientConfig, self: string): Promise<Notices> {
    const notices = new Notices(pool, settings, self);
    await notices.#connect();
    return notices;
  }

  private constructor(pool: Pool, settings: ClientConfig, self: string) {
    this.#pool = pool;
    this.#settings = settings;
    this.#self = self;
  }

  listen(listener: (change: Change) => void): () => void {
    return this.#listeners.add(listener);
  }

  tell(changes: readonly Change[]): void {
    this.#listeners.tell(changes);
    for (const { what, uuid } of changes) this.#waiting.add(`${what} ${uuid}`);
    if (this.#waiting.size > 0 && !this.#closed) this.#timer ??= setTimeout(() => void this.#send(), EVERY_MS);
  }

  /** What waits is told first. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#again);
    clearInterval(this.#alive);
    await this.#sending;
    await this.#send();
    await this.#client?.end().catch(() => undefined);
  }

  #send(): Promise<void> {
    this.#sending = this.#sendAll().finally(() => {
      this.#sending = undefined;
    });
    return this.#sending;
  }

  async #sendAll(): Promise<void> {
    let wait = EVERY_MS;
    try {
      while (this.#waiting.size > 0) {
        const some = [...this.#waiting].slice(0, AT_ONCE);
        for (const one of some) this.#waiting.delete(one);
        try {
          await this.#pool.query("select pg_notify($1, $2)", [CHANNEL, [this.#self, ...some].join("\n")]);
        } catch (error) {
          for (const one of some) this.#waiting.add(one);
          throw error;
        }
      }
    } catch {
      wait = AGAIN_MS; // the database is away; they wait for it
    }
    this.#timer = undefined;
    if (this.#waiting.size > 0 && !this.#closed) this.#timer = setTimeout(() => void this.#send(), wait);
  }

  async #connect(): Promise<void> {
    const client = new Client(this.#settings);
    client.on("error", () => this.#lost(client));
    client.on("end", () => this.#lost(client));
    client.on("notification", ({ payload }) => this.#hear(payload ?? ""));
    this.#client = client;
    await client.connect();
    await client.query(`listen ${CHANNEL}`);
    // A connection whose other end is gone without a word is noticed by asking.
    this.#alive = setInterval(() => void client.query("select 1").catch(() => client.end()), ALIVE_MS);
    this.#alive.unref();
  }

  #lost(client: Client): void {
    if (this.#closed || this.#client !== client) return;
    this.#client = undefined;
    clearInterval(this.#alive);
    client.end().catch(() => undefined);
    this.#reconnect(AGAIN_MS);
  }

  #reconnect(wait: number): void {
    this.#again = setTimeout(() => {
      this.#connect().then(
        () => this.#listeners.tell([{ uuid: "", what: "everything" }]),
        () => {
          this.#client = undefined;
          if (!this.#closed) this.#reconnect(Math.min(MOST_AGAIN_MS, wait * 2));
        },
      );
    }, wait);
  }

  #hear(payload: string): void {
    const [from, ...lines] = payload.split("\n");
    if (from === this.#self) return;
    this.#listeners.tell(
      lines.flatMap((line) => {
        const [what = "", uuid = ""] = line.split(" ");
        return KINDS.includes(what) ? [{ what: what as Change["what"], uuid }] : [];
      }),
    );
  }
}
