import { randomUUID } from "node:crypto";
import { Pool, type PoolClient, types } from "pg";
import { SuiteError } from "../../pki/suite-error.ts";
import { migrationsFrom } from "./migrations.ts";
import type { Operation, Outcome, Row, Step } from "./operation.ts";
import { type Database, storeOver } from "./over.ts";
import { Notices } from "./postgres-notices.ts";
import { storeFailed } from "./sqlite-run.ts";
import type { Change, DirectoryStore } from "./store.ts";
import { WRITES, type WriteArguments, type WriteName, type WriteResult } from "./writes.ts";

const MOST_CONNECTIONS = 10;
const CONNECT_MS = 5_000;
const STATEMENT_MS = 10_000;
/** Whoever opens a database at the same time waits. */
const MIGRATION_LOCK = 4_606;
const ATTEMPTS = 3;
/** Serialization failure, deadlock: nothing happened, and again it may pass (PostgreSQL, appendix A). */
const AGAIN: readonly unknown[] = ["40001", "40P01"];
/** Writes of one statement each, which needs no transaction around it. */
const ALONE: ReadonlySet<WriteName> = new Set<WriteName>([
  ...(["putAddresses", "putPresence", "addUser", "setFailures", "addInvitation", "useInvitation"] as const),
  ...(["addSession", "removeSession", "removeSessionsOf", "removeRoot", "removeRequest"] as const),
]);

/**
 * A store that several servers share. Commits are synchronous, whatever the server's default; changes reach the other
 * processes within half a second.
 * @param connection a connection string, `postgres://…`
 * @throws SuiteError store-failed
 */
export async function openPostgresStore(connection: string): Promise<DirectoryStore> {
  const settings = {
    connectionString: connection,
    connectionTimeoutMillis: CONNECT_MS,
    keepAlive: true,
    options: `-c synchronous_commit=on -c statement_timeout=${STATEMENT_MS}`,
    // 64-bit integers come as text; all of ours are exact as numbers.
    types: {
      getTypeParser: ((oid: number, format?: "text" | "binary") =>
        oid === INT8 ? Number : types.getTypeParser(oid, format as "text")) as typeof types.getTypeParser,
    },
  };
  const pool = new Pool({ ...settings, max: MOST_CONNECTIONS });
  pool.on("error", () => undefined); // an idle connection ended; the next use opens another
  try {
    await migrate(pool);
    const notices = await Notices.open(pool, settings, randomUUID());
    return storeOver(new Postgres(pool, notices));
  } catch (error) {
    await pool.end();
    throw storeFailed(error);
  }
}

const INT8 = 20;

async function migrate(pool: Pool): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query("begin");
    await client.query("select pg_advisory_xact_lock($1)", [MIGRATION_LOCK]);
    await client.query("create table if not exists sixid_version (version integer not null)");
    const { rows } = await client.query<{ version: number }>("select version from sixid_version");
    const missing = migrationsFrom(rows[0]?.version ?? 0, "postgres");
    if (missing !== undefined) {
      await client.query(missing.sql);
      await client.query("delete from sixid_version");
      await client.query("insert into sixid_version (version) values ($1)", [missing.version]);
    }
    await client.query("commit");
  } catch (error) {
    await client.query("rollback").catch(() => undefined);
    throw error;
  } finally {
    client.release();
  }
}

type Executor = Pick<PoolClient, "query">;

class Postgres implements Database {
  readonly #pool: Pool;
  readonly #notices: Notices;
  readonly #prepared = new Map<string, { name: string; text: string }>();
  #closing: Promise<void> | undefined;

  constructor(pool: Pool, notices: Notices) {
    this.#pool = pool;
    this.#notices = notices;
  }

  async read<T>(operation: Operation<T>): Promise<T> {
    try {
      return await this.#run(this.#pool, operation, []);
    } catch (error) {
      throw storeFailed(error);
    }
  }

  async write<K extends WriteName>(name: K, ...values: WriteArguments<K>): Promise<WriteResult<K>> {
    const make = WRITES[name] as unknown as (...values: WriteArguments<K>) => Operation<WriteResult<K>>;
    for (let attempt = 1; ; attempt += 1) {
      const changes: Change[] = [];
      try {
        const result = ALONE.has(name)
          ? await this.#run(this.#pool, once(make(...values)), changes)
          : await this.#transaction((client) => this.#run(client, make(...values), changes));
        this.#notices.tell(changes);
        return result;
      } catch (error) {
        if (attempt >= ATTEMPTS || !AGAIN.includes((error as { code?: unknown }).code)) throw storeFailed(error);
      }
    }
  }

  changes(listener: (change: Change) => void): () => void {
    return this.#notices.listen(listener);
  }

  close(): Promise<void> {
    this.#closing ??= this.#end();
    return this.#closing;
  }

  async #end(): Promise<void> {
    await this.#notices.close();
    await this.#pool.end();
  }

  async #transaction<T>(body: (client: PoolClient) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    try {
      await client.query("begin");
      const result = await body(client);
      await client.query("commit");
      return result;
    } catch (error) {
      await client.query("rollback").catch((cause: Error) => {
        broken = cause;
      });
      throw error;
    } finally {
      client.release(broken);
    }
  }

  async #run<T>(on: Executor, operation: Operation<T>, changes: Change[]): Promise<T> {
    let step = operation.next({ rows: [], count: 0 });
    while (step.done !== true) {
      const { value } = step;
      let outcome: Outcome = { rows: [], count: 0 };
      if ("sql" in value) outcome = await this.#execute(on, value.sql, value.values);
      else if ("changed" in value) changes.push(value.changed);
      else await on.query("select pg_advisory_xact_lock(hashtextextended($1, 0))", [value.lock]);
      step = operation.next(outcome);
    }
    return step.value;
  }

  async #execute(on: Executor, sql: string, values: readonly (string | number | null)[]): Promise<Outcome> {
    let prepared = this.#prepared.get(sql);
    if (prepared === undefined) {
      prepared = { name: `s${this.#prepared.size}`, text: sql.replace(/\?(\d+)/g, "$$$1") };
      this.#prepared.set(sql, prepared);
    }
    const { rows, rowCount } = await on.query<Row>({ ...prepared, values: [...values] });
    return { rows, count: rowCount ?? 0 };
  }
}

/** Holds an operation to what may run without a transaction. */
function* once<T>(operation: Operation<T>): Operation<T> {
  let statements = 0;
  let step = operation.next({ rows: [], count: 0 });
  while (step.done !== true) {
    const { value }: { value: Step } = step;
    if (!("changed" in value)) statements += 1;
    if (statements > 1)
      throw new SuiteError("internal", "a write of several statements needs a transaction", { fault: "local" });
    step = operation.next(yield value);
  }
  return step.value;
}
