import { type Identity, parseIdentity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { DomainServer, initDomain, invite } from "./domain.ts";
import { enrol } from "./enrol.ts";
import { freePort } from "./free-port.ts";
import type { Home } from "./home.ts";
import { makeHome } from "./home.ts";
import { parseInvitation } from "./invitation.ts";
import { anyAddress, newPeerConfig, writeConfig } from "./new-config.ts";
import { deviceLabel } from "./own-record.ts";

/** For homes, and never on the Internet (RFC 8375). */
export const HOME_DOMAIN = "home.arpa";

const ENROL_MS = 60_000;

/**
 * A home that needs nobody else: a domain of its own with directory and CA, and the person enrolled in it. The
 * configuration is written last: cut off anywhere before, the next start goes on.
 */
export async function firstRun(o: { home: Home; login: string; clock: () => Date; log: Log }): Promise<Identity> {
  const { home, clock, log } = o;
  makeHome(home);
  initDomain(home, HOME_DOMAIN, clock());
  const host = await anyAddress();
  const loopback = host === "::" ? "::1" : "127.0.0.1";
  const domain = {
    name: HOME_DOMAIN,
    host,
    sixidPort: await freePort(host, 4606),
    irpPort: await freePort(host, 4604),
    domains: [],
  };
  const name = loginName(o.login);
  const server = await DomainServer.start({ home, config: domain, log, clock });
  try {
    const { link, identity } = await invite({ home, config: domain, log, clock }, name, undefined, {
      host: loopback,
      port: domain.irpPort,
    });
    const { root } = await enrol(
      { home, invitation: parseInvitation(link), name, label: deviceLabel(), clock, log },
      AbortSignal.timeout(ENROL_MS),
    );
    const directory = { host: loopback, port: domain.sixidPort, irpPort: domain.irpPort };
    const peer = await newPeerConfig(home, { identity, name, directory, root, nonGlobal: true });
    writeConfig(home, { domain, peer });
    return identity;
  } finally {
    await server.stop();
  }
}

/** The login as the local part of an identity; "owner" if it cannot be one. */
function loginName(login: string): string {
  const name = login.toLowerCase();
  try {
    parseIdentity(`${name}@${HOME_DOMAIN}`);
    return name;
  } catch {
    return "owner";
  }
}
