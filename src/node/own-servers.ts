import type { PeerAddress } from "../peertls-core/connection.ts";
import { systemDns } from "../peertls-core/dns.ts";
import { identityDomain, parseIdentity } from "../pki/identity.ts";
import { Locator } from "../sixid/locate.ts";
import type { PeerConfig } from "./config.ts";
import type { Invitation } from "./invitation.ts";

/** Where the servers of the own domain are: as the configuration says, or as the DNS tells each time it is asked. */
export interface OwnServers {
  /** Finds those of any domain. */
  readonly locator: Locator;
  sixid(): Promise<readonly PeerAddress[]>;
  irp(): Promise<readonly PeerAddress[]>;
}

/** @param dnsServers whom to ask; empty: this machine's */
export function ownServers(peer: PeerConfig, dnsServers: readonly string[], clock: () => Date): OwnServers {
  const { host, port, irpPort } = peer.directory;
  const at = host === undefined ? undefined : { irp: { host, port: irpPort }, sixidPort: port };
  return serversOf(identityDomain(parseIdentity(peer.identity)), at, dnsServers, clock);
}

/** The same from an invitation. */
export function serversOf(
  domain: string,
  at: Invitation["at"],
  dnsServers: readonly string[],
  clock: () => Date,
): OwnServers {
  const locator = new Locator({ dns: systemDns(dnsServers), clock, random: Math.random });
  if (at === undefined)
    return { locator, sixid: () => locator.servers("sixid", domain), irp: () => locator.servers("irp", domain) };
  const { irp, sixidPort } = at;
  return { locator, sixid: async () => [{ host: irp.host, port: sixidPort }], irp: async () => [irp] };
}
