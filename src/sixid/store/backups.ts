import { all, changed, lock, type Operation, one, run } from "./operation.ts";
import type { NewBackup, StoredBackup } from "./store.ts";

/** What people keep with the directory: opaque bytes, which only they can open. */

/** @returns its version, one above the last */
export function* putBackup(uuid: string, { bytes, recovery, at }: NewBackup, keep: number): Operation<number> {
  yield* lock(`backups ${uuid}`);
  const last = yield* one<{ version: number; recovery: string }>(
    "select version, recovery from backups where uuid = ?1 order by version desc limit 1",
    uuid,
  );
  const version = Number(last?.version ?? 0) + 1;
  yield* run(
    "insert into backups (uuid, version, at, bytes, recovery) values (?1, ?2, ?3, ?4, ?5)",
    ...[uuid, version, at, bytes, recovery ?? last?.recovery ?? ""],
  );
  yield* run("delete from backups where uuid = ?1 and version <= ?2", uuid, version - keep);
  return version;
}

/** The newest first. */
export function* backups(uuid: string): Operation<Omit<StoredBackup, "bytes">[]> {
  const rows = yield* all<{ version: number; at: number; recovery: string }>(
    "select version, at, recovery from backups where uuid = ?1 order by version desc",
    uuid,
  );
  return rows.map(({ version, at, recovery }) => ({ version: Number(version), at: Number(at), recovery }));
}

export function* backup(uuid: string, version: number): Operation<StoredBackup | undefined> {
  const row = yield* one<{ at: number; bytes: string; recovery: string }>(
    "select at, bytes, recovery from backups where uuid = ?1 and version = ?2",
    uuid,
    version,
  );
  return row && { version, at: Number(row.at), bytes: row.bytes, recovery: row.recovery };
}

/** @returns false if there were `most` of them since then already */
export function* noteDownload(uuid: string, at: number, since: number, most: number): Operation<boolean> {
  yield* lock(`backups ${uuid}`);
  yield* run("delete from backup_downloads where uuid = ?1 and at < ?2", uuid, since);
  const noted = yield* one<{ n: number }>("select count(*) as n from backup_downloads where uuid = ?1", uuid);
  if (Number(noted?.n ?? 0) >= most) return false;
  yield* run("insert into backup_downloads (uuid, at) values (?1, ?2)", uuid, at);
  yield* changed({ uuid, what: "backup" });
  return true;
}
