import { createHash } from "node:crypto";
import { type Certificate, type Fingerprint, parseCertificate } from "../pki/certificate.ts";
import type { RevokedTemplate } from "../pki/crl-issue.ts";
import type { CrlReason } from "../pki/distribution-point.ts";
import type { Identity } from "../pki/identity.ts";
import { type AuditVerdict, verifyAudit, writeAudit } from "./audit.ts";
import type { CertificateKind } from "./messages.ts";
import { type IrpCutPoint, RegisterDatabase } from "./register-database.ts";

/** A certificate as the register has it. */
export interface Registered {
  /** Lower hex of the INTEGER's content octets. */
  serial: string;
  kind: CertificateKind;
  identity: Identity;
  fingerprint: Fingerprint;
  label: string;
  certificate: Certificate;
  /** Leaf first, then its issuers, without the root. */
  chain: readonly Certificate[];
  issuedAt: Date;
  renewAfter: Date;
  revoked?: { at: Date; reason: CrlReason };
}

export interface NewCertificate {
  kind: CertificateKind;
  identity: Identity;
  label: string;
  /** SHA-256 of the request. */
  csr: string;
  certificate: Certificate;
  /** Issuer first, without the root. */
  chain: readonly Certificate[];
  issuer: Fingerprint;
  at: Date;
  by: string;
}

/** What the CA has issued and revoked, with its audit: nothing leaves the CA that is not in it. */
export class Register {
  readonly database: RegisterDatabase;

  /** @param first key of the issuing CA that signed before the register knew of several @throws SuiteError store-failed */
  constructor(path: string, first: Fingerprint, cut: (point: IrpCutPoint) => void = () => undefined) {
    this.database = new RegisterDatabase(path, cut);
    this.database.run("update certificates set issuer = ? where issuer = ''", first);
  }

  /** Puts a certificate on record together with its audit, in one durable transaction. */
  insert(made: NewCertificate): Registered {
    const { certificate, kind, identity, at } = made;
    const serial = serialOf(certificate);
    this.database.transaction(() => {
      this.database.run(
        `insert into certificates (serial, kind, identity, fingerprint, label, csr, issued_at, not_after, der, issuer, chain)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        ...[serial, kind, identity, certificate.fingerprint, made.label, made.csr, at.getTime()],
        ...[certificate.validity.notAfter.getTime(), certificate.der, made.issuer],
        Buffer.concat(made.chain.map((one) => prefixed(one.der))),
      );
      const { sha256 } = certificate;
      writeAudit(this.database, at, { what: "issued", kind, identity, serial, sha256, by: made.by });
    });
    const { fingerprint } = certificate;
    const { label, chain } = made;
    return {
      serial,
      kind,
      identity,
      fingerprint,
      label,
      certificate,
      chain,
      issuedAt: at,
      renewAfter: renewAfterOf(certificate),
    };
  }

  /** @returns false if there is none, or it is revoked already */
  revoke(serial: string, reason: CrlReason, at: Date, by: string): boolean {
    return this.database.transaction(() => {
      const changed = this.database.run(
        "update certificates set revoked_at = ?, reason = ? where serial = ? and revoked_at is null",
        ...[at.getTime(), reason, serial],
      );
      if (changed === 1) writeAudit(this.database, at, { what: "revoked", serial, reason, by });
      return changed === 1;
    });
  }

  find(serial: string): Registered | undefined {
    const row = this.database.one<Row>("select * from certificates where serial = ?", serial);
    return row && registeredOf(row);
  }

  /** Whether that very certificate is revoked; one of another CA, or unknown, is not. */
  isRevoked(certificate: Certificate): boolean {
    const sql = "select der from certificates where serial = ? and revoked_at is not null";
    const row = this.database.one<{ der: Uint8Array }>(sql, serialOf(certificate));
    return row !== undefined && Buffer.compare(row.der, certificate.der) === 0;
  }

  /** Key of the CA that issued it. */
  issuerOf(serial: string): Fingerprint | undefined {
    return this.database.one<{ issuer: Fingerprint }>("select issuer from certificates where serial = ?", serial)
      ?.issuer;
  }

  /** What the same request got since then, and was neither revoked nor wanted to be renewed. */
  sameRequest(csr: string, identity: Identity, kind: CertificateKind, since: Date): Registered | undefined {
    const row = this.database.one<Row>(
      `select * from certificates where csr = ? and identity = ? and kind = ? and issued_at > ? and revoked_at is null and renew_at is null
       order by issued_at desc limit 1`,
      ...[csr, identity, kind, since.getTime()],
    );
    return row && registeredOf(row);
  }

  /** For whom and for what a key was ever certified. */
  usesOf(fingerprint: Fingerprint): { identity: Identity; kind: CertificateKind; revoked: boolean }[] {
    return this.database
      .all<{ identity: Identity; kind: CertificateKind; revoked_at: number | null }>(
        "select identity, kind, revoked_at from certificates where fingerprint = ? order by issued_at desc",
        fingerprint,
      )
      .map(({ identity, kind, revoked_at }) => ({ identity, kind, revoked: revoked_at !== null }));
  }

  /** One person's certificates, or all, the newest first. */
  list(o: { identity?: Identity; kind?: CertificateKind; limit: number }): Registered[] {
    return this.database
      .all<Row>(
        `select * from certificates where (?1 is null or identity = ?1) and (?2 is null or kind = ?2)
         order by issued_at desc, rowid desc limit ?3`,
        ...[o.identity ?? null, o.kind ?? null, o.limit],
      )
      .map(registeredOf);
  }

  issuedSince(identity: Identity, since: Date): number {
    return this.#count("count(*)", "identity = ? and issued_at > ?", identity, since.getTime());
  }

  /** Devices that have a good certificate, but this one. */
  otherDevices(identity: Identity, but: Fingerprint, now: Date): number {
    return this.#count(
      "count(distinct fingerprint)",
      "identity = ? and kind = 'auth' and not_after > ? and revoked_at is null and fingerprint <> ?",
      ...[identity, now.getTime(), but],
    );
  }

  /** When the last certificate was issued: a clock that says an earlier time is wrong. */
  lastIssued(): Date | undefined {
    const row = this.database.one<{ at: number | null }>("select max(issued_at) as at from certificates");
    return row?.at == null ? undefined : new Date(row.at);
  }

  /** What a list of that issuer names: what is revoked and ended after `since`. */
  revokedOf(issuer: Fingerprint, since: Date): RevokedTemplate[] {
    return this.database
      .all<{ serial: string; revoked_at: number; reason: CrlReason | null }>(
        `select serial, revoked_at, reason from certificates
         where issuer = ? and revoked_at is not null and not_after > ? order by revoked_at`,
        ...[issuer, since.getTime()],
      )
      .map((row) => ({ serial: Buffer.from(row.serial, "hex"), ...revocationOf(row) }));
  }

  /** Status alone, for OCSP: cheaper than `find`. */
  statusOf(serial: string, issuer: Fingerprint): { revoked?: { since: Date; reason: CrlReason } } | undefined {
    const row = this.database.one<{ revoked_at: number | null; reason: CrlReason | null }>(
      "select revoked_at, reason from certificates where serial = ? and issuer = ?",
      ...[serial, issuer],
    );
    if (row === undefined) return undefined;
    const { revoked_at, reason } = row;
    return revoked_at === null ? {} : { revoked: revocationOf({ revoked_at, reason }) };
  }

  /** After an incident: all that are good are to be renewed from now on. @returns how many */
  renewAll(at: Date, by: string): number {
    return this.database.transaction(() => {
      writeAudit(this.database, at, { what: "renew-now", by });
      return this.database.run(
        "update certificates set renew_at = ?1 where revoked_at is null and not_after > ?1",
        at.getTime(),
      );
    });
  }

  audit(): AuditVerdict {
    return verifyAudit(this.database);
  }

  close(): void {
    this.database.close();
  }

  #count(what: string, where: string, ...values: (string | number)[]): number {
    return this.database.one<{ n: number }>(`select ${what} as n from certificates where ${where}`, ...values)?.n ?? 0;
  }
}

export function serialOf(certificate: Certificate): string {
  return Buffer.from(certificate.serial).toString("hex");
}

/** 2/3 of the life, spread by the serial 1/24 to either side, so that a whole domain does not renew in one hour. */
export function renewAfterOf(certificate: Certificate): Date {
  const { notBefore, notAfter } = certificate.validity;
  const life = notAfter.getTime() - notBefore.getTime();
  const hash = createHash("sha256").update(serialOf(certificate)).digest().readUInt16BE(0);
  return new Date(Math.round(notBefore.getTime() + (life * 2) / 3 + (hash / 65_535 - 0.5) * (life / 12)));
}

interface Row {
  serial: string;
  kind: CertificateKind;
  identity: Identity;
  fingerprint: Fingerprint;
  label: string;
  issued_at: number;
  revoked_at: number | null;
  reason: CrlReason | null;
  renew_at: number | null;
  der: Uint8Array;
  chain: Uint8Array | null;
}

function registeredOf(row: Row): Registered {
  const certificate = parseCertificate(row.der);
  const { serial, kind, identity, fingerprint, label, revoked_at, reason } = row;
  const renewAfter = renewAfterOf(certificate);
  const revocation = revoked_at === null ? undefined : revocationOf({ revoked_at, reason });
  return {
    ...{ serial, kind, identity, fingerprint, label, certificate },
    chain: chainOf(row.chain),
    issuedAt: new Date(row.issued_at),
    renewAfter: row.renew_at !== null && row.renew_at < renewAfter.getTime() ? new Date(row.renew_at) : renewAfter,
    ...(revocation === undefined ? {} : { revoked: { at: revocation.since, reason: revocation.reason } }),
  };
}

function revocationOf(row: { revoked_at: number; reason: CrlReason | null }): { since: Date; reason: CrlReason } {
  return { since: new Date(row.revoked_at), reason: row.reason ?? "unspecified" };
}

function prefixed(der: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(der.length);
  return Buffer.concat([length, der]);
}

function chainOf(blob: Uint8Array | null): Certificate[] {
  const bytes = Buffer.from(blob ?? new Uint8Array());
  const chain: Certificate[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    chain.push(parseCertificate(bytes.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  return chain;
}
