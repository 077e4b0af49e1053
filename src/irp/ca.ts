import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { type Certificate, type Fingerprint, parseCertificate } from "../pki/certificate.ts";
import type { ParsedCsr } from "../pki/csr.ts";
import type { Identity } from "../pki/identity.ts";
import { issueAuth, issueEncryption } from "../pki/profile.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { CaKeys } from "./ca-keys.ts";
import type { CertificateKind } from "./messages.ts";
import type { Issued } from "./registration.ts";

export interface CaOptions {
  keys: CaKeys;
  /** Path of the register, a SQLite database. */
  register: string;
  clock: () => Date;
  random: (length: number) => Buffer;
}

export interface IssueRequest {
  identity: Identity;
  name: string;
  kind: CertificateKind;
  csr: ParsedCsr;
  label?: string;
}

const SCHEMA = `
  create table certificates (
    serial text primary key, kind text not null, identity text not null, fingerprint text not null, label text not null,
    csr text not null, issued_at integer not null, not_after integer not null, revoked_at integer, der blob not null
  ) strict;
  create index by_identity on certificates(identity, kind);
  create index by_fingerprint on certificates(fingerprint);
  create table audit (seq integer primary key, at integer not null, entry text not null, hash text not null) strict;
`;

const DAY_MS = 86_400_000;
const MAX_DEVICES = 16;
const MAX_A_DAY = 20;

/** The issuing CA of one domain and its register. Nothing leaves it that is not on record. */
export class CertificateAuthority {
  readonly root: Certificate;
  readonly issuing: Certificate;
  readonly #o: CaOptions;
  readonly #database: DatabaseSync;

  /** @throws SuiteError store-failed */
  constructor(options: CaOptions) {
    this.#o = options;
    this.root = options.keys.root;
    this.issuing = options.keys.issuing.certificate;
    this.#database = new DatabaseSync(options.register);
    this.#database.exec("pragma journal_mode = wal; pragma synchronous = full; pragma busy_timeout = 5000");
    const { user_version: version } = this.#database.prepare("pragma user_version").get() as { user_version: number };
    if (version === 0) this.#database.exec(`begin; ${SCHEMA}; pragma user_version = 1; commit`);
    else if (version !== 1)
      throw new SuiteError("store-failed", "the register was written by a newer version", {
        fault: "local",
        details: { version },
      });
  }

  /**
   * Signs, and puts on record together with the audit, in one durable transaction. The same CSR within 24 h gets the same certificate.
   * @throws SuiteError syntax (`weak-key`), conflict (`key-in-use`), limit-exceeded (`policy`), store-failed
   */
  issue(request: IssueRequest): { issued: Issued; repeated: boolean } {
    const { csr, kind, identity } = request;
    const now = this.#o.clock();
    const csrHash = hashOf(csr.der);
    return this.#transaction(() => {
      const same = this.#checked(request, now);
      if (same !== undefined) return { issued: this.#issued(kind, same), repeated: true };
      const serial = this.#o.random(16);
      const common = { issuer: this.#o.keys.issuing, spki: csr.spki, identity, name: request.name, now, serial };
      const certificate = parseCertificate(kind === "auth" ? issueAuth(common) : issueEncryption(common));
      const issued = this.#issued(kind, certificate);
      this.#run(
        "insert into certificates (serial, kind, identity, fingerprint, label, csr, issued_at, not_after, der) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        issued.serial,
        kind,
        identity,
        certificate.fingerprint,
        request.label ?? "",
        csrHash,
        now.getTime(),
        certificate.validity.notAfter.getTime(),
        certificate.der,
      );
      this.#audit(now, { what: "issued", kind, identity, serial: issued.serial });
      return { issued, repeated: false };
    });
  }

  /** Whether `issue` would, without doing it. @throws as `issue` */
  check(request: IssueRequest): void {
    this.#checked(request, this.#o.clock());
  }

  revoke(serial: string): void {
    const now = this.#o.clock();
    this.#transaction(() => {
      this.#run(
        "update certificates set revoked_at = ? where serial = ? and revoked_at is null",
        now.getTime(),
        serial,
      );
      this.#audit(now, { what: "revoked", serial });
    });
  }

  revoked(certificate: Certificate): boolean {
    const serial = Buffer.from(certificate.serial).toString("hex");
    return this.#one("select 1 from certificates where serial = ? and revoked_at is not null", serial) !== undefined;
  }

  /** Whose key it is, by the newest certificate for it. */
  keyOwner(fingerprint: Fingerprint): { identity: Identity; kind: CertificateKind } | undefined {
    return this.#one(
      "select identity, kind from certificates where fingerprint = ? order by issued_at desc limit 1",
      fingerprint,
    );
  }

  /** Whether every audit entry still hangs on the one before it. */
  auditHolds(): boolean {
    let previous = "";
    for (const row of this.#database.prepare("select entry, hash from audit order by seq").all() as unknown as {
      entry: string;
      hash: string;
    }[]) {
      if (row.hash !== chained(previous, row.entry)) return false;
      previous = row.hash;
    }
    return true;
  }

  close(): void {
    this.#database.close();
  }

  /** @returns the certificate that the same CSR got within a day @throws as `issue` */
  #checked(request: IssueRequest, now: Date): Certificate | undefined {
    const { csr, kind, identity } = request;
    checkKey(csr, kind);
    if (now < this.issuing.validity.notBefore || now > this.issuing.validity.notAfter)
      throw policy("the issuing CA is not valid now");
    const same = this.#one<{ der: Uint8Array }>(
      "select der from certificates where csr = ? and identity = ? and kind = ? and issued_at > ? and revoked_at is null",
      hashOf(csr.der),
      identity,
      kind,
      now.getTime() - DAY_MS,
    );
    if (same !== undefined) return parseCertificate(same.der);
    this.#checkKeyUse(csr.fingerprint, identity, kind);
    this.#checkCounts(request, now);
    return undefined;
  }

  #issued(kind: CertificateKind, certificate: Certificate): Issued {
    const { notBefore, notAfter } = certificate.validity;
    const life = notAfter.getTime() - notBefore.getTime();
    const serial = Buffer.from(certificate.serial).toString("hex");
    // Spread by the serial, 1/24 to either side, so that a whole domain does not renew in one hour.
    const spread = (createHash("sha256").update(serial).digest().readUInt16BE(0) / 65_535 - 0.5) * (life / 12);
    return {
      kind,
      certificates: [certificate, this.issuing],
      serial,
      renewAfter: new Date(notBefore.getTime() + (life * 2) / 3 + spread),
    };
  }

  /** A key is one person's, for one purpose, for ever; a revoked one is nobody's. */
  #checkKeyUse(fingerprint: Fingerprint, identity: Identity, kind: CertificateKind): void {
    const known = this.#database
      .prepare("select identity, kind, revoked_at from certificates where fingerprint = ?")
      .all(fingerprint) as unknown as {
      identity: string;
      kind: string;
      revoked_at: number | null;
    }[];
    if (known.some((one) => one.identity !== identity || one.kind !== kind || one.revoked_at !== null)) {
      throw new SuiteError("conflict", "this key is in use already", {
        fault: "peer",
        details: { code: "key-in-use" },
      });
    }
  }

  #checkCounts({ identity, kind, csr }: IssueRequest, now: Date): void {
    const today = this.#one<{ n: number }>(
      "select count(*) as n from certificates where identity = ? and issued_at > ?",
      identity,
      now.getTime() - DAY_MS,
    );
    if ((today?.n ?? 0) >= MAX_A_DAY) throw policy("too many certificates today");
    if (kind !== "auth") return;
    const devices = this.#one<{ n: number }>(
      "select count(distinct fingerprint) as n from certificates where identity = ? and kind = 'auth' and not_after > ? and revoked_at is null and fingerprint <> ?",
      identity,
      now.getTime(),
      csr.fingerprint,
    );
    if ((devices?.n ?? 0) >= MAX_DEVICES) throw policy("too many devices");
  }

  #audit(at: Date, entry: Readonly<Record<string, string>>): void {
    const last = this.#one<{ seq: number; hash: string }>("select seq, hash from audit order by seq desc limit 1");
    const text = JSON.stringify({ at: at.getTime(), ...entry });
    this.#run(
      "insert into audit (seq, at, entry, hash) values (?, ?, ?, ?)",
      (last?.seq ?? 0) + 1,
      at.getTime(),
      text,
      chained(last?.hash ?? "", text),
    );
  }

  #transaction<T>(body: () => T): T {
    try {
      this.#database.exec("begin immediate");
      try {
        const result = body();
        this.#database.exec("commit");
        return result;
      } catch (error) {
        this.#database.exec("rollback");
        throw error;
      }
    } catch (cause) {
      if (cause instanceof SuiteError) throw cause;
      throw new SuiteError("store-failed", "the register cannot be written", {
        fault: "local",
        temporary: true,
        cause,
      });
    }
  }

  #one<T>(sql: string, ...values: (string | number)[]): T | undefined {
    return this.#database.prepare(sql).get(...values) as T | undefined;
  }

  #run(sql: string, ...values: (string | number | Uint8Array)[]): void {
    this.#database.prepare(sql).run(...values);
  }
}

function chained(previous: string, entry: string): string {
  return createHash("sha256").update(previous).update("\n").update(entry).digest("hex");
}

/** AUTH: P-256, P-384 or Ed25519; ENCRYPTION: RSA 3072–4096 or P-256 (irp.md §2.4). */
function checkKey({ publicKey }: ParsedCsr, kind: CertificateKind): void {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = publicKey;
  const curve = details?.namedCurve;
  const bits = details?.modulusLength ?? 0;
  const good =
    kind === "auth"
      ? type === "ed25519" || (type === "ec" && (curve === "prime256v1" || curve === "secp384r1"))
      : (type === "rsa" && bits >= 3072 && bits <= 4096) || (type === "ec" && curve === "prime256v1");
  if (!good)
    throw new SuiteError("syntax", "this kind of key is not certified", {
      fault: "peer",
      details: { code: "weak-key" },
    });
}

function policy(why: string): SuiteError {
  return new SuiteError("limit-exceeded", "the CA's rules do not allow it", {
    fault: "peer",
    details: { code: "policy", why },
  });
}

function hashOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
