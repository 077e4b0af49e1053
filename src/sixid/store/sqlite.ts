import { once } from "node:events";
import { DatabaseSync } from "node:sqlite";
import { Worker } from "node:worker_threads";
import { fromWire, type SuiteError } from "../../pki/suite-error.ts";
import { Listeners } from "./listeners.ts";
import { migrationsFrom } from "./migrations.ts";
import type { Operation } from "./operation.ts";
import { type Database, storeOver } from "./over.ts";
import { type Batch, type Reply, SqliteRunner, storeFailed } from "./sqlite-run.ts";
import type { ToWriter, WriterData } from "./sqlite-worker.ts";
import type { DirectoryStore } from "./store.ts";
import type { WriteArguments, WriteName, WriteResult } from "./writes.ts";

/** The largest that SQLite takes by default; what lies behind is read. */
const MAPPED_BYTES = 2_147_418_112;

/**
 * The embedded store. Reads happen on the calling thread, by a connection that cannot write; writes on a thread of their
 * own, as many in one commit as came during the one before. WAL and synchronous=FULL: what has been answered survives the
 * power. `:memory:` lives and dies with its one connection.
 * @throws SuiteError store-failed
 */
export function openSqliteStore(path: string, cut?: WriterData["cut"]): DirectoryStore {
  try {
    const database = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: 5_000 });
    database.exec("pragma journal_mode = wal; pragma synchronous = full");
    migrate(database);
    if (path === ":memory:") return storeOver(new InMemory(database));
    database.close();
    return storeOver(new Threaded(path, cut));
  } catch (error) {
    throw storeFailed(error);
  }
}

/** Brings a database to the present version; whoever opens it at the same time waits, and finds it done. */
function migrate(database: DatabaseSync): void {
  const version = () =>
    (database.prepare("pragma user_version").get() as { user_version: number } | undefined)?.user_version ?? 0;
  if (migrationsFrom(version(), "sqlite") === undefined) return;
  database.exec("begin immediate");
  const missing = migrationsFrom(version(), "sqlite");
  if (missing !== undefined) database.exec(`${missing.sql}; pragma user_version = ${missing.version}`);
  database.exec("commit");
}

class InMemory implements Database {
  readonly #database: DatabaseSync;
  readonly #runner: SqliteRunner;
  readonly #listeners = new Listeners();

  constructor(database: DatabaseSync) {
    this.#database = database;
    this.#runner = new SqliteRunner(database);
  }

  async read<T>(operation: Operation<T>): Promise<T> {
    return reading(this.#runner, operation);
  }

  async write<K extends WriteName>(name: K, ...values: WriteArguments<K>): Promise<WriteResult<K>> {
    const { replies, changes } = this.#runner.batch([{ id: 0, name, values }]);
    this.#listeners.tell(changes);
    const [reply] = replies;
    if (reply === undefined || "error" in reply) throw errorOf(reply);
    return reply.result as WriteResult<K>;
  }

  changes(listener: Parameters<Listeners["add"]>[0]): () => void {
    return this.#listeners.add(listener);
  }

  async close(): Promise<void> {
    this.#database.close();
  }
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: SuiteError): void;
}

class Threaded implements Database {
  readonly #reader: DatabaseSync;
  readonly #runner: SqliteRunner;
  readonly #writer: Worker;
  readonly #exited: Promise<unknown>;
  readonly #listeners = new Listeners();
  readonly #pending = new Map<number, Pending>();
  #next = 0;
  /** Why nothing more is written. */
  #ended: SuiteError | undefined;

  constructor(path: string, cut: WriterData["cut"]) {
    this.#reader = new DatabaseSync(path, { readOnly: true, timeout: 5_000 });
    // Read where the kernel has it: a system call less for each page of the way to a record. Writes never go by it.
    this.#reader.exec(`pragma mmap_size = ${MAPPED_BYTES}`);
    this.#runner = new SqliteRunner(this.#reader);
    const workerData: WriterData = { path, ...(cut === undefined ? {} : { cut }) };
    this.#writer = new Worker(new URL("./sqlite-worker.ts", import.meta.url), { workerData });
    this.#writer.unref(); // only what is being written keeps the process
    this.#exited = once(this.#writer, "exit").catch(() => undefined);
    this.#writer.on("message", (batch: Batch) => this.#settle(batch));
    this.#writer.on("error", (error) => this.#end(storeFailed(error)));
    this.#writer.on("exit", () => this.#end(storeFailed(new Error("the writing thread has ended"))));
  }

  async read<T>(operation: Operation<T>): Promise<T> {
    return reading(this.#runner, operation);
  }

  write<K extends WriteName>(name: K, ...values: WriteArguments<K>): Promise<WriteResult<K>> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const id = this.#next;
      this.#next += 1;
      if (this.#pending.size === 0) this.#writer.ref();
      this.#pending.set(id, { resolve: (result) => resolve(result as WriteResult<K>), reject });
      this.#post({ id, name, values });
    });
  }

  changes(listener: Parameters<Listeners["add"]>[0]): () => void {
    return this.#listeners.add(listener);
  }

  /** What was written before is finished. */
  async close(): Promise<void> {
    if (this.#ended === undefined) {
      this.#ended = storeFailed(new Error("closed"));
      this.#writer.ref();
      this.#post("end");
    }
    await this.#exited;
    if (this.#reader.isOpen) this.#reader.close();
  }

  #post(message: ToWriter): void {
    this.#writer.postMessage(message);
  }

  #settle({ replies, changes, fatal }: Batch): void {
    if (fatal !== undefined) this.#ended = storeFailed(new Error(fatal));
    this.#listeners.tell(changes);
    for (const reply of replies) {
      const call = this.#pending.get(reply.id);
      this.#pending.delete(reply.id);
      if ("error" in reply) call?.reject(errorOf(reply));
      else call?.resolve(reply.result);
    }
    if (this.#pending.size === 0) this.#writer.unref();
  }

  #end(error: SuiteError): void {
    this.#ended ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#ended);
    this.#pending.clear();
  }
}

function reading<T>(runner: SqliteRunner, operation: Operation<T>): T {
  try {
    return runner.run(operation, []);
  } catch (error) {
    throw storeFailed(error);
  }
}

function errorOf(reply: Extract<Reply, { error: unknown }> | undefined): SuiteError {
  if (reply === undefined) return storeFailed(new Error("no reply"));
  return fromWire(reply.error);
}
