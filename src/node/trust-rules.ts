import { readFileSync } from "node:fs";
import type { PolicyAnchor, TrustRules } from "../peertls-core/policy.ts";
import type { TrustConfig } from "../peertls-core/policy-schema.ts";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import { pemToDer } from "../pki/pem.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { State } from "./state.ts";

const ALL_SOURCES = ["rfc822Name", "smtpUtf8", "emailAddress", "uid", "sipUri"] as const;

/** The rules in force: the file's and the owner's commands' entries, himself (other devices, mail to oneself), and an anchor for each domain that the directory knows. */
export function trustRules(
  owner: Identity,
  config: TrustConfig,
  state: State,
  fileAnchors: readonly PolicyAnchor[],
  domainAnchors: readonly PolicyAnchor[],
): TrustRules {
  return {
    anchors: [...fileAnchors, ...domainAnchors],
    block: [...config.block, ...state.trustEntries("block")],
    allow: [...config.allow, ...state.trustEntries("allow")],
    rules: [...config.rules, ...state.trustEntries("rules")],
    otherwise: config.otherwise,
    contacts: [owner, ...state.contacts().map((contact) => contact.identity)],
    requestsOnPort: config.requests.port,
  };
}

/** @throws SuiteError config-invalid for a file that holds no certificate */
export function readFileAnchors(config: TrustConfig): PolicyAnchor[] {
  return config.anchors.flatMap(({ name, file, domains, organisations, identitiesFrom, revocation }) =>
    readCertificates(file).map((certificate) => ({
      name,
      certificate,
      domains,
      organisations,
      identitiesFrom,
      revocation,
    })),
  );
}

/** An anchor that the directory tells for a domain vouches for that domain alone. */
export function domainAnchor(domain: string, certificate: Certificate): PolicyAnchor {
  return { name: `sixid:${domain}`, certificate, domains: [domain], organisations: [], identitiesFrom: ALL_SOURCES };
}

/** @throws SuiteError config-invalid */
export function readCertificates(file: string): Certificate[] {
  try {
    const certificates = pemToDer(readFileSync(file, "utf8"), "CERTIFICATE").map((der) => parseCertificate(der));
    if (certificates.length > 0) return certificates;
  } catch (cause) {
    throw new SuiteError("config-invalid", "a certificate file cannot be read", {
      fault: "local",
      cause,
      details: { file },
    });
  }
  throw new SuiteError("config-invalid", "a certificate file holds no certificate", {
    fault: "local",
    details: { file },
  });
}
