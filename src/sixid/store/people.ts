import type { Identity } from "../../pki/identity.ts";
import { all, changed, type Operation, one, run } from "./operation.ts";
import type { Role, Status, StoredInvitation, StoredUser, UserFilter } from "./store.ts";

/** People, their invitations and sessions. */

const MOST_USERS = 1_000_000;

export function* user(identity: Identity): Operation<StoredUser | undefined> {
  const row = yield* one<UserRow>("select * from users where identity = ?1", identity);
  return row && userOf(row);
}

export function* userById(uuid: string): Operation<StoredUser | undefined> {
  const row = yield* one<UserRow>("select * from users where uuid = ?1", uuid);
  return row && userOf(row);
}

export function* users({ after, match, limit = MOST_USERS }: UserFilter = {}): Operation<StoredUser[]> {
  const like = `%${(match ?? "").toLowerCase().replace(/[\\%_]/g, (one) => `\\${one}`)}%`;
  const rows = yield* all<UserRow>(
    `select * from users where status <> 'removed' and identity > ?1
     and (lower(identity) like ?2 escape '\\' or lower(name) like ?2 escape '\\') order by identity limit ?3`,
    after ?? "",
    like,
    limit,
  );
  return rows.map(userOf);
}

export function* addUser(next: { uuid: string; identity: Identity; name: string }): Operation<boolean> {
  const { uuid, identity, name } = next;
  const sql = "insert into users (uuid, identity, name) values (?1, ?2, ?3) on conflict do nothing";
  return (yield* run(sql, uuid, identity, name)) === 1;
}

export function* setUser(
  uuid: string,
  { name, status, roles }: { name?: string; status?: Status; roles?: readonly Role[] },
  at: number,
): Operation<void> {
  if (name !== undefined) yield* run("update users set name = ?1 where uuid = ?2", name, uuid);
  if (roles !== undefined) yield* run("update users set roles = ?1 where uuid = ?2", roles.join(" "), uuid);
  if (status === undefined) return;
  yield* run("update users set status = ?1 where uuid = ?2", status, uuid);
  if (status !== "active") yield* removeSessionsOf(uuid);
  if (status === "removed") {
    yield* run("update users set removed_at = ?1, name = '', password = null, roles = '' where uuid = ?2", at, uuid);
    yield* run("update identities set jws = null where uuid = ?1", uuid);
    for (const table of ["devices", "aliases", "alias_grants", "roots", "backups", "backup_downloads"])
      yield* run(`delete from ${table} where uuid = ?1`, uuid);
    for (const table of ["contacts", "requests"]) yield* run(`delete from ${table} where owner = ?1`, uuid);
  }
  yield* changed({ uuid, what: "record" });
}

export function* setPassword(uuid: string, phc: string): Operation<void> {
  yield* run("update users set password = ?1 where uuid = ?2", phc, uuid);
  yield* removeSessionsOf(uuid);
}

export function* setFailures(uuid: string, failures: number, retryAt: number): Operation<void> {
  yield* run("update users set failures = ?1, retry_at = ?2 where uuid = ?3", failures, retryAt, uuid);
}

export function* addInvitation(hash: string, { identity, expires }: StoredInvitation): Operation<void> {
  yield* run("insert into invitations (hash, identity, expires) values (?1, ?2, ?3)", hash, identity, expires);
}

export function* invitation(hash: string): Operation<StoredInvitation | undefined> {
  const row = yield* one<{ identity: Identity; expires: number; used_at: number | null }>(
    "select identity, expires, used_at from invitations where hash = ?1",
    hash,
  );
  if (row === undefined) return undefined;
  return { identity: row.identity, expires: row.expires, ...(row.used_at === null ? {} : { usedAt: row.used_at }) };
}

export function* useInvitation(hash: string, use: string, at: number): Operation<boolean> {
  const sql = `update invitations set used_at = coalesce(used_at, ?1), used_for = ?2
    where hash = ?3 and (used_at is null or used_for = ?2)`;
  return (yield* run(sql, at, use, hash)) === 1;
}

export function* addSession(hash: string, uuid: string, expires: number): Operation<void> {
  yield* run("insert into sessions (hash, uuid, expires) values (?1, ?2, ?3)", hash, uuid, expires);
}

export function* session(hash: string): Operation<{ uuid: string; expires: number } | undefined> {
  const row = yield* one<{ uuid: string; expires: number }>("select uuid, expires from sessions where hash = ?1", hash);
  return row && { uuid: row.uuid, expires: row.expires };
}

export function* removeSession(hash: string): Operation<void> {
  yield* run("delete from sessions where hash = ?1", hash);
}

export function* removeSessionsOf(uuid: string): Operation<void> {
  yield* run("delete from sessions where uuid = ?1", uuid);
}

interface UserRow {
  uuid: string;
  identity: Identity;
  name: string;
  status: Status;
  roles: string;
  password: string | null;
  failures: number;
  retry_at: number;
}

function userOf(row: UserRow): StoredUser {
  const { uuid, identity, name, status, failures } = row;
  return {
    ...{ uuid, identity, name, status, failures },
    roles: row.roles === "" ? [] : (row.roles.split(" ") as Role[]),
    retryAt: row.retry_at,
    ...(row.password === null ? {} : { password: row.password }),
  };
}
