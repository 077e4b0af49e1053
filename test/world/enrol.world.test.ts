import { join } from "node:path";
import { expect, test } from "vitest";
import { invite } from "../../src/node/domain.ts";
import { enrol } from "../../src/node/enrol.ts";
import { homeAt } from "../../src/node/home.ts";
import { parseInvitation } from "../../src/node/invitation.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { silentLog } from "../../src/pki/log.ts";
import { startDomain } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

const clock = () => new Date();

test("a home that tried a used invitation enrols with the next one", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  try {
    const { sixid, irp } = domain.server.ports;
    const config = { name: "alpha.test", host: "::1", sixidPort: sixid.port, irpPort: irp.port, domains: [] };
    const reach = { host: "::1", port: irp.port };
    const invitation = async (user: string) =>
      (await invite({ home: domain.home, config, log: silentLog, clock }, user, undefined, reach)).link;
    const enrolAt = (name: string, link: string) => {
      const home = homeAt(join(folder.path, name), {});
      const o = { home, invitation: parseInvitation(link), name, label: "test", clock, log: silentLog };
      return enrol(o, AbortSignal.timeout(20_000)).then(() => new KeyFiles(home).load().auth.certificate);
    };
    const link = await invitation("alice");
    const first = await enrolAt("laptop", link);
    await expect(enrolAt("phone", link)).rejects.toMatchObject({ code: "auth-failed" });
    // The CA holds the key that came with the used invitation for spoilt; the next invitation is none the worse for it.
    const second = await enrolAt("phone", await invitation("bob"));
    expect(second.fingerprint).not.toBe(first.fingerprint);
    // Whoever is enrolled keeps his keys, whatever link he tries.
    expect((await enrolAt("phone", await invitation("bob"))).fingerprint).toBe(second.fingerprint);
    await expect(enrolAt("phone", await invitation("carol"))).rejects.toMatchObject({ code: "conflict" });
    expect(new KeyFiles(homeAt(join(folder.path, "phone"), {})).load().auth.certificate.fingerprint).toBe(
      second.fingerprint,
    );
  } finally {
    await domain.server.stop();
  }
});
