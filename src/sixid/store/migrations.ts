import { SuiteError } from "../../pki/suite-error.ts";

export type Dialect = "sqlite" | "postgres";

/** Version 1: people, invitations, sessions, records. */
const PEOPLE = `
  create table users (
    uuid text primary key, identity text not null unique, name text not null, status text not null default 'active',
    password text, failures INTEGER not null default 0, retry_at INTEGER not null default 0
  ) STRICT;
  create table invitations (hash text primary key, identity text not null, expires INTEGER not null, used_at INTEGER) STRICT;
  create table sessions (hash text primary key, uuid text not null references users(uuid), expires INTEGER not null) STRICT;
  create index sessions_of on sessions(uuid);
  create table identities (
    uuid text not null references users(uuid), seq INTEGER not null, hash text not null, jws text, primary key (uuid, seq)
  ) STRICT;
  create table addresses (
    uuid text not null references users(uuid), device text not null, seq INTEGER not null, jws text not null,
    seen INTEGER not null, primary key (uuid, device)
  ) STRICT;
`;

/** Version 2: request boxes, and the last day's requests for the limits, which count what was asked, not what waits. */
const REQUESTS = `
  create table requests (
    owner text not null references users(uuid), from_identity text not null, id text not null, jws text not null,
    received INTEGER not null, expires INTEGER not null, primary key (owner, from_identity)
  ) STRICT;
  create index requests_expire on requests(expires);
  create table asked (
    signer text not null, recipient text not null, from_identity text not null, domain text not null, hash text not null,
    at INTEGER not null, primary key (signer, recipient)
  ) STRICT;
  create index asked_at on asked(at);
  create index asked_by on asked(from_identity, at);
  create index asked_from on asked(domain, at);
`;

/** Version 3: what an invitation was used for, so that the same use again is no second one. */
const INVITATION_USE = "alter table invitations add column used_for text;";

/** Version 4: devices with presence, aliases, contacts, who sees what, roles, held roots. */
const PARTS = `
  alter table users add column seq INTEGER not null default 0;
  update users set seq = coalesce((select max(seq) from identities where identities.uuid = users.uuid), 0);
  alter table users add column roles text not null default '';
  alter table users add column removed_at INTEGER;
  alter table users add column see_certificates text not null default 'authenticated';
  alter table users add column see_addresses text not null default 'authenticated';
  alter table users add column see_presence text not null default 'contacts';
  create table devices (
    uuid text not null references users(uuid), fingerprint text not null, addresses text, addresses_seq INTEGER not null default 0,
    presence text, presence_seq INTEGER not null default 0, seen INTEGER, revoked INTEGER not null default 0,
    primary key (uuid, fingerprint)
  ) STRICT;
  insert into devices (uuid, fingerprint, addresses, addresses_seq, seen) select uuid, device, jws, seq, seen from addresses;
  drop table addresses;
  create index devices_key on devices(fingerprint);
  create table aliases (
    uuid text not null references users(uuid), kind text not null, value text not null, salt text not null,
    digest text not null, verified text not null, primary key (uuid, kind, value)
  ) STRICT;
  create unique index aliases_found on aliases(kind, value) where verified <> 'none';
  create table alias_grants (
    kind text not null, value text not null, uuid text not null references users(uuid), primary key (kind, value)
  ) STRICT;
  create table contacts (
    owner text not null references users(uuid), identity text not null, primary key (owner, identity)
  ) STRICT;
  create table roots (
    id text primary key, uuid text not null references users(uuid), signer text not null, jws text not null,
    received INTEGER not null
  ) STRICT;
  create index roots_of on roots(uuid);
  create index roots_received on roots(received);
`;

/** Version 5: backups that people keep with the directory, and how often they were fetched. */
const BACKUPS = `
  create table backups (
    uuid text not null references users(uuid), version INTEGER not null, at INTEGER not null, bytes text not null,
    recovery text not null, primary key (uuid, version)
  ) STRICT;
  create table backup_downloads (uuid text not null references users(uuid), at INTEGER not null) STRICT;
  create index backup_downloads_of on backup_downloads(uuid, at);
`;

const MIGRATIONS = [PEOPLE, REQUESTS, INVITATION_USE, PARTS, BACKUPS];

/**
 * What brings a database of that version to the present one.
 * @throws SuiteError store-failed for a newer one
 */
export function migrationsFrom(version: number, dialect: Dialect): { sql: string; version: number } | undefined {
  if (version > MIGRATIONS.length) {
    throw new SuiteError("store-failed", "the directory was written by a newer version", {
      fault: "local",
      details: { version },
    });
  }
  if (version === MIGRATIONS.length) return undefined;
  return { sql: inDialect(MIGRATIONS.slice(version).join("\n"), dialect), version: MIGRATIONS.length };
}

/**
 * Times in milliseconds need 64 bits, which SQLite's integers have and PostgreSQL's have not; texts are compared by their
 * bytes in both.
 */
function inDialect(sql: string, dialect: Dialect): string {
  return dialect === "sqlite"
    ? sql.replaceAll("INTEGER", "integer").replaceAll("STRICT", "strict")
    : sql
        .replaceAll("INTEGER", "bigint")
        .replaceAll(" STRICT", "")
        .replace(/\btext\b/g, 'text collate "C"');
}
