import { networkInterfaces } from "node:os";
import { plainAddress } from "../peertls-core/interfaces.ts";
import { isGlobal } from "../peertls-core/routes.ts";
import type { DeviceAddress } from "../sixid/directory.ts";
import type { PeerConfig } from "./config.ts";

/**
 * Where this node can be dialled now, best first: what the configuration names, else this machine's own addresses.
 * Never what a server saw: that may be a temporary address.
 * @param passing addresses that will not last
 */
export function ownAddresses(
  config: PeerConfig,
  port: number,
  interfaces = networkInterfaces(),
  passing: ReadonlySet<string> = new Set(),
): DeviceAddress[] {
  const { addresses, allowNonGlobal } = config.announce;
  const listening = config.listen.host;
  const usable = Object.values(interfaces)
    .flatMap((list) => list ?? [])
    .filter((one) => one.scopeid === undefined || one.scopeid === 0) // link-local ones mean nothing elsewhere
    .filter((one) => !passing.has(plainAddress(one.address)));
  const outside = usable.filter((one) => !one.internal);
  const own = (outside.length > 0 ? outside : usable).map((one) => one.address);
  const bound = listening === "::" || listening === "0.0.0.0" ? own : [listening];
  const hosts = (addresses.length > 0 ? addresses : bound).filter((host) => allowNonGlobal || isGlobal(host));
  const best = (host: string) => (isGlobal(host) ? 0 : 2) + (host.includes(":") ? 0 : 1);
  return [...new Set(hosts)]
    .sort((a, b) => best(a) - best(b))
    .slice(0, MAX_ADDRESSES)
    .map((host, index) => ({ host, port, kind: "direct", priority: (index + 1) * 10 }));
}

/** This machine's global addresses, IPv6 first. */
export function globalAddresses(interfaces = networkInterfaces()): string[] {
  return Object.values(interfaces)
    .flatMap((list) => list ?? [])
    .map(({ address }) => address)
    .filter((address) => isGlobal(address))
    .sort((a, b) => Number(b.includes(":")) - Number(a.includes(":")));
}

const MAX_ADDRESSES = 16;
