import { isIPv4 } from "node:net";

export interface LimitOptions {
  pendingTotal: number;
  /** Room beyond `pendingTotal` for prefixes from which somebody has been admitted. */
  pendingReserved: number;
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
  pendingReserved: 64,
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
  /** The handshakes under way, oldest first, by how each is given up. */
  readonly #order = new Map<Abandon, number>();
  #pending = 0;
  #forgotAt = 0;

  constructor(options: LimitOptions) {
    this.#options = options;
  }

  /** Handshakes under way. */
  get pending(): number {
    return this.#pending;
  }

  /**
   * A flood from many prefixes fills the room with handshakes that never end; theirs go first, so that those who do
   * go on find room.
   * @param now monotonic milliseconds
   * @param abandon gives this handshake up; then `end` is called as ever
   */
  begin(host: string, now: number, abandon?: Abandon): DropReason | undefined {
    const prefix = this.#prefix(host, now);
    const rate = prefix.admitted ? this.#options.acceptsPerSecondAdmitted : this.#options.acceptsPerSecond;
    const burst = Math.max(this.#options.acceptBurst, prefix.admitted ? rate : 0);
    prefix.tokens = Math.min(burst, prefix.tokens + ((now - prefix.refilledAt) / 1000) * rate);
    prefix.refilledAt = now;
    if (prefix.tokens < 1) return "rate";
    if (prefix.pending >= this.#options.pendingPerPrefix) return "pending-prefix";
    const room = this.#options.pendingTotal + (prefix.admitted ? this.#options.pendingReserved : 0);
    if (this.#pending >= room && !this.#makeRoom(now, room)) return "pending-total";
    prefix.tokens -= 1;
    prefix.pending += 1;
    this.#pending += 1;
    if (abandon !== undefined) this.#order.set(abandon, now);
    return undefined;
  }

  /** @param abandon the one that `begin` was given */
  end(host: string, admitted: boolean, abandon?: Abandon): void {
    this.#pending -= 1;
    if (abandon !== undefined) this.#order.delete(abandon);
    const prefix = this.#prefixes.get(prefixOf(host));
    if (prefix === undefined) return;
    prefix.pending -= 1;
    prefix.admitted ||= admitted;
  }

  /** Gives up the handshake that runs longest, if that is longer than an honest one does. */
  #makeRoom(now: number, room: number): boolean {
    for (const [abandon, since] of this.#order) {
      const age = now - since;
      if (age < SILENT_MS) return false;
      if (age < HONEST_MS && !abandon.silent()) continue;
      this.#order.delete(abandon);
      abandon.now();
      return this.#pending < room;
    }
    return false;
  }

  #prefix(host: string, now: number): Prefix {
    const key = prefixOf(host);
    const known = this.#prefixes.get(key);
    if (known !== undefined) return known;
    // Not for each of a flood: while it lasts there is nobody to forget.
    if (this.#prefixes.size >= MAX_PREFIXES && now - this.#forgotAt >= FORGET_EVERY_MS) this.#forgetIdle(now);
    const fresh = { tokens: this.#options.acceptBurst, refilledAt: now, pending: 0, admitted: false };
    this.#prefixes.set(key, fresh);
    return fresh;
  }

  /** A prefix that is idle long enough to have all its tokens again is as good as unknown; not so where peers are. */
  #forgetIdle(now: number): void {
    this.#forgotAt = now;
    const fullAfter = (this.#options.acceptBurst / this.#options.acceptsPerSecond) * 1000;
    for (const [key, prefix] of this.#prefixes) {
      if (prefix.pending === 0 && now - prefix.refilledAt > (prefix.admitted ? ADMITTED_MS : fullAfter))
        this.#prefixes.delete(key);
    }
  }
}

const MAX_PREFIXES = 10_000;
const FORGET_EVERY_MS = 1_000;
const ADMITTED_MS = 86_400_000;
/** A handshake between honest ends is over by then: two round trips, also around the world. */
const HONEST_MS = 1_000;
/** Whoever connects to talk sends its ClientHello with the end of TCP's own handshake. */
const SILENT_MS = 100;

/** How a handshake under way is given up. */
export interface Abandon {
  /** Whether nothing at all was heard from there yet. */
  silent(): boolean;
  now(): void;
}
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
