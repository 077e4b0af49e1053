import type { PlainAnswer, PlainRequest } from "../peertls-core/plain-http.ts";
import type { Authority } from "./authority.ts";
import { crlPath } from "./ca.ts";

export interface StatusHttpOptions {
  authority: Authority;
  /** Why nothing can be issued now; undefined: all is well. */
  fault: () => string | undefined;
  clock: () => Date;
}

/**
 * Lists at `/crl/….crl`, the one in force also at `/ca.crl`; the issuing certificate at `/ca.cer`; OCSP at `/ocsp` by POST and
 * GET (RFC 6960 appendix A); `/healthz` and `/readyz`. Everything is signed in itself, hence plain HTTP.
 */
export function answerStatus(request: PlainRequest, o: StatusHttpOptions): PlainAnswer | undefined {
  const { method, path } = request;
  if (path === "/ocsp" && method === "POST") return ocsp(request.body, o);
  if (method !== "GET") return undefined;
  if (path.startsWith("/ocsp/")) return ocsp(ocspOf(path.slice("/ocsp/".length)), o);
  const [issuing] = o.authority.chain;
  if (path === "/healthz") return text(200, "ok\n");
  if (path === "/readyz") {
    const fault = o.fault();
    return fault === undefined ? text(200, "ok\n") : text(503, `${fault}\n`);
  }
  if (path === "/ca.cer" && issuing !== undefined)
    return { status: 200, type: "application/pkix-cert", body: issuing.der, maxAge: 86_400 };
  const issuer = path === "/ca.crl" ? issuing : o.authority.chain.find((one) => crlPath(one) === path);
  const list = issuer && o.authority.crl(issuer.fingerprint);
  if (list === undefined) return undefined;
  // Not longer than until it is signed again: whoever fetches it then gets what is new.
  return { status: 200, type: "application/pkix-crl", body: list.der, maxAge: 600 };
}

function ocsp(request: Buffer | undefined, { authority }: StatusHttpOptions): PlainAnswer {
  const { der, maxAge } = authority.ocsp(request ?? Buffer.alloc(0));
  return { status: 200, type: "application/ocsp-response", body: der, ...(maxAge === undefined ? {} : { maxAge }) };
}

/** Base64, then percent-encoded; some leave "/" and "+" as they are. */
function ocspOf(path: string): Buffer | undefined {
  try {
    return Buffer.from(decodeURIComponent(path).replaceAll(" ", "+"), "base64");
  } catch {
    return undefined;
  }
}

function text(status: number, body: string): PlainAnswer {
  return { status, type: "text/plain; charset=utf-8", body };
}
