import type { Certificate } from "../pki/certificate.ts";
import type { ParsedCsr } from "../pki/csr.ts";
import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { CertificateKind } from "./messages.ts";
import type { Register, Registered } from "./register.ts";

/** A certificate that is wanted, for whom the service core says. */
export interface IssueRequest {
  identity: Identity;
  name: string;
  kind: CertificateKind;
  csr: ParsedCsr;
  /** SHA-256 of the request. */
  csrHash: string;
  label?: string;
  /** How the asker proved who he is. */
  by: string;
}

const DAY_MS = 86_400_000;
const MAX_DEVICES = 16;
const MAX_A_DAY = 20;
/** Clocks of machines that share a register differ. */
const CLOCK_MS = 300_000;

/**
 * Whether a certificate may be issued (irp.md §2.4): kind of key, the issuer's own validity, the clock; key not another
 * identity's, not revoked, not of the other kind; 16 devices, 20 certificates a day.
 * @returns what the same request got within 24 h: that is given again
 * @throws SuiteError syntax (`weak-key`), conflict (`key-in-use`), limit-exceeded (`policy`)
 */
export function checkRequest(
  register: Register,
  request: IssueRequest,
  issuer: Certificate | undefined,
  now: Date,
): Registered | undefined {
  const { csr, csrHash, kind, identity } = request;
  checkKey(csr, kind);
  const same = register.sameRequest(csrHash, identity, kind, new Date(now.getTime() - DAY_MS));
  if (same !== undefined) return same;
  if (issuer !== undefined && (now < issuer.validity.notBefore || now > issuer.validity.notAfter))
    throw policy("the issuing CA is not valid now");
  const last = register.lastIssued();
  if (last !== undefined && now.getTime() < last.getTime() - CLOCK_MS)
    throw policy("the clock says an earlier time than the last certificate");
  const foreign = (use: { identity: Identity; kind: CertificateKind; revoked: boolean }) =>
    use.identity !== identity || use.kind !== kind || use.revoked;
  if (register.usesOf(csr.fingerprint).some(foreign))
    throw new SuiteError("conflict", "this key is in use already", { fault: "peer", details: { code: "key-in-use" } });
  if (register.issuedSince(identity, new Date(now.getTime() - DAY_MS)) >= MAX_A_DAY)
    throw policy("too many certificates today");
  if (kind === "auth" && register.otherDevices(identity, csr.fingerprint, now) >= MAX_DEVICES)
    throw policy("too many devices");
  return undefined;
}

export function policy(why: string): SuiteError {
  return new SuiteError("limit-exceeded", "the CA's rules do not allow it", {
    fault: "peer",
    details: { code: "policy", why },
  });
}

/** AUTH: P-256, P-384 or Ed25519; ENCRYPTION: RSA 3072–4096 or P-256. */
function checkKey({ publicKey }: ParsedCsr, kind: CertificateKind): void {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = publicKey;
  const curve = details?.namedCurve;
  const bits = details?.modulusLength ?? 0;
  const good =
    kind === "auth"
      ? type === "ed25519" || (type === "ec" && (curve === "prime256v1" || curve === "secp384r1"))
      : (type === "rsa" && bits >= 3072 && bits <= 4096) || (type === "ec" && curve === "prime256v1");
  if (!good)
    throw new SuiteError("syntax", "this kind of key is not certified", {
      fault: "peer",
      details: { code: "weak-key" },
    });
}
