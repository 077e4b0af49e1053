import { readFileSync } from "node:fs";
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";

export type Interfaces = NodeJS.Dict<NetworkInterfaceInfo[]>;

export interface LocalAddressesOptions {
  interfaces?: () => Interfaces;
  /** Of these, which nobody should be told. */
  passing?: () => ReadonlySet<string>;
  everyMs?: number;
}

const EVERY_MS = 1_000;

/** Which addresses this machine has, looked at each second: no socket tells that its own address is gone. */
export class LocalAddresses {
  readonly #interfaces: () => Interfaces;
  readonly #passingNow: () => ReadonlySet<string>;
  readonly #listeners = new Set<(lost: ReadonlySet<string>) => void>();
  readonly #timer: NodeJS.Timeout;
  #last: Interfaces = {};
  #known: ReadonlySet<string> = new Set();
  #passing: ReadonlySet<string> = new Set();

  constructor(o: LocalAddressesOptions = {}) {
    this.#interfaces = o.interfaces ?? networkInterfaces;
    this.#passingNow = o.passing ?? passingAddresses;
    this.#look();
    this.#timer = setInterval(() => this.#look(), o.everyMs ?? EVERY_MS);
    this.#timer.unref();
  }

  /** As they were last seen. */
  get interfaces(): Interfaces {
    return this.#last;
  }

  /** Addresses that will not last, as they were last seen: no new connection should be made to them. */
  get passing(): ReadonlySet<string> {
    return this.#passing;
  }

  /**
   * @param listener told when an address came or went, with those that went as `plainAddress` writes them
   * @returns ends that
   */
  onChange(listener: (lost: ReadonlySet<string>) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    let seen: Interfaces;
    try {
      seen = this.#interfaces();
    } catch {
      return; // without a free file descriptor nothing can be asked: that says nothing about addresses
    }
    const now = addressesOf(seen);
    const lost = this.#known.difference(now);
    const passing = this.#passingNow();
    const changed = lost.size > 0 || now.size > this.#known.size || passing.symmetricDifference(this.#passing).size > 0;
    this.#last = seen;
    this.#known = now;
    this.#passing = passing;
    if (changed) for (const listener of this.#listeners) listener(lost);
  }
}

/** Flags of an IPv6 address in Linux (`IFA_F_…`): temporary, failed or waiting for its uniqueness, deprecated. */
const PASSING_FLAGS = 0x01 | 0x08 | 0x20 | 0x40;

/** Which IPv6 addresses are temporary (RFC 8981), deprecated (RFC 4862) or not known to be unique yet. Only Linux tells. */
function passingAddresses(): ReadonlySet<string> {
  try {
    return readPassing(readFileSync("/proc/net/if_inet6", "latin1"));
  } catch {
    return new Set();
  }
}

/** Lines of `/proc/net/if_inet6`: address, then in hexadecimal index, prefix length, scope and flags, then the device. */
export function readPassing(table: string): ReadonlySet<string> {
  const rows = table.matchAll(/^([0-9a-f]{32}) [0-9a-f]+ [0-9a-f]+ [0-9a-f]+ ([0-9a-f]+) /gim);
  return new Set(
    [...rows]
      .filter(([, , flags = ""]) => (Number.parseInt(flags, 16) & PASSING_FLAGS) !== 0)
      .map(([, address = ""]) => new URL(`http://[${address.match(/.{4}/g)?.join(":")}]`).hostname.slice(1, -1)),
  );
}

/** One form for one address: without scope id, an IPv4-mapped one as its IPv4 address. */
export function plainAddress(host: string): string {
  const [address = ""] = host.toLowerCase().split("%");
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(address)?.[1] ?? address;
}

function addressesOf(interfaces: Interfaces): ReadonlySet<string> {
  const all = Object.values(interfaces).flatMap((list) => list ?? []);
  return new Set(all.map(({ address }) => plainAddress(address)));
}
