import { getCACertificates } from "node:tls";
import { parseCertificate } from "../pki/certificate.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { pemToDer } from "../pki/pem.ts";

/** The CAs that servers of the web are certified by: those of Node, and of NODE_EXTRA_CA_CERTS. Ones that are not understood are left out. */
export function webAnchors(): readonly TrustAnchor[] {
  return getCACertificates("default").flatMap((pem) => {
    try {
      const [der] = pemToDer(pem, "CERTIFICATE");
      return der === undefined ? [] : [{ name: "web", certificate: parseCertificate(der) }];
    } catch {
      return [];
    }
  });
}
