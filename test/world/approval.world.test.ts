import { join } from "node:path";
import { expect, test } from "vitest";
import { configSchema } from "../../src/node/config.ts";
import { DomainServer, initDomain, invite } from "../../src/node/domain.ts";
import { enrol } from "../../src/node/enrol.ts";
import { homeAt, makeHome } from "../../src/node/home.ts";
import { parseInvitation } from "../../src/node/invitation.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { silentLog } from "../../src/pki/log.ts";
import { temporaryFolder } from "../support/tmp.ts";

const clock = () => new Date();

test("where a person approves new devices, an enrolment waits, gives up, and goes on with the same key when it is approved", async () => {
  await using folder = await temporaryFolder();
  const home = homeAt(join(folder.path, "alpha.test"), {});
  makeHome(home);
  initDomain(home, "alpha.test", clock());
  const part = { name: "alpha.test", host: "::1", sixidPort: 0, irpPort: 0, ca: { approval: "first" } };
  const config = configSchema.parse({ domain: part }).domain;
  if (config === undefined) throw new Error("no domain");
  const server = await DomainServer.start({ home, config, log: silentLog, clock });
  try {
    const { sixid, irp } = server.ports;
    const at = { home, config: { ...config, sixidPort: sixid.port, irpPort: irp.port }, log: silentLog, clock };
    const invitation = parseInvitation((await invite(at, "alice", undefined, { host: "::1", port: irp.port })).link);
    const alice = homeAt(join(folder.path, "alice"), {});
    const o = { home: alice, invitation, name: "Alice", label: "laptop", clock, log: silentLog };
    const given = enrol(o, AbortSignal.timeout(1_500));
    await expect(given).rejects.toMatchObject({
      code: "busy",
      temporary: true,
      message: expect.stringContaining("approve"),
    });
    expect(new KeyFiles(alice).enrolled).toBe(false);

    const waiting = server.ca.approvals.waiting();
    expect(waiting).toMatchObject([{ identity: "alice@alpha.test", kind: "auth", label: "laptop" }]);
    server.ca.approvals.decide(waiting[0]?.ref ?? "", "approved", "operator", clock());
    await enrol(o, AbortSignal.timeout(20_000));
    expect(new KeyFiles(alice).load().encryption).toHaveLength(1); // asked for by certificate: nobody is asked again
    expect(server.ca.approvals.waiting()).toEqual([]);
  } finally {
    await server.stop();
  }
});
