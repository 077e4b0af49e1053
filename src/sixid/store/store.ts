import type { Identity } from "../../pki/identity.ts";

export interface StoredUser {
  uuid: string;
  identity: Identity;
  name: string;
  status: "active" | "blocked";
  /** PHC string; absent while the user has none. */
  password?: string;
  failures: number;
  /** No attempt is looked at before this time (Unix milliseconds). */
  retryAt: number;
}

export interface StoredInvitation {
  identity: Identity;
  expires: number;
  usedAt?: number;
}

export interface StoredRecord {
  uuid: string;
  identity: string;
  seq: number;
  hash: string;
  /** `seq`: of the addresses. */
  devices: { fingerprint: string; addresses?: string; seq?: number; seen?: number }[];
}

/** What is another than before, of whom. */
export interface Change {
  uuid: string;
  what: "record" | "request";
}

/** A verified request to be admitted. Times are Unix milliseconds. */
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

/** What a domain's directory keeps. Every promise of a write resolves when it is durable. */
export interface DirectoryStore {
  user(identity: Identity): Promise<StoredUser | undefined>;
  userById(uuid: string): Promise<StoredUser | undefined>;
  users(): Promise<StoredUser[]>;
  /** @returns false if there is one of that identity already */
  addUser(user: { uuid: string; identity: Identity; name: string }): Promise<boolean>;
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

  record(uuid: string): Promise<StoredRecord | undefined>;
  /** @param previous hash of the object that this one follows; empty for the first */
  putIdentity(
    uuid: string,
    next: { seq: number; hash: string; jws: string; devices: readonly string[] },
    previous: string,
  ): Promise<"stored" | "stale">;
  putAddresses(
    uuid: string,
    device: string,
    next: { seq: number; jws: string; seen: number },
  ): Promise<"stored" | "stale">;

  /**
   * Counts a request and puts it into its addressee's box, if there is one and it has room; an asker has one request
   * there, his last. The very same one again changes nothing. Forgets what has expired and counts no more.
   */
  putRequest(request: NewRequest, limits: RequestLimits): Promise<RequestOutcome>;
  /** The oldest first, without what has expired. */
  requestsOf(owner: string, now: number): Promise<{ id: string; jws: string }[]>;
  removeRequest(owner: string, id: string): Promise<void>;

  /** Told of each change once it is durable. @returns what ends it */
  changes(listener: (change: Change) => void): () => void;

  close(): Promise<void>;
}
