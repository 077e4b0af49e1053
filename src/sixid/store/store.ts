import type { Identity } from "../../pki/identity.ts";

export type Role = "admin" | "officer";
export type Status = "active" | "blocked" | "removed";

/** Times are Unix milliseconds unless a name says seconds. */
export interface StoredUser {
  uuid: string;
  identity: Identity;
  name: string;
  /** `removed`: nothing but the name is left, which nobody else gets. */
  status: Status;
  roles: readonly Role[];
  /** PHC string; absent while the user has none. */
  password?: string;
  failures: number;
  /** No attempt is looked at before this time. */
  retryAt: number;
}

export interface UserFilter {
  /** Those behind this one. */
  after?: Identity;
  /** Part of the identity or the name, whatever the case. */
  match?: string;
  limit?: number;
}

export interface StoredInvitation {
  identity: Identity;
  expires: number;
  usedAt?: number;
}

export interface StoredDevice {
  fingerprint: string;
  addresses?: string;
  /** Of the addresses. */
  seq?: number;
  presence?: string;
  presenceSeq?: number;
  /** When it last announced itself, Unix seconds. */
  seen?: number;
}

export interface StoredRecord {
  uuid: string;
  identity: string;
  seq: number;
  hash: string;
  /** Those that announce themselves; revoked ones are left out. */
  devices: StoredDevice[];
}

export type AliasKind = "email" | "phone";

export interface Alias {
  kind: AliasKind;
  /** E-mail in lower case, or E.164 with `+`. */
  value: string;
  salt: string;
  digest: string;
}

/** `certificate`: the person's certificate names it. `authority`: an administrator gave it. Others find nobody. */
export interface StoredAlias extends Alias {
  verified: "certificate" | "authority" | "none";
}

/** Who sees which part of a record. */
export interface Visibility {
  certificates: "public" | "authenticated";
  addresses: "public" | "authenticated" | "contacts";
  presence: "authenticated" | "contacts";
}

export interface LookupKey {
  kind: "identity" | "uuid" | "fingerprint" | AliasKind;
  value: string;
}

/** A person who has a record, and what is needed to judge who sees it: of one moment. */
export interface Found {
  uuid: string;
  identity: Identity;
  status: Status;
  visibility: Visibility;
  /** Whether `asker` is one of the person's contacts. */
  contact: boolean;
  record: StoredRecord;
  aliases: readonly StoredAlias[];
}

export interface NextIdentity {
  seq: number;
  hash: string;
  jws: string;
  /** Fingerprints of the devices that it lists. */
  devices: readonly string[];
  /** Digests of the aliases that it lists; stored ones that are not among them are dropped. */
  aliases?: readonly string[];
}

/** A signed part of a device. */
export interface NextPart {
  seq: number;
  jws: string;
  /** Unix seconds. */
  seen: number;
}

/** An identity object whose signer the object before it does not list: held until somebody agrees or time has passed. */
export interface StoredRoot {
  /** SHA-256 of its payload. */
  id: string;
  uuid: string;
  signer: string;
  jws: string;
  received: number;
}

/** What is another than before, of whom. `everything`: what changed was missed; no uuid. */
export interface Change {
  uuid: string;
  what: "record" | "request" | "root" | "backup" | "everything";
}

/** Base64; and of the code that opens the way to it the hash. */
export interface StoredBackup {
  version: number;
  at: number;
  bytes: string;
  /** Empty: by certificate alone. */
  recovery: string;
}

/** `recovery` absent: as the one before it. */
export interface NewBackup {
  at: number;
  bytes: string;
  recovery?: string;
}

/** A verified request to be admitted. */
export interface NewRequest {
  /** SHA-256 of its payload. */
  hash: string;
  from: Identity;
  /** Fingerprint of the key that signed it. */
  signer: string;
  to: Identity;
  /** The addressee's uuid; undefined for a name that nobody has. */
  owner: string | undefined;
  at: number;
  expires: number;
  jws: string;
}

/** How much may be asked within `windowMs`, whatever became of it; and how much waits for one person. */
export interface RequestLimits {
  windowMs: number;
  perAsker: number;
  /** For the askers of one domain; infinite for the own. */
  perDomain: number;
  total: number;
  pending: number;
}

/** `noted`: counted, with nowhere to put it. `retryAt`: when asking has a point again. */
export type RequestOutcome =
  | { outcome: "kept" | "noted" | "repeated" }
  | { outcome: "too-many"; limit: "pair" | "asker" | "domain" | "total"; retryAt: number };

/** What a domain's directory keeps. Every promise of a write resolves when it is durable. Fails with `store-failed`. */
export interface DirectoryStore {
  user(identity: Identity): Promise<StoredUser | undefined>;
  userById(uuid: string): Promise<StoredUser | undefined>;
  /** In the order of their identities; without those removed. */
  users(filter?: UserFilter): Promise<StoredUser[]>;
  /** @returns false if there is one of that identity already, or was */
  addUser(user: { uuid: string; identity: Identity; name: string }): Promise<boolean>;
  /** Removing one takes all he had but his name and the hashes of his objects; it ends his sessions, as blocking does. */
  setUser(uuid: string, next: { name?: string; status?: Status; roles?: readonly Role[] }, at: number): Promise<void>;
  /** Ends all sessions, too. */
  setPassword(uuid: string, phc: string): Promise<void>;
  setFailures(uuid: string, failures: number, retryAt: number): Promise<void>;

  addInvitation(hash: string, invitation: StoredInvitation): Promise<void>;
  invitation(hash: string): Promise<StoredInvitation | undefined>;
  /** @returns false if it was used before, for something else */
  useInvitation(hash: string, use: string, at: number): Promise<boolean>;

  addSession(hash: string, uuid: string, expires: number): Promise<void>;
  session(hash: string): Promise<{ uuid: string; expires: number } | undefined>;
  removeSession(hash: string): Promise<void>;
  /** Ends all sessions of a user: his password changed. */
  removeSessionsOf(uuid: string): Promise<void>;

  /** @param asker for `contact` */
  find(key: LookupKey, asker?: Identity): Promise<Found | undefined>;
  record(uuid: string): Promise<StoredRecord | undefined>;
  /** Hashes of all objects from `from` on, in order; of the last ones the objects. */
  chain(uuid: string, from: number, limit: number): Promise<{ seq: number; hash: string; jws?: string }[]>;
  /** @param previous hash of the object that this one follows; empty for the first */
  putIdentity(uuid: string, next: NextIdentity, previous: string): Promise<"stored" | "stale">;
  /** `stale` also for a device that was revoked. */
  putAddresses(uuid: string, device: string, next: NextPart): Promise<"stored" | "stale">;
  putPresence(uuid: string, device: string, next: NextPart): Promise<"stored" | "stale">;
  /** Revokes a device of the record: what it announced is gone, and stays so. */
  dropDevice(uuid: string, fingerprint: string): Promise<void>;
  revokedDevices(uuid: string): Promise<string[]>;

  /** Replaces what a person tells of himself. `certified`: by his certificate, which counts if it is nobody else's already. */
  putAliases(uuid: string, aliases: readonly (Alias & { certified: boolean })[]): Promise<void>;
  aliases(uuid: string): Promise<StoredAlias[]>;
  /** An administrator's word that this is that person's, and nobody else's. */
  grantAlias(uuid: string, kind: AliasKind, value: string): Promise<void>;

  visibility(uuid: string): Promise<Visibility | undefined>;
  setVisibility(uuid: string, visibility: Visibility): Promise<void>;
  contacts(uuid: string): Promise<Identity[]>;
  setContacts(uuid: string, contacts: readonly Identity[]): Promise<void>;

  /** @returns false if `most` of that person are held already; the same again is none more */
  putRoot(root: StoredRoot, most: number): Promise<boolean>;
  roots(uuid: string): Promise<StoredRoot[]>;
  /** Those received at that time or before. */
  rootsUntil(received: number): Promise<StoredRoot[]>;
  removeRoot(id: string): Promise<void>;

  /**
   * Counts a request and puts it into its addressee's box, if there is one and it has room; an asker has one request
   * there, his last. The very same one again changes nothing. Forgets what has expired and counts no more.
   */
  putRequest(request: NewRequest, limits: RequestLimits): Promise<RequestOutcome>;
  /** The oldest first, without what has expired. */
  requestsOf(owner: string, now: number): Promise<{ id: string; jws: string }[]>;
  removeRequest(owner: string, id: string): Promise<void>;

  /** Keeps the newest `keep`. @returns its version */
  putBackup(uuid: string, made: NewBackup, keep: number): Promise<number>;
  /** The newest first. */
  backups(uuid: string): Promise<Omit<StoredBackup, "bytes">[]>;
  backup(uuid: string, version: number): Promise<StoredBackup | undefined>;
  /** Counts one that is handed out. @returns false if there were `most` of them since then already */
  noteDownload(uuid: string, at: number, since: number, most: number): Promise<boolean>;

  /** Told of each change once it is durable, in this process or another. @returns what ends it */
  changes(listener: (change: Change) => void): () => void;

  close(): Promise<void>;
}
