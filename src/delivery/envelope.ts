import type { Identity } from "../pki/identity.ts";

/** Id of one accepted thing: 26 characters, sortable by time. */
export type ItemId = string & { readonly __brand: "ItemId" };

export type Kind = "message" | "mail" | "file";

/** Immutable bytes in the store, named by their SHA-256 (64 hex digits). */
export interface ContentRef {
  digest: string;
  size: number;
}

/** Who to whom, and what. Final at acceptance: nothing in it changes while it waits. */
export interface Envelope {
  id: ItemId;
  kind: Kind;
  from: Identity;
  to: readonly Identity[];
  /** What the receiver de-duplicates by, with signer and digest. Without angle brackets. */
  messageId: string;
  /** The MIME entity that gets signed: header fields, blank line, body, all CRLF (a file's body is binary). */
  entity: ContentRef;
  /** What stands outside the seal: a mail's outer header fields; empty for messages and files. */
  outerHeader: string;
  /** `node`: signed and sealed by this node at send time; `none`: a message that PeerTLS alone protects. */
  seal: "node" | "none";
  acceptedAt: Date;
  expiresAt: Date;
  /** What the owner sees in lists: a subject, a file name, the first words of a message. */
  title: string;
}

/** Why something waits for the owner, or for the peer to let us in. */
export const HELD_REASONS = ["owner", "not-admitted", "identity-mismatch", "key-changed"] as const;
export type HeldReason = (typeof HELD_REASONS)[number];

/** Why something will never arrive. */
export const FAILED_REASONS = [
  "cancelled",
  "expired",
  "unknown",
  "refused",
  "policy",
  "too-big",
  "syntax",
  "seal-rejected",
] as const;
export type FailedReason = (typeof FAILED_REASONS)[number];

/** Why something that is on its way has not arrived yet. */
export const QUEUED_REASONS = ["directory-unavailable", "unreachable", "temporary-refusal"] as const;
export type QueuedReason = (typeof QUEUED_REASONS)[number];

export type ReceiptState =
  | { state: "queued"; why?: QueuedReason; nextAttempt: Date }
  | { state: "sending"; sentBytes: number; totalBytes: number }
  | { state: "held"; reason: HeldReason }
  | { state: "delivered"; at: Date }
  | { state: "failed"; reason: FailedReason; detail: string };

/** What became of an item for one recipient. UI and CLI never claim more than this says. */
export interface Receipt {
  item: ItemId;
  to: Identity;
  attempts: number;
  status: ReceiptState;
}
