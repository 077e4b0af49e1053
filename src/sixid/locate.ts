import type { PeerAddress } from "../peertls-core/connection.ts";
import type { Dns, SrvRecord } from "../peertls-core/dns.ts";
import { SuiteError } from "../pki/suite-error.ts";

export interface LocatorOptions {
  dns: Dns;
  clock: () => Date;
  /** From 0 up to, not including, 1. */
  random: () => number;
}

/** What a domain's server is asked for. */
export type Service = "sixid" | "irp";

const KEPT_MS = 60_000;
const NOTHING_KEPT_MS = 30_000;
const MAX_KEPT = 10_000;
/** Servers of one service that are tried; a domain that names more has a mistake, or an intention. */
const MAX_TARGETS = 8;
const MAX_ADDRESSES = 16;

interface Kept {
  until: number;
  /** Undefined: the domain has no such service. */
  records: readonly SrvRecord[] | undefined;
}

/** Finds the servers of a domain by `_sixid._tcp` and `_irp._tcp` (RFC 2782). Never by the domain's own addresses. */
export class Locator {
  readonly #o: LocatorOptions;
  readonly #kept = new Map<string, Kept>();

  constructor(options: LocatorOptions) {
    this.#o = options;
  }

  /**
   * Where the service may be reached, in the order to be tried: drawn anew each time among those of equal priority.
   * @throws SuiteError unknown-recipient (the domain has none), directory-unavailable (nobody knows now)
   */
  async servers(service: Service, domain: string): Promise<readonly PeerAddress[]> {
    const records = await this.#records(`_${service}._tcp.${domain}`);
    if (records === undefined) {
      throw new SuiteError("unknown-recipient", "the domain has no directory", { fault: "peer", details: { domain } });
    }
    const ordered = selectionOrder(records, this.#o.random).slice(0, MAX_TARGETS);
    // One target without an address, or whose address nobody knows now, is as good as one that is down.
    const found = await Promise.allSettled(ordered.map(({ target }) => this.#o.dns.addresses(target)));
    const reached = found.flatMap((one, at) => {
      const port = ordered[at]?.port ?? 0;
      return one.status === "fulfilled" ? one.value.map((host) => ({ host, port })) : [];
    });
    if (reached.length === 0) throw unavailable(domain, "no server of the domain has an address");
    return reached.slice(0, MAX_ADDRESSES);
  }

  async #records(name: string): Promise<readonly SrvRecord[] | undefined> {
    const now = this.#o.clock().getTime();
    const known = this.#kept.get(name);
    if (known !== undefined && known.until > now) return known.records;
    let answer: readonly SrvRecord[];
    try {
      answer = await this.#o.dns.services(name);
    } catch (cause) {
      throw unavailable(name, "the DNS does not answer", cause);
    }
    const records = answer.some(({ target }) => target !== "")
      ? answer.filter(({ target }) => target !== "")
      : undefined;
    this.#kept.delete(name);
    this.#kept.set(name, { records, until: now + (records === undefined ? NOTHING_KEPT_MS : KEPT_MS) });
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > MAX_KEPT && oldest !== undefined) this.#kept.delete(oldest);
    return records;
  }
}

/**
 * The server name (SNI) by which a directory's server is asked for the certificate of its domain's own CA, which those who
 * enrolled have pinned. By the domain's name it shows a certificate of the web's CAs, if it has one.
 */
export function pinnedName(domain: string): string {
  return `pinned.${domain}`;
}

/** The order in which a client tries servers (RFC 2782, "Usage rules"): by priority, then drawn by weight. */
export function selectionOrder(records: readonly SrvRecord[], random: () => number): SrvRecord[] {
  // Those of weight 0 first, so that they have a small chance.
  const left = records.toSorted((a, b) => a.priority - b.priority || a.weight - b.weight);
  const order: SrvRecord[] = [];
  while (left.length > 0) {
    const alike = left.filter(({ priority }) => priority === left[0]?.priority);
    const sum = alike.reduce((total, { weight }) => total + weight, 0);
    const drawn = Math.floor(random() * (sum + 1));
    let running = 0;
    const index = alike.findIndex(({ weight }) => {
      running += weight;
      return running >= drawn;
    });
    order.push(...left.splice(index, 1));
  }
  return order;
}

function unavailable(domain: string, message: string, cause?: unknown): SuiteError {
  return new SuiteError("directory-unavailable", message, {
    fault: "service",
    temporary: true,
    details: { domain },
    ...(cause === undefined ? {} : { cause }),
  });
}
