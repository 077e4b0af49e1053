import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { IrpClient } from "../../src/irp/client.ts";
import { configSchema, type DomainConfig } from "../../src/node/config.ts";
import { DomainServer, initDomain, invite } from "../../src/node/domain.ts";
import { enrol as enrolNode } from "../../src/node/enrol.ts";
import { type Home, homeAt, makeHome } from "../../src/node/home.ts";
import { parseInvitation } from "../../src/node/invitation.ts";
import { type Certificate, peerCertificate } from "../../src/pki/certificate.ts";
import { makeCsr } from "../../src/pki/csr.ts";
import { type Identity, parseIdentity } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { makeEcKey, rsaKeyOf, type TestCredentials } from "../support/pki.ts";
import { temporaryFolder } from "../support/tmp.ts";

const clock = () => new Date();
const name = "alpha.test";
const signal = () => AbortSignal.timeout(20_000);
const code = (wanted: string) => expect.objectContaining({ details: expect.objectContaining({ code: wanted }) });

async function start(home: Home, part: object): Promise<{ server: DomainServer; config: DomainConfig }> {
  const asked = { domain: { name, host: "::1", sixidPort: 0, irpPort: 0, ...part } };
  const config = configSchema.parse(asked).domain as DomainConfig;
  return { server: await DomainServer.start({ home, config, log: silentLog, clock }), config };
}

/** Enrols by the server's invitation, over IRP. */
async function enrol(home: Home, server: DomainServer, config: DomainConfig, user: string, named = user) {
  const { irp } = server.ports;
  const { link } = await invite({ home, config, log: silentLog, clock }, user, undefined, {
    host: "::1",
    port: irp.port,
  });
  const { identity, code: secret, rootHash } = parseInvitation(link);
  const base = { address: irp, domain: name, clock };
  const session = await IrpClient.connect({ ...base, trust: { rootHash } }, signal());
  await session.authenticate(identity, { code: secret });
  const privateKey = makeEcKey();
  const request = csr(privateKey, parseIdentity(`${named}@${name}`));
  const made = await session.enrol("auth", request, "laptop");
  const again = await session.enrol("auth", request, "laptop");
  session.close();
  if (!("certificates" in made) || !("certificates" in again)) throw new Error("it waits");
  const [certificate, ...chain] = made.certificates as [Certificate, ...Certificate[]];
  expect(again.certificates[0]?.sha256).toBe(certificate.sha256);
  const credentials: TestCredentials = { privateKey, certificate, chain };
  const anchors = [{ name, certificate: session.root }];
  return {
    identity,
    credentials,
    connect: () => IrpClient.connect({ ...base, trust: { anchors }, credentials }, signal()),
  };
}

const csr = (privateKey = makeEcKey(), identity?: Identity) =>
  makeCsr({ privateKey, commonName: "A Person", ...(identity === undefined ? {} : { identity }) });

test("another process's CA issues by EST for a domain whose server checks what comes; what it cannot revoke is blocked", async () => {
  await using folder = await temporaryFolder();
  const [theirs, ours] = ["ca", "ra"].map((one) => homeAt(join(folder.path, one), {})) as [Home, Home];
  for (const home of [theirs, ours]) {
    makeHome(home);
    initDomain(home, name, clock());
  }
  const ca = await start(theirs, { ca: { registrars: [`ra@${name}`] } });
  const running = [ca.server];
  try {
    const ra = await enrol(theirs, ca.server, ca.config, "ra");
    const pem = (one: Certificate) => derToPem(one.der, "CERTIFICATE");
    const file = (which: string, text: string) => {
      writeFileSync(join(folder.path, which), text);
      return join(folder.path, which);
    };
    const est = {
      url: `https://${name}:${ca.server.ports.sixid.port}`,
      address: "::1",
      anchor: file("anchor.pem", pem(ca.server.keys.root)),
      credentials: {
        certificate: file("ra.pem", [ra.credentials.certificate, ...ra.credentials.chain].map(pem).join("")),
        key: file("ra.key", ra.credentials.privateKey.export({ type: "pkcs8", format: "pem" }) as string),
      },
      labels: { auth: "auth", encryption: "encryption" },
    };
    const domain = await start(ours, { ca: { est } });
    running.push(domain.server);
    await expect.poll(() => domain.server.ca.authority.fault).toBeUndefined();

    const alice = await enrol(ours, domain.server, domain.config, "alice");
    const { certificate } = alice.credentials;
    expect(peerCertificate(certificate).identities.map((one) => one.identity)).toContain("alice@alpha.test");
    expect(
      Buffer.compare(
        certificate.authorityKeyId ?? new Uint8Array(),
        ca.server.keys.issuing.certificate.subjectKeyId ?? new Uint8Array(1),
      ),
    ).toBe(0);
    expect(domain.server.ca.authority.register.find(Buffer.from(certificate.serial).toString("hex"))?.identity).toBe(
      alice.identity,
    );

    // What the CA issued opens here, too: for an encryption certificate, a renewal, a new key.
    const session = await alice.connect();
    expect(await session.authenticateByCertificate()).toMatchObject({ identity: alice.identity });
    const sealing = await session.enrol("encryption", csr(rsaKeyOf("external"), alice.identity));
    expect("certificates" in sealing && peerCertificate(sealing.certificates[0] as Certificate).uses.seal).toBe(true);
    const renewed = await session.renew("auth", "same", csr(alice.credentials.privateKey, alice.identity));
    expect("certificates" in renewed && renewed.certificates[0]?.fingerprint).toBe(certificate.fingerprint);
    // That CA copies names: a request that names somebody else, or nobody, is not handed on.
    await expect(session.renew("auth", "new", csr(makeEcKey(), parseIdentity("mallory@alpha.test")))).rejects.toEqual(
      code("bad-csr"),
    );
    await expect(session.renew("auth", "new", csr())).rejects.toEqual(code("bad-csr"));

    const serial = Buffer.from(certificate.serial).toString("hex");
    const other = await session.renew("auth", "new", csr(makeEcKey(), alice.identity));
    expect("certificates" in other).toBe(true);
    await expect(session.revoke(serial, "keyCompromise")).rejects.toEqual(code("upstream"));
    expect(domain.server.ca.authority.register.find(serial)?.revoked?.reason).toBe("keyCompromise");
    await expect(alice.connect().then((again) => again.authenticateByCertificate())).rejects.toMatchObject({
      fault: "service",
    });
    expect(domain.server.ca.authority.register.audit().holds).toBe(true);

    // A whole node: it learns the CA's root at its own server, and publishes a record that leads there.
    const { irp, sixid } = domain.server.ports;
    const reach = { host: "::1", port: irp.port };
    const o = {
      home: ours,
      config: { ...domain.config, sixidPort: sixid.port, irpPort: irp.port },
      log: silentLog,
      clock,
    };
    const invitation = parseInvitation((await invite(o, "erin", undefined, reach)).link);
    const home = homeAt(join(folder.path, "erin"), {});
    const node = { home, invitation, name: "Erin", label: "laptop", clock, log: silentLog };
    const { furtherRoots } = await enrolNode(node, signal());
    expect(furtherRoots.map(({ sha256 }) => sha256)).toEqual([ca.server.keys.root.sha256]);

    // A CA that does what it was not asked for: another's name, another use. Nothing of that is given out or on record.
    const before = domain.server.ca.authority.register.list({ limit: 100 }).length;
    await domain.server.stop();
    running.pop();
    const wrongUse = await start(ours, { ca: { est: { ...est, labels: { auth: "encryption" } } } });
    running.push(wrongUse.server);
    await expect(enrol(ours, wrongUse.server, wrongUse.config, "bob")).rejects.toEqual(code("upstream"));
    await ca.server.stop();
    running.shift();
    const strict = await start(theirs, { sixidPort: ca.server.ports.sixid.port }); // no registrars: it issues for the asker's own name
    running.unshift(strict.server);
    const wrongName = await start(ours, { ca: { est } });
    running.push(wrongName.server);
    await expect(enrol(ours, wrongName.server, wrongName.config, "carol")).rejects.toEqual(code("upstream"));
    await strict.server.stop();
    running.shift();
    await expect(enrol(ours, wrongName.server, wrongName.config, "dave")).rejects.toEqual(code("upstream"));
    expect(wrongName.server.ca.authority.register.list({ limit: 100 })).toHaveLength(before);
  } finally {
    for (const server of running) await server.stop();
  }
});
