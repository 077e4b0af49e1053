import { expect, test } from "vitest";
import { loadConfig } from "../../src/node/config.ts";
import { DomainServer, invite } from "../../src/node/domain.ts";
import { enrol } from "../../src/node/enrol.ts";
import { parseInvitation } from "../../src/node/invitation.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { PeerNode } from "../../src/node/node.ts";
import { silentLog } from "../../src/pki/log.ts";
import { enrolPerson, startDomain } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

const AWAY_MS = 80 * 86_400_000;

test("whoever was away until his certificate had ended comes back with a new invitation, key and old seals kept", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const { sixid, irp } = domain.server.ports;
  const home = await enrolPerson(folder.path, domain, "alice");
  await domain.server.stop();
  const before = new KeyFiles(home).load();

  const clock = () => new Date(Date.now() + AWAY_MS);
  expect(before.auth.certificate.validity.notAfter < clock()).toBe(true);
  const config = { name: "alpha.test", host: "::1", sixidPort: sixid.port, irpPort: irp.port, domains: [] };
  const o = { home: domain.home, config, log: silentLog, clock };
  const server = await DomainServer.start(o);
  try {
    const { link } = await invite(o, "alice", undefined, { host: "::1", port: irp.port });
    const invitation = parseInvitation(link);
    await enrol({ home, invitation, name: "alice", label: "test", clock, log: silentLog }, AbortSignal.timeout(20_000));
    const after = new KeyFiles(home).load();
    expect(after.auth.certificate.fingerprint).toBe(before.auth.certificate.fingerprint);
    expect(after.encryption.map(({ certificate }) => certificate.sha256)).toContain(
      before.encryption[0]?.certificate.sha256,
    );
    const node = await PeerNode.start({
      home,
      config: loadConfig(home.config),
      log: silentLog,
      clock,
      cut: () => undefined,
    });
    try {
      await expect.poll(() => node.announcer.state, { timeout: 10_000 }).toBe("available");
      const record = await node.directory.lookup(node.identity, { fresh: true }, AbortSignal.timeout(5_000));
      expect(record.devices[0]?.certificate.sha256).toBe(after.auth.certificate.sha256);
      expect(record.encryption[0]?.sha256).toBe(after.encryption[0]?.certificate.sha256);
    } finally {
      await node.stop();
    }
  } finally {
    await server.stop();
  }
});
