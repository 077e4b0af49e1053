import { createHash } from "node:crypto";
import type { Certificate } from "../pki/certificate.ts";
import { type Identity, identityLocal } from "../pki/identity.ts";

/** What a zone is to tell of a domain. */
export interface ZoneFacts {
  readonly domain: string;
  /** The name and the ports of its server. */
  readonly host: string;
  readonly sixidPort: number;
  readonly irpPort: number;
  /** IP addresses of the host, if they are to stand in the zone, too. */
  readonly addresses: readonly string[];
  readonly root: Certificate;
  /** Of those whose certificates everybody may see: to seal to, newest first. */
  readonly people: readonly { readonly identity: Identity; readonly encryption: readonly Certificate[] }[];
}

/** Longest piece of hexadecimal digits on a line. */
const LINE = 64;

/**
 * The records by which others find a domain's servers (SRV, RFC 2782), hold the server's certificate against the domain's CA (TLSA
 * 2 1 1, RFC 6698) and seal to its people (SMIMEA 3 0 0, RFC 8162), as they stand in a zone file (RFC 1035 §5).
 */
export function zoneText({ domain, host, sixidPort, irpPort, addresses, root, people }: ZoneFacts): string {
  const name = (text: string) => `${text}.`;
  const lines = [
    `; The directory and the CA of ${domain}. SMIMEA and TLSA count only in a zone that is signed (DNSSEC).`,
    `$ORIGIN ${name(domain)}`,
    `_sixid._tcp IN SRV 10 10 ${sixidPort} ${name(host)}`,
    `_irp._tcp IN SRV 10 10 ${irpPort} ${name(host)}`,
    ...addresses.map((address) => `${name(host)} IN ${address.includes(":") ? "AAAA" : "A"} ${address}`),
    `${name(`_${sixidPort}._tcp.${host}`)} IN TLSA 2 1 1 ${root.fingerprint}`,
  ];
  for (const { identity, encryption } of people) {
    for (const certificate of encryption) {
      const hex =
        Buffer.from(certificate.der)
          .toString("hex")
          .match(new RegExp(`.{1,${LINE}}`, "g")) ?? [];
      lines.push(`; ${identity}`, `${smimeaLabel(identity)}._smimecert IN SMIMEA 3 0 0 (`);
      lines.push(...hex.map((piece) => `  ${piece}`), ")");
    }
  }
  return `${lines.join("\n")}\n`;
}

/** The left-most label of a person's SMIMEA records (RFC 8162 §3): 28 octets of SHA-256 over what stands before the @. */
export function smimeaLabel(identity: Identity): string {
  return createHash("sha256").update(identityLocal(identity), "utf8").digest("hex").slice(0, 56);
}
