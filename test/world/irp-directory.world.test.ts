import { expect, test } from "vitest";
import { IrpClient } from "../../src/irp/client.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { makeAddresses } from "../../src/sixid/announce.ts";
import { enrolPerson, startDomain } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

const clock = () => new Date();
const signal = () => AbortSignal.timeout(10_000);
const code = (wanted: string) => expect.objectContaining({ details: expect.objectContaining({ code: wanted }) });

test("by enrolment's messages a device announces itself and finds others, by the directory's own rules", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  try {
    const alice = new KeyFiles(await enrolPerson(folder.path, domain, "alice")).load();
    const bob = new KeyFiles(await enrolPerson(folder.path, domain, "bob")).load();
    const trust = { anchors: [{ name: "alpha.test", certificate: domain.root }] };
    const session = async (credentials: typeof alice.auth) => {
      const client = await IrpClient.connect(
        { address: domain.server.ports.irp, domain: "alpha.test", trust, credentials, clock },
        signal(),
      );
      await client.authenticateByCertificate();
      return client;
    };
    const [his, hers] = [await session(bob.auth), await session(alice.auth)];
    const where = [{ host: "2001:db8::b", port: 4605, kind: "direct" as const, priority: 10 }];
    const jws = await makeAddresses(bob.uuid, where, Date.now(), bob.auth, clock());
    expect(await his.ask({ type: "putAddr", jws }, "ok")).toMatchObject({
      reannounceAfter: expect.any(Number),
      observed: "::1",
    });
    await expect(his.ask({ type: "putAddr", jws }, "ok")).rejects.toEqual(code("stale"));
    await expect(hers.ask({ type: "putAddr", jws }, "ok")).rejects.toEqual(code("forbidden")); // another's device

    expect(await hers.ask({ type: "getAddr", key: "bob@alpha.test" }, "addr")).toEqual({
      type: "addr",
      addresses: [jws],
      presence: [],
    });
    const found = await hers.ask({ type: "getUser", key: "bob@alpha.test" }, "user");
    expect(found.identity?.split(".")).toHaveLength(3);
    await expect(hers.ask({ type: "getUser", key: "nobody@alpha.test" }, "user")).rejects.toEqual(code("not-found"));
    await expect(
      hers.ask({ type: "putUser", aliases: [], identity: found.identity ?? "" }, "ok"),
    ).rejects.toMatchObject({ fault: "service" });
    await expect(hers.ask({ type: "putUser", name: "Eve", aliases: [] }, "ok")).rejects.toEqual(code("policy"));
    expect((await hers.certificate({ user: "bob", kind: "auth" })).certificates[0]?.sha256).toBe(
      bob.auth.certificate.sha256,
    );
    await expect(hers.certificates({ user: "nobody" })).rejects.toEqual(code("not-found"));
    for (const client of [his, hers]) client.close();
  } finally {
    await domain.server.stop();
  }
});
