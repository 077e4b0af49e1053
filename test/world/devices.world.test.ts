import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { expect, test } from "vitest";
import { makeBackup, restoreBackup } from "../../src/node/backup.ts";
import { loadConfig } from "../../src/node/config.ts";
import { type Home, homeAt } from "../../src/node/home.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { PeerNode } from "../../src/node/node.ts";
import { addDevice, rekey } from "../../src/node/rekey.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import { enrolPerson, renewAll, startDomain } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

const PASSPHRASE = "correct horse battery";
const clock = () => new Date();
const signal = () => AbortSignal.timeout(20_000);
const alice = parseIdentity("alice@alpha.test");

function optionsOf(home: Home) {
  const { peer } = loadConfig(home.config);
  if (peer === undefined) throw new Error("no peer");
  return { home, config: peer, clock, log: silentLog };
}

/** A home out of a backup of another. */
async function copyOf(from: Home, folder: string, name: string): Promise<Home> {
  const home = homeAt(join(folder, name), {});
  const { file } = await makeBackup({ home: from, passphrase: PASSPHRASE, random: randomBytes });
  await restoreBackup({ home, file, passphrases: [PASSPHRASE] });
  return home;
}

const start = (home: Home) =>
  PeerNode.start({ home, config: loadConfig(home.config), log: silentLog, clock, cut: () => undefined });
const keyOf = (home: Home) => new KeyFiles(home).load(alice).auth.certificate.fingerprint;
const announced = (node: PeerNode) => expect.poll(() => node.announcer.state, { timeout: 10_000 }).toBe("available");

test("two devices of one person: both are found, what is sealed to her opens on either, and each leaves the other alone", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const desk = await enrolPerson(folder.path, domain, "alice");
  const bob = await start(await enrolPerson(folder.path, domain, "bob"));
  const devices = async () =>
    (await bob.directory.lookup(alice, { fresh: true }, signal())).devices.map(({ fingerprint }) => fingerprint);
  try {
    await bob.addContact(alice, "Alice");
    const first = await start(desk);
    await first.addContact(bob.identity, "Bob");
    await announced(first);
    await expect(addDevice(optionsOf(desk), signal())).rejects.toMatchObject({ code: "conflict" });
    expect(await devices()).toEqual([keyOf(desk)]);

    const laptop = await copyOf(desk, folder.path, "laptop");
    const added = await addDevice(optionsOf(laptop), signal());
    expect([keyOf(laptop), keyOf(laptop) === keyOf(desk)]).toEqual([added.fingerprint, false]);
    await expect(addDevice(optionsOf(laptop), signal())).rejects.toMatchObject({ code: "conflict" });
    renewAll(domain);
    const second = await start(laptop);
    await announced(second);
    expect(await devices()).toEqual([keyOf(desk), keyOf(laptop)]);
    const record = await bob.directory.lookup(alice, { fresh: true }, signal());
    expect(record.trust).toBe("pinned");
    expect(record.devices.map(({ addresses }) => addresses.length > 0)).toEqual([true, true]);
    expect((await second.devices.list(signal())).devices.map(({ fingerprint, self }) => [fingerprint, self])).toEqual([
      [keyOf(desk), false],
      [keyOf(laptop), true],
    ]);

    // The laptop renewed the certificate that mail is sealed to: the desk learns it, and neither drops the other.
    await expect.poll(() => second.keys.encryption.length, { timeout: 15_000 }).toBe(2);
    await expect.poll(() => first.keys.encryption.length, { timeout: 15_000 }).toBe(2);
    expect(first.keys.encryption[0]?.certificate.sha256).toBe(second.keys.encryption[0]?.certificate.sha256);
    expect(await devices()).toEqual([keyOf(desk), keyOf(laptop)]);

    await first.stop();
    const item = await bob.smtp.send({ to: [alice], subject: "To the laptop", text: "the desk is off" });
    expect(await bob.outbox.settled(item, signal())).toBe("delivered");
    expect((await second.store.items({ box: "inbox", kind: "mail" })).map(({ title }) => title)).toEqual([
      "To the laptop",
    ]);

    const was = keyOf(desk);
    expect(await rekey(optionsOf(desk), signal())).toMatchObject({ bothListed: true });
    expect(await devices()).toEqual([was, keyOf(laptop), keyOf(desk)]);
    expect(await rekey(optionsOf(desk), signal())).toMatchObject({ bothListed: false });
    expect(await devices()).toEqual([keyOf(laptop), keyOf(desk)]);
    const again = await start(desk);
    try {
      await announced(again);
      await expect(again.devices.remove(keyOf(desk), signal())).rejects.toMatchObject({ code: "forbidden" });
      await expect(again.devices.remove("0000", signal())).rejects.toMatchObject({ code: "not-found" });
      await again.devices.remove(keyOf(laptop).slice(0, 12), signal());
      expect(await devices()).toEqual([keyOf(desk)]);
      expect(domain.server.ca.authority.register.isRevoked(added)).toBe(true);
    } finally {
      await again.stop();
    }
    await second.stop();
  } finally {
    await bob.stop();
    await domain.server.stop();
  }
}, 120_000);

test("a device that the domain's owner revoked is left out of the next record, which another of hers publishes", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const desk = await enrolPerson(folder.path, domain, "alice");
  const bob = await start(await enrolPerson(folder.path, domain, "bob"));
  const devices = async () => (await bob.directory.lookup(alice, { fresh: true }, signal())).devices;
  try {
    const laptop = await copyOf(desk, folder.path, "laptop");
    const lost = await addDevice(optionsOf(laptop), signal());
    const thief = await start(laptop);
    await announced(thief);
    expect((await devices()).map(({ addresses }) => addresses.length > 0)).toEqual([false, true]);
    domain.server.ca.authority.revoke(Buffer.from(lost.serial).toString("hex"), "keyCompromise", "the owner");
    await expect.poll(async () => (await devices()).flatMap(({ addresses }) => addresses)).toEqual([]);
    await thief.stop();
    await expect(rekey(optionsOf(laptop), signal())).rejects.toMatchObject({ name: "SuiteError" });
    await rekey({ ...optionsOf(desk), now: true }, signal());
    expect((await devices()).map(({ fingerprint }) => fingerprint)).toEqual([keyOf(desk)]);
  } finally {
    await bob.stop();
    await domain.server.stop();
  }
}, 60_000);

test("a home that enrolled anew does not take the place of the devices that are there, if one of them refuses", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const desk = await enrolPerson(folder.path, domain, "alice");
  const node = await start(desk);
  try {
    await announced(node);
    await using other = await temporaryFolder();
    const held = await enrolPerson(other.path, domain, "alice").catch((error: unknown) => error);
    expect(held).toMatchObject({ code: "forbidden", details: { held: true } });
    const { held: waiting } = await node.devices.list(signal());
    expect(waiting).toMatchObject([{ signer: expect.not.stringMatching(keyOf(desk)) as unknown }]);
    await expect(node.devices.decide("ffffffff", "refuse", signal())).rejects.toMatchObject({ code: "not-found" });
    await node.devices.decide(waiting[0]?.id.slice(0, 10) ?? "", "refuse", signal());
    expect((await node.devices.list(signal())).held).toEqual([]);
  } finally {
    await node.stop();
    await domain.server.stop();
  }
}, 60_000);
