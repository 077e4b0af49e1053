import type { Certificate } from "./certificate.ts";

const maxEntries = 1_000;

/**
 * Which CA certificates are known to be signed by which keys: what is computed once stays true. Belongs to whoever judges
 * many paths; only certificates of good paths come in, so that strangers push nothing out.
 */
export class SignatureCache {
  readonly #known = new Set<string>();
  #newest = "";

  has(certificate: Certificate, issuer: Certificate): boolean {
    return this.#known.has(keyOf(certificate, issuer));
  }

  /** @param path of a good result, leaf first; the leaf's own signature is not kept */
  keep(path: readonly Certificate[]): void {
    for (const [at, issuer] of path.entries()) {
      const certificate = path[at - 1];
      if (at < 2 || certificate === undefined) continue;
      const key = keyOf(certificate, issuer);
      if (key === this.#newest) continue; // one CA after the other is the rule
      this.#newest = key;
      this.#known.delete(key); // least recently used is dropped first
      this.#known.add(key);
      const oldest = this.#known.values().next();
      if (this.#known.size > maxEntries && !oldest.done) this.#known.delete(oldest.value);
    }
  }
}

function keyOf(certificate: Certificate, issuer: Certificate): string {
  return `${certificate.sha256} ${issuer.fingerprint}`;
}
