import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { writeAudit } from "./audit.ts";
import type { CertificateKind } from "./messages.ts";
import type { Register } from "./register.ts";
import type { IssueRequest } from "./rules.ts";

/** A request that a person has to approve. */
export interface Waiting {
  ref: string;
  identity: Identity;
  kind: CertificateKind;
  label: string;
  /** The request, DER. */
  der: Uint8Array;
  at: Date;
  state: "waiting" | "approved" | "refused";
}

const MAX_WAITING = 16;
const KEPT_MS = 30 * 86_400_000;

/** Requests that wait for the domain's owner (irp.md §2.4, `approval`), kept in the register and audited there. */
export class Approvals {
  readonly #register: Register;
  readonly #random: (length: number) => Buffer;

  constructor(register: Register, random: (length: number) => Buffer) {
    this.#register = register;
    this.#random = random;
  }

  /** The same request waits once. @throws SuiteError limit-exceeded (`policy`) when too many of one person wait */
  ask({ identity, kind, csr, csrHash, label }: IssueRequest, at: Date): Waiting {
    const { database } = this.#register;
    return database.transaction(() => {
      database.run("delete from pending where at < ?", at.getTime() - KEPT_MS);
      const sql = "select * from pending where csr = ? and identity = ? and kind = ?";
      const known = database.one<Row>(sql, csrHash, identity, kind);
      if (known !== undefined) return waitingOf(known);
      const waiting = "select count(*) as n from pending where identity = ? and state = 'waiting'";
      if ((database.one<{ n: number }>(waiting, identity)?.n ?? 0) >= MAX_WAITING)
        throw new SuiteError("limit-exceeded", "too many requests wait to be approved", {
          fault: "peer",
          details: { code: "policy" },
        });
      const ref = this.#random(16).toString("hex");
      database.run(
        "insert into pending (ref, identity, kind, csr, der, label, at, state) values (?, ?, ?, ?, ?, ?, ?, 'waiting')",
        ...[ref, identity, kind, csrHash, csr.der, label ?? "", at.getTime()],
      );
      writeAudit(database, at, { what: "pending", ref, identity, kind, fingerprint: csr.fingerprint });
      return waitingOf(database.one<Row>("select * from pending where ref = ?", ref) as Row);
    });
  }

  find(ref: string): Waiting | undefined {
    const row = this.#register.database.one<Row>("select * from pending where ref = ?", ref);
    return row && waitingOf(row);
  }

  /** What nobody has decided about, the oldest first. */
  waiting(): Waiting[] {
    return this.#register.database
      .all<Row>("select * from pending where state = 'waiting' order by at")
      .map((row) => waitingOf(row));
  }

  /** @throws SuiteError not-found when nothing of that name waits */
  decide(ref: string, state: "approved" | "refused", by: string, at: Date): void {
    const { database } = this.#register;
    database.transaction(() => {
      const sql = "update pending set state = ?, decided_by = ? where ref = ? and state = 'waiting'";
      if (database.run(sql, state, by, ref) !== 1)
        throw new SuiteError("not-found", "nothing of that name waits", { fault: "local", details: { ref } });
      writeAudit(database, at, { what: state, ref, by });
    });
  }
}

interface Row {
  ref: string;
  identity: Identity;
  kind: CertificateKind;
  label: string;
  der: Uint8Array;
  at: number;
  state: Waiting["state"];
}

function waitingOf({ ref, identity, kind, label, der, at, state }: Row): Waiting {
  return { ref, identity, kind, label, der, at: new Date(at), state };
}
