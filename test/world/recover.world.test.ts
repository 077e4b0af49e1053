import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { IrpClient } from "../../src/irp/client.ts";
import { loadConfig } from "../../src/node/config.ts";
import { type Home, homeAt } from "../../src/node/home.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { PeerNode } from "../../src/node/node.ts";
import { depositBackup, parseRecovery, recoverHome } from "../../src/node/recovery.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import type { SuiteError } from "../../src/pki/suite-error.ts";
import { enrolPerson, startDomain } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

const PASSPHRASE = "correct horse battery";
const clock = () => new Date();
const signal = () => AbortSignal.timeout(20_000);

test("on an empty machine, by the link and the passphrase: the same person, and what was sealed before opens", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const start = (of: Home) =>
    PeerNode.start({ home: of, config: loadConfig(of.config), log: silentLog, clock, cut: () => undefined });
  const alice = parseIdentity("alice@alpha.test");
  const bobs = await enrolPerson(folder.path, domain, "bob");
  const home = await enrolPerson(folder.path, domain, "alice");
  const before = new KeyFiles(home).load();
  const deposit = (o: { newCode?: boolean } = {}) => {
    const { peer } = loadConfig(home.config);
    if (peer === undefined) throw new Error("no peer");
    const given = { home, peer, dnsServers: [], passphrase: PASSPHRASE, newCode: o.newCode === true, clock };
    return depositBackup({ ...given, random: randomBytes }, signal());
  };
  const node = await start(home);
  const bob = await start(bobs);
  try {
    await node.addContact(bob.identity, "Bob");
    await bob.addContact(alice, "Alice");
    const first = await deposit();
    expect(first).toEqual({
      version: 1,
      link: expect.stringMatching(/^sixtalk-recovery:alice@alpha\.test\?/) as unknown,
    });
    expect(await deposit()).toEqual({ version: 2 }); // the code stays
    const link = first.link ?? "";
    const session = await IrpClient.connect(
      {
        ...{ address: domain.server.ports.irp, domain: "alpha.test", credentials: before.auth, clock },
        trust: { anchors: [{ name: "alpha.test", certificate: domain.root }] },
      },
      signal(),
    );
    await session.authenticateByCertificate();
    expect((await session.ask({ type: "p12s" }, "p12s")).versions).toEqual([2, 1]);
    const file = Buffer.from("opaque to the directory");
    expect((await session.ask({ type: "putP12", bytes: file }, "ok")).version).toBe(3);
    session.close();
    expect(await deposit()).toEqual({ version: 4 });
    await node.stop();
    const item = await bob.smtp.send({ to: [alice], subject: "While away", text: "sealed to Alice" });
    for (const name of readdirSync(home.directory)) rmSync(join(home.directory, name), { recursive: true });

    const recover = (o: { link?: string; passphrase?: string; to?: string }) =>
      recoverHome(
        {
          home: homeAt(join(folder.path, o.to ?? "alice"), {}),
          sheet: parseRecovery(o.link ?? link),
          dnsServers: [],
          passphrases: async (tries) => (tries === 0 ? [o.passphrase ?? PASSPHRASE] : undefined),
          clock,
        },
        signal(),
      ).catch((error: unknown) => error as SuiteError);
    for (let tries = 0; tries < 2; tries += 1)
      expect(await recover({ passphrase: "wrong horse battery" })).toMatchObject({ code: "auth-failed" });
    for (const code of ["0000-0000-0000-0000-0000", "1111-1111-1111-1111-1111"])
      for (let tries = 0; tries < 4; tries += 1)
        expect(await recover({ link: link.replace(/code=[^&]+/, `code=${code}`) })).toMatchObject({
          code: "auth-failed",
          details: { what: "recovery code" },
        });
    expect(await recover({ link: link.replace("alice@", "nobody@") })).toMatchObject({ code: "auth-failed" });
    expect(existsSync(home.keys)).toBe(false);

    expect(await recover({})).toMatchObject({ identity: alice });
    const after = new KeyFiles(home).load();
    expect(after.auth.certificate.fingerprint).toBe(before.auth.certificate.fingerprint);
    expect(after.encryption.map(({ certificate }) => certificate.fingerprint)).toEqual(
      before.encryption.map(({ certificate }) => certificate.fingerprint),
    );
    const again = await start(home);
    try {
      expect(await bob.outbox.settled(item, signal())).toBe("delivered");
      const [mail] = await again.store.items({ box: "inbox", kind: "mail" });
      expect(mail?.title).toBe("While away");
      // Who takes the backup out is told of to the owner's devices.
      const told = (async () => {
        for await (const { body } of again.store.events.follow(0, signal())) if (body.type === "backup.fetched") return;
        throw new Error("not told");
      })();
      expect(await recover({ to: "elsewhere" })).toMatchObject({ identity: alice });
      await told;
      const newer = await deposit({ newCode: true });
      expect(newer.link).not.toBe(link);
      expect(await recover({ to: "third" })).toMatchObject({ code: "auth-failed" }); // the old code opens nothing
      expect(await recover({ to: "fourth", link: newer.link ?? "" })).toMatchObject({ identity: alice });
      // Five were handed out within the hour: two of them to a wrong passphrase.
      expect(await recover({ to: "fifth", link: newer.link ?? "" })).toMatchObject({ temporary: true });
    } finally {
      await again.stop();
    }
  } finally {
    await bob.stop();
    await domain.server.stop();
  }
}, 120_000);
