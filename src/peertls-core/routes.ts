import { BlockList, isIPv4, isIPv6 } from "node:net";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerAddress } from "./connection.ts";

/** A way to a device. Later also punched and relayed ones. */
export interface Route {
  kind: "direct";
  address: PeerAddress;
}

const MAX_ROUTES = 16;

/** The order in which routes are tried: global IPv6, other IPv6, IPv4; within each the record's own order. At most 16. */
export function orderRoutes(routes: readonly Route[]): Route[] {
  const rank = ({ address }: Route) => (isIPv6(address.host) ? (isGlobal(address.host) ? 0 : 1) : 2);
  return routes
    .filter(
      ({ address }) => (isIPv4(address.host) || isIPv6(address.host)) && address.port > 0 && address.port < 65_536,
    )
    .sort((a, b) => rank(a) - rank(b))
    .slice(0, MAX_ROUTES);
}

/** "10.0.0.0/8": an address and how many of its bits count. @throws SuiteError config-invalid */
export function parseRange(text: string): readonly [string, number] {
  const [net = "", bits = "", ...more] = text.split("/");
  const most = isIPv4(net) ? 32 : isIPv6(net) ? 128 : -1;
  if (more.length === 0 && /^\d{1,3}$/.test(bits) && Number(bits) <= most) return [net, Number(bits)];
  throw new SuiteError("config-invalid", "no range of addresses", { fault: "local", details: { range: text } });
}

/**
 * Which addresses of records may be dialled: global ones, and those of the ranges. A stranger's record names what it likes,
 * also a machine behind our own firewall.
 */
export function mayDial(ranges: readonly string[]): (host: string) => boolean {
  const parsed = ranges.map(parseRange);
  const ipv4 = blockList(
    parsed.filter(([net]) => isIPv4(net)),
    "ipv4",
  );
  const ipv6 = blockList(
    parsed.filter(([net]) => isIPv6(net)),
    "ipv6",
  );
  return (host) => isGlobal(host) || (isIPv4(host) ? ipv4.check(host, "ipv4") : ipv6.check(host, "ipv6"));
}

/** Whether the whole Internet may know an address as this one: neither private nor link-local nor documentation etc. */
export function isGlobal(host: string): boolean {
  if (isIPv4(host)) return !NOT_GLOBAL.check(host, "ipv4");
  if (isIPv6(host)) return GLOBAL_UNICAST.check(host, "ipv6") && !NOT_GLOBAL.check(host, "ipv6");
  return false;
}

const GLOBAL_UNICAST = blockList([["2000::", 3]], "ipv6");
/** IANA's special-purpose registries (RFC 6890), as far as they lie in what could be global. */
const NOT_GLOBAL = blockList(
  [
    ["0.0.0.0", 8],
    ["10.0.0.0", 8],
    ["100.64.0.0", 10],
    ["127.0.0.0", 8],
    ["169.254.0.0", 16],
    ["172.16.0.0", 12],
    ["192.0.0.0", 24],
    ["192.0.2.0", 24],
    ["192.168.0.0", 16],
    ["198.18.0.0", 15],
    ["198.51.100.0", 24],
    ["203.0.113.0", 24],
    ["224.0.0.0", 3],
  ],
  "ipv4",
);
for (const [net, bits] of [
  ["2001:db8::", 32],
  ["2001::", 23],
  ["2002::", 16],
  ["3fff::", 20],
] as const) {
  NOT_GLOBAL.addSubnet(net, bits, "ipv6");
}

function blockList(nets: readonly (readonly [string, number])[], family: "ipv4" | "ipv6"): BlockList {
  const list = new BlockList();
  for (const [net, bits] of nets) list.addSubnet(net, bits, family);
  return list;
}
