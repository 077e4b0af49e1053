import type { Duplex } from "node:stream";
import type { Fingerprint, PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { AdmissionRule } from "./verdict.ts";

/** What is spoken behind the one peer port. */
export type Protocol = "sip" | "smtp" | "ftps";

/** Where, never who. `host` is an IP literal without brackets. */
export interface PeerAddress {
  host: string;
  port: number;
}

export interface PeerConnectionFacts {
  /** Short random id that every log line of this connection carries. */
  id: string;
  direction: "in" | "out";
  protocol: Protocol;
  certificate: PeerCertificate;
  /** The person: when dialling the expected one, else the certificate's preferred identity. */
  identity: Identity;
  address: PeerAddress;
  /** The address on our side, as the peer reached it; asked for when first needed. */
  localAddress: () => PeerAddress;
  resumed: boolean;
  admittedBy: AdmissionRule;
  stream: Duplex;
  /** Resolves at the peer's first byte, i.e. when the peer's gate admitted us too; rejects `refused-by-peer` or `handshake-failed`. */
  confirmed: Promise<void>;
}

/** Only `gate.ts` imports this (held by test/architecture.test.ts): whoever holds a `PeerConnection` holds the proof of admission. */
export const GATE_KEY: unique symbol = Symbol("made by the gate");

/** An admitted peer and its stream. */
export class PeerConnection {
  readonly id: string;
  readonly direction: "in" | "out";
  readonly protocol: Protocol;
  readonly certificate: PeerCertificate;
  readonly identity: Identity;
  readonly address: PeerAddress;
  readonly #localAddress: () => PeerAddress;
  readonly resumed: boolean;
  readonly admittedBy: AdmissionRule;
  readonly stream: Duplex;
  readonly confirmed: Promise<void>;

  constructor(key: typeof GATE_KEY, facts: PeerConnectionFacts) {
    if (key !== GATE_KEY) throw new Error("a PeerConnection is made by the gate alone");
    this.id = facts.id;
    this.direction = facts.direction;
    this.protocol = facts.protocol;
    this.certificate = facts.certificate;
    this.identity = facts.identity;
    this.address = facts.address;
    this.#localAddress = facts.localAddress;
    this.resumed = facts.resumed;
    this.admittedBy = facts.admittedBy;
    this.stream = facts.stream;
    this.confirmed = facts.confirmed;
    this.confirmed.catch(() => undefined); // a caller that does not wait for it is not to be ended by it
  }

  /** The address on our side, as the peer reached it. */
  get localAddress(): PeerAddress {
    return this.#localAddress();
  }

  get fingerprint(): Fingerprint {
    return this.certificate.fingerprint;
  }

  /** Ends the connection at once. */
  destroy(): void {
    this.stream.destroy();
  }
}
