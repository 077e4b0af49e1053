import type { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Certificate, PeerCertificate } from "../pki/certificate.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerAddress } from "./connection.ts";
import { SeenCertificates } from "./seen-certificates.ts";
import type { DenialReason } from "./verdict.ts";

const MAX_SENT = 16;

export interface Facts {
  certificate?: PeerCertificate;
  sent?: readonly Certificate[];
  /** Set where there is no certificate. */
  failure?: DenialReason;
}

/** Who is there: from the handshake, or, where a resumed session shows no certificate, from the session we kept. */
export function factsOf(socket: TLSSocket, kept: PeerCertificate | undefined, seen: SeenCertificates): Facts {
  if (kept !== undefined) return { certificate: kept, sent: [] };
  const leaf = socket.getPeerX509Certificate();
  if (leaf === undefined) return { failure: "no-certificate" };
  try {
    return { certificate: seen.leaf(leaf.raw), sent: sentWith(leaf, seen) };
  } catch {
    return { failure: "certificate-malformed" };
  }
}

/** The certificates that came beside the leaf. @throws when there are too many */
export function sentWith(leaf: X509Certificate, seen = new SeenCertificates()): Certificate[] {
  const sent: Certificate[] = [];
  for (let next = leaf.issuerCertificate; next !== undefined; next = next.issuerCertificate) {
    if (sent.length >= MAX_SENT - 1)
      throw new SuiteError("limit-exceeded", "too many certificates sent", { fault: "peer" });
    sent.push(seen.beside(next.raw));
    if (next.raw.equals(next.issuerCertificate?.raw ?? new Uint8Array())) break;
  }
  return sent;
}

/** Undefined once the peer is gone. */
export function remoteOf(socket: Socket): PeerAddress | undefined {
  if (socket.remoteAddress === undefined || socket.remotePort === undefined) return undefined;
  return { host: socket.remoteAddress, port: socket.remotePort };
}

/** Settles when the peer's gate has shown its mind: by a ticket, by a first byte, or by closing. */
export class Confirmation {
  readonly promise: Promise<void>;
  readonly succeed: () => void;
  readonly fail: (error: SuiteError) => void;

  constructor(socket: TLSSocket) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => undefined);
    this.promise = promise;
    this.succeed = resolve;
    this.fail = reject;
    const push = socket.push;
    socket.push = function first(this: TLSSocket, chunk: unknown, encoding?: BufferEncoding) {
      if (chunk !== null) {
        socket.push = push;
        resolve();
      }
      return push.call(this, chunk, encoding);
    };
  }
}
