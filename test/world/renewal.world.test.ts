import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { KeyFiles } from "../../src/node/keys.ts";
import { Renewal } from "../../src/node/renewal.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { enrolPerson, renewAll, startDomain, startNode } from "../support/people.ts";
import { recordLog } from "../support/record-log.ts";
import { temporaryFolder } from "../support/tmp.ts";

test("due certificates are renewed with the same keys, published, and the former encryption certificate stays", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const home = await enrolPerson(folder.path, domain, "alice");
  const before = new KeyFiles(home).load();
  const enrolment = join(home.keys, "enrolment.json");
  const told = JSON.parse(readFileSync(enrolment, "utf8")) as object;
  writeFileSync(enrolment, JSON.stringify({ ...told, renewAfter: { auth: 1, encryption: 1 } }));
  renewAll(domain);

  const node = await startNode(home, readFileSync(home.config, "utf8"));
  try {
    await expect.poll(() => node.keys.encryption.length, { timeout: 15_000 }).toBe(2);
    const after = node.keys;
    expect(after.auth.certificate.sha256).not.toBe(before.auth.certificate.sha256);
    expect(after.auth.certificate.fingerprint).toBe(before.auth.certificate.fingerprint);
    expect(after.auth.renewAfter.getTime()).toBeGreaterThan(Date.now());
    expect(after.encryption[0]?.certificate.fingerprint).toBe(before.encryption[0]?.certificate.fingerprint);
    expect(after.encryption[1]?.certificate.sha256).toBe(before.encryption[0]?.certificate.sha256);

    // The record names the new ones.
    const published = async () => {
      const record = await node.directory.lookup(node.identity, { fresh: true }, AbortSignal.timeout(5_000));
      return record.devices[0]?.certificate.sha256;
    };
    await expect.poll(published, { timeout: 15_000 }).toBe(after.auth.certificate.sha256);
    const record = await node.directory.lookup(node.identity, {}, AbortSignal.timeout(5_000));
    expect(record.encryption[0]?.sha256).toBe(after.encryption[0]?.certificate.sha256);

    // Not again: nothing is due any more.
    expect(await node.renewal.renewDue(AbortSignal.timeout(5_000))).toEqual([]);
    // And what the files say is what a restart finds.
    expect(new KeyFiles(home).load().encryption).toHaveLength(2);
  } finally {
    await node.stop();
    await domain.server.stop();
  }
});

test("after an incident the CA has all renewed: a node asks at its start, and once a day", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  const home = await enrolPerson(folder.path, domain, "alice");
  const files = new KeyFiles(home);
  const { certificate } = files.load().auth;
  let now = Date.now();
  const renewal = new Renewal({
    ...{ files, identity: parseIdentity("alice@alpha.test"), servers: async () => [domain.server.ports.irp] },
    anchors: [{ name: "alpha.test", certificate: domain.root }],
    ...{ clock: () => new Date(now), own: () => certificate, onRenewed: () => undefined, log: recordLog() },
  });
  const signal = () => AbortSignal.timeout(10_000);
  try {
    expect(await renewal.renewDue(signal())).toEqual([]);
    domain.server.ca.authority.register.renewAll(new Date(now - 1_000), "operator");
    expect(await renewal.renewDue(signal())).toEqual([]); // asked already today
    now += 86_400_000;
    expect(await renewal.renewDue(signal())).toEqual(["auth", "encryption"]);
    expect(files.load().auth.certificate.fingerprint).toBe(certificate.fingerprint);
    expect(files.load().auth.certificate.sha256).not.toBe(certificate.sha256);
    now += 86_400_000;
    expect(await renewal.renewDue(signal())).toEqual([]);
  } finally {
    await domain.server.stop();
  }
  now += 86_400_000;
  expect(await renewal.renewDue(signal())).toEqual([]); // no CA, and nothing is late
});

test.each(["auth.pem", "enrolment.json"])(
  "a broken %s, or no CA, ends no renewal: it is told and tried again",
  async (name) => {
    await using folder = await temporaryFolder();
    const domain = await startDomain(folder.path, "alpha.test");
    const home = await enrolPerson(folder.path, domain, "alice");
    const files = new KeyFiles(home);
    const { certificate } = files.load().auth;
    await domain.server.stop();
    const log = recordLog();
    const stop = new AbortController();
    const renewal = new Renewal({
      files,
      identity: parseIdentity("alice@alpha.test"),
      servers: async () => [domain.server.ports.irp],
      anchors: [],
      clock: () => new Date(certificate.validity.notAfter.getTime() - 86_400_000), // due, and nearly too late
      own: () => certificate,
      onRenewed: () => undefined,
      log,
    });
    writeFileSync(join(home.keys, name), "{");
    const running = renewal.run(stop.signal);
    await expect.poll(() => log.lines.length).toBe(1);
    expect(log.lines[0]).toMatchObject({ level: "error", message: expect.stringContaining("ends soon") as unknown });
    stop.abort();
    await expect(running).resolves.toBeUndefined();
  },
);

test("a home whose certificate names somebody else does not start", async () => {
  await using folder = await temporaryFolder();
  const domain = await startDomain(folder.path, "alpha.test");
  try {
    const home = await enrolPerson(folder.path, domain, "alice");
    const text = readFileSync(home.config, "utf8").replace("alice@alpha.test", "carl@alpha.test");
    await expect(startNode(home, text)).rejects.toMatchObject({
      code: "config-invalid",
      details: { identity: "carl@alpha.test" },
    });
  } finally {
    await domain.server.stop();
  }
});
