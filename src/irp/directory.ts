import type { Certificate, Fingerprint } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { UserPart } from "./messages.ts";

/** The people of the domain, as enrolment needs them; the directory has them. */
export interface Accounts {
  /** Only active accounts. */
  find(identity: Identity): Promise<EnrolAccount | undefined>;
  /** @throws SuiteError auth-failed, one text for every cause; busy with `retrySeconds` while failures are waited out */
  authenticateCode(user: string, code: string): Promise<EnrolAccount>;
  /** @throws as authenticateCode */
  authenticatePassword(user: string, password: string): Promise<EnrolAccount>;
  /** Uses a code up, durably. @returns false if it was used for something else */
  redeem(identity: Identity, code: string, use: string): Promise<boolean>;
}

export interface EnrolAccount {
  uuid: string;
  identity: Identity;
  name: string;
  /** An administrator's right counts only where he came with his certificate. */
  roles?: readonly string[];
}

/** Who asks, as the directory judges him. */
export interface DirectoryCaller {
  identity: Identity;
  by: "sca" | "upa";
  /** The calling device's key; by certificate alone. */
  fingerprint?: Fingerprint;
}

/**
 * What the messages about people and addresses need (irp.md §2.3); the directory has it, with its own rules of right and
 * visibility. What is absent is not offered.
 * @throws SuiteError unknown-recipient or not-found alike for what is not there and what is not to be seen; forbidden;
 * record-rejected; conflict (`stale`); busy with `retrySeconds`
 */
export interface EnrolDirectory {
  /** One person's record, by any key that the directory knows. */
  user?(caller: DirectoryCaller, key: string, signal: AbortSignal): Promise<UserPart>;
  /** The address book, or all for an administrator: from behind `after`, those with `q` in their names. */
  users?(
    caller: DirectoryCaller,
    asked: { after?: string; q?: string },
  ): Promise<{ users: readonly UserPart[]; more: boolean }>;
  /** The owner's own: full name, aliases, or the next signed object. */
  putUser?(
    caller: DirectoryCaller,
    put: { name?: string; aliases: readonly string[]; identity?: string },
  ): Promise<{ seq: number }>;
  addresses?(
    caller: DirectoryCaller,
    key: string,
    signal: AbortSignal,
  ): Promise<{ addresses: readonly string[]; presence: readonly string[] }>;
  putAddresses?(caller: DirectoryCaller, jws: string): Promise<{ seq: number; reannounceAfter: number }>;
  putPresence?(caller: DirectoryCaller, jws: string): Promise<{ seq: number; reannounceAfter?: number }>;
  /** Publishes a certificate of another CA beside the domain's own; it names the caller and he proved its key. Leaf first. */
  putCertificate?(caller: DirectoryCaller, certificates: readonly Certificate[]): Promise<void>;
}

/** The owner's PKCS#12 backups (sixid.md §2.6), opaque, by version. @throws SuiteError not-found, limit-exceeded, forbidden */
export interface KeyBackups {
  versions(caller: DirectoryCaller): Promise<readonly number[]>;
  put(caller: DirectoryCaller, bytes: Buffer): Promise<number>;
  /** @param recovery the recovery code: needed of who came by password */
  get(caller: DirectoryCaller, version: number, recovery: string | undefined): Promise<Buffer>;
}
