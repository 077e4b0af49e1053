import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";

export type Interfaces = NodeJS.Dict<NetworkInterfaceInfo[]>;

export interface LocalAddressesOptions {
  interfaces?: () => Interfaces;
  everyMs?: number;
}

const EVERY_MS = 1_000;

/** Which addresses this machine has, looked at each second: no socket tells that its own address is gone. */
export class LocalAddresses {
  readonly #interfaces: () => Interfaces;
  readonly #listeners = new Set<(lost: ReadonlySet<string>) => void>();
  readonly #timer: NodeJS.Timeout;
  #last: Interfaces = {};
  #known: ReadonlySet<string> = new Set();

  constructor(o: LocalAddressesOptions = {}) {
    this.#interfaces = o.interfaces ?? networkInterfaces;
    this.#look();
    this.#timer = setInterval(() => this.#look(), o.everyMs ?? EVERY_MS);
    this.#timer.unref();
  }

  /** As they were last seen. */
  get interfaces(): Interfaces {
    return this.#last;
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
    const changed = lost.size > 0 || now.size > this.#known.size;
    this.#last = seen;
    this.#known = now;
    if (changed) for (const listener of this.#listeners) listener(lost);
  }
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
