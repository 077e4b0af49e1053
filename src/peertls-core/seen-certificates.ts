import { hash } from "node:crypto";
import { type Certificate, type PeerCertificate, parseCertificate, peerCertificate } from "../pki/certificate.ts";

const MAX_RECENT = 512;
const MAX_AUTHORITIES = 256;
const SWEEP_EVERY = 4_096;

/**
 * Certificates that were read before, by the SHA-256 of their bytes. Whoever comes again, or has several connections, costs
 * one parse, and one object in memory.
 */
export class SeenCertificates {
  readonly #recent = new Map<string, PeerCertificate>();
  /** Those that some connection still holds. */
  readonly #held = new Map<string, WeakRef<PeerCertificate>>();
  readonly #authorities = new Map<string, Certificate>();
  #untilSweep = SWEEP_EVERY;

  /** @throws SuiteError certificate-malformed */
  leaf(raw: Uint8Array): PeerCertificate {
    const name = hash("sha256", raw, "hex");
    const known = this.#recent.get(name) ?? this.#held.get(name)?.deref();
    const certificate = known ?? peerCertificate(parseCertificate(raw));
    keep(this.#recent, name, certificate, MAX_RECENT);
    if (known === undefined) {
      this.#held.set(name, new WeakRef(certificate));
      this.#untilSweep -= 1;
      if (this.#untilSweep === 0) this.#sweep();
    }
    return certificate;
  }

  /** A certificate that came beside a leaf. @throws SuiteError certificate-malformed */
  beside(raw: Uint8Array): Certificate {
    const name = hash("sha256", raw, "hex");
    const certificate = this.#authorities.get(name) ?? parseCertificate(raw);
    if (certificate.basicConstraints?.ca === true) keep(this.#authorities, name, certificate, MAX_AUTHORITIES);
    return certificate;
  }

  #sweep(): void {
    this.#untilSweep = SWEEP_EVERY;
    for (const [name, reference] of this.#held) if (reference.deref() === undefined) this.#held.delete(name);
  }
}

/** Puts it last; the first, the one used longest ago, goes when there are too many. */
function keep<T>(map: Map<string, T>, name: string, value: T, most: number): void {
  map.delete(name);
  map.set(name, value);
  const oldest = map.keys().next();
  if (map.size > most && !oldest.done) map.delete(oldest.value);
}
