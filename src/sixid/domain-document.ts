import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import { serverNameMatches, validatePath } from "../pki/path.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { CLOCK_SKEW_SECONDS, DOMAIN_LIFE_SECONDS, type DomainBody, domainBody, MAX_DOMAIN_BYTES } from "./records.ts";
import { checkSignature, leafOf, type RecordSigner, readSigned, rejected, sign } from "./signed.ts";

/** What a domain says of itself. */
export interface DomainFacts {
  readonly domain: string;
  readonly anchors: readonly Certificate[];
  readonly cas: readonly Certificate[];
  readonly crl: readonly string[];
  readonly ocsp: readonly string[];
  readonly federation: "open" | "listed" | "closed";
}

export interface DomainDocument extends DomainFacts {
  readonly expires: Date;
}

/** Signs it with the server's key. */
export function makeDomainDocument(facts: DomainFacts, signer: RecordSigner, now: Date): Promise<string> {
  const base64 = (certificate: Certificate) => Buffer.from(certificate.der).toString("base64");
  const issued = Math.floor(now.getTime() / 1000);
  const end = Math.floor(signer.certificate.validity.notAfter.getTime() / 1000);
  const body: DomainBody = {
    anchors: facts.anchors.map(base64),
    cas: facts.cas.map(base64),
    crl: [...facts.crl],
    domain: facts.domain,
    expires: Math.min(issued + DOMAIN_LIFE_SECONDS, end),
    federation: facts.federation,
    issued,
    ocsp: [...facts.ocsp],
    signer: signer.certificate.fingerprint,
    v: 1,
  };
  return sign("sixid-domain", body, signer, "x5c");
}

/**
 * Verifies that the document holds together: signed by a key that its own anchors certify for the domain. That it is the
 * domain's is known from the connection over which it came.
 * @throws SuiteError record-rejected with `step`
 */
export async function verifyDomainDocument(jws: string, domain: string, now: Date): Promise<DomainDocument> {
  const signed = readSigned(jws, "sixid-domain", MAX_DOMAIN_BYTES);
  const leaf = leafOf(signed);
  await checkSignature(signed, leaf);
  const parsed = domainBody.safeParse(signed.body);
  if (!parsed.success) throw rejected("schema", parsed.error);
  const { data: body } = parsed;
  if (body.signer !== leaf.fingerprint) throw rejected("signer");
  if (body.domain !== domain) throw rejected("domain asked for", undefined, { domain });
  const seconds = now.getTime() / 1000;
  if (body.issued > seconds + CLOCK_SKEW_SECONDS) throw rejected("issued in the future");
  if (body.expires <= seconds) throw rejected("expired");
  if (body.expires - body.issued > DOMAIN_LIFE_SECONDS) throw rejected("lifetime");
  const anchors = body.anchors.map(certificate);
  const cas = body.cas.map(certificate);
  const path = validatePath({
    leaf,
    candidates: [...signed.x5c.slice(1), ...cas],
    anchors: anchors.map((one) => ({ name: domain, certificate: one })),
    time: now,
    purpose: "server",
  });
  if (!path.ok || !serverNameMatches(leaf, domain)) throw rejected("signer path");
  const { crl, ocsp, federation, expires } = body;
  return { domain, anchors, cas, crl, ocsp, federation, expires: new Date(expires * 1000) };
}

function certificate(base64: string): Certificate {
  try {
    return parseCertificate(Buffer.from(base64, "base64"));
  } catch (cause) {
    if (cause instanceof SuiteError) throw rejected("certificate", cause);
    throw cause;
  }
}
