import type { Certificate } from "../pki/certificate.ts";
import type { TrustAnchor } from "../pki/path.ts";

/** The roots of a domain as anchors for its people. */
export function anchorsOf(domain: string, roots: readonly Certificate[]): TrustAnchor[] {
  return roots.map((certificate) => ({ name: domain, certificate }));
}
