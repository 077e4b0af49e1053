import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse as parseYaml, stringify } from "yaml";
import { configSchema } from "../../src/node/config.ts";
import { DomainServer, initDomain, invite } from "../../src/node/domain.ts";
import { enrol } from "../../src/node/enrol.ts";
import { type Home, homeAt, makeHome } from "../../src/node/home.ts";
import { parseInvitation } from "../../src/node/invitation.ts";
import { PeerNode } from "../../src/node/node.ts";
import type { Certificate } from "../../src/pki/certificate.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";

const clock = () => new Date();

export interface RunningDomain {
  name: string;
  home: Home;
  server: DomainServer;
  root: Certificate;
}

/** A real domain server on ports that the system chooses. */
export async function startDomain(folder: string, name: string): Promise<RunningDomain> {
  const home = homeAt(join(folder, name), {});
  makeHome(home);
  const keys = initDomain(home, name, clock());
  const config = { name, host: "::1", sixidPort: 0, irpPort: 0, domains: [] };
  const server = await DomainServer.start({ home, config, log: silentLog, clock });
  return { name, home, server, root: keys.root };
}

/** Invites and enrols a person, and writes the configuration of his node. */
export async function enrolPerson(folder: string, domain: RunningDomain, user: string): Promise<Home> {
  const { sixid, irp } = domain.server.ports;
  const config = { name: domain.name, host: "::1", sixidPort: sixid.port, irpPort: irp.port, domains: [] };
  const { link } = await invite({ home: domain.home, config, log: silentLog, clock }, user, undefined, {
    host: "::1",
    port: 0,
  });
  const invitation = parseInvitation(link);
  const home = homeAt(join(folder, user), {});
  await enrol({ home, invitation, name: user, label: "test", clock, log: silentLog }, AbortSignal.timeout(20_000));
  const anchor = join(home.anchors, `${domain.name}.pem`);
  writeFileSync(anchor, derToPem(domain.root.der, "CERTIFICATE"));
  const peer = {
    identity: invitation.identity,
    name: user,
    listen: { host: "::1", port: 0 },
    announce: { allowNonGlobal: true },
    directory: { host: "::1", port: sixid.port, irpPort: irp.port, anchor },
    local: { host: "127.0.0.1", smtpsPort: 0, submissionPort: 0, ftpPort: 0, sipPort: 0, sipsPort: 0 },
    outbox: { retrySeconds: [0, 1] },
  };
  writeFileSync(home.config, stringify({ peer }));
  return home;
}

export async function startNode(home: Home, text: string): Promise<PeerNode> {
  return PeerNode.start({
    home,
    config: configSchema.parse(parseYaml(text)),
    log: silentLog,
    clock,
    cut: () => undefined,
  });
}

/** Has the domain's CA renew all; else, within a day, the same request gets the same certificate once more. */
export function renewAll({ server }: RunningDomain): void {
  server.ca.authority.register.renewAll(new Date(Date.now() - 1_000), "operator");
}
