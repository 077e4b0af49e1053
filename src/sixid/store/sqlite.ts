import { DatabaseSync, type StatementSync } from "node:sqlite";
import { type Identity, identityDomain } from "../../pki/identity.ts";
import { SuiteError } from "../../pki/suite-error.ts";
import { migrate } from "./migrations.ts";
import type {
  Change,
  DirectoryStore,
  NewRequest,
  RequestLimits,
  RequestOutcome,
  StoredInvitation,
  StoredRecord,
  StoredUser,
} from "./store.ts";

const KEPT_OBJECTS = 32;

/**
 * The embedded store. WAL and synchronous=FULL: what has been answered survives the power. One connection on the calling
 * thread: a domain of some hundred people writes a few rows a minute.
 * @throws SuiteError store-failed
 */
export function openSqliteStore(path: string): DirectoryStore {
  const database = new DatabaseSync(path);
  database.exec(
    "pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on; pragma busy_timeout = 5000",
  );
  migrate(database);
  return new SqliteStore(database);
}

class SqliteStore implements DirectoryStore {
  readonly #database: DatabaseSync;
  readonly #prepared = new Map<string, StatementSync>();
  readonly #listeners = new Set<(change: Change) => void>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  async user(identity: Identity): Promise<StoredUser | undefined> {
    const row = this.#get<UserRow>("select * from users where identity = ?", identity);
    return row && userOf(row);
  }

  async userById(uuid: string): Promise<StoredUser | undefined> {
    const row = this.#get<UserRow>("select * from users where uuid = ?", uuid);
    return row && userOf(row);
  }

  async users(): Promise<StoredUser[]> {
    return this.#all<UserRow>("select * from users order by identity").map(userOf);
  }

  async addUser(user: { uuid: string; identity: Identity; name: string }): Promise<boolean> {
    return (
      this.#run(
        "insert into users (uuid, identity, name) values (?, ?, ?) on conflict do nothing",
        user.uuid,
        user.identity,
        user.name,
      ) === 1
    );
  }

  async setPassword(uuid: string, phc: string): Promise<void> {
    this.#transaction(() => {
      this.#run("update users set password = ? where uuid = ?", phc, uuid);
      this.#run("delete from sessions where uuid = ?", uuid);
    });
  }

  async setFailures(uuid: string, failures: number, retryAt: number): Promise<void> {
    this.#run("update users set failures = ?, retry_at = ? where uuid = ?", failures, retryAt, uuid);
  }

  async addInvitation(hash: string, invitation: StoredInvitation): Promise<void> {
    this.#run(
      "insert into invitations (hash, identity, expires) values (?, ?, ?)",
      hash,
      invitation.identity,
      invitation.expires,
    );
  }

  async invitation(hash: string): Promise<StoredInvitation | undefined> {
    const row = this.#get<{ identity: Identity; expires: number; used_at: number | null }>(
      "select * from invitations where hash = ?",
      hash,
    );
    if (row === undefined) return undefined;
    return { identity: row.identity, expires: row.expires, ...(row.used_at === null ? {} : { usedAt: row.used_at }) };
  }

  async useInvitation(hash: string, use: string, at: number): Promise<boolean> {
    const sql =
      "update invitations set used_at = coalesce(used_at, ?1), used_for = ?2 where hash = ?3 and (used_at is null or used_for = ?2)";
    return this.#run(sql, at, use, hash) === 1;
  }

  async addSession(hash: string, uuid: string, expires: number): Promise<void> {
    this.#run("insert into sessions (hash, uuid, expires) values (?, ?, ?)", hash, uuid, expires);
  }

  async session(hash: string): Promise<{ uuid: string; expires: number } | undefined> {
    return this.#get("select uuid, expires from sessions where hash = ?", hash);
  }

  async removeSession(hash: string): Promise<void> {
    this.#run("delete from sessions where hash = ?", hash);
  }

  async removeSessionsOf(uuid: string): Promise<void> {
    this.#run("delete from sessions where uuid = ?", uuid);
  }

  async record(uuid: string): Promise<StoredRecord | undefined> {
    const row = this.#get<{ seq: number; hash: string; jws: string }>(
      "select seq, hash, jws from identities where uuid = ? order by seq desc limit 1",
      uuid,
    );
    if (row === undefined) return undefined;
    const devices = this.#all<{ device: string; jws: string; seq: number; seen: number }>(
      "select device, jws, seq, seen from addresses where uuid = ?",
      uuid,
    );
    return {
      uuid,
      identity: row.jws,
      seq: row.seq,
      hash: row.hash,
      devices: devices.map(({ device, jws, seq, seen }) => ({ fingerprint: device, addresses: jws, seq, seen })),
    };
  }

  async putIdentity(
    uuid: string,
    next: { seq: number; hash: string; jws: string; devices: readonly string[] },
    previous: string,
  ): Promise<"stored" | "stale"> {
    const outcome = this.#transaction(() => {
      const current = this.#get<{ seq: number; hash: string }>(
        "select seq, hash from identities where uuid = ? order by seq desc limit 1",
        uuid,
      );
      if ((current?.hash ?? "") !== previous || next.seq !== (current?.seq ?? 0) + 1) return "stale";
      this.#run(
        "insert into identities (uuid, seq, hash, jws) values (?, ?, ?, ?)",
        uuid,
        next.seq,
        next.hash,
        next.jws,
      );
      // All hashes stay, for a later log; of the objects the last ones.
      this.#run("update identities set jws = null where uuid = ? and seq <= ?", uuid, next.seq - KEPT_OBJECTS);
      const gone = this.#all<{ device: string }>("select device from addresses where uuid = ?", uuid).filter(
        (row) => !next.devices.includes(row.device),
      );
      for (const { device } of gone) this.#run("delete from addresses where uuid = ? and device = ?", uuid, device);
      return "stored";
    });
    if (outcome === "stored") this.#changed({ uuid, what: "record" });
    return outcome;
  }

  async putAddresses(
    uuid: string,
    device: string,
    next: { seq: number; jws: string; seen: number },
  ): Promise<"stored" | "stale"> {
    const changed = this.#run(
      `insert into addresses (uuid, device, seq, jws, seen) values (?, ?, ?, ?, ?)
       on conflict (uuid, device) do update set seq = excluded.seq, jws = excluded.jws, seen = excluded.seen
       where excluded.seq > addresses.seq`,
      uuid,
      device,
      next.seq,
      next.jws,
      next.seen,
    );
    if (changed !== 1) return "stale";
    this.#changed({ uuid, what: "record" });
    return "stored";
  }

  async putRequest(request: NewRequest, limits: RequestLimits): Promise<RequestOutcome> {
    const { hash, from, signer, to, owner, at, expires, jws } = request;
    const outcome = this.#transaction((): RequestOutcome => {
      this.#run("delete from asked where at <= ?", at - limits.windowMs);
      this.#run("delete from requests where expires <= ?", at);
      const pair = this.#get<{ hash: string; at: number }>(
        "select hash, at from asked where signer = ? and recipient = ?",
        signer,
        to,
      );
      if (pair?.hash === hash) return { outcome: "repeated" };
      const reached = this.#limitReached(from, pair?.at, limits);
      if (reached !== undefined)
        return { outcome: "too-many", limit: reached.limit, retryAt: reached.since + limits.windowMs };
      this.#run(
        "insert into asked (signer, recipient, from_identity, domain, hash, at) values (?, ?, ?, ?, ?, ?)",
        signer,
        to,
        from,
        identityDomain(from),
        hash,
        at,
      );
      if (owner === undefined) return { outcome: "noted" };
      const others = this.#get<{ n: number }>(
        "select count(*) as n from requests where owner = ? and from_identity <> ?",
        owner,
        from,
      );
      if ((others?.n ?? 0) >= limits.pending) return { outcome: "noted" };
      this.#run(
        `insert into requests (owner, from_identity, id, jws, received, expires) values (?, ?, ?, ?, ?, ?)
         on conflict (owner, from_identity) do update
         set id = excluded.id, jws = excluded.jws, received = excluded.received, expires = excluded.expires`,
        owner,
        from,
        hash,
        jws,
        at,
        expires,
      );
      return { outcome: "kept" };
    });
    if (outcome.outcome === "kept" && owner !== undefined) this.#changed({ uuid: owner, what: "request" });
    return outcome;
  }

  async requestsOf(owner: string, now: number): Promise<{ id: string; jws: string }[]> {
    return this.#all<{ id: string; jws: string }>(
      "select id, jws from requests where owner = ? and expires > ? order by received",
      owner,
      now,
    ).map(({ id, jws }) => ({ id, jws }));
  }

  async removeRequest(owner: string, id: string): Promise<void> {
    this.#run("delete from requests where owner = ? and id = ?", owner, id);
  }

  changes(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#database.close();
  }

  #changed(change: Change): void {
    for (const listener of this.#listeners) listener(change);
  }

  /** The first limit that is reached, and when the oldest request that counts for it came. */
  #limitReached(from: Identity, pair: number | undefined, limits: RequestLimits) {
    if (pair !== undefined) return { limit: "pair", since: pair } as const;
    const count = (where: string, ...values: string[]) =>
      this.#get<{ n: number; since: number | null }>(
        `select count(*) as n, min(at) as since from asked where ${where}`,
        ...values,
      );
    const asker = count("from_identity = ?", from);
    if (asker !== undefined && asker.n >= limits.perAsker) return { limit: "asker", since: asker.since ?? 0 } as const;
    const domain = count("domain = ?", identityDomain(from));
    if (domain !== undefined && domain.n >= limits.perDomain)
      return { limit: "domain", since: domain.since ?? 0 } as const;
    const all = count("true");
    if (all !== undefined && all.n >= limits.total) return { limit: "total", since: all.since ?? 0 } as const;
    return undefined;
  }

  #transaction<T>(body: () => T): T {
    return guarded(() => {
      this.#database.exec("begin immediate");
      try {
        const result = body();
        this.#database.exec("commit");
        return result;
      } catch (error) {
        this.#database.exec("rollback");
        throw error;
      }
    });
  }

  #get<T>(sql: string, ...values: (string | number)[]): T | undefined {
    return guarded(() => this.#statement(sql).get(...values) as T | undefined);
  }

  #all<T>(sql: string, ...values: (string | number)[]): T[] {
    return guarded(() => this.#statement(sql).all(...values) as T[]);
  }

  #run(sql: string, ...values: (string | number)[]): number {
    return guarded(() => Number(this.#statement(sql).run(...values).changes));
  }

  #statement(sql: string): StatementSync {
    const known = this.#prepared.get(sql);
    if (known !== undefined) return known;
    const made = this.#database.prepare(sql);
    this.#prepared.set(sql, made);
    return made;
  }
}

interface UserRow {
  uuid: string;
  identity: Identity;
  name: string;
  status: "active" | "blocked";
  password: string | null;
  failures: number;
  retry_at: number;
}

function userOf(row: UserRow): StoredUser {
  const { uuid, identity, name, status, failures } = row;
  return {
    uuid,
    identity,
    name,
    status,
    failures,
    retryAt: row.retry_at,
    ...(row.password === null ? {} : { password: row.password }),
  };
}

function guarded<T>(body: () => T): T {
  try {
    return body();
  } catch (cause) {
    if (cause instanceof SuiteError) throw cause;
    throw new SuiteError("store-failed", "the directory cannot be read or written", {
      fault: "local",
      temporary: true,
      cause,
    });
  }
}
