import type { DatabaseSync } from "node:sqlite";
import { SuiteError } from "../../pki/suite-error.ts";

/** Version 1: people, invitations, sessions, records. */
const PEOPLE = `
  create table users (
    uuid text primary key, identity text not null unique, name text not null, status text not null default 'active',
    password text, failures integer not null default 0, retry_at integer not null default 0
  ) strict;
  create table invitations (hash text primary key, identity text not null, expires integer not null, used_at integer) strict;
  create table sessions (hash text primary key, uuid text not null references users(uuid), expires integer not null) strict;
  create index sessions_of on sessions(uuid);
  create table identities (
    uuid text not null references users(uuid), seq integer not null, hash text not null, jws text, primary key (uuid, seq)
  ) strict;
  create table addresses (
    uuid text not null references users(uuid), device text not null, seq integer not null, jws text not null,
    seen integer not null, primary key (uuid, device)
  ) strict;
`;

/** Version 2: request boxes, and the last day's requests for the limits, which count what was asked, not what waits. */
const REQUESTS = `
  create table requests (
    owner text not null references users(uuid), from_identity text not null, id text not null, jws text not null,
    received integer not null, expires integer not null, primary key (owner, from_identity)
  ) strict;
  create index requests_expire on requests(expires);
  create table asked (
    signer text not null, recipient text not null, from_identity text not null, domain text not null, hash text not null,
    at integer not null, primary key (signer, recipient)
  ) strict;
  create index asked_at on asked(at);
  create index asked_by on asked(from_identity, at);
  create index asked_from on asked(domain, at);
`;

/** Version 3: what an invitation was used for, so that the same use again is no second one. */
const INVITATION_USE = "alter table invitations add column used_for text;";

const MIGRATIONS = [PEOPLE, REQUESTS, INVITATION_USE];

/**
 * Brings a database to the present version; whoever opens it at the same time waits, and finds it done.
 * @throws SuiteError store-failed for a newer one
 */
export function migrate(database: DatabaseSync): void {
  const { user_version: version } = database.prepare("pragma user_version").get() as { user_version: number };
  if (version > MIGRATIONS.length) {
    throw new SuiteError("store-failed", "the directory was written by a newer version", {
      fault: "local",
      details: { version },
    });
  }
  if (version === MIGRATIONS.length) return;
  database.exec("begin immediate");
  const { user_version: held } = database.prepare("pragma user_version").get() as { user_version: number };
  database.exec(
    `${MIGRATIONS.slice(held).join("\n")}; pragma user_version = ${Math.max(held, MIGRATIONS.length)}; commit`,
  );
}
