import type { Fingerprint } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import { SuiteError, type SuiteErrorCode } from "../pki/suite-error.ts";
import type { PeerRecord } from "./directory.ts";
import type { RecordReply } from "./records.ts";
import type { VerifiedAddresses, VerifiedIdentity, VerifiedPresence } from "./verify.ts";

/** What a node remembers of a person's record, so that a directory that lies later is noticed. */
export interface Pin {
  uuid: string;
  seq: number;
  hash: string;
  /** Device keys of the last record that was accepted. */
  devices: readonly Fingerprint[];
  encryption: readonly string[];
  /** Highest address sequence seen, per device. */
  addressSeqs: Readonly<Record<string, number>>;
  /** The same of presence. */
  presenceSeqs?: Readonly<Record<string, number>>;
  /** Set by a step that none of the pinned devices signed; until the owner agrees. */
  changed: boolean;
  /** The last verified answer: serves while the directory is away. */
  reply: RecordReply;
  verifiedAt: number;
}

/** Where pins last. Synchronous: a pin is written before the record is used. */
export interface PinStore {
  find(identity: Identity): Pin | undefined;
  put(identity: Identity, pin: Pin): void;
}

export type RecordEvent =
  | { type: "deviceAdded" | "deviceRemoved"; identity: Identity; fingerprint: string }
  | { type: "encryptionChanged"; identity: Identity }
  | { type: "rootReplaced"; identity: Identity }
  /** What the directory told about this person was refused; what was known before stays in force. */
  | { type: "rejected"; identity: Identity; code: SuiteErrorCode; step?: string };

export interface Continuity {
  trust: PeerRecord["trust"];
  events: readonly RecordEvent[];
}

/**
 * Holds a verified record against what was seen before.
 * @param proven what came between leads from the pin to this record, each step signed by a device listed before it
 * @throws SuiteError record-rollback for a lower sequence, record-fork for the same sequence with another content,
 *   record-rejected for another uuid
 */
export function checkContinuity(pin: Pin | undefined, record: VerifiedIdentity, proven = false): Continuity {
  const { identity, body } = record;
  if (pin === undefined) return { trust: "first", events: [] };
  if (pin.uuid !== body.id) {
    throw new SuiteError("record-rejected", "the directory tells another person's record", {
      fault: "service",
      details: { identity, step: "uuid" },
    });
  }
  if (body.seq < pin.seq) {
    throw new SuiteError("record-rollback", "the directory tells an older record than before", {
      fault: "service",
      details: { identity, seen: pin.seq, told: body.seq },
    });
  }
  if (body.seq === pin.seq) {
    if (record.hash === pin.hash) return { trust: pin.changed ? "changed" : "pinned", events: [] };
    throw new SuiteError("record-fork", "the directory tells two records with one sequence number", {
      fault: "service",
      details: { identity, seq: body.seq },
    });
  }
  const events: RecordEvent[] = [];
  const now = body.devices.map((device) => device.id);
  for (const id of now)
    if (!pin.devices.includes(id as Fingerprint)) events.push({ type: "deviceAdded", identity, fingerprint: id });
  for (const id of pin.devices)
    if (!now.includes(id)) events.push({ type: "deviceRemoved", identity, fingerprint: id });
  if (pin.encryption.join() !== record.encryption.map((one) => one.fingerprint).join())
    events.push({ type: "encryptionChanged", identity });
  const replaced = !proven && !pin.devices.includes(body.signer as Fingerprint);
  if (replaced) events.push({ type: "rootReplaced", identity });
  return { trust: replaced || pin.changed ? "changed" : "pinned", events };
}

/** @throws SuiteError record-rollback when a device's addresses are older than those seen before */
export function checkAddresses(pin: Pin | undefined, identity: Identity, addresses: VerifiedAddresses): void {
  const seen = pin?.addressSeqs[addresses.body.device] ?? 0;
  if (addresses.body.seq >= seen) return;
  throw new SuiteError("record-rollback", "the directory tells older addresses than before", {
    fault: "service",
    details: { identity, seen, told: addresses.body.seq },
  });
}

/** @throws SuiteError record-rollback as `checkAddresses` */
export function checkPresence(pin: Pin | undefined, identity: Identity, presence: VerifiedPresence): void {
  const seen = pin?.presenceSeqs?.[presence.body.device] ?? 0;
  if (presence.body.seq >= seen) return;
  throw new SuiteError("record-rollback", "the directory tells older presence than before", {
    fault: "service",
    details: { identity, seen, told: presence.body.seq },
  });
}
