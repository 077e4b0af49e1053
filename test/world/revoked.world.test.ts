import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { KeyFiles } from "../../src/node/keys.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { enrolPerson, startDomain, startNode } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

const bob = parseIdentity("bob@alpha.test");

test("a revoked device is nowhere any more, as those hear at once who watch it; what they had open to it is ended", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const homes = [
    await enrolPerson(folder.path, domain, "alice"),
    await enrolPerson(folder.path, domain, "bob"),
  ] as const;
  const start = (home: (typeof homes)[0]) => startNode(home, readFileSync(home.config, "utf8"));
  const [alice, bobs] = [await start(homes[0]), await start(homes[1])];
  try {
    await alice.addContact(bob, "Bob");
    await bobs.addContact(alice.identity, "Alice");
    await expect.poll(() => Object.keys(alice.state.find(bob)?.addressSeqs ?? {}).length).toBe(1);
    const item = await alice.sip.send([bob], "Hello");
    expect(await alice.outbox.settled(item, AbortSignal.timeout(10_000))).toBe("delivered");
    expect(alice.peerTls.connections.map(({ identity }) => identity)).toEqual([bob]);

    const { certificate } = new KeyFiles(homes[1]).load().auth;
    const { register } = domain.server.ca.authority;
    register.revoke(Buffer.from(certificate.serial).toString("hex"), "keyCompromise", new Date(), "operator");
    await expect.poll(() => alice.peerTls.connections, { timeout: 5_000 }).toEqual([]);
    const told = await alice.directory.lookup(bob, { fresh: true }, AbortSignal.timeout(5_000));
    expect(told.devices.flatMap(({ addresses }) => addresses)).toEqual([]);
    await expect(bobs.directory.publishAddresses([], AbortSignal.timeout(5_000))).rejects.toMatchObject({
      code: expect.stringMatching(/unavailable|forbidden|auth-failed/) as unknown,
    });
  } finally {
    await alice.stop();
    await bobs.stop();
    await domain.server.stop();
  }
}, 60_000);
