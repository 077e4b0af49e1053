import { DatabaseSync, type StatementResultingChanges } from "node:sqlite";
import type { KnownCapabilities } from "../delivery/sealing.ts";
import type { TrustEntry } from "../peertls-core/policy-schema.ts";
import { type Identity, parseIdentity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Pin, PinStore } from "../sixid/pins.ts";
import type { Capabilities } from "../smime/profile.ts";

/** Somebody who asked to be admitted. */
export interface PeerRequest {
  from: Identity;
  name: string;
  text: string;
  receivedAt: Date;
  state: "pending" | "accepted" | "rejected" | "blocked";
  /** When the owner decided; absent while it is pending. */
  decidedAt?: Date;
  fingerprint: string;
  organisation?: string;
  issuer: string;
}

export interface AppPassword {
  id: string;
  label: string;
  /** SHA-256 of the password, hex; enough for 128 random bits. */
  sha256: string;
  /** HA1 of RFC 8760 for the user part and the realm, by SHA-256 and by MD5 for old programs. */
  ha1Sha256: string;
  ha1Md5: string;
  createdAt: Date;
}

export interface DomainAnchor {
  domain: string;
  der: Uint8Array;
  /** Whether the directory found the domain by itself; else it is one that its configuration names. */
  found: boolean;
}

/** One entry a step of `user_version`. An entry is never changed after a release, only followed by another. */
const MIGRATIONS: readonly string[] = [
  `
  create table contacts (identity text primary key, name text not null, added_at integer not null) strict;
  create table trust_entries (list text not null, entry text not null, added_at integer not null, primary key (list, entry)) strict;
  create table pins (identity text primary key, pin text not null) strict;
  create table requests (
    from_identity text primary key, name text not null, text text not null, received_at integer not null, state text not null,
    fingerprint text not null, organisation text, issuer text not null
  ) strict;
  create table sent_requests (to_identity text primary key, sent_at integer not null) strict;
  create table app_passwords (
    id text primary key, label text not null, sha256 text not null, ha1_sha256 text not null, ha1_md5 text not null, created_at integer not null
  ) strict;
  create table domain_anchors (domain text not null, der blob not null, primary key (domain, der)) strict;
  `,
  // Of what was decided before, only the earliest time at which it can have been is known.
  `
  alter table requests add column decided_at integer;
  update requests set decided_at = received_at where state <> 'pending';
  `,
  `
  create table capabilities (
    identity text primary key, gcm integer not null, oaep integer not null, signed_at integer not null
  ) strict;
  `,
  "alter table domain_anchors add column found integer not null default 0;",
];

/** What a node remembers about people, beside what they sent: contacts, trust entries, pins, requests, app passwords. */
export class State implements PinStore, KnownCapabilities {
  readonly #database: DatabaseSync;

  /** @throws SuiteError store-failed */
  constructor(path: string) {
    this.#database = new DatabaseSync(path);
    this.#database.exec("pragma journal_mode = wal; pragma synchronous = full; pragma busy_timeout = 5000");
    const { user_version: version } = this.#database.prepare("pragma user_version").get() as { user_version: number };
    if (version > MIGRATIONS.length)
      throw new SuiteError("store-failed", "the state was written by a newer version", {
        fault: "local",
        details: { version },
      });
    for (const [step, sql] of MIGRATIONS.entries())
      if (step >= version) this.#database.exec(`begin immediate; ${sql} pragma user_version = ${step + 1}; commit`);
  }

  contacts(): { identity: Identity; name: string }[] {
    return this.#all<{ identity: string; name: string }>("select identity, name from contacts order by identity").map(
      ({ identity, name }) => ({
        identity: parseIdentity(identity),
        name,
      }),
    );
  }

  /** @returns whether the contact is new */
  addContact(identity: Identity, name: string, now: Date): boolean {
    const sql = "insert into contacts (identity, name, added_at) values (?, ?, ?) on conflict do nothing";
    return Number(this.#write(sql, identity, name, now.getTime()).changes) === 1;
  }

  removeContact(identity: Identity): boolean {
    return Number(this.#write("delete from contacts where identity = ?", identity).changes) === 1;
  }

  trustEntries(list: "allow" | "block" | "rules"): TrustEntry[] {
    return this.#all<{ entry: string }>("select entry from trust_entries where list = ? order by added_at", list).map(
      ({ entry }) => JSON.parse(entry) as TrustEntry,
    );
  }

  addTrustEntry(list: "allow" | "block" | "rules", entry: TrustEntry, now: Date): void {
    const sql = "insert into trust_entries (list, entry, added_at) values (?, ?, ?) on conflict do nothing";
    this.#write(sql, list, JSON.stringify(entry), now.getTime());
  }

  removeTrustEntry(list: "allow" | "block" | "rules", entry: TrustEntry): boolean {
    return (
      Number(
        this.#write("delete from trust_entries where list = ? and entry = ?", list, JSON.stringify(entry)).changes,
      ) > 0
    );
  }

  find(identity: Identity): Pin | undefined {
    const row = this.#all<{ pin: string }>("select pin from pins where identity = ?", identity)[0];
    return row === undefined ? undefined : (JSON.parse(row.pin) as Pin);
  }

  put(identity: Identity, pin: Pin): void {
    const sql =
      "insert into pins (identity, pin) values (?, ?) on conflict (identity) do update set pin = excluded.pin";
    this.#write(sql, identity, JSON.stringify(pin));
  }

  requests(): PeerRequest[] {
    return this.#all<RequestRow>("select * from requests order by received_at").map((row) => ({
      from: parseIdentity(row.from_identity),
      name: row.name,
      text: row.text,
      receivedAt: new Date(row.received_at),
      state: row.state,
      ...(row.decided_at === null ? {} : { decidedAt: new Date(row.decided_at) }),
      fingerprint: row.fingerprint,
      issuer: row.issuer,
      ...(row.organisation === null ? {} : { organisation: row.organisation }),
    }));
  }

  /** A person has one request at a time: a newer one replaces it, whatever was decided. @returns whether none was pending */
  addRequest(request: PeerRequest): boolean {
    const sql = `insert into requests (from_identity, name, text, received_at, state, fingerprint, organisation, issuer)
      values (?, ?, ?, ?, 'pending', ?, ?, ?) on conflict (from_identity) do update
      set name = excluded.name, text = excluded.text, received_at = excluded.received_at, state = excluded.state,
          fingerprint = excluded.fingerprint, organisation = excluded.organisation, issuer = excluded.issuer,
          decided_at = null`;
    const { from, name, text, receivedAt, fingerprint, organisation, issuer } = request;
    const waited = this.#all("select 1 from requests where from_identity = ? and state = 'pending'", from).length > 0;
    this.#write(sql, from, name, text, receivedAt.getTime(), fingerprint, organisation ?? null, issuer);
    return !waited;
  }

  /** @returns false if nobody of that name asked */
  decideRequest(from: Identity, state: Exclude<PeerRequest["state"], "pending">, at: Date): boolean {
    const sql = "update requests set state = ?, decided_at = ? where from_identity = ?";
    return Number(this.#write(sql, state, at.getTime(), from).changes) === 1;
  }

  requestSentAt(to: Identity): Date | undefined {
    const row = this.#all<{ sent_at: number }>("select sent_at from sent_requests where to_identity = ?", to)[0];
    return row === undefined ? undefined : new Date(row.sent_at);
  }

  noteRequestSent(to: Identity, at: Date): void {
    const sql =
      "insert into sent_requests (to_identity, sent_at) values (?, ?) on conflict (to_identity) do update set sent_at = excluded.sent_at";
    this.#write(sql, to, at.getTime());
  }

  appPasswords(): AppPassword[] {
    return this.#all<AppPasswordRow>("select * from app_passwords order by created_at").map((row) => ({
      id: row.id,
      label: row.label,
      sha256: row.sha256,
      ha1Sha256: row.ha1_sha256,
      ha1Md5: row.ha1_md5,
      createdAt: new Date(row.created_at),
    }));
  }

  addAppPassword(password: AppPassword): void {
    const { id, label, sha256, ha1Sha256, ha1Md5, createdAt } = password;
    const sql =
      "insert into app_passwords (id, label, sha256, ha1_sha256, ha1_md5, created_at) values (?, ?, ?, ?, ?, ?)";
    this.#write(sql, id, label, sha256, ha1Sha256, ha1Md5, createdAt.getTime());
  }

  removeAppPassword(id: string): boolean {
    return Number(this.#write("delete from app_passwords where id = ?", id).changes) === 1;
  }

  /** Anchors of other domains as the own directory last told them, so that a start without it knows them. */
  domainAnchors(): { domain: string; der: Uint8Array }[] {
    return this.#all<{ domain: string; der: Uint8Array }>("select domain, der from domain_anchors order by domain");
  }

  /** Of a domain that was found once, and is not told now, what was told before stays: a directory may forget. */
  setDomainAnchors(anchors: readonly DomainAnchor[]): void {
    this.#database.exec("begin immediate");
    try {
      this.#database.exec("delete from domain_anchors where found = 0");
      for (const { domain } of anchors)
        this.#database.prepare("delete from domain_anchors where domain = ?").run(domain);
      for (const { domain, der, found } of anchors)
        this.#database
          .prepare("insert or ignore into domain_anchors (domain, der, found) values (?, ?, ?)")
          .run(domain, der, Number(found));
      this.#database.exec("commit");
    } catch (error) {
      this.#database.exec("rollback");
      throw error;
    }
  }

  addDomainAnchors(anchors: readonly DomainAnchor[]): void {
    const sql = "insert or ignore into domain_anchors (domain, der, found) values (?, ?, ?)";
    for (const { domain, der, found } of anchors) this.#write(sql, domain, der, Number(found));
  }

  capabilitiesOf(person: Identity): Capabilities | undefined {
    const [row] = this.#all<{ gcm: number; oaep: number }>(
      "select gcm, oaep from capabilities where identity = ?",
      person,
    );
    return row === undefined ? undefined : { gcm: row.gcm === 1, oaep: row.oaep === 1 };
  }

  rememberCapabilities(person: Identity, { gcm, oaep }: Capabilities, signedAt: Date): void {
    const sql = `insert into capabilities (identity, gcm, oaep, signed_at) values (?, ?, ?, ?)
      on conflict (identity) do update set gcm = excluded.gcm, oaep = excluded.oaep, signed_at = excluded.signed_at
      where excluded.signed_at > capabilities.signed_at`;
    this.#write(sql, person, Number(gcm), Number(oaep), signedAt.getTime());
  }

  close(): void {
    this.#database.close();
  }

  /** @throws SuiteError store-failed, as when the disk is full: what was there before is there still */
  #write(sql: string, ...values: (string | number | Uint8Array | null)[]): StatementResultingChanges {
    try {
      return this.#database.prepare(sql).run(...values);
    } catch (cause) {
      throw new SuiteError("store-failed", "this could not be kept: the disk may be full", {
        fault: "local",
        temporary: true,
        cause,
      });
    }
  }

  #all<T>(sql: string, ...values: (string | number)[]): T[] {
    return this.#database.prepare(sql).all(...values) as T[];
  }
}

interface RequestRow {
  from_identity: string;
  name: string;
  text: string;
  received_at: number;
  state: PeerRequest["state"];
  fingerprint: string;
  organisation: string | null;
  issuer: string;
  decided_at: number | null;
}

interface AppPasswordRow {
  id: string;
  label: string;
  sha256: string;
  ha1_sha256: string;
  ha1_md5: string;
  created_at: number;
}
