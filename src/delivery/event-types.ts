import { z } from "zod";
import { FAILED_REASONS, HELD_REASONS, QUEUED_REASONS } from "./envelope.ts";

const item = z.string();
const identity = z.string();
const fingerprint = z.string();
const kind = z.enum(["message", "mail", "file"]);
const instant = z.iso.datetime();

/** What a receipt says, flat: `ReceiptState` of envelope.ts with its dates as text. `sending` is never an event: it is not durable. */
const receiptChanged = z.strictObject({
  type: z.literal("receipt.changed"),
  item,
  kind,
  to: identity,
  attempts: z.number(),
  state: z.enum(["queued", "held", "delivered", "failed"]),
  reason: z.enum([...HELD_REASONS, ...FAILED_REASONS]).optional(),
  why: z.enum(QUEUED_REASONS).optional(),
  detail: z.string().optional(),
  nextAttempt: instant.optional(),
});

/** Everything that is told to the owner's interfaces, by type. Closed: UI and CLI parse with this very schema. */
export const nodeEventSchema = z.discriminatedUnion("type", [
  // the outbox
  z.strictObject({
    type: z.literal("item.accepted"),
    item,
    kind,
    to: z.array(identity),
    title: z.string(),
    size: z.number(),
  }),
  receiptChanged,
  // the inbox
  z.strictObject({
    type: z.literal("item.received"),
    item,
    kind,
    from: identity,
    title: z.string(),
    size: z.number(),
    sealed: z.boolean(),
  }),
  z.strictObject({ type: z.literal("item.seen"), item }),
  z.strictObject({ type: z.literal("seal.refused"), peer: identity, fingerprint, kind, code: z.string() }),
  z.strictObject({ type: z.literal("quota.reached"), peer: identity, what: z.enum(["items", "bytes", "file-bytes"]) }),
  // who may come in
  z.strictObject({
    type: z.literal("peer.denied"),
    reason: z.string(),
    alert: z.number(),
    direction: z.enum(["in", "out"]),
    address: z.string(),
    claims: z.array(identity),
    fingerprint,
  }),
  z.strictObject({ type: z.literal("request.received"), from: identity, name: z.string(), text: z.string() }),
  z.strictObject({
    type: z.literal("request.decided"),
    from: identity,
    decision: z.enum(["accept", "accept-organisation", "reject", "block"]),
  }),
  z.strictObject({ type: z.literal("request.sent"), to: identity, answer: z.string() }),
  z.strictObject({ type: z.literal("contact.added"), identity, name: z.string() }),
  z.strictObject({ type: z.literal("contact.removed"), identity }),
  // the directory
  z.strictObject({ type: z.literal("directory.state"), state: z.enum(["available", "unavailable"]) }),
  /** Somebody fetched a backup that the directory keeps. */
  z.strictObject({ type: z.literal("backup.fetched") }),
  z.strictObject({ type: z.literal("record.rejected"), identity, code: z.string() }),
  z.strictObject({ type: z.literal("record.changed"), identity, change: z.string() }),
  // the stream itself: what lay between `after` and this event's place is gone; take a snapshot
  z.strictObject({ type: z.literal("events.gap"), after: z.number() }),
]);

export type NodeEvent = z.infer<typeof nodeEventSchema>;
