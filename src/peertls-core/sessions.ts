import type { PeerCertificate } from "../pki/certificate.ts";

/**
 * TLS sessions for dialling again, with the certificate that was proven when each began: a resumed handshake shows a
 * client no certificate, and the policy judges it all the same.
 */
export class Sessions {
  readonly #kept = new Map<string, Kept>();

  /** A ticket serves once (RFC 8446 §C.4). */
  take(key: string): Kept | undefined {
    const kept = this.#kept.get(key);
    this.#kept.delete(key);
    return kept;
  }

  put(key: string, kept: Kept): void {
    this.#kept.set(key, kept);
    const oldest = this.#kept.keys().next();
    if (this.#kept.size > MAX_SESSIONS && !oldest.done) this.#kept.delete(oldest.value);
  }

  clear(): void {
    this.#kept.clear();
  }
}

export interface Kept {
  session: Buffer;
  certificate: PeerCertificate;
}

const MAX_SESSIONS = 1_000;
