import type { Identity } from "../../pki/identity.ts";
import { all, changed, lock, type Operation, one, run } from "./operation.ts";
import { visibilityOf } from "./parts.ts";
import type { Alias, AliasKind, StoredRoot, Visibility } from "./store.ts";

/** What a person may be found by, who sees what, and roots that are held. */

export function* putAliases(uuid: string, next: readonly (Alias & { certified: boolean })[]): Operation<void> {
  yield* lock("aliases");
  yield* run("delete from aliases where uuid = ?1", uuid);
  for (const { kind, value, salt, digest, certified } of next) {
    const granted = yield* one<{ uuid: string }>(
      "select uuid from alias_grants where kind = ?1 and value = ?2",
      kind,
      value,
    );
    const found = yield* one<{ uuid: string }>(
      "select uuid from aliases where kind = ?1 and value = ?2 and verified <> 'none'",
      kind,
      value,
    );
    const free = granted === undefined && found === undefined;
    const verified = granted?.uuid === uuid ? "authority" : certified && free ? "certificate" : "none";
    yield* run(
      "insert into aliases (uuid, kind, value, salt, digest, verified) values (?1, ?2, ?3, ?4, ?5, ?6)",
      ...[uuid, kind, value, salt, digest, verified],
    );
  }
  yield* changed({ uuid, what: "record" });
}

export function* grantAlias(uuid: string, kind: AliasKind, value: string): Operation<void> {
  yield* lock("aliases");
  yield* run(
    "insert into alias_grants (kind, value, uuid) values (?1, ?2, ?3) on conflict (kind, value) do update set uuid = excluded.uuid",
    kind,
    value,
    uuid,
  );
  yield* run("update aliases set verified = 'none' where kind = ?1 and value = ?2", kind, value);
  yield* run(
    "update aliases set verified = 'authority' where kind = ?1 and value = ?2 and uuid = ?3",
    kind,
    value,
    uuid,
  );
}

export function* visibility(uuid: string): Operation<Visibility | undefined> {
  const row = yield* one<Parameters<typeof visibilityOf>[0]>(
    "select see_certificates, see_addresses, see_presence from users where uuid = ?1",
    uuid,
  );
  return row && visibilityOf(row);
}

export function* setVisibility(uuid: string, next: Visibility): Operation<void> {
  yield* run(
    "update users set see_certificates = ?1, see_addresses = ?2, see_presence = ?3 where uuid = ?4",
    ...[next.certificates, next.addresses, next.presence, uuid],
  );
  yield* changed({ uuid, what: "record" });
}

export function* contacts(uuid: string): Operation<Identity[]> {
  const rows = yield* all<{ identity: Identity }>(
    "select identity from contacts where owner = ?1 order by identity",
    uuid,
  );
  return rows.map(({ identity }) => identity);
}

export function* setContacts(uuid: string, next: readonly Identity[]): Operation<void> {
  yield* lock(uuid);
  yield* run("delete from contacts where owner = ?1", uuid);
  for (const identity of new Set(next))
    yield* run("insert into contacts (owner, identity) values (?1, ?2)", uuid, identity);
  yield* changed({ uuid, what: "record" });
}

export function* putRoot({ id, uuid, signer, jws, received }: StoredRoot, most: number): Operation<boolean> {
  yield* lock(uuid);
  const held = yield* roots(uuid);
  if (held.some((one) => one.id === id)) return true;
  // A device that signs another one gives up its first.
  const others = held.filter((one) => one.signer !== signer);
  if (others.length >= most) return false;
  yield* run("delete from roots where uuid = ?1 and signer = ?2", uuid, signer);
  yield* run(
    "insert into roots (id, uuid, signer, jws, received) values (?1, ?2, ?3, ?4, ?5)",
    ...[id, uuid, signer, jws, received],
  );
  yield* changed({ uuid, what: "root" });
  return true;
}

export function* roots(uuid: string): Operation<StoredRoot[]> {
  return (yield* all<StoredRoot>("select * from roots where uuid = ?1 order by received, id", uuid)).map(rootOf);
}

export function* rootsUntil(received: number): Operation<StoredRoot[]> {
  return (yield* all<StoredRoot>("select * from roots where received <= ?1 order by received, id", received)).map(
    rootOf,
  );
}

export function* removeRoot(id: string): Operation<void> {
  yield* run("delete from roots where id = ?1", id);
}

function rootOf({ id, uuid, signer, jws, received }: StoredRoot): StoredRoot {
  return { id, uuid, signer, jws, received };
}
