import type { KeyObject } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";
import type { Certificate } from "../pki/certificate.ts";
import { derToPem } from "../pki/pem.ts";

/** Own key and certificate. `chain`: the issuer first, without the root. */
export interface Credentials {
  privateKey: KeyObject;
  certificate: Certificate;
  chain: readonly Certificate[];
}

/** The suites whose refusal record we can make ourselves (alert.ts); AES-128 first: it is the faster one. */
const SUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/**
 * TLS 1.3 alone, no root list: OpenSSL's verdict about the peer's certificate is never asked for.
 * `sessionIdContext` has to be there, else every resumption ends with alert 80.
 */
export function peerSecureContext(own: Credentials): SecureContext {
  return createSecureContext({
    key: own.privateKey.export({ type: "pkcs8", format: "pem" }),
    cert: certificatesPem(own),
    ca: [],
    minVersion: "TLSv1.3",
    maxVersion: "TLSv1.3",
    ciphers: SUITES,
    ecdhCurve: "auto",
    sessionIdContext: "sixtalk-peer",
  });
}

/** The leaf and its chain, as PEM blocks in sending order. */
export function certificatesPem(own: Credentials): string {
  return [own.certificate, ...own.chain].map((one) => derToPem(one.der, "CERTIFICATE")).join("");
}
