import type { Identity } from "../../pki/identity.ts";
import { all, changed, lock, type Operation, one, run } from "./operation.ts";
import type {
  Found,
  LookupKey,
  NextIdentity,
  NextPart,
  Status,
  StoredAlias,
  StoredDevice,
  StoredRecord,
  Visibility,
} from "./store.ts";

/** Records and their parts. */

const KEPT_OBJECTS = 32;

const WHERE: Record<LookupKey["kind"], string> = {
  identity: "u.identity = ?1",
  uuid: "u.uuid = ?1",
  fingerprint: "u.uuid = (select min(uuid) from devices where fingerprint = ?1 and revoked = 0)",
  email: "u.uuid = (select uuid from aliases where kind = 'email' and value = ?1 and verified <> 'none')",
  phone: "u.uuid = (select uuid from aliases where kind = 'phone' and value = ?1 and verified <> 'none')",
};

/** The hot path: one statement, a row for each device, all of one moment; a second one only for who has aliases. */
const FIND = Object.fromEntries(
  Object.entries(WHERE).map(([kind, where]) => [
    kind,
    `select u.uuid, u.identity, u.status, u.see_certificates, u.see_addresses, u.see_presence, i.seq, i.hash, i.jws,
     case when exists (select 1 from contacts c where c.owner = u.uuid and c.identity = ?2) then 1 else 0 end as contact,
     case when exists (select 1 from aliases a where a.uuid = u.uuid) then 1 else 0 end as has_aliases,
     d.fingerprint, d.addresses, d.addresses_seq, d.presence, d.presence_seq, d.seen
     from users u join identities i on i.uuid = u.uuid and i.seq = u.seq
     left join devices d on d.uuid = u.uuid and d.revoked = 0 and d.seen is not null
     where ${where}`,
  ]),
) as Record<LookupKey["kind"], string>;

export function* find({ kind, value }: LookupKey, asker?: Identity): Operation<Found | undefined> {
  const rows = yield* all<FoundRow>(FIND[kind], value, asker ?? "");
  const [first] = rows;
  if (first === undefined || first.jws === null) return undefined;
  const { uuid, identity, status, seq, hash, jws } = first;
  return {
    ...{ uuid, identity, status },
    visibility: visibilityOf(first),
    contact: first.contact === 1,
    record: { uuid, identity: jws, seq, hash, devices: rows.flatMap(deviceOf) },
    aliases: first.has_aliases === 1 ? yield* aliases(uuid) : [],
  };
}

export function* record(uuid: string): Operation<StoredRecord | undefined> {
  return (yield* find({ kind: "uuid", value: uuid }))?.record;
}

export function* chain(
  uuid: string,
  from: number,
  limit: number,
): Operation<{ seq: number; hash: string; jws?: string }[]> {
  const rows = yield* all<{ seq: number; hash: string; jws: string | null }>(
    "select seq, hash, jws from identities where uuid = ?1 and seq >= ?2 order by seq limit ?3",
    uuid,
    from,
    limit,
  );
  return rows.map(({ seq, hash, jws }) => ({ seq, hash, ...(jws === null ? {} : { jws }) }));
}

export function* putIdentity(uuid: string, next: NextIdentity, previous: string): Operation<"stored" | "stale"> {
  yield* lock(uuid);
  const current = yield* one<{ seq: number; hash: string }>(
    "select seq, hash from identities where uuid = ?1 order by seq desc limit 1",
    uuid,
  );
  if ((current?.hash ?? "") !== previous || next.seq !== (current?.seq ?? 0) + 1) return "stale";
  const { seq, hash, jws } = next;
  yield* run("insert into identities (uuid, seq, hash, jws) values (?1, ?2, ?3, ?4)", uuid, seq, hash, jws);
  yield* run("update users set seq = ?1 where uuid = ?2", seq, uuid);
  // All hashes stay, for a later log; of the objects the last ones.
  yield* run("update identities set jws = null where uuid = ?1 and seq <= ?2", uuid, seq - KEPT_OBJECTS);
  const held = yield* all<{ fingerprint: string; revoked: number }>(
    "select fingerprint, revoked from devices where uuid = ?1",
    uuid,
  );
  for (const { fingerprint, revoked } of held)
    if (revoked === 0 && !next.devices.includes(fingerprint))
      yield* run("delete from devices where uuid = ?1 and fingerprint = ?2", uuid, fingerprint);
  for (const fingerprint of next.devices)
    if (!held.some((one) => one.fingerprint === fingerprint))
      yield* run("insert into devices (uuid, fingerprint) values (?1, ?2) on conflict do nothing", uuid, fingerprint);
  for (const { digest } of yield* aliases(uuid))
    if (next.aliases?.includes(digest) !== true)
      yield* run("delete from aliases where uuid = ?1 and digest = ?2", uuid, digest);
  yield* changed({ uuid, what: "record" });
  return "stored";
}

export function putAddresses(uuid: string, device: string, next: NextPart): Operation<"stored" | "stale"> {
  return putPart("addresses", uuid, device, next);
}

export function putPresence(uuid: string, device: string, next: NextPart): Operation<"stored" | "stale"> {
  return putPart("presence", uuid, device, next);
}

/** One statement, for this is what most writes are. A row that is not written is one with a higher sequence, or a revoked device's. */
function* putPart(
  part: "addresses" | "presence",
  uuid: string,
  device: string,
  { seq, jws, seen }: NextPart,
): Operation<"stored" | "stale"> {
  const written = yield* run(
    `insert into devices (uuid, fingerprint, ${part}, ${part}_seq, seen) values (?1, ?2, ?3, ?4, ?5)
     on conflict (uuid, fingerprint) do update set ${part} = excluded.${part}, ${part}_seq = excluded.${part}_seq,
     seen = excluded.seen where excluded.${part}_seq > devices.${part}_seq and devices.revoked = 0`,
    uuid,
    device,
    jws,
    seq,
    seen,
  );
  if (written !== 1) return "stale";
  yield* changed({ uuid, what: "record" });
  return "stored";
}

export function* dropDevice(uuid: string, fingerprint: string): Operation<void> {
  yield* run(
    `insert into devices (uuid, fingerprint, revoked) values (?1, ?2, 1)
     on conflict (uuid, fingerprint) do update set revoked = 1, addresses = null, presence = null, seen = null`,
    uuid,
    fingerprint,
  );
  yield* changed({ uuid, what: "record" });
}

export function* revokedDevices(uuid: string): Operation<string[]> {
  const rows = yield* all<{ fingerprint: string }>(
    "select fingerprint from devices where uuid = ?1 and revoked = 1 order by fingerprint",
    uuid,
  );
  return rows.map(({ fingerprint }) => fingerprint);
}

export function* aliases(uuid: string): Operation<StoredAlias[]> {
  const rows = yield* all<StoredAlias>(
    "select kind, value, salt, digest, verified from aliases where uuid = ?1 order by kind, value",
    uuid,
  );
  return rows.map(({ kind, value, salt, digest, verified }) => ({ kind, value, salt, digest, verified }));
}

interface VisibilityRow {
  see_certificates: Visibility["certificates"];
  see_addresses: Visibility["addresses"];
  see_presence: Visibility["presence"];
}

interface FoundRow extends VisibilityRow {
  uuid: string;
  identity: Identity;
  status: Status;
  seq: number;
  hash: string;
  jws: string | null;
  contact: number;
  has_aliases: number;
  fingerprint: string | null;
  addresses: string | null;
  addresses_seq: number;
  presence: string | null;
  presence_seq: number;
  seen: number | null;
}

export function visibilityOf(row: VisibilityRow): Visibility {
  return { certificates: row.see_certificates, addresses: row.see_addresses, presence: row.see_presence };
}

function deviceOf(row: FoundRow): StoredDevice[] {
  const { fingerprint, addresses, presence, seen } = row;
  if (fingerprint === null) return [];
  return [
    {
      fingerprint,
      ...(addresses === null ? {} : { addresses, seq: row.addresses_seq }),
      ...(presence === null ? {} : { presence, presenceSeq: row.presence_seq }),
      ...(seen === null ? {} : { seen }),
    },
  ];
}
