import { DatabaseSync, type StatementSync } from "node:sqlite";
import { SuiteError } from "../pki/suite-error.ts";

/** Where a test may end the process: around the register's commit. */
export type IrpCutPoint = "register.written" | "register.committed";

type Value = string | number | Uint8Array | null;

/** Version 1. */
const CERTIFICATES = `
  create table certificates (
    serial text primary key, kind text not null, identity text not null, fingerprint text not null, label text not null,
    csr text not null, issued_at integer not null, not_after integer not null, revoked_at integer, der blob not null
  ) strict;
  create index by_identity on certificates(identity, kind);
  create index by_fingerprint on certificates(fingerprint);
  create table audit (seq integer primary key, at integer not null, entry text not null, hash text not null) strict;
`;

/** Version 2: whose key signed ('' is the first issuing CA's), why revoked, when to renew at the latest; lists; requests that wait. */
const STATUS = `
  alter table certificates add column issuer text not null default '';
  alter table certificates add column reason text;
  alter table certificates add column chain blob;
  alter table certificates add column renew_at integer;
  create index by_issuer_revoked on certificates(issuer, not_after) where revoked_at is not null;
  create index by_issued on certificates(issued_at);
  create table crls (
    issuer text primary key, number integer not null, this_update integer not null, next_update integer not null, der blob not null
  ) strict;
  create table pending (
    ref text primary key, identity text not null, kind text not null, csr text not null, der blob not null,
    label text not null, at integer not null, state text not null, decided_by text, unique (csr, identity, kind)
  ) strict;
`;

const MIGRATIONS = [CERTIFICATES, STATUS];

/** The register's file: one connection, every commit durable. Other processes may have it open, too. */
export class RegisterDatabase {
  readonly #database: DatabaseSync;
  readonly #cut: (point: IrpCutPoint) => void;
  readonly #prepared = new Map<string, StatementSync>();
  #inside = false;

  /** @throws SuiteError store-failed */
  constructor(path: string, cut: (point: IrpCutPoint) => void) {
    this.#cut = cut;
    this.#database = guarded(() => {
      const database = new DatabaseSync(path);
      database.exec("pragma journal_mode = wal; pragma synchronous = full; pragma busy_timeout = 5000");
      return database;
    });
    guarded(() => this.#migrate());
  }

  /** Changes when another connection has written. */
  get version(): number {
    return (this.#statement("pragma data_version").get() as { data_version: number }).data_version;
  }

  /** All of `body` or nothing, durable when it returns; inside another it is a part of that. @throws SuiteError store-failed */
  transaction<T>(body: () => T): T {
    if (this.#inside) return body();
    return guarded(() => {
      this.#database.exec("begin immediate");
      this.#inside = true;
      try {
        const result = body();
        this.#cut("register.written");
        this.#database.exec("commit");
        this.#cut("register.committed");
        return result;
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec("rollback");
        throw error;
      } finally {
        this.#inside = false;
      }
    });
  }

  one<T>(sql: string, ...values: Value[]): T | undefined {
    return guarded(() => this.#statement(sql).get(...values) as T | undefined);
  }

  all<T>(sql: string, ...values: Value[]): T[] {
    return guarded(() => this.#statement(sql).all(...values) as T[]);
  }

  /** @returns how many rows changed */
  run(sql: string, ...values: Value[]): number {
    return guarded(() => Number(this.#statement(sql).run(...values).changes));
  }

  close(): void {
    if (this.#database.isOpen) this.#database.close();
  }

  #migrate(): void {
    const held = () => (this.#database.prepare("pragma user_version").get() as { user_version: number }).user_version;
    if (held() > MIGRATIONS.length)
      throw new SuiteError("store-failed", "the register was written by a newer version", {
        fault: "local",
        details: { version: held() },
      });
    if (held() === MIGRATIONS.length) return;
    this.#database.exec("begin immediate");
    const script = MIGRATIONS.slice(held()).join("\n");
    this.#database.exec(`${script}; pragma user_version = ${Math.max(held(), MIGRATIONS.length)}; commit`);
  }

  #statement(sql: string): StatementSync {
    const known = this.#prepared.get(sql);
    if (known !== undefined) return known;
    const made = this.#database.prepare(sql);
    this.#prepared.set(sql, made);
    return made;
  }
}

function guarded<T>(body: () => T): T {
  try {
    return body();
  } catch (cause) {
    if (cause instanceof SuiteError) throw cause;
    throw new SuiteError("store-failed", "the register cannot be read or written", {
      fault: "local",
      temporary: true,
      cause,
    });
  }
}
