import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { IrpClient } from "../../src/irp/client.ts";
import { DomainServer, initDomain, invite } from "../../src/node/domain.ts";
import { enrol } from "../../src/node/enrol.ts";
import { type Home, homeAt, makeHome } from "../../src/node/home.ts";
import { formatInvitation, parseInvitation } from "../../src/node/invitation.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { State } from "../../src/node/state.ts";
import { httpsClient } from "../../src/peertls-core/https-client.ts";
import type { Certificate } from "../../src/pki/certificate.ts";
import { makeCsr } from "../../src/pki/csr.ts";
import { type Identity, identityDomain, parseIdentity } from "../../src/pki/identity.ts";
import { silentLog } from "../../src/pki/log.ts";
import { makeAddresses, makeIdentity } from "../../src/sixid/announce.ts";
import { DirectoryClient } from "../../src/sixid/client.ts";
import { temporaryFolder } from "../support/openssl.ts";

const folder = temporaryFolder();
const clock = () => new Date();
const signal = () => AbortSignal.timeout(20_000);

interface TestDomainServer {
  home: Home;
  server: DomainServer;
  root: Certificate;
}

async function startDomain(name: string): Promise<TestDomainServer> {
  const home = homeAt(join(folder.path, name), {});
  makeHome(home);
  const keys = initDomain(home, name, clock());
  const config = { name, host: "::1", sixidPort: 0, irpPort: 0, domains: [] };
  const server = await DomainServer.start({ home, config, log: silentLog, clock });
  return { home, server, root: keys.root };
}

/** The link of an invitation, with the ports that the system chose. */
async function invited(domain: TestDomainServer, name: string, user: string) {
  const { sixid, irp } = domain.server.ports;
  const config = { name, host: "::1", sixidPort: sixid.port, irpPort: irp.port, domains: [] };
  const { link } = await invite({ home: domain.home, config, log: silentLog, clock }, user, undefined, {
    host: "::1",
    port: 0,
  });
  return parseInvitation(link);
}

async function enrolled(domain: TestDomainServer, name: string, user: string) {
  const home = homeAt(join(folder.path, user), {});
  const invitation = await invited(domain, name, user);
  const { root, uuid } = await enrol({ home, invitation, name: user, label: "test", clock, log: silentLog }, signal());
  return { home, root, uuid, keys: new KeyFiles(home).load(), identity: invitation.identity };
}

let alpha: TestDomainServer;
let beta: TestDomainServer;
let alice: Awaited<ReturnType<typeof enrolled>>;
let bob: Awaited<ReturnType<typeof enrolled>>;

beforeAll(async () => {
  alpha = await startDomain("alpha.test");
  beta = await startDomain("beta.test");
  alpha.server.know("beta.test", beta.server.ports.sixid, [beta.root]);
  beta.server.know("alpha.test", alpha.server.ports.sixid, [alpha.root]);
  alice = await enrolled(alpha, "alpha.test", "alice");
  bob = await enrolled(beta, "beta.test", "bob");
}, 60_000);

afterAll(async () => {
  await alpha.server.stop();
  await beta.server.stop();
  folder[Symbol.dispose]();
});

function http(domain: TestDomainServer, name: string, credentials: typeof alice.keys.auth | undefined) {
  return httpsClient({
    addresses: () => [domain.server.ports.sixid],
    serverName: name,
    anchors: () => [{ name, certificate: domain.root }],
    credentials: () => credentials,
    clock,
  });
}

function directoryOf(
  who: typeof alice,
  domain: TestDomainServer,
  home = who.home,
): { directory: DirectoryClient; state: State } {
  const state = new State(home.state);
  const roots = new Map([
    ["alpha.test", alpha.root],
    ["beta.test", beta.root],
  ]);
  const directory = new DirectoryClient({
    http: http(domain, identityDomain(who.identity), who.keys.auth),
    uuid: who.uuid,
    signer: () => who.keys.auth,
    anchorsFor: (name) =>
      [...roots].filter(([known]) => known === name).map(([known, certificate]) => ({ name: known, certificate })),
    pins: state,
    clock,
    log: silentLog,
    onEvent: () => undefined,
    onDomain: () => undefined,
  });
  return { directory, state };
}

test("an invitation survives being written and read", async () => {
  const invitation = await invited(alpha, "alpha.test", "dora");
  expect(parseInvitation(formatInvitation(invitation))).toEqual(invitation);
});

test("an enrolled person has an AUTH and an ENCRYPTION certificate of the domain's CA", () => {
  expect(alice.keys.auth.certificate.keyUsage).toEqual(new Set(["digitalSignature"]));
  expect(alice.keys.encryption[0]?.certificate.keyUsage).toEqual(new Set(["keyEncipherment"]));
  expect(alice.root.sha256).toBe(alpha.root.sha256);
  expect(alice.keys.auth.renewAfter > clock()).toBe(true);
});

test("a code serves once: another key gets nothing for it", async () => {
  const invitation = await invited(alpha, "alpha.test", "erin");
  const first = await enrol(
    { home: homeAt(join(folder.path, "erin1"), {}), invitation, name: "Erin", label: "one", clock, log: silentLog },
    signal(),
  );
  expect(first.uuid).toMatch(/^[0-9a-f-]{36}$/);
  const thief = enrol(
    { home: homeAt(join(folder.path, "erin2"), {}), invitation, name: "Erin", label: "two", clock, log: silentLog },
    signal(),
  );
  await expect(thief).rejects.toMatchObject({ code: "auth-failed" });
});

test("an enrolment that was cut off goes on with the same key, although the code is spent", async () => {
  const invitation = await invited(alpha, "alpha.test", "fred");
  const home = homeAt(join(folder.path, "fred"), {});
  const o = { home, invitation, name: "Fred", label: "one", clock, log: silentLog };
  await enrol(o, signal());
  const before = new KeyFiles(home).load();
  await enrol(o, signal());
  expect(new KeyFiles(home).load().auth.certificate.sha256).toBe(before.auth.certificate.sha256);
});

test("a wrong code, a wrong root and a CSR for somebody else's name get nothing of his", async () => {
  const invitation = await invited(alpha, "alpha.test", "gina");
  const attempt = (change: Partial<typeof invitation>, n: number) =>
    enrol(
      {
        home: homeAt(join(folder.path, `gina${n}`), {}),
        invitation: { ...invitation, ...change },
        name: "G",
        label: "x",
        clock,
        log: silentLog,
      },
      signal(),
    );
  await expect(attempt({ code: "0000-0000-0000-0000" }, 1)).rejects.toMatchObject({ code: "auth-failed" });
  await expect(attempt({ rootHash: "0".repeat(32) }, 2)).rejects.toMatchObject({ code: "certificate-invalid" });
  const trust = { anchors: [{ name: "alpha.test", certificate: alpha.root }] };
  const irp = await IrpClient.connect(
    { address: alpha.server.ports.irp, domain: "alpha.test", trust, credentials: alice.keys.auth, clock },
    signal(),
  );
  await irp.authenticateByCertificate();
  const own = await irp.renew(
    "auth",
    "same",
    makeCsr({ privateKey: alice.keys.auth.privateKey, commonName: "gina@alpha.test" }),
  );
  expect("certificates" in own && own.certificates[0]?.subjectAltNames).toContainEqual({
    type: "rfc822Name",
    text: "alice@alpha.test",
  });
  irp.close();
});

test("Alice's server finds Bob at his; the record is signed by his own key", async () => {
  const bobs = directoryOf(bob, beta);
  await bobs.directory.publishAddresses([{ host: "::1", port: 4605, kind: "direct", priority: 10 }], signal());
  const alices = directoryOf(alice, alpha);
  const record = await alices.directory.lookup(bob.identity, {}, signal());
  expect(record).toMatchObject({ identity: "bob@beta.test", seq: 1, trust: "first", stale: false });
  expect(record.devices[0]).toMatchObject({
    fingerprint: bob.keys.auth.certificate.fingerprint,
    addresses: [{ host: "::1", port: 4605 }],
  });
  expect(record.encryption[0]?.fingerprint).toBe(bob.keys.encryption[0]?.certificate.fingerprint);
  await expect(alices.directory.lookup(parseIdentity("nobody@beta.test"), {}, signal())).rejects.toMatchObject({
    code: "unknown-recipient",
  });
  await expect(alices.directory.lookup(parseIdentity("x@unknown.test"), {}, signal())).rejects.toMatchObject({
    code: "unknown-recipient",
  });
  expect((await alices.directory.lookup(bob.identity, { fresh: true }, signal())).trust).toBe("pinned");
  alices.state.close();
  bobs.state.close();
});

const put = (domain: TestDomainServer, name: string, who: typeof alice, path: string, jws: string) =>
  http(domain, name, who.keys.auth).request(
    { method: "PUT", path, headers: { "content-type": "application/jose" }, body: jws },
    signal(),
  );
const step = (body: Buffer) => JSON.parse(body.toString("utf8")) as { code: string; step?: string };
const own = (who: typeof alice, name = "x") => ({
  identity: who.identity as Identity,
  uuid: who.uuid,
  name,
  devices: [{ certificate: who.keys.auth.certificate, label: "l" }],
  encryption: who.keys.encryption.map((one) => one.certificate),
  chain: who.keys.auth.chain,
});

test("the server refuses a record by another key, a replayed one and a lower sequence", async () => {
  const forged = await makeIdentity(own(alice), undefined, bob.keys.auth, clock());
  const byOther = await put(alpha, "alpha.test", alice, "/v1/identity", forged);
  expect([byOther.status, step(byOther.body).code]).toEqual([422, "record-rejected"]);

  const fresh = await enrolled(alpha, "alpha.test", "hugo");
  const first = await makeIdentity(own(fresh, "one"), undefined, fresh.keys.auth, clock());
  expect((await put(alpha, "alpha.test", fresh, "/v1/identity", first)).status).toBe(409);

  const device = fresh.keys.auth.certificate.fingerprint;
  const path = `/v1/devices/${device}/addresses`;
  const at = (seq: number) =>
    makeAddresses(fresh.uuid, [{ host: "::1", port: 1, kind: "direct", priority: 1 }], seq, fresh.keys.auth, clock());
  const now = Date.now();
  const jws = await at(now);
  expect((await put(alpha, "alpha.test", fresh, path, jws)).status).toBe(200);
  expect((await put(alpha, "alpha.test", fresh, path, jws)).status).toBe(409);
  expect((await put(alpha, "alpha.test", fresh, path, await at(now - 1))).status).toBe(409);
  expect((await put(alpha, "alpha.test", fresh, path, await at(now + 3_600_000))).status).toBe(422);
  expect((await put(alpha, "alpha.test", alice, path, await at(now + 5))).status).toBe(403);
});

test("nobody learns anything without a certificate or a token; a password gives a token", async () => {
  const nobody = http(alpha, "alpha.test", undefined);
  expect((await nobody.request({ method: "GET", path: "/v1/records/alice@alpha.test" }, signal())).status).toBe(404);
  const password = randomBytes(12).toString("hex");
  const body = JSON.stringify({ password });
  const json = { "content-type": "application/json" };
  expect(
    (
      await http(alpha, "alpha.test", alice.keys.auth).request(
        { method: "PUT", path: "/v1/password", headers: json, body },
        signal(),
      )
    ).status,
  ).toBe(204);
  const basic = (secret: string) => ({ authorization: `Basic ${Buffer.from(`alice:${secret}`).toString("base64")}` });
  expect(
    (await nobody.request({ method: "POST", path: "/v1/session", headers: basic("wrong-password") }, signal())).status,
  ).toBe(401);
  const session = await nobody.request({ method: "POST", path: "/v1/session", headers: basic(password) }, signal());
  const { token } = JSON.parse(session.body.toString("utf8")) as { token: string };
  const headers = { authorization: `Bearer ${token}` };
  expect(
    (await nobody.request({ method: "GET", path: "/v1/records/alice@alpha.test", headers }, signal())).status,
  ).toBe(200);
  const again = await nobody.request(
    {
      method: "PUT",
      path: "/v1/password",
      headers: { ...headers, ...json },
      body: JSON.stringify({ password: `${password}2` }),
    },
    signal(),
  );
  expect(again.status).toBe(204);
  expect(
    (await nobody.request({ method: "GET", path: "/v1/records/alice@alpha.test", headers }, signal())).status,
  ).toBe(404);
});

test("the directory goes away: the last verified record serves and is called stale; a stranger's is unavailable", async () => {
  const gamma = await startDomain("gamma.test");
  gamma.server.know("beta.test", beta.server.ports.sixid, [beta.root]);
  beta.server.know("gamma.test", gamma.server.ports.sixid, [gamma.root]);
  const ivan = await enrolled(gamma, "gamma.test", "ivan");
  const { directory, state } = directoryOf(ivan, gamma);
  await directory.lookup(bob.identity, {}, signal());
  await gamma.server.stop();
  expect((await directory.lookup(bob.identity, { fresh: true }, signal())).stale).toBe(true);
  await expect(directory.lookup(parseIdentity("other@beta.test"), {}, signal())).rejects.toMatchObject({
    code: "directory-unavailable",
    temporary: true,
  });
  state.close();
});
