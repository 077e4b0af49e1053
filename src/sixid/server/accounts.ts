import { argon2, createHash, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { type Identity, identityDomain, parseIdentity } from "../../pki/identity.ts";
import { SuiteError } from "../../pki/suite-error.ts";
import type { DirectoryStore, Role, StoredUser } from "../store/store.ts";
import { Attempts } from "./attempts.ts";

/** A person whom the domain knows and who has proven to be it. */
export interface Account {
  uuid: string;
  identity: Identity;
  name: string;
  /** What he may do beyond others, if he proves by certificate who he is. */
  roles: readonly Role[];
}

export interface AccountsOptions {
  store: DirectoryStore;
  domain: string;
  clock: () => Date;
  random: (length: number) => Buffer;
}

const INVITATION_DAYS = 7;
const REPEAT_MS = 86_400_000;
const SESSION_SECONDS = 900;
const FREE_FAILURES = 5;
const MAX_WAIT_MS = 15 * 60_000;
const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const ARGON2 = { parallelism: 4, memory: 65_536, passes: 3, tagLength: 32 };

/** The people of one domain, their invitations, passwords and sessions. */
export class Accounts {
  readonly #o: AccountsOptions;
  readonly #attempts: Attempts;

  constructor(options: AccountsOptions) {
    this.#o = options;
    this.#attempts = new Attempts(options.clock);
  }

  async find(identity: Identity): Promise<Account | undefined> {
    const user = await this.#o.store.user(identity);
    return user === undefined || user.status !== "active" ? undefined : accountOf(user);
  }

  /**
   * Makes an account if there is none, and a one-time code for it: 80 random bits, kept as a hash, good for 7 days.
   * @throws SuiteError identity-invalid for an identity of another domain
   */
  async invite(identity: Identity, name: string): Promise<{ code: string; expires: Date }> {
    if (identityDomain(identity) !== this.#o.domain) {
      throw new SuiteError("identity-invalid", "this server is for another domain", {
        fault: "local",
        details: { identity, domain: this.#o.domain },
      });
    }
    await this.#o.store.addUser({ uuid: uuidV7(this.#o.clock(), this.#o.random), identity, name });
    const code = crockford(this.#o.random(10));
    const expires = this.#o.clock().getTime() + INVITATION_DAYS * 86_400_000;
    await this.#o.store.addInvitation(codeHash(identity, code), { identity, expires });
    return { code, expires: new Date(expires) };
  }

  /** @throws SuiteError auth-failed (one text for every cause), busy with `retrySeconds` while failures are waited out */
  async authenticateCode(user: string, code: string): Promise<Account> {
    return this.#attempt(user, async (known) => {
      const invitation = await this.#o.store.invitation(codeHash(known.identity, code));
      const now = this.#o.clock().getTime();
      if (invitation === undefined || invitation.expires <= now) return false;
      // For a day after its use it opens the door for the very CSR it was used for, in case the answer was lost.
      return invitation.usedAt === undefined || now - invitation.usedAt < REPEAT_MS;
    });
  }

  /**
   * Uses a code, durably, before anything is issued for it.
   * @param use what it is used for, the hash of a CSR: the same use again is no second one, in case the answer was lost
   * @returns false if it was used for something else
   */
  async redeem(identity: Identity, code: string, use: string): Promise<boolean> {
    return this.#o.store.useInvitation(codeHash(identity, code), use, this.#o.clock().getTime());
  }

  /** @param from the address that the attempt comes from, if it is known @throws as authenticateCode */
  async authenticatePassword(user: string, password: string, from?: string): Promise<Account> {
    const work = () => this.#attempt(user, (known) => verifyPassword(password, known.password));
    return from === undefined ? work() : this.#attempts.from(from, work);
  }

  /** 10–1024 bytes. Ends all sessions of the account. @throws SuiteError syntax */
  async setPassword(uuid: string, password: string): Promise<void> {
    const bytes = Buffer.byteLength(password.normalize("NFC"));
    if (bytes < 10 || bytes > 1024)
      throw new SuiteError("syntax", "a password has 10 to 1024 bytes", { fault: "peer" });
    await this.#o.store.setPassword(uuid, await hashPassword(password, this.#o.random(16)));
  }

  /** A token for 15 minutes; the store knows its hash only. */
  async openSession(account: Account): Promise<{ token: string; expires: Date }> {
    const token = this.#o.random(32).toString("base64url");
    const expires = this.#o.clock().getTime() + SESSION_SECONDS * 1000;
    await this.#o.store.addSession(sha256(token), account.uuid, expires);
    return { token, expires: new Date(expires) };
  }

  async session(token: string): Promise<string | undefined> {
    const session = await this.#o.store.session(sha256(token));
    return session === undefined || session.expires <= this.#o.clock().getTime() ? undefined : session.uuid;
  }

  async closeSession(token: string): Promise<void> {
    await this.#o.store.removeSession(sha256(token));
  }

  /** After 5 failures each further one doubles the wait, from 1 s to 15 min. An unknown user costs the same work. */
  async #attempt(user: string, proven: (known: StoredUser) => Promise<boolean>): Promise<Account> {
    const identity = accountName(user, this.#o.domain);
    return this.#attempts.one(identity ?? "", () => this.#judge(user, identity, proven));
  }

  async #judge(
    user: string,
    identity: Identity | undefined,
    proven: (known: StoredUser) => Promise<boolean>,
  ): Promise<Account> {
    const known = identity === undefined ? undefined : await this.#o.store.user(identity);
    const now = this.#o.clock().getTime();
    if (known === undefined) {
      await verifyPassword(user, undefined);
      throw authFailed();
    }
    if (known.retryAt > now) {
      throw new SuiteError("busy", "too many failures; wait", {
        fault: "peer",
        temporary: true,
        details: { retrySeconds: Math.ceil((known.retryAt - now) / 1000) },
      });
    }
    if (known.status === "active" && (await proven(known))) {
      if (known.failures > 0) await this.#o.store.setFailures(known.uuid, 0, 0);
      return accountOf(known);
    }
    const failures = known.failures + 1;
    const wait = failures < FREE_FAILURES ? 0 : Math.min(MAX_WAIT_MS, 1000 * 2 ** (failures - FREE_FAILURES));
    await this.#o.store.setFailures(known.uuid, failures, wait === 0 ? 0 : now + wait);
    throw authFailed();
  }
}

/** `alice` or `alice@alpha.test` → the identity; undefined if it is none of this domain. */
function accountName(user: string, domain: string): Identity | undefined {
  try {
    const identity = parseIdentity(user.includes("@") ? user : `${user}@${domain}`);
    return identityDomain(identity) === domain ? identity : undefined;
  } catch {
    return undefined;
  }
}

function accountOf({ uuid, identity, name, roles }: StoredUser): Account {
  return { uuid, identity, name, roles };
}

function authFailed(): SuiteError {
  return new SuiteError("auth-failed", "wrong user, password or code", { fault: "peer" });
}

/** A code typed with small letters, dashes, or O for 0 and I, L for 1 is the same code (Crockford base32). */
function codeHash(identity: Identity, code: string): string {
  const normal = code.toUpperCase().replace(/[\s-]/g, "").replace(/O/g, "0").replace(/[IL]/g, "1");
  return sha256(`${identity}\0${normal}`);
}

/** Crockford's base32, in groups of four. */
export function crockford(bytes: Buffer): string {
  let bits = BigInt(`0x${bytes.toString("hex")}`);
  let text = "";
  for (let left = Math.ceil((bytes.length * 8) / 5); left > 0; left--) {
    text = CROCKFORD.charAt(Number(bits & 31n)) + text;
    bits >>= 5n;
  }
  return (text.match(/.{1,4}/g) ?? []).join("-");
}

function sha256(text: string): string {
  return createHash("sha256").update(text, "utf8").digest("hex");
}

const argon2Async = promisify(argon2);

/** PHC string of argon2id, 64 MiB, 3 passes, 4 lanes. */
async function hashPassword(password: string, salt: Buffer): Promise<string> {
  const tag = await argon2Async("argon2id", {
    ...ARGON2,
    message: Buffer.from(password.normalize("NFC")),
    nonce: salt,
  });
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");
  return `$argon2id$v=19$m=${ARGON2.memory},t=${ARGON2.passes},p=${ARGON2.parallelism}$${base64(salt)}$${base64(tag)}`;
}

/** Against no stored password the same work is done, and the answer is no. */
async function verifyPassword(password: string, phc: string | undefined): Promise<boolean> {
  const [, , , , salt = "", tag = ""] = (phc ?? "").split("$");
  const nonce = salt === "" ? Buffer.alloc(16) : Buffer.from(salt, "base64");
  const made = await argon2Async("argon2id", { ...ARGON2, message: Buffer.from(password.normalize("NFC")), nonce });
  const stored = Buffer.from(tag, "base64");
  return stored.length === made.length && timingSafeEqual(stored, made);
}

/** RFC 9562 §5.7. */
function uuidV7(now: Date, random: (length: number) => Buffer): string {
  const bytes = random(16);
  bytes.writeUIntBE(now.getTime(), 0, 6);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x70;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
