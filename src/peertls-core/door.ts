import type { TLSSocket } from "node:tls";
import type { Certificate, Fingerprint, PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { PeerAddress, PeerConnection, Protocol } from "./connection.ts";
import type { DenialReason } from "./verdict.ts";

/** The person we dial, the keys that the person's record lists, and CA certificates that the record carries. */
export interface Expected {
  identity: Identity;
  fingerprints: readonly Fingerprint[];
  intermediates?: readonly Certificate[];
}

/** How somebody is dialled. */
export interface ConnectOptions {
  expected: Expected;
  alpn: string;
  purpose: Purpose;
  /** Only for data channels: the token that routes them. */
  serverName?: string;
}

/** Somebody whom the gate sent away. */
export interface Denial {
  at: Date;
  direction: "in" | "out";
  protocol: Protocol | "request" | undefined;
  reason: DenialReason;
  alert: number;
  address: PeerAddress;
  certificate?: PeerCertificate;
  /** What came beside the certificate. */
  sent?: readonly Certificate[];
}

/** What a client asks for by ALPN, as the listener understands it. */
export type Purpose =
  | { kind: "protocol"; protocol: Protocol }
  | { kind: "data"; control: PeerConnection; token?: string }
  | { kind: "request" };

/** As which protocol the policy judges a purpose. */
export function protocolOf(purpose: Purpose | undefined): Protocol | "request" | undefined {
  if (purpose === undefined) return undefined;
  return purpose.kind === "protocol" ? purpose.protocol : purpose.kind === "data" ? "ftps" : "request";
}

export interface Door {
  /** @returns the chosen ALPN name and what it means; undefined refuses with alert 120 inside the handshake */
  choose(offered: readonly string[], serverName: string | undefined): { alpn: string; purpose: Purpose } | undefined;
  /** Whether a data channel is announced: only then is anybody's first record looked at for this ALPN name. */
  awaitsData?(): string | undefined;
  /** What a client without ALPN means: classic ports imply their protocol, the peer port nothing. */
  implied?: Purpose;
  admitted(connection: PeerConnection, purpose: Purpose): void;
  /** An admitted request of a stranger: never becomes a `PeerConnection`. */
  request?(stream: TLSSocket, from: { certificate: PeerCertificate; identity: Identity; address: PeerAddress }): void;
}
