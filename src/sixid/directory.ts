import type { Certificate, Fingerprint, PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";

/** One address under which a device can be dialled. Lower `priority` first. `host` is an IP literal without brackets. */
export interface DeviceAddress {
  host: string;
  port: number;
  kind: "direct";
  priority: number;
}

export interface PeerDevice {
  fingerprint: Fingerprint;
  label: string;
  certificate: PeerCertificate;
  addresses: readonly DeviceAddress[];
  /** How its owner is, as this device says; undefined if it says nothing, or nothing to us. */
  presence?: { state: "online" | "away" | "busy" | "offline"; note?: string };
  /** When the directory last heard from the device; undefined if never. */
  seen?: Date;
}

/** A person's record after every check: signature, signer's path for that domain, sequence and pins. */
export interface PeerRecord {
  identity: Identity;
  uuid: string;
  name: string;
  /** What else he is called, as far as it is told. */
  aliases?: readonly { kind: "email" | "phone"; value: string }[];
  devices: readonly PeerDevice[];
  /** Newest first; only those valid now. */
  encryption: readonly PeerCertificate[];
  /** CA certificates that the record carries, to build paths of devices and encryption certificates. */
  chain: readonly Certificate[];
  /** What the person's node can open, for the choice of the seal's profile. */
  capabilities: { cms: readonly string[] };
  seq: number;
  /** The directory did not answer: this is the last verified record. */
  stale: boolean;
  /** `changed`: all pinned device keys are gone and none of them signed the step; the owner has to agree first. */
  trust: "first" | "pinned" | "changed";
}

/** The directory as a node sees it. Fails with `unknown-recipient`, `directory-unavailable` (temporary), `record-*`. */
export interface Directory {
  lookup(identity: Identity, options: { fresh?: boolean }, signal: AbortSignal): Promise<PeerRecord>;
  /** Announces this device's current addresses; resolves when the server has them durably. */
  publishAddresses(addresses: readonly DeviceAddress[], signal: AbortSignal): Promise<void>;
}
