import type { Certificate } from "../pki/certificate.ts";
import { type PathResult, type RevocationCheck, validatePath } from "../pki/path.ts";
import { SignatureCache } from "../pki/signature-cache.ts";
import { AuthorityPool } from "./candidate-pool.ts";
import type { PolicyAnchor } from "./policy.ts";

const MAX_PATHS = 10_000;
const MAX_POOL = 1_000;

/** A good path without its leaf: who asks again has that in hand, and ten thousand read certificates are much to keep. */
type KnownPath = Omit<PathResult & { ok: true }, "path"> & { readonly issuers: readonly Certificate[] };

/**
 * Paths from leaves to the anchors in force. A path that was good is remembered by its leaf: the next time two
 * comparisons with its window suffice, and a resumed session, whose chain TLS does not show again, still has one.
 */
export class Paths {
  readonly #paths = new Map<string, KnownPath>();
  readonly #pool = new AuthorityPool(MAX_POOL);
  /** Signatures of CA certificates that were found good: a new leaf of a known CA costs one. */
  readonly #signatures = new SignatureCache();
  #anchors: readonly PolicyAnchor[] = [];

  /** Called when the anchors change: what was proven with the old ones proves nothing now. */
  use(anchors: readonly PolicyAnchor[]): void {
    this.#anchors = anchors;
    this.#paths.clear();
  }

  /** Keeps CA certificates of good paths, for peers that do not send them. */
  #keep(certificates: readonly Certificate[]): void {
    for (const certificate of certificates) if (certificate.basicConstraints?.ca === true) this.#pool.add(certificate);
  }

  /**
   * @param sent what the peer showed beside its leaf, in any order
   * @param keyProven the handshake has just used the leaf's key
   * @param revocation asked for a path other than the one that is remembered
   */
  find(
    leaf: Certificate,
    sent: readonly Certificate[],
    time: Date,
    keyProven = false,
    revocation?: RevocationCheck,
  ): PathResult {
    const known = revocation === undefined ? this.#paths.get(leaf.sha256) : undefined;
    if (known !== undefined && time >= known.window.notBefore && time <= known.window.notAfter) {
      this.#paths.delete(leaf.sha256); // least recently used is dropped first
      this.#paths.set(leaf.sha256, known);
      const { issuers, ...rest } = known;
      return { ...rest, path: [leaf, ...issuers] };
    }
    const result = validatePath({
      leaf,
      candidates: sent,
      pool: this.#pool,
      anchors: this.#anchors,
      time,
      purpose: "peer",
      keyProven,
      cache: this.#signatures,
      ...(revocation === undefined ? {} : { revocation }),
    });
    if (result.ok) {
      const { path, ...rest } = result;
      const issuers = path.slice(1);
      this.#paths.set(leaf.sha256, { ...rest, issuers });
      const oldest = this.#paths.keys().next();
      if (this.#paths.size > MAX_PATHS && !oldest.done) this.#paths.delete(oldest.value);
      this.#keep(issuers);
    }
    return result;
  }
}
