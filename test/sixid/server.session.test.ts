import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { HttpsResponse } from "../../src/peertls-core/https-client.ts";
import { makeAddresses, makeIdentity } from "../../src/sixid/announce.ts";
import type { Canonical } from "../../src/sixid/canonical.ts";
import { DirectoryClient } from "../../src/sixid/client.ts";
import { sign } from "../../src/sixid/signed.ts";
import {
  hashOf,
  history,
  httpTo,
  MemoryPins,
  ownOf,
  payloadOf,
  startDirectory,
  type TestDirectory,
} from "../support/directory.ts";
import { makeTestDomain, type TestCredentials, type TestPerson } from "../support/pki.ts";
import { recordLog } from "../support/record-log.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const beta = makeTestDomain({ domain: "beta.test" });
const signal = () => AbortSignal.timeout(20_000);
const json = { "content-type": "application/json" };
const log = recordLog();
/** The server's clock stands still while it is set. */
let frozen: Date | undefined;
let server: TestDirectory;
let betas: TestDirectory;

beforeAll(async () => {
  betas = await startDirectory(beta, { others: [{ domain: alpha, at: () => server.address }] });
  const others = [{ domain: beta, at: () => betas.address }];
  server = await startDirectory(alpha, { others, log, clock: () => frozen ?? new Date() });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await betas[Symbol.asyncDispose]();
});

async function request(
  as: TestCredentials | undefined,
  method: string,
  path: string,
  body?: string,
  headers: Record<string, string> = { "content-type": "application/jose" },
): Promise<HttpsResponse & { problem: { code?: string; step?: string } }> {
  const http = httpTo(alpha, server.address, as);
  try {
    const response = await http.request({ method, path, headers, ...(body === undefined ? {} : { body }) }, signal());
    const problem = response.status >= 400 ? (JSON.parse(response.body.toString("utf8")) as { code: string }) : {};
    if (response.status >= 400) expect(response.headers["content-type"]).toContain("application/problem+json");
    return { ...response, problem };
  } finally {
    http.close();
  }
}

let people = 0;

/** A new person with an account and two published objects. */
async function published() {
  const person = alpha.person({ identity: `person${(people += 1)}@alpha.test`, encryptionKey: "ec" });
  const uuid = await server.account(person.identity);
  const own = ownOf(person, uuid);
  const objects = await history([1, 2, 3].map((n) => ({ own: { ...own, name: `name ${n}` }, by: person.auth })));
  const [one = "", two = "", three = ""] = objects;
  for (const jws of [one, two]) expect((await request(person.auth, "PUT", "/v1/identity", jws)).status).toBe(200);
  return { person, uuid, own, one, two, three };
}

const told = async (of: TestPerson) => {
  const response = await request(of.auth, "GET", `/v1/records/${encodeURIComponent(of.identity)}`);
  return response.status === 200 ? (JSON.parse(response.body.toString("utf8")) as { identity: string }) : undefined;
};

describe("the durable part of a record", () => {
  type Published = Awaited<ReturnType<typeof published>>;
  test.each<[string, number, string, (own: Published, other: Published) => Promise<string> | string]>([
    ["replayed: an earlier object", 409, "conflict", ({ one }) => one],
    [
      "with a lower sequence",
      409,
      "conflict",
      ({ own, person, two }) => makeIdentity(own, { seq: 0, hash: hashOf(two) }, person.auth, new Date()),
    ],
    [
      "with the current sequence and another content",
      409,
      "conflict",
      ({ own, person, one }) => makeIdentity(own, { seq: 1, hash: hashOf(one) }, person.auth, new Date()),
    ],
    [
      "that leaves a sequence out",
      409,
      "conflict",
      ({ own, person, two }) => makeIdentity(own, { seq: 3, hash: hashOf(two) }, person.auth, new Date()),
    ],
    [
      "that names another predecessor",
      409,
      "conflict",
      ({ own, person, one }) => makeIdentity(own, { seq: 2, hash: hashOf(one) }, person.auth, new Date()),
    ],
    ["of another person, as he signed it", 422, "record-rejected", (_own, other) => other.three],
    [
      "of the caller, signed by another person's key",
      422,
      "record-rejected",
      ({ own, two }, other) => makeIdentity(own, { seq: 2, hash: hashOf(two) }, other.person.auth, new Date()),
    ],
    [
      "under another person's uuid",
      422,
      "record-rejected",
      ({ own, person, two }, other) =>
        makeIdentity({ ...own, uuid: other.uuid }, { seq: 2, hash: hashOf(two) }, person.auth, new Date()),
    ],
    [
      "tampered",
      422,
      "record-rejected",
      ({ three }) => {
        const [head, , signature] = three.split(".");
        return [head, Buffer.from(payloadOf(three).replace("name 3", "name X")).toString("base64url"), signature].join(
          ".",
        );
      },
    ],
    ["nonsense", 422, "record-rejected", () => "nonsense"],
  ])("%s is refused, and the current one stays", async (_name, status, code, forge) => {
    const [own, other] = [await published(), await published()];
    const response = await request(own.person.auth, "PUT", "/v1/identity", await forge(own, other));
    expect([response.status, response.problem.code]).toEqual([status, code]);
    expect((await told(own.person))?.identity).toBe(own.two);
    expect((await told(other.person))?.identity).toBe(other.two);
  });

  test("the same object again is taken as answered: only the answer was lost", async () => {
    const { person, two } = await published();
    expect((await request(person.auth, "PUT", "/v1/identity", two)).status).toBe(200);
  });

  test("a new certificate of the same person's, which the current object does not list, cannot take the record over", async () => {
    const { person, own, two } = await published();
    const thief = alpha.person({ identity: person.identity, encryptionKey: "ec" });
    const taken = await makeIdentity(
      { ...own, devices: [{ certificate: thief.auth.certificate, label: "" }] },
      { seq: 2, hash: hashOf(two) },
      thief.auth,
      new Date(),
    );
    const response = await request(thief.auth, "PUT", "/v1/identity", taken);
    expect(response.status).toBe(202); // held for a day: test/sixid/roots.session.test.ts
    expect((await told(person))?.identity).toBe(two);
  });

  test("an object that another of the person's devices signed is refused from this one", async () => {
    const { person, three } = await published();
    const second = alpha.person({ identity: person.identity, encryptionKey: "ec" });
    expect((await request(second.auth, "PUT", "/v1/identity", three)).status).toBe(403);
    expect((await request(person.auth, "PUT", "/v1/identity", three)).status).toBe(200);
  });

  test("nobody publishes anonymously, by another domain's certificate, or without an account", async () => {
    const { three } = await published();
    const stranger = alpha.person({ identity: "noaccount@alpha.test", encryptionKey: "ec" });
    const foreign = beta.person({ identity: "b@beta.test", encryptionKey: "ec" });
    for (const who of [undefined, stranger.auth, foreign.auth]) {
      expect((await request(who, "PUT", "/v1/identity", three)).status).toBe(403);
    }
  });

  test.each<[string, number, string, Record<string, string>]>([
    ["another content type", 415, "x", { "content-type": "text/html" }],
    ["JSON where an object is due", 400, "{}", json],
    ["broken JSON", 400, "{", json],
    ["200 KB", 413, "A".repeat(200_000), { "content-type": "application/jose" }],
  ])("%s: the status says it", async (_name, status, body, headers) => {
    const { person } = await published();
    expect((await request(person.auth, "PUT", "/v1/identity", body, headers)).status).toBe(status);
  });
});

describe("a device's addresses", () => {
  const at = { host: "::1", port: 4605, kind: "direct", priority: 1 } as const;
  const path = (of: TestPerson) => `/v1/devices/${of.auth.certificate.fingerprint}/addresses`;
  type Published = Awaited<ReturnType<typeof published>>;
  const signed = (own: Published, seq: number, by = own.person.auth, uuid = own.uuid) =>
    makeAddresses(uuid, [at], seq, by, new Date());

  test.each<[string, number, (own: Published, other: Published, now: number) => Promise<string>]>([
    ["replayed", 409, (own, _other, now) => signed(own, now)],
    ["with a lower sequence", 409, (own, _other, now) => signed(own, now - 1)],
    ["with a sequence from the future", 422, (own, _other, now) => signed(own, now + 400_000)],
    ["of another person, as his device signed them", 422, (_own, other, now) => signed(other, now + 1)],
    [
      "signed by a key that the record does not list",
      422,
      (own, other, now) => signed(own, now + 1, other.person.auth),
    ],
    ["of another uuid", 422, (own, other, now) => signed(own, now + 1, own.person.auth, other.uuid)],
    [
      "for another device, signed by this one",
      422,
      async (own, other, now) =>
        sign(
          "sixid-addresses",
          {
            ...(JSON.parse(payloadOf(await signed(own, now + 1))) as Record<string, Canonical>),
            device: other.person.auth.certificate.fingerprint,
          },
          own.person.auth,
          "kid",
        ),
    ],
  ])("%s are refused, and the current ones stay", async (_name, status, forge) => {
    const [own, other] = [await published(), await published()];
    const now = Date.now();
    const good = await signed(own, now);
    expect((await request(own.person.auth, "PUT", path(own.person), good)).status).toBe(200);
    expect((await request(own.person.auth, "PUT", path(own.person), await forge(own, other, now))).status).toBe(status);
    const record = await server.store.record(own.uuid);
    expect(record?.devices).toMatchObject([{ addresses: good }]);
  });

  test("another device's place is not written to, and not without a certificate", async () => {
    const [own, other] = [await published(), await published()];
    const jws = await signed(own, Date.now());
    expect((await request(other.person.auth, "PUT", path(own.person), jws)).status).toBe(403);
    expect((await request(undefined, "PUT", path(own.person), jws)).status).toBe(403);
    expect((await request(own.person.auth, "PUT", path(other.person), jws)).status).toBe(403);
  });

  test("a node whose clock went back goes on from what the directory has, and says nothing twice", async () => {
    const own = await published();
    const http = httpTo(alpha, server.address, own.person.auth);
    const node = (ahead: number) =>
      new DirectoryClient({
        http,
        uuid: own.uuid,
        signer: () => own.person.auth,
        anchorsFor: () => [alpha.anchor],
        pins: new MemoryPins(),
        clock: () => new Date(Date.now() + ahead),
        log,
        onEvent: () => undefined,
        onDomain: () => undefined,
      });
    const seq = async () => {
      const jws = (await server.store.record(own.uuid))?.devices[0]?.addresses ?? "";
      return JSON.parse(payloadOf(jws)) as { seq: number; addresses: { port: number }[] };
    };
    await node(60_000).publishAddresses([at], signal());
    const before = await seq();
    await node(-3_600_000).publishAddresses([{ ...at, port: 1 }], signal());
    expect(await seq()).toMatchObject({ seq: before.seq + 1, addresses: [{ port: 1 }] });
    http.close();
  });

  test("a device does not announce another device of the same person", async () => {
    const own = await published();
    const second = alpha.person({ identity: own.person.identity, encryptionKey: "ec" });
    const both = { ...own.own, devices: [...own.own.devices, { certificate: second.auth.certificate, label: "" }] };
    const three = await makeIdentity(both, { seq: 2, hash: hashOf(own.two) }, own.person.auth, new Date());
    expect((await request(own.person.auth, "PUT", "/v1/identity", three)).status).toBe(200);
    const seconds = await signed(own, Date.now(), second.auth);
    expect((await request(own.person.auth, "PUT", path(own.person), seconds)).status).toBe(403);
    expect((await request(own.person.auth, "PUT", path(second), seconds)).status).toBe(403);
    expect((await server.store.record(own.uuid))?.devices).toEqual([]);
  });

  test("a device that leaves the record loses its addresses", async () => {
    const own = await published();
    const second = alpha.person({ identity: own.person.identity, encryptionKey: "ec" });
    const both = { ...own.own, devices: [...own.own.devices, { certificate: second.auth.certificate, label: "" }] };
    const three = await makeIdentity(both, { seq: 2, hash: hashOf(own.two) }, own.person.auth, new Date());
    expect((await request(own.person.auth, "PUT", "/v1/identity", three)).status).toBe(200);
    expect((await request(second.auth, "PUT", path(second), await signed(own, Date.now(), second.auth))).status).toBe(
      200,
    );
    const four = await makeIdentity(own.own, { seq: 3, hash: hashOf(three) }, own.person.auth, new Date());
    expect((await request(own.person.auth, "PUT", "/v1/identity", four)).status).toBe(200);
    expect((await server.store.record(own.uuid))?.devices).toEqual([]);
    expect((await request(second.auth, "PUT", path(second), await signed(own, Date.now(), second.auth))).status).toBe(
      422,
    );
  });
});

describe("look-ups", () => {
  test("unknown, hidden and impossible names get one and the same answer", async () => {
    const { person } = await published();
    const stranger = alpha.person({ identity: "norecord@alpha.test", encryptionKey: "ec" });
    await server.account(stranger.identity);
    const look = (as: TestCredentials | undefined, key: string) =>
      request(as, "GET", `/v1/records/${encodeURIComponent(key)}`);
    const answers = [
      await look(person.auth, "nobody@alpha.test"),
      await look(person.auth, "norecord@alpha.test"),
      await look(person.auth, "+4912345"),
      await look(undefined, person.identity),
      await look(beta.bad("untrusted", "x@beta.test"), person.identity),
    ];
    expect(new Set(answers.map(({ status, body }) => `${status} ${body.toString("utf8")}`)).size).toBe(1);
    expect(answers[0]?.status).toBe(404);
  });

  test("an expired certificate is refused in the handshake, not taken for an anonymous caller", async () => {
    await expect(request(alpha.bad("expired"), "GET", "/v1/domains")).rejects.toMatchObject({ name: "SuiteError" });
  });

  test("another domain's people ask their own server; only a domain's server asks for them", async () => {
    const { person } = await published();
    const carol = beta.person({ identity: "carol@beta.test", encryptionKey: "ec" });
    await betas.account(carol.identity);
    expect((await request(carol.auth, "GET", `/v1/records/${person.identity}`)).status).toBe(200);
    const http = httpTo(beta, betas.address, carol.auth);
    const directory = new DirectoryClient({
      http,
      uuid: "",
      signer: () => carol.auth,
      anchorsFor: () => [alpha.anchor],
      pins: new MemoryPins(),
      clock: () => new Date(),
      log,
      onEvent: () => undefined,
      onDomain: () => undefined,
    });
    expect((await directory.lookup(person.identity, {}, signal())).name).toBe("name 2");
    http.close();
  });

  const question = (change: object) =>
    JSON.stringify({ key: "person1@alpha.test", onBehalfOf: "b@beta.test", hops: 1, trail: ["beta.test"], ...change });
  const betaServer = beta.domainServer();
  test.each<[string, number, TestCredentials | undefined, string]>([
    ["on behalf of its own people", 200, betaServer, question({})],
    ["on behalf of another domain's people", 403, betaServer, question({ onBehalfOf: "x@gamma.test" })],
    ["on behalf of ours", 403, betaServer, question({ onBehalfOf: "x@alpha.test" })],
    ["for the third hop", 508, betaServer, question({ hops: 3 })],
    ["in a circle", 508, betaServer, question({ trail: ["alpha.test", "beta.test"] })],
    ["for a third domain", 404, betaServer, question({ key: "x@gamma.test" })],
    ["with a member more", 400, betaServer, question({ more: 1 })],
    ["on behalf of nobody", 400, betaServer, question({ onBehalfOf: "nobody" })],
    ["anonymously", 403, undefined, question({})],
    ["as a person", 403, beta.person({ identity: "b@beta.test", encryptionKey: "ec" }).auth, question({})],
  ])("a question %s", async (_name, status, as, body) => {
    if (people === 0) await published();
    expect((await request(as, "POST", "/v1/recursive", body, json)).status).toBe(status);
  });

  test("what does not exist is told as a problem", async () => {
    const { person } = await published();
    expect((await request(person.auth, "GET", "/v2/x")).problem.code).toBe("not-found");
    expect((await request(person.auth, "DELETE", "/v1/identity")).status).toBe(404);
  });
});

describe("passwords and tokens", () => {
  const basic = (user: string, secret: string) => ({
    authorization: `Basic ${Buffer.from(`${user}:${secret}`).toString("base64")}`,
  });
  const login = (user: string, secret: string) =>
    request(undefined, "POST", "/v1/session", undefined, basic(user, secret));

  test("wrong ones wait longer and longer; unknown users look the same", async () => {
    const { person } = await published();
    const local = person.identity.split("@")[0] ?? "";
    const set = (password: string) => request(person.auth, "PUT", "/v1/password", JSON.stringify({ password }), json);
    expect((await set("short")).status).toBe(400);
    expect((await set("x".repeat(1_025))).status).toBe(400);
    expect((await set("a good:password")).status).toBe(204);
    expect((await login(person.identity, "a good:password")).status).toBe(200);
    frozen = new Date(); // the wait is not to run out while passwords are hashed
    const unknown = await login("nobody", "whatever-it-is");
    const wrong = await login(local, "whatever-it-is");
    expect([unknown.status, unknown.body.toString("utf8")]).toEqual([wrong.status, wrong.body.toString("utf8")]);
    expect(wrong.status).toBe(401);
    for (let n = 0; n < 4; n += 1) expect((await login(local, "wrong-again")).status).toBe(401);
    const waiting = await login(local, "a good:password");
    frozen = undefined;
    expect([waiting.status, waiting.headers["retry-after"]]).toEqual([429, "1"]);
  });

  test("a token opens look-ups until it is given back, and never the addresses", async () => {
    const { person } = await published();
    const local = person.identity.split("@")[0] ?? "";
    await request(person.auth, "PUT", "/v1/password", JSON.stringify({ password: "a good password" }), json);
    const { token } = JSON.parse((await login(local, "a good password")).body.toString("utf8")) as { token: string };
    const bearer = { authorization: `Bearer ${token}` };
    const look = () => request(undefined, "GET", `/v1/records/${person.identity}`, undefined, bearer);
    expect((await look()).status).toBe(200);
    const path = `/v1/devices/${person.auth.certificate.fingerprint}/addresses`;
    expect((await request(undefined, "PUT", path, "x", { ...bearer, "content-type": "application/jose" })).status).toBe(
      403,
    );
    expect((await request(undefined, "DELETE", "/v1/session", undefined, bearer)).status).toBe(204);
    expect((await look()).status).toBe(404);
  });

  test.each(["Basic", "Basic !!!", "Basic QQ==", "Bearer x", "Basic OmE="])("%s is no login", async (authorization) => {
    expect((await request(undefined, "POST", "/v1/session", undefined, { authorization })).status).toBe(401);
  });
});

test("no refused request counts as this server's failure", () => {
  expect(log.lines.filter((line) => line.level === "error").map((line) => line.fields["route"])).toEqual([
    "/v1/recursive",
    "/v1/recursive",
  ]);
});
