import { rmSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { PeerAddress, Protocol } from "../peertls-core/connection.ts";
import type { RevocationSource } from "../peertls-core/judging.ts";
import type { TrustRules } from "../peertls-core/policy.ts";
import { Trust } from "../peertls-core/trust.ts";
import type { Verdict } from "../peertls-core/verdict.ts";
import { type Certificate, parseCertificate, peerCertificate } from "../pki/certificate.ts";
import type { Log } from "../pki/log.ts";
import { derToPem } from "../pki/pem.ts";
import { asSuiteError } from "../pki/suite-error.ts";

/** Somebody who came to the gate, or whom we dialled, with what he showed. */
export interface PastApproach {
  outcome: "admitted" | "denied";
  at: Date;
  direction: "in" | "out";
  protocol: Protocol | "request";
  address: PeerAddress;
  /** What the certificate claims; proven only where he was admitted. */
  claims: readonly string[];
  /** Why: the rule, or the reason of the denial. */
  why: string;
  /** Leaf first, then what came with it. */
  certificates: readonly Certificate[];
}

/** What other rules would have made of a past approach. */
export interface Difference {
  was: PastApproach;
  would: Verdict;
}

const KEPT = 1_000;
const KEPT_MS = 7 * 86_400_000;
const FLUSH_MS = 1_000;
/** Of certificates, an approach: TLS lets a stranger show 100 kB. */
const KEPT_BYTES = 32_768;
/** SQLITE_CORRUPT, SQLITE_NOTADB. */
const BROKEN: ReadonlySet<number> = new Set([11, 26]);

const SCHEMA = `
  create table if not exists approaches (
    outcome text not null, leaf text not null, protocol text not null, direction text not null, at integer not null, host text not null,
    port integer not null, claims text not null, why text not null, certificates blob not null,
    primary key (outcome, leaf, protocol, direction)
  ) strict;
`;

/**
 * The last thousand who were admitted and the last thousand who were not, for seven days, each certificate once: for the
 * owner to act upon, and to try other rules on. Written behind, many at once: a flood of strangers costs no disk.
 */
export class PeerHistory {
  readonly #database: DatabaseSync;
  readonly #log: Log;
  readonly #waiting = new Map<string, PastApproach>();
  #timer: NodeJS.Timeout | undefined;

  constructor(path: string, log: Log) {
    this.#log = log;
    this.#database = opened(path, log);
  }

  note(approach: PastApproach): void {
    const leaf = approach.certificates[0]?.sha256 ?? "none";
    const key = `${approach.outcome} ${leaf} ${approach.protocol} ${approach.direction}`;
    if (!this.#database.isOpen || (this.#waiting.size >= KEPT && !this.#waiting.has(key))) return;
    this.#waiting.set(key, { ...approach, certificates: few(approach.certificates) });
    this.#timer ??= setTimeout(() => this.flush(), FLUSH_MS).unref();
  }

  /** Newest first. A row that cannot be read is told without what its certificates said. */
  list(outcome?: "admitted" | "denied"): PastApproach[] {
    this.flush();
    const rows = this.#database
      .prepare("select * from approaches where ?1 is null or outcome = ?1 order by at desc")
      .all(outcome ?? null) as unknown as Row[];
    let failure: unknown;
    let unreadable = 0;
    const list = rows.map((row) => {
      try {
        return readRow(row, JSON.parse(row.claims) as string[], readPrefixed(row.certificates));
      } catch (error) {
        failure = error;
        unreadable += 1;
        return readRow(row, [], []);
      }
    });
    if (unreadable > 0)
      this.#log.warn({ unreadable, error: asSuiteError(failure) }, "certificates in the history cannot be read");
    return list;
  }

  /** Judges everybody again by other rules; only those who would fare differently are told. */
  tryRules(rules: TrustRules, revocations: RevocationSource | undefined, now: Date): Difference[] {
    const trial = new Trust(rules);
    return this.list().flatMap((was) => {
      const [leaf, ...sent] = was.certificates;
      if (leaf === undefined || was.direction === "out") return []; // whom we dial is not a matter of rules
      const path = trial.paths.find(leaf, sent, now);
      const would = trial.policy.judge({
        direction: was.direction,
        protocol: was.protocol,
        certificate: peerCertificate(leaf),
        path,
        revocation:
          path.ok && revocations !== undefined
            ? revocations.stateOf(path.path, path.anchor, now)
            : { status: "unchecked" },
        address: was.address,
        time: now,
        resumed: false,
      });
      return would.admit === (was.outcome === "admitted") ? [] : [{ was, would }];
    });
  }

  /** Writes what waits. A failure costs history, and nothing else. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#waiting.size === 0) return;
    try {
      this.#database.exec("begin");
      const insert = this.#database.prepare("insert or replace into approaches values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
      let newest = 0;
      for (const one of this.#waiting.values()) {
        newest = Math.max(newest, one.at.getTime());
        insert.run(
          one.outcome,
          one.certificates[0]?.sha256 ?? "none",
          one.protocol,
          one.direction,
          one.at.getTime(),
          one.address.host,
          one.address.port,
          JSON.stringify(one.claims),
          one.why,
          lengthPrefixed(one.certificates),
        );
      }
      this.#waiting.clear();
      this.#database.prepare("delete from approaches where at < ?").run(newest - KEPT_MS);
      for (const outcome of ["admitted", "denied"]) {
        this.#database
          .prepare(
            "delete from approaches where outcome = ?1 and at < (select at from approaches where outcome = ?1 order by at desc limit 1 offset ?2)",
          )
          .run(outcome, KEPT - 1);
      }
      this.#database.exec("commit");
    } catch (error) {
      this.#waiting.clear();
      if (this.#database.isTransaction) this.#database.exec("rollback");
      this.#log.warn({ error: asSuiteError(error) }, "the history of the gate could not be written");
    }
  }

  close(): void {
    this.flush();
    this.#database.close();
  }
}

function few(certificates: readonly Certificate[]): readonly Certificate[] {
  let size = 0;
  return certificates.filter(({ der }) => {
    size += der.length;
    return size <= KEPT_BYTES;
  });
}

/** One that is broken is begun anew: it keeps nobody from starting. */
function opened(path: string, log: Log): DatabaseSync {
  try {
    return openedAsIs(path);
  } catch (error) {
    if (!BROKEN.has((error as { errcode?: number }).errcode ?? 0)) throw error;
    log.warn({ error: asSuiteError(error) }, "the history of the gate cannot be read; it begins anew");
    for (const ending of ["", "-wal", "-shm"]) rmSync(`${path}${ending}`, { force: true });
    return openedAsIs(path);
  }
}

function openedAsIs(path: string): DatabaseSync {
  const database = new DatabaseSync(path);
  try {
    database.exec("pragma busy_timeout = 5000; pragma journal_mode = wal; pragma synchronous = normal");
    database.exec(SCHEMA);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/** For the owner: without the certificates' bytes, but as PEM. */
export function told(approach: PastApproach): object {
  const { certificates, ...rest } = approach;
  return { ...rest, pem: certificates.map(({ der }) => derToPem(der, "CERTIFICATE")).join("") };
}

interface Row {
  outcome: "admitted" | "denied";
  protocol: Protocol | "request";
  direction: "in" | "out";
  at: number;
  host: string;
  port: number;
  claims: string;
  why: string;
  certificates: Uint8Array;
}

function readRow(row: Row, claims: readonly string[], certificates: readonly Certificate[]): PastApproach {
  const { outcome, protocol, direction, at, host, port, why } = row;
  return { outcome, protocol, direction, at: new Date(at), address: { host, port }, claims, why, certificates };
}

function lengthPrefixed(certificates: readonly Certificate[]): Buffer {
  return Buffer.concat(
    certificates.flatMap(({ der }) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(der.length);
      return [length, der];
    }),
  );
}

function readPrefixed(bytes: Uint8Array): Certificate[] {
  const buffer = Buffer.from(bytes);
  const found: Certificate[] = [];
  for (let at = 0; at < buffer.length; ) {
    const end = at + 4 + buffer.readUInt32BE(at);
    found.push(parseCertificate(buffer.subarray(at + 4, end)));
    at = end;
  }
  return found;
}
