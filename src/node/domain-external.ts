import { createPrivateKey } from "node:crypto";
import { lookup } from "node:dns/promises";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { EstClient } from "../irp/est-client.ts";
import { ExternalAuthority } from "../irp/external-ca.ts";
import type { PeerAddress } from "../peertls-core/connection.ts";
import type { Credentials } from "../peertls-core/credentials.ts";
import { type HttpsClient, httpsClient } from "../peertls-core/https-client.ts";
import { fingerprintOf } from "../pki/certificate.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { CaConfig } from "./ca-config.ts";
import type { Home } from "./home.ts";
import { readCertificates } from "./trust-rules.ts";

type External = NonNullable<CaConfig["est"]>;

/** A CA that somebody else runs, as the configuration names it. @throws SuiteError config-invalid, store-failed */
export function externalAuthority(
  home: Home,
  config: External,
  clock: () => Date,
): { authority: ExternalAuthority; http: HttpsClient } {
  const url = new URL(config.url);
  const anchors = readCertificates(config.anchor).map((certificate) => ({ name: url.hostname, certificate }));
  const credentials = config.credentials && credentialsIn(config.credentials);
  const http = httpsClient({
    addresses: () => addressesOf(url, config.address),
    ...{ serverName: url.hostname, anchors: () => anchors, clock },
    credentials: () => credentials,
  });
  const path = url.pathname.replace(/\/+$/, "");
  const { login, labels } = config;
  const est = new EstClient({
    ...{ http, base: path === "" ? "/.well-known/est" : path },
    ...(login === undefined ? {} : { basic: readFileSync(login.slice("file:".length), "utf8").trim() }),
  });
  const given = Object.fromEntries(Object.entries(labels ?? {}).filter(([, label]) => label !== undefined));
  const authority = new ExternalAuthority({ est, anchors, labels: given, register: join(home.domain, "ca.db"), clock });
  return { authority, http };
}

async function addressesOf(url: URL, address: string | undefined): Promise<readonly PeerAddress[]> {
  const port = url.port === "" ? 443 : Number(url.port);
  if (address !== undefined) return [{ host: address, port }];
  try {
    return (await lookup(url.hostname, { all: true })).map((found) => ({ host: found.address, port }));
  } catch (cause) {
    throw new SuiteError("unreachable", "the CA's name has no address", { fault: "service", temporary: true, cause });
  }
}

function credentialsIn(files: { certificate: string; key: string }): Credentials {
  const [certificate, ...chain] = readCertificates(files.certificate);
  try {
    const privateKey = createPrivateKey(readFileSync(files.key, "utf8"));
    if (certificate !== undefined && certificate.fingerprint === fingerprintOf(privateKey))
      return { privateKey, certificate, chain };
    throw new Error("key and certificate are not a pair");
  } catch (cause) {
    throw new SuiteError("config-invalid", "the certificate for the other CA cannot be used", {
      ...{ fault: "local", cause },
      details: { file: files.certificate },
    });
  }
}
