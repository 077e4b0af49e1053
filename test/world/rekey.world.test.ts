import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse as parseYaml } from "yaml";
import { configSchema, loadConfig } from "../../src/node/config.ts";
import { DomainServer } from "../../src/node/domain.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { rekey } from "../../src/node/rekey.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import { enrolPerson, startDomain, startNode } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

const clock = () => new Date();
const signal = () => AbortSignal.timeout(20_000);

test("a device gets another key, and who pinned the old one follows without being asked; the old one is revoked", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const alice = await enrolPerson(folder.path, domain, "alice");
  const bob = await enrolPerson(folder.path, domain, "bob");
  const identity = parseIdentity("alice@alpha.test");
  const node = await startNode(bob, readFileSync(bob.config, "utf8"));
  try {
    const before = new KeyFiles(alice).load().auth.certificate;
    const first = await node.directory.lookup(identity, { fresh: true }, signal());
    expect(first.devices.map(({ fingerprint }) => fingerprint)).toEqual([before.fingerprint]);

    const config = loadConfig(alice.config).peer;
    if (config === undefined) throw new Error("no peer");
    const o = { home: alice, config, clock, log: silentLog };
    const { certificate: made, bothListed } = await rekey(o, signal());
    expect([made.fingerprint === before.fingerprint, bothListed]).toEqual([false, true]);
    const both = await node.directory.lookup(identity, { fresh: true }, signal());
    expect(both.devices.map(({ fingerprint }) => fingerprint)).toEqual([before.fingerprint, made.fingerprint]);
    expect(domain.server.ca.authority.register.isRevoked(before)).toBe(false);
    expect(await rekey(o, signal())).toMatchObject({ certificate: { sha256: made.sha256 }, bothListed: false });
    const after = new KeyFiles(alice).load(identity);
    expect(after.auth.certificate.sha256).toBe(made.sha256);
    expect(after.auth.renewAfter.getTime()).toBeGreaterThan(Date.now());
    expect(domain.server.ca.authority.register.find(Buffer.from(before.serial).toString("hex"))?.revoked?.reason).toBe(
      "superseded",
    );
    const second = await node.directory.lookup(identity, { fresh: true }, signal());
    expect(second.devices.map(({ fingerprint }) => fingerprint)).toEqual([made.fingerprint]);
    expect(second.seq).toBe(first.seq + 2);
    expect(second.trust).toBe("pinned");
    // The node of the new key starts and announces itself.
    const again = await startNode(alice, readFileSync(alice.config, "utf8"));
    await expect.poll(() => again.announcer.state, { timeout: 10_000 }).toBe("available");
    await again.stop();
  } finally {
    await node.stop();
    await domain.server.stop();
  }
});

test("cut off at any point, the same call goes on: one new key, one new certificate, and a home that can be opened", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const { sixid, irp } = domain.server.ports;
  const alice = await enrolPerson(folder.path, domain, "alice");
  const identity = parseIdentity("alice@alpha.test");
  const config = loadConfig(alice.config).peer;
  if (config === undefined) throw new Error("no peer");
  const o = { home: alice, config, clock, log: silentLog };
  const before = new KeyFiles(alice).load(identity);
  await domain.server.stop();
  await expect(rekey(o, signal())).rejects.toMatchObject({ temporary: true }); // no server: the key is made
  const { privateKey } = new KeyFiles(alice).nextAuth(identity);
  expect(new KeyFiles(alice).load(identity).auth.certificate.sha256).toBe(before.auth.certificate.sha256);

  const part = { name: "alpha.test", host: "::1", sixidPort: sixid.port, irpPort: irp.port };
  const plan = configSchema.parse({ domain: part }).domain;
  if (plan === undefined) throw new Error("no domain");
  const server = await DomainServer.start({ home: domain.home, config: plan, log: silentLog, clock });
  try {
    // The directory is away, the CA is not: certified, not published.
    const away = { ...config, directory: { ...config.directory, port: 1 } };
    await expect(rekey({ ...o, config: away }, signal())).rejects.toMatchObject({ temporary: true });
    const files = new KeyFiles(alice);
    const [certified] = files.nextAuth(identity).certificates;
    expect(certified).toBeDefined();
    // Between key and certificate: as if the machine went down while the two files were put in place.
    const { key, pem } = { key: join(alice.keys, "auth.key"), pem: join(alice.keys, "auth.pem") };
    const old = { key: readFileSync(key), pem: readFileSync(pem) };
    writeFileSync(join(alice.keys, "auth-next.ready"), "");
    writeFileSync(join(alice.keys, "auth-replaced.pem"), old.pem);
    writeFileSync(key, privateKey.export({ type: "pkcs8", format: "pem" }));
    expect(new KeyFiles(alice).load(identity).auth.certificate.sha256).toBe(certified?.sha256);
    // That home had not published both yet, which cannot be with a switch: put back, and go on.
    writeFileSync(join(alice.keys, "auth-next.key"), readFileSync(key));
    writeFileSync(join(alice.keys, "auth-next.pem"), readFileSync(pem));
    writeFileSync(key, old.key);
    writeFileSync(pem, old.pem);
    files.forgetReplaced();
    const { certificate: made } = await rekey({ ...o, now: true }, signal());
    expect(made.sha256).toBe(certified?.sha256);
    expect(new KeyFiles(alice).load(identity).auth.certificate.sha256).toBe(made.sha256);
    expect(server.ca.authority.register.list({ identity, kind: "auth", limit: 10 })).toHaveLength(2);
    expect(parseYaml(readFileSync(alice.config, "utf8"))).toBeDefined();
  } finally {
    await server.stop();
  }
});
