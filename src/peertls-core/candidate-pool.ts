import type { Certificate } from "../pki/certificate.ts";
import type { CandidatePool } from "../pki/path.ts";

/** CA certificates, found by name: going through all of them for every path would cost more than the rest of the search. */
export class AuthorityPool implements CandidatePool {
  readonly #most: number;
  readonly #all = new Map<string, Certificate>();
  readonly #bySubject = new Map<string, Set<Certificate>>();

  constructor(most: number) {
    this.#most = most;
  }

  /** Puts it last; the one put there longest ago goes when there are too many. */
  add(certificate: Certificate): void {
    const earlier = this.#all.get(certificate.sha256);
    if (earlier !== undefined) this.#remove(earlier);
    this.#all.set(certificate.sha256, certificate);
    const { key } = certificate.subject;
    const alike = this.#bySubject.get(key);
    if (alike === undefined) this.#bySubject.set(key, new Set([certificate]));
    else alike.add(certificate);
    const oldest = this.#all.values().next();
    if (this.#all.size > this.#most && !oldest.done) this.#remove(oldest.value);
  }

  named(subject: string): Iterable<Certificate> {
    return this.#bySubject.get(subject) ?? [];
  }

  #remove(certificate: Certificate): void {
    this.#all.delete(certificate.sha256);
    const { key } = certificate.subject;
    const alike = this.#bySubject.get(key);
    alike?.delete(certificate);
    if (alike?.size === 0) this.#bySubject.delete(key);
  }
}
