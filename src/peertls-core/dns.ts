import { Resolver } from "node:dns/promises";
import { SuiteError } from "../pki/suite-error.ts";

/** A record of RFC 2782. */
export interface SrvRecord {
  readonly priority: number;
  readonly weight: number;
  readonly port: number;
  /** Without a dot at its end; empty: there is no such service. */
  readonly target: string;
}

/** What is asked of the DNS. Nothing under a name is an empty answer. */
export interface Dns {
  /** Unsorted. @throws SuiteError "unreachable" (temporary) when nobody answers, or nobody can */
  services(name: string): Promise<readonly SrvRecord[]>;
  /** IPv6 addresses, then IPv4 ones. @throws as `services` */
  addresses(host: string): Promise<readonly string[]>;
}

const TRY_MS = 1_500;
const TRIES = 2;

/** @param servers as `[::1]:5353`; empty: those of this machine */
export function systemDns(servers: readonly string[] = []): Dns {
  const resolver = new Resolver({ timeout: TRY_MS, tries: TRIES });
  if (servers.length > 0) resolver.setServers(servers);
  return {
    services: async (name) => {
      const found = await answered(name, () => resolver.resolveSrv(name));
      return found.map(({ name: target, port, priority, weight }) => ({ target, port, priority, weight }));
    },
    addresses: async (host) => {
      const both = await Promise.allSettled([
        answered(host, () => resolver.resolve6(host)),
        answered(host, () => resolver.resolve4(host)),
      ]);
      const found = both.flatMap((one) => (one.status === "fulfilled" ? one.value : []));
      const [failed] = both.flatMap((one) => (one.status === "rejected" ? [one.reason as unknown] : []));
      if (found.length === 0 && failed !== undefined) throw failed;
      return found;
    },
  };
}

const NOTHING_THERE: ReadonlySet<string> = new Set(["ENODATA", "ENOTFOUND"]);

async function answered<T>(name: string, ask: () => Promise<T[]>): Promise<T[]> {
  try {
    return await ask();
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (NOTHING_THERE.has(code ?? "")) return [];
    throw new SuiteError("unreachable", "the DNS does not answer", {
      fault: "service",
      temporary: true,
      cause,
      details: { name, code: code ?? "" },
    });
  }
}
