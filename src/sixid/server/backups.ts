import { createHash, timingSafeEqual } from "node:crypto";
import type { Identity } from "../../pki/identity.ts";
import type { Log } from "../../pki/log.ts";
import { SuiteError } from "../../pki/suite-error.ts";
import type { DirectoryStore } from "../store/store.ts";
import type { Accounts } from "./accounts.ts";
import type { Caller } from "./caller.ts";

export interface BackupsOptions {
  store: DirectoryStore;
  accounts: Pick<Accounts, "find">;
  clock: () => Date;
  log: Log;
}

export const MAX_BACKUP_BYTES = 262_144;
const KEPT = 10;
const HOUR_MS = 3_600_000;
const DOWNLOADS_AN_HOUR = 5;

/** Of a backup: when it was made, and how it is named. */
export interface BackupFacts {
  version: number;
  /** Unix seconds. */
  at: number;
}

/**
 * Backups that people made themselves and encrypted for themselves: the passphrase is never here. Who has lost his keys shows the
 * recovery code, of 128 random bits: nobody guesses it, so wrong ones shut nobody out.
 */
export class Backups {
  readonly #o: BackupsOptions;

  constructor(options: BackupsOptions) {
    this.#o = options;
  }

  /**
   * Keeps one more, durably before it returns; the oldest of more than ten goes.
   * @param recovery SHA-256 of a new recovery code, 64 hex digits; absent: the one before stays
   * @throws SuiteError forbidden, limit-exceeded; conflict without any recovery code
   */
  async put(caller: Caller, bytes: Uint8Array, recovery: string | undefined): Promise<BackupFacts> {
    const { store, clock, log } = this.#o;
    const { uuid, identity } = await this.#owner(caller);
    if (bytes.length > MAX_BACKUP_BYTES)
      throw new SuiteError("limit-exceeded", "a backup has at most 256 KiB", { fault: "peer" });
    if (recovery === undefined && ((await store.backups(uuid))[0]?.recovery ?? "") === "")
      throw new SuiteError("conflict", "the first backup brings a recovery code", { fault: "peer" });
    const at = clock().getTime();
    const made = { bytes: Buffer.from(bytes).toString("base64"), at, ...(recovery === undefined ? {} : { recovery }) };
    const version = await store.putBackup(uuid, made, KEPT);
    log.info({ identity, version }, "a backup was stored");
    return { version, at: Math.floor(at / 1000) };
  }

  /** The newest first. @throws SuiteError forbidden */
  async list(caller: Caller): Promise<{ backups: BackupFacts[] }> {
    const { uuid } = await this.#owner(caller);
    const kept = await this.#o.store.backups(uuid);
    return { backups: kept.map(({ version, at }) => ({ version, at: Math.floor(at / 1000) })) };
  }

  /** One of the own. @throws SuiteError forbidden, not-found; busy after five within an hour */
  async get(caller: Caller, version: number): Promise<Buffer> {
    const { uuid } = await this.#owner(caller);
    return this.#handOut(uuid, version);
  }

  /**
   * The newest, or that version, to who shows the recovery code that holds now. Unknown people, people without backups and wrong
   * codes are answered alike.
   * @throws SuiteError auth-failed; busy after five within an hour
   */
  async recover(user: Identity, code: string, version?: number): Promise<Buffer> {
    const account = await this.#o.accounts.find(user);
    const [newest] = account === undefined ? [] : await this.#o.store.backups(account.uuid);
    const shown = recoveryHash(user, code);
    const known = newest === undefined || newest.recovery === "" ? recoveryHash(user, "nobody's") : newest.recovery;
    const right = timingSafeEqual(Buffer.from(shown, "hex"), Buffer.from(known, "hex"));
    if (account === undefined || newest === undefined || newest.recovery === "" || !right)
      throw new SuiteError("auth-failed", "no such backup, or another recovery code", { fault: "peer" });
    this.#o.log.warn({ identity: user }, "a backup is fetched by recovery code");
    return this.#handOut(account.uuid, version ?? newest.version);
  }

  async #handOut(uuid: string, version: number): Promise<Buffer> {
    const { store, clock } = this.#o;
    const found = await store.backup(uuid, version);
    if (found === undefined) throw new SuiteError("not-found", "there is no such backup", { fault: "peer" });
    const now = clock().getTime();
    if (!(await store.noteDownload(uuid, now, now - HOUR_MS, DOWNLOADS_AN_HOUR)))
      throw new SuiteError("busy", "backups were fetched too often within the hour", {
        fault: "peer",
        temporary: true,
        details: { retrySeconds: HOUR_MS / 1000 },
      });
    return Buffer.from(found.bytes, "base64");
  }

  async #owner(caller: Caller): Promise<{ uuid: string; identity: Identity }> {
    const account =
      caller.kind === "person" && caller.by === "sca" ? await this.#o.accounts.find(caller.identity) : undefined;
    if (account === undefined)
      throw new SuiteError("forbidden", "people of this domain prove by certificate who they are", { fault: "peer" });
    return account;
  }
}

/** What the server keeps of a recovery code; dashes, case and what looks alike in it do not matter (Crockford base32). */
export function recoveryHash(user: Identity, code: string): string {
  const normal = code.toUpperCase().replace(/[\s-]/g, "").replace(/O/g, "0").replace(/[IL]/g, "1");
  return createHash("sha256").update(`recovery\0${user}\0${normal}`, "utf8").digest("hex");
}
