import { createPublicKey, type KeyObject, randomBytes } from "node:crypto";
import { parseCertificate } from "../../src/pki/certificate.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { type Issuer, issueCertificate } from "../../src/pki/issue.ts";
import { extendedKeyUsage } from "../../src/pki/oid.ts";
import { issueAuth, issueIssuingCa } from "../../src/pki/profile.ts";
import { authTemplate, makeEcKey, makeTestDomain, type TestCredentials } from "../support/pki.ts";

export const alpha = makeTestDomain({ domain: "alpha.test" });

const spkiOf = (key: KeyObject) => createPublicKey(key).export({ type: "spki", format: "der" });

export type Peculiarity =
  /** Names a revocation list, or a responder, at `url`. */
  "crl" | "ocsp" | "purpose" | "signature" | "path-length" | "name-constraints" | "not-a-ca";

/** Alice's certificate by alpha's CA, with something about it. */
export function credentials(about: Peculiarity, url = ""): TestCredentials {
  const privateKey = makeEcKey();
  const spki = spkiOf(privateKey);
  const identity = parseIdentity(about === "name-constraints" ? "alice@beta.test" : "alice@alpha.test");
  const person = (issuer: Issuer, more: { crlUrl?: string; ocspUrl?: string } = {}) =>
    issueAuth({ issuer, spki, identity, name: "Alice", now: new Date(), serial: randomBytes(16), ...more });
  const made = (der: Uint8Array, chain: TestCredentials["chain"] = [alpha.issuing.certificate]) => ({
    privateKey,
    certificate: parseCertificate(der),
    chain,
  });
  switch (about) {
    case "crl":
      return made(person(alpha.issuing, { crlUrl: url }));
    case "ocsp":
      return made(person(alpha.issuing, { ocspUrl: url }));
    case "purpose": {
      const template = authTemplate(identity, new Date(), alpha.issuing, privateKey);
      const odd = { ...template, extendedKeyUsage: [extendedKeyUsage.codeSigning] };
      return made(issueCertificate(odd, alpha.issuing.privateKey));
    }
    case "signature": {
      const der = Buffer.from(person(alpha.issuing));
      der[der.length - 1] = (der.at(-1) ?? 0) ^ 1;
      return made(der);
    }
    case "path-length": {
      const second = subordinate(alpha.issuing);
      return made(person(second), [second.certificate, alpha.issuing.certificate]);
    }
    case "name-constraints":
      return made(person(alpha.issuing));
    case "not-a-ca": {
      const { auth } = alpha.person({ identity: "mallory@alpha.test" });
      return made(person(auth), [auth.certificate, alpha.issuing.certificate]);
    }
  }
}

/** A CA below one whose path length is 0; of another name, for one of the same would not count (RFC 5280 §6.1.4 (l)). */
function subordinate(issuer: Issuer): Issuer {
  const privateKey = makeEcKey();
  const der = issueIssuingCa({
    domain: "sub.alpha.test",
    issuer,
    spki: spkiOf(privateKey),
    now: new Date(),
    serial: randomBytes(16),
  });
  return { certificate: parseCertificate(der), privateKey };
}
