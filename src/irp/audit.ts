import { createHash } from "node:crypto";
import type { RegisterDatabase } from "./register-database.ts";

/** What is written down: what, to whom, by whom. Never a secret. */
export interface AuditEntry {
  what: "issued" | "revoked" | "pending" | "approved" | "refused" | "renew-now";
  identity?: string;
  kind?: string;
  serial?: string;
  /** SHA-256 of the certificate. */
  sha256?: string;
  fingerprint?: string;
  reason?: string;
  ref?: string;
  /** How the asker proved who he is, or the operator's command line. */
  by?: string;
}

/** An entry as it stands in the log. `hash` = SHA-256(hash of the one before, LF, entry); the first has none before it. */
export interface AuditRow {
  seq: number;
  at: number;
  entry: string;
  hash: string;
}

export type AuditVerdict = { holds: true; entries: number; head: string } | { holds: false; seq: number; why: string };

/** Adds an entry, within the transaction of what it tells of. */
export function writeAudit(database: RegisterDatabase, at: Date, entry: AuditEntry): void {
  const last = database.one<AuditRow>("select seq, hash from audit order by seq desc limit 1");
  const text = JSON.stringify({ at: at.getTime(), ...entry });
  const values = [(last?.seq ?? 0) + 1, at.getTime(), text, chained(last?.hash ?? "", text)];
  database.run("insert into audit (seq, at, entry, hash) values (?, ?, ?, ?)", ...values);
}

/** Serial numbers that were revoked by entries behind `after`, whichever process wrote them; and the last entry's number. */
export function revokedBehind(database: RegisterDatabase, after: number): { serials: string[]; last: number } {
  const rows = database.all<AuditRow>("select seq, entry from audit where seq > ? order by seq", after);
  const revoked = rows.map((row) => readEntry(row.entry)).filter((entry) => entry?.what === "revoked");
  return { serials: revoked.flatMap((entry) => entry?.serial ?? []), last: rows.at(-1)?.seq ?? after };
}

export function lastEntry(database: RegisterDatabase): number {
  return database.one<{ seq: number | null }>("select max(seq) as seq from audit")?.seq ?? 0;
}

/**
 * Whether every entry still hangs on the one before it, and register and log tell the same: each certificate was issued by
 * an entry, each revocation has one, and no entry is without its certificate. Thus an end that was cut off is noticed, too.
 */
export function verifyAudit(database: RegisterDatabase): AuditVerdict {
  return database.transaction(() => {
    const rows = database.all<AuditRow>("select seq, at, entry, hash from audit order by seq");
    const issued = new Set<string>();
    const revoked = new Set<string>();
    let previous = "";
    for (const [index, row] of rows.entries()) {
      const broken = (why: string): AuditVerdict => ({ holds: false, seq: row.seq, why });
      if (row.seq !== index + 1) return broken("an entry is missing before it");
      if (row.hash !== chained(previous, row.entry)) return broken("it was changed, or the one before it");
      const entry = readEntry(row.entry);
      if (entry === undefined || entry.at !== row.at) return broken("it cannot be read");
      if (entry.what === "issued") issued.add(`${entry.serial} ${entry.identity} ${entry.kind}`);
      if (entry.what === "revoked") revoked.add(entry.serial ?? "");
      previous = row.hash;
    }
    const last = rows.at(-1)?.seq ?? 0;
    const lacking = (why: string): AuditVerdict => ({ holds: false, seq: last, why });
    const certificates = database.all<{ serial: string; identity: string; kind: string; revoked: number }>(
      "select serial, identity, kind, revoked_at is not null as revoked from certificates",
    );
    for (const { serial, identity, kind, revoked: is } of certificates) {
      if (!issued.delete(`${serial} ${identity} ${kind}`))
        return lacking(`certificate ${serial} is in the register, not in the log`);
      if ((is === 1) !== revoked.has(serial)) return lacking(`register and log differ about certificate ${serial}`);
    }
    const [gone] = issued;
    if (gone !== undefined)
      return lacking(`certificate ${gone.split(" ")[0] ?? ""} is in the log, not in the register`);
    return { holds: true, entries: rows.length, head: previous };
  });
}

function chained(previous: string, entry: string): string {
  return createHash("sha256").update(previous).update("\n").update(entry).digest("hex");
}

function readEntry(text: string): (AuditEntry & { at: number }) | undefined {
  try {
    return JSON.parse(text) as AuditEntry & { at: number };
  } catch {
    return undefined;
  }
}
