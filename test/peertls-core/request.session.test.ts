import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import type { TrustRules } from "../../src/peertls-core/policy.ts";
import type { RequestSink, Stranger } from "../../src/peertls-core/request-intake.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { makeTestDomain, type TestCredentials, type TestPerson } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const gamma = makeTestDomain({ domain: "gamma.test" });
const bob = alpha.person({ identity: "bob@alpha.test" });
const stranger = alpha.person({ identity: "stranger@alpha.test" });
const signal = () => AbortSignal.timeout(10_000);

function rules(change: Partial<TrustRules> = {}): TrustRules {
  const sources = ["rfc822Name", "emailAddress", "uid", "sipUri", "smtpUtf8"] as const;
  const anchor = {
    name: "alpha",
    certificate: alpha.root.certificate,
    domains: ["alpha.test"],
    organisations: [],
    identitiesFrom: sources,
  };
  return {
    anchors: [anchor],
    block: [],
    allow: [],
    rules: [],
    otherwise: "contacts",
    contacts: [],
    requestsOnPort: true,
    ...change,
  };
}

async function start(credentials: TestCredentials, change: Partial<TrustRules>, requestSink?: RequestSink) {
  const connected: PeerConnection[] = [];
  const core = await makePeerTls({
    credentials,
    trust: new Trust(rules(change)),
    clock: () => new Date(),
    random: randomBytes,
    log: silentLog,
    ...(requestSink === undefined ? {} : { requestSink }),
  });
  core.onPeer("sip", (connection) => void connected.push(connection));
  const { port } = await core.listen({ host: "::1", port: 0 });
  return { core, connected, routes: [{ kind: "direct" as const, address: { host: "::1", port } }] };
}

const taken: { request: string; from: Stranger }[] = [];
let bobs: Awaited<ReturnType<typeof start>>;
const cores: PeerTls[] = [];

async function asker(who: TestCredentials, change: Partial<TrustRules> = {}) {
  const { core } = await start(who, change);
  cores.push(core);
  return core;
}

beforeAll(async () => {
  bobs = await start(bob.auth, { block: [{ identity: "blocked@alpha.test" }] }, async (request, from) => {
    taken.push({ request, from });
    return request === "again" ? "later" : "kept";
  });
  cores.push(bobs.core);
});
afterAll(async () => {
  for (const core of cores) await core.close();
});

const expected = (person: TestPerson) => ({
  identity: person.identity,
  fingerprints: [person.auth.certificate.fingerprint],
});

test("a stranger whom nobody admits may hand in one request, by name of his certificate, and is no peer by it", async () => {
  const core = await asker(stranger.auth);
  expect(await core.sendRequest(expected(bob), bobs.routes, "please", signal())).toBe("kept");
  expect(await core.sendRequest(expected(bob), bobs.routes, "again", signal())).toBe("later");
  // The second one of a day is not even looked at.
  expect(taken.map(({ request, from }) => [request, from.identity])).toEqual([["please", stranger.identity]]);
  expect([bobs.connected, bobs.core.connections]).toEqual([[], []]);
  const refused = await core.dial(expected(bob), "sip", bobs.routes, signal());
  await expect(refused.confirmed).rejects.toMatchObject({ code: "refused-by-peer" });
});

test("who is blocked, or has no good certificate, may not even ask", async () => {
  const blocked = alpha.person({ identity: "blocked@alpha.test" });
  const before = taken.length;
  for (const who of [blocked.auth, alpha.bad("expired"), gamma.person({ identity: "x@gamma.test" }).auth]) {
    const core = await asker(who);
    await expect(core.sendRequest(expected(bob), bobs.routes, "please", signal())).rejects.toMatchObject({
      name: "SuiteError",
    });
  }
  expect(taken).toHaveLength(before);
});

test("a node that takes none says so in the handshake; nobody but the expected person is asked", async () => {
  const closed = await start(bob.auth, {});
  cores.push(closed.core);
  const core = await asker(stranger.auth);
  await expect(core.sendRequest(expected(bob), closed.routes, "please", signal())).rejects.toMatchObject({
    name: "SuiteError",
  });
  const before = taken.length;
  const other = alpha.person({ identity: "other@alpha.test" });
  await expect(core.sendRequest(expected(other), bobs.routes, "please", signal())).rejects.toMatchObject({
    code: "identity-mismatch",
  });
  expect(taken).toHaveLength(before);
});

test("of one key one request is heard at a time; another is to come later", async () => {
  const { auth } = alpha.person({ identity: "patient@alpha.test" });
  const pem = [auth.certificate, ...auth.chain].map(({ der }) => derToPem(der, "CERTIFICATE"));
  const open = () => {
    const to = { host: "::1", port: bobs.routes[0]?.address.port ?? 0, ALPNProtocols: ["peertls-request/1"] };
    const key = auth.privateKey.export({ type: "pkcs8", format: "pem" });
    return connect({ ...to, cert: pem.join(""), key, rejectUnauthorized: false }).on("error", () => undefined);
  };
  const first = open();
  await once(first, "session"); // tickets follow the admission
  const [answer] = (await once(open(), "data")) as [Buffer];
  expect(answer).toEqual(Buffer.of(1));
  const closed = once(first, "close");
  first.write(Buffer.alloc(4)); // an empty frame closes
  await closed;
  const third = open();
  await once(third, "session");
  third.write(Buffer.from([0, 0, 0, 1, 0x61]));
  expect(await once(third, "data")).toEqual([Buffer.of(0)]);
  expect(taken.pop()?.request).toBe("a");
});

test("where a stranger asks from is no place from which peers come", async () => {
  const core = await makePeerTls({
    ...{ credentials: bob.auth, trust: new Trust(rules()), random: randomBytes, log: silentLog },
    clock: () => new Date(),
    requestSink: async () => "kept",
    limits: { acceptBurst: 2, acceptsPerSecond: 0.001 },
  });
  cores.push(core);
  const { port } = await core.listen({ host: "::1", port: 0 });
  const routes = [{ kind: "direct" as const, address: { host: "::1", port } }];
  const from = await asker(stranger.auth);
  expect(await from.sendRequest(expected(bob), routes, "please", signal())).toBe("kept");
  expect(await from.sendRequest(expected(bob), routes, "please", signal())).toBe("later");
  await expect(from.sendRequest(expected(bob), routes, "please", signal())).rejects.toMatchObject({
    name: "SuiteError",
  });
});
