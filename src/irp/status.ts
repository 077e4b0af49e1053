import type { Certificate, Fingerprint } from "../pki/certificate.ts";
import { issueRevocationList } from "../pki/crl-issue.ts";
import type { Issuer } from "../pki/issue.ts";
import { issueOcspError, issueOcspResponse, type OcspAnswerTemplate } from "../pki/ocsp-issue.ts";
import { type CertId, isCertId, type OcspRequest, parseOcspRequest } from "../pki/ocsp-request.ts";
import type { OcspReply } from "./authority.ts";
import type { Register } from "./register.ts";

export interface StatusOptions {
  register: Register;
  /** The issuing CA in force, then those before it whose certificates still live. */
  issuers: readonly Issuer[];
  clock: () => Date;
}

export interface SignedList {
  der: Uint8Array;
  number: number;
  thisUpdate: Date;
  nextUpdate: Date;
}

const HOUR_MS = 3_600_000;
const LIST_MS = 24 * HOUR_MS;
/** RFC 5280 §3.3: an entry stays until it stood in one list beyond the certificate's end. */
const STAYS_MS = 25 * HOUR_MS;
const MAX_ANSWERS = 10_000;

/** Tells which certificates are revoked: full lists, signed hourly and at every revocation, and OCSP (irp.md §2.4). */
export class StatusService {
  readonly #o: StatusOptions;
  readonly #lists = new Map<Fingerprint, SignedList>();
  /** OCSP answers without nonce, by request id. */
  readonly #answers = new Map<string, { der: Buffer; until: number }>();
  #version: number;

  constructor(options: StatusOptions) {
    this.#o = options;
    this.#version = options.register.database.version;
  }

  /** The newest list of that issuer, signed now if there is none or it is too old. @throws SuiteError store-failed */
  crl(issuer: Fingerprint): SignedList | undefined {
    this.#notice();
    const own = this.#o.issuers.find(({ certificate }) => certificate.fingerprint === issuer);
    if (own === undefined) return undefined;
    const known = this.#lists.get(issuer) ?? this.#kept(issuer);
    if (known !== undefined && !this.#due(known)) return known;
    try {
      return this.#signed(own);
    } catch (error) {
      if (known !== undefined && this.#o.clock() < known.nextUpdate) return known; // the old one serves
      throw error;
    }
  }

  /** Signs what is due. @throws SuiteError store-failed */
  signDue(): void {
    this.#notice();
    for (const issuer of this.#o.issuers) {
      const known = this.#kept(issuer.certificate.fingerprint);
      if (known === undefined || this.#due(known)) this.#signed(issuer);
    }
  }

  /** One of that issuer's certificates is revoked: its next list is part of the same transaction. */
  revoked(issuer: Fingerprint): void {
    this.#answers.clear();
    this.#lists.clear();
    for (const one of this.#o.issuers) if (one.certificate.fingerprint === issuer) this.#sign(one);
  }

  /** @param bytes DER of the request; whatever it is, there is an answer */
  ocsp(bytes: Uint8Array): OcspReply {
    let request: OcspRequest;
    try {
      request = parseOcspRequest(bytes);
    } catch {
      return { der: issueOcspError("malformedRequest") };
    }
    if (request.criticalUnknown.length > 0) return { der: issueOcspError("malformedRequest") };
    this.#notice();
    const now = this.#o.clock();
    const [only] = request.ids;
    const key =
      request.ids.length === 1 && request.nonce === undefined && only && Buffer.from(only.der).toString("latin1");
    const cached = key ? this.#answers.get(key) : undefined;
    if (cached !== undefined && now.getTime() < cached.until)
      return { der: cached.der, maxAge: Math.floor((cached.until - now.getTime()) / 1000) };
    const signer = this.#signerOf(request.ids);
    if (signer === undefined) return { der: issueOcspError("unauthorized") };
    const producedAt = new Date(Math.floor(now.getTime() / 1000) * 1000);
    const nextUpdate = new Date(producedAt.getTime() + HOUR_MS);
    const answers = request.ids.map((id) => this.#answer(id, signer.certificate, producedAt, nextUpdate));
    const { nonce } = request;
    const der = issueOcspResponse({ signer, answers, producedAt, ...(nonce === undefined ? {} : { nonce }) });
    if (!key || answers[0]?.status.status === "unknown") return { der };
    if (this.#answers.size >= MAX_ANSWERS) this.#answers.clear();
    this.#answers.set(key, { der, until: nextUpdate.getTime() });
    return { der, maxAge: HOUR_MS / 1000 };
  }

  #answer(id: CertId, issuer: Certificate, thisUpdate: Date, nextUpdate: Date): OcspAnswerTemplate {
    const known = isCertId(id, id.serial, issuer)
      ? this.#o.register.statusOf(Buffer.from(id.serial).toString("hex"), issuer.fingerprint)
      : undefined;
    const status =
      known === undefined
        ? ({ status: "unknown" } as const)
        : known.revoked === undefined
          ? ({ status: "good" } as const)
          : ({ status: "revoked", ...known.revoked } as const);
    return { id, status, thisUpdate, nextUpdate };
  }

  /** Whose certificates are asked for; undefined if not ours (RFC 6960 §2.3 "unauthorized"). */
  #signerOf(ids: readonly CertId[]): Issuer | undefined {
    return this.#o.issuers.find(({ certificate }) => ids.some((id) => isCertId(id, id.serial, certificate)));
  }

  #due({ thisUpdate }: SignedList): boolean {
    return this.#o.clock().getTime() >= thisUpdate.getTime() + HOUR_MS;
  }

  #signed(issuer: Issuer): SignedList {
    const list = this.#sign(issuer);
    this.#lists.set(issuer.certificate.fingerprint, list);
    return list;
  }

  /** Durable when it returns, or with the transaction that it is part of: then nothing may be kept in memory yet. */
  #sign({ certificate, privateKey }: Issuer): SignedList {
    const { register } = this.#o;
    const { database } = register;
    const issuer = certificate.fingerprint;
    return database.transaction(() => {
      const thisUpdate = new Date(Math.floor(this.#o.clock().getTime() / 1000) * 1000);
      const nextUpdate = new Date(thisUpdate.getTime() + LIST_MS);
      const last = database.one<{ number: number }>("select number from crls where issuer = ?", issuer);
      const number = (last?.number ?? 0) + 1;
      const entries = register.revokedOf(issuer, new Date(thisUpdate.getTime() - STAYS_MS));
      const der = issueRevocationList({ issuer: { certificate, privateKey }, entries, number, thisUpdate, nextUpdate });
      database.run(
        "insert or replace into crls (issuer, number, this_update, next_update, der) values (?, ?, ?, ?, ?)",
        ...[issuer, number, thisUpdate.getTime(), nextUpdate.getTime(), der],
      );
      return { der, number, thisUpdate, nextUpdate };
    });
  }

  #kept(issuer: Fingerprint): SignedList | undefined {
    const row = this.#o.register.database.one<{
      number: number;
      this_update: number;
      next_update: number;
      der: Uint8Array;
    }>("select * from crls where issuer = ?", issuer);
    if (row === undefined) return undefined;
    const { number, der } = row;
    const list = { der, number, thisUpdate: new Date(row.this_update), nextUpdate: new Date(row.next_update) };
    this.#lists.set(issuer, list);
    return list;
  }

  /** Another process may have revoked something. */
  #notice(): void {
    const { version } = this.#o.register.database;
    if (version === this.#version) return;
    this.#version = version;
    this.#answers.clear();
    this.#lists.clear();
  }
}
