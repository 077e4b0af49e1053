import { isIPv4 } from "node:net";

export interface LimitOptions {
  pendingTotal: number;
  pendingPerPrefix: number;
  /** Connections a second and prefix, and how many may come at once. */
  acceptsPerSecond: number;
  acceptBurst: number;
  /** The rate for a prefix from which somebody has been admitted: FTPS opens a data connection per file. */
  acceptsPerSecondAdmitted: number;
  connectionsPerKey: number;
  dataChannelsPerKey: number;
  handshakeSeconds: number;
}

export const DEFAULT_LIMITS: LimitOptions = {
  pendingTotal: 256,
  pendingPerPrefix: 16,
  acceptsPerSecond: 10,
  acceptBurst: 40,
  acceptsPerSecondAdmitted: 500,
  connectionsPerKey: 16,
  dataChannelsPerKey: 8,
  handshakeSeconds: 10,
};

export type DropReason = "rate" | "pending-total" | "pending-prefix";

interface Prefix {
  tokens: number;
  refilledAt: number;
  pending: number;
  admitted: boolean;
}

/** Who may begin a handshake: decided before any TLS work, per /64 of IPv6 and per address of IPv4. */
export class HandshakeLimits {
  readonly #options: LimitOptions;
  readonly #prefixes = new Map<string, Prefix>();
  #pending = 0;

  constructor(options: LimitOptions) {
    this.#options = options;
  }

  /** Handshakes under way. */
  get pending(): number {
    return this.#pending;
  }

  /** @param now monotonic milliseconds */
  begin(host: string, now: number): DropReason | undefined {
    const prefix = this.#prefix(host, now);
    const rate = prefix.admitted ? this.#options.acceptsPerSecondAdmitted : this.#options.acceptsPerSecond;
    const burst = Math.max(this.#options.acceptBurst, prefix.admitted ? rate : 0);
    prefix.tokens = Math.min(burst, prefix.tokens + ((now - prefix.refilledAt) / 1000) * rate);
    prefix.refilledAt = now;
    if (prefix.tokens < 1) return "rate";
    if (this.#pending >= this.#options.pendingTotal) return "pending-total";
    if (prefix.pending >= this.#options.pendingPerPrefix) return "pending-prefix";
    prefix.tokens -= 1;
    prefix.pending += 1;
    this.#pending += 1;
    return undefined;
  }

  end(host: string, admitted: boolean): void {
    this.#pending -= 1;
    const prefix = this.#prefixes.get(prefixOf(host));
    if (prefix === undefined) return;
    prefix.pending -= 1;
    prefix.admitted ||= admitted;
  }

  #prefix(host: string, now: number): Prefix {
    const key = prefixOf(host);
    const known = this.#prefixes.get(key);
    if (known !== undefined) return known;
    if (this.#prefixes.size >= MAX_PREFIXES) this.#forgetIdle(now);
    const fresh = { tokens: this.#options.acceptBurst, refilledAt: now, pending: 0, admitted: false };
    this.#prefixes.set(key, fresh);
    return fresh;
  }

  /** A prefix that is idle long enough to have all its tokens again is as good as unknown. */
  #forgetIdle(now: number): void {
    const fullAfter = (this.#options.acceptBurst / this.#options.acceptsPerSecond) * 1000;
    for (const [key, prefix] of this.#prefixes) {
      if (prefix.pending === 0 && now - prefix.refilledAt > fullAfter) this.#prefixes.delete(key);
    }
  }
}

const MAX_PREFIXES = 10_000;

/** The part of an address that one customer of a network holds: an IPv4 address, the first 64 bits of an IPv6 one. */
export function prefixOf(host: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(host)?.[1];
  if (mapped !== undefined) return mapped;
  if (isIPv4(host)) return host;
  const [head = "", tail = ""] = (host.split("%")[0] ?? "").split("::");
  const front = head === "" ? [] : head.split(":");
  const back = tail === "" ? [] : tail.split(":");
  const groups = host.includes("::")
    ? [...front, ...Array(Math.max(0, 8 - front.length - back.length)).fill("0"), ...back]
    : front;
  return groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group || "0", 16).toString(16))
    .join(":");
}
