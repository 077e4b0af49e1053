import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Credentials } from "../peertls-core/credentials.ts";
import { systemDns } from "../peertls-core/dns.ts";
import { httpsClient } from "../peertls-core/https-client.ts";
import { isGlobal } from "../peertls-core/routes.ts";
import { webAnchors } from "../peertls-core/web-anchors.ts";
import type { Certificate } from "../pki/certificate.ts";
import type { Log } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { makeDomainDocument } from "../sixid/domain-document.ts";
import { Locator } from "../sixid/locate.ts";
import { type ConfiguredDomain, Federation } from "../sixid/server/federation.ts";
import type { DomainConfig } from "./config.ts";
import { readCertificates } from "./trust-rules.ts";

export interface DomainFederationOptions {
  config: DomainConfig;
  /** Whom to ask for other domains; empty: this machine's. */
  dnsServers: readonly string[];
  configured: () => readonly ConfiguredDomain[];
  /** The server's own, its chain up to the root, which comes last. */
  credentials: () => Credentials;
  clock: () => Date;
  log: Log;
}

/** How a domain's server finds the others. */
export function domainFederation(o: DomainFederationOptions): Federation {
  const { config, dnsServers, clock, log } = o;
  const { mode = "open", allowNonGlobal = false } = config.federation ?? {};
  return new Federation({
    domain: config.name,
    mode,
    configured: () => (mode === "closed" ? [] : o.configured()),
    locator: new Locator({ dns: systemDns(dnsServers), clock, random: Math.random }),
    webAnchors,
    mayAsk: (host) => allowNonGlobal || isGlobal(host),
    connect: ({ domain, addresses, anchors }) =>
      httpsClient({ addresses, serverName: domain, anchors, credentials: () => withoutRoot(o.credentials()), clock }),
    clock,
    log,
  });
}

/**
 * What the domain says of itself to others, signed by its server.
 * @param o.anchors where the paths of its people and of its server end
 */
export function domainDocument(
  config: DomainConfig,
  o: { credentials: Credentials; anchors: readonly Certificate[]; now: Date },
): Promise<string> {
  const signer = withoutRoot(o.credentials);
  const url = config.status?.url;
  const facts = {
    domain: config.name,
    anchors: o.anchors,
    cas: signer.chain,
    crl: url === undefined ? [] : [`${url}/crl`],
    ocsp: url === undefined ? [] : [`${url}/ocsp`],
    federation: config.federation?.mode ?? "open",
  };
  return makeDomainDocument(facts, signer, o.now);
}

/** What the server shows to those who go by the web's CAs. @throws SuiteError config-invalid */
export function webCredentials(config: DomainConfig): Credentials | undefined {
  const files = config.federation?.serverCertificate;
  if (files === undefined) return undefined;
  const [certificate, ...chain] = readCertificates(files.certificate);
  try {
    return { certificate: certificate as Certificate, chain, privateKey: createPrivateKey(readFileSync(files.key)) };
  } catch (cause) {
    throw new SuiteError("config-invalid", "the key of the server certificate cannot be read", {
      fault: "local",
      cause,
      details: { key: files.key },
    });
  }
}

function withoutRoot({ chain, ...rest }: Credentials): Credentials {
  return { ...rest, chain: chain.slice(0, -1) };
}
