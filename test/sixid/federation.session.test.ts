import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { PeerAddress } from "../../src/peertls-core/connection.ts";
import type { Credentials } from "../../src/peertls-core/credentials.ts";
import { httpsClient } from "../../src/peertls-core/https-client.ts";
import { listenService } from "../../src/peertls-core/service.ts";
import { parseCertificate } from "../../src/pki/certificate.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { issueDomainServer } from "../../src/pki/profile.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { DirectoryClient, type KnownDomain } from "../../src/sixid/client.ts";
import { makeDomainDocument, verifyDomainDocument } from "../../src/sixid/domain-document.ts";
import { pinnedName } from "../../src/sixid/locate.ts";
import { MemoryPins, ownOf, startDirectory, startLiar, type TestDirectory } from "../support/directory.ts";
import { makeEcKey, makeTestDomain, spkiOf, type TestDomain, type TestPerson } from "../support/pki.ts";
import { recordLog } from "../support/record-log.ts";
import { requestFrom } from "../support/request.ts";
import { failureOf } from "../support/smime.ts";

const web = makeTestDomain({ domain: "web.test" });
const [alpha, beta] = [makeTestDomain({ domain: "alpha.test" }), makeTestDomain({ domain: "beta.test" })];

/** As a CA of the web would certify the domain's server. */
function webCertificate(domain: string): Credentials {
  const privateKey = makeEcKey();
  const der = issueDomainServer({
    ...{ issuer: web.root, now: web.now, serial: randomBytes(16), spki: spkiOf(privateKey), domain },
  });
  return { privateKey, certificate: parseCertificate(der), chain: [] };
}

/** What the DNS would say: where each domain's servers are. */
const where = new Map<string, readonly PeerAddress[] | "silent">();
const asked: string[] = [];
const locator = {
  servers: async (_service: string, domain: string) => {
    asked.push(domain);
    const found = where.get(domain);
    if (found === undefined) throw new SuiteError("unknown-recipient", "no directory", { fault: "peer" });
    if (found !== "silent") return found;
    throw new SuiteError("directory-unavailable", "the DNS is silent", { fault: "service", temporary: true });
  },
};
const signal = () => AbortSignal.timeout(10_000);
let now = () => new Date();
const log = recordLog();
let alphas: TestDirectory;
let betas: TestDirectory;

async function open(domain: TestDomain): Promise<TestDirectory> {
  const credentials = webCertificate(domain.domain);
  const started = await startDirectory(domain, {
    ...{ locator, webAnchors: [web.anchor], log, clock: () => now() },
    mayAsk: (host) => host !== "127.0.0.1",
    credentialsFor: (serverName) => (serverName === domain.domain ? credentials : undefined),
  });
  where.set(domain.domain, [started.address]);
  return started;
}

beforeAll(async () => {
  alphas = await open(alpha);
  betas = await open(beta);
});
afterAll(async () => {
  await alphas[Symbol.asyncDispose]();
  await betas[Symbol.asyncDispose]();
});

/** A node's view: pinned to its own domain, nothing known of others. */
async function member(domain: TestDomain, home: TestDirectory, name: string) {
  const person = domain.person({ identity: `${name}@${domain.domain}`, encryptionKey: "ec" });
  const uuid = await home.account(person.identity);
  const http = pinnedHttp(domain, home.address, person);
  const known: KnownDomain[] = [];
  const directory = new DirectoryClient({
    ...{ http, uuid, pins: new MemoryPins(), clock: () => now(), log },
    signer: () => person.auth,
    anchorsFor: (asked) =>
      asked === domain.domain
        ? [domain.anchor]
        : known
            .filter((one) => one.domain === asked)
            .flatMap(({ anchors }) => anchors.map((certificate) => ({ name: asked, certificate }))),
    onEvent: () => undefined,
    onDomain: (found) => known.push(found),
  });
  await directory.publishIdentity(ownOf(person, uuid), signal());
  return { person, directory, known, http, [Symbol.dispose]: () => http.close() };
}

/** As somebody of another domain calls a server, which he knows by the web's CAs. */
function strangerHttp(domain: TestDomain, address: PeerAddress, person: TestPerson) {
  return httpsClient({
    ...{ addresses: () => [address], serverName: domain.domain, anchors: () => [web.anchor] },
    ...{ credentials: () => person.auth, clock: () => now() },
  });
}

function pinnedHttp(domain: TestDomain, address: PeerAddress, person: TestPerson) {
  return httpsClient({
    ...{ addresses: () => [address], serverName: domain.domain, indicatedName: pinnedName(domain.domain) },
    ...{ anchors: () => [domain.anchor], credentials: () => person.auth, clock: () => now() },
  });
}

test("people of two domains that know nothing of each other find each other, both ways", async () => {
  using alice = await member(alpha, alphas, "alice");
  using bob = await member(beta, betas, "bob");
  const found = await alice.directory.lookup(bob.person.identity, {}, signal());
  expect(found.devices[0]?.fingerprint).toBe(bob.person.auth.certificate.fingerprint);
  expect(alice.known.map(({ domain, anchors }) => [domain, anchors[0]?.sha256])).toEqual([
    ["beta.test", beta.root.certificate.sha256],
  ]);
  const back = await bob.directory.lookup(alice.person.identity, {}, signal());
  expect(back.identity).toBe(alice.person.identity);
  // The second one needs neither the DNS nor the document.
  const before = asked.length;
  using carol = await member(alpha, alphas, "carol");
  await carol.directory.lookup(bob.person.identity, {}, signal());
  expect(asked.length).toBe(before);
});

test("a person of a domain that was never heard of asks to be admitted", async () => {
  const gamma = makeTestDomain({ domain: "gamma.test" });
  await using gammas = await open(gamma);
  using zoe = await member(gamma, gammas, "zoe");
  using bob = await member(beta, betas, "bob2");
  const at = strangerHttp(beta, betas.address, zoe.person);
  const body = await requestFrom(zoe.person, bob.person.identity);
  const headers = { "content-type": "application/jose" };
  expect(await at.request({ method: "POST", path: "/v1/requests", headers, body }, signal())).toMatchObject({
    status: 202,
  });
  at.close();
  expect(await betas.store.requestsOf((await betas.accounts.find(bob.person.identity))?.uuid ?? "", 0)).toHaveLength(1);
});

describe("a domain is not believed", () => {
  const facts = (domain: TestDomain, root = domain) => ({
    ...{ domain: domain.domain, anchors: [root.root.certificate], cas: [], crl: [], ocsp: [] },
    federation: "open" as const,
  });
  const lookup = async (name: string) => {
    using alice = await member(alpha, alphas, `alice-${randomBytes(4).toString("hex")}`);
    const failure = await failureOf(alice.directory.lookup(parseIdentity(`bob@${name}`), {}, signal()));
    expect(alice.known).toEqual([]);
    return failure;
  };

  test("whose server has no certificate of the web's CAs: unavailable, its own CA vouches for nothing here", async () => {
    const other = makeTestDomain({ domain: "own-ca.test" });
    await using liar = await startLiar(other, () => ({ body: {} }));
    where.set("own-ca.test", [liar.address]);
    expect((await lookup("own-ca.test")).code).toBe("directory-unavailable");
  });

  test("whose server's certificate names another domain", async () => {
    const other = makeTestDomain({ domain: "wrong-name.test" });
    await using liar = await startLiar(other, () => ({ body: {} }), webCertificate("elsewhere.test"));
    where.set("wrong-name.test", [liar.address]);
    expect((await lookup("wrong-name.test")).code).toBe("directory-unavailable");
  });

  test("that is not there, has no directory, or whose names nobody knows now", async () => {
    expect((await lookup("nowhere.test")).code).toBe("unknown-recipient");
    where.set("silent.test", "silent");
    expect((await lookup("silent.test")).code).toBe("directory-unavailable");
    where.set("dead.test", [{ host: "::1", port: 1 }]);
    expect((await lookup("dead.test")).code).toBe("directory-unavailable");
  });

  test("that says something of another domain: its anchors hold for its own people only", async () => {
    const mallory = makeTestDomain({ domain: "mallory.test" });
    const [root] = [await makeDomainDocument(facts(beta, mallory), mallory.domainServer(), new Date())];
    const record = { identity: "a.b.c", devices: {}, maxAge: 60 };
    await using liar = await startLiar(
      mallory,
      (_method, path) => ({ body: path === "/v1/domain" ? { domain: root } : record }),
      webCertificate("mallory.test"),
    );
    where.set("mallory.test", [liar.address]);
    expect((await lookup("mallory.test")).code).toBe("record-rejected");
    const failure = await failureOf(verifyDomainDocument(root ?? "", "mallory.test", new Date()));
    expect(failure.details["step"]).toBe("domain asked for");
  });

  test("whose server has an address that may not be asked: nobody connects there", async () => {
    let connections = 0;
    const inside = await listenService({ host: "127.0.0.1", port: 0 }, (socket) => {
      connections += 1;
      socket.destroy();
    });
    where.set("inside.test", [inside.address]);
    expect((await lookup("inside.test")).code).toBe("directory-unavailable");
    expect(connections).toBe(0);
    await inside.close();
  });

  const document = async (changes: object, by = beta.domainServer(), at = new Date()) =>
    makeDomainDocument({ ...facts(beta), ...changes }, by, at);
  test.each([
    [
      "signed by a key that its anchors do not certify",
      () => document({}, web.domainServer({ name: "beta.test" })),
      "signer path",
    ],
    [
      "signed by a person of the domain",
      () => document({}, beta.person({ identity: "bob@beta.test" }).auth),
      "signer path",
    ],
    ["with an anchor that is none", async () => document({ anchors: [{ der: Buffer.from("none") }] }), "certificate"],
    ["of eight days ago", () => document({}, beta.domainServer(), new Date(Date.now() - 8 * 86_400_000)), "expired"],
    ["of tomorrow", () => document({}, beta.domainServer(), new Date(Date.now() + 86_400_000)), "issued in the future"],
  ])("by a document %s", async (_name, make, step) => {
    const failure = await failureOf(verifyDomainDocument(await make(), "beta.test", new Date()));
    expect(failure).toMatchObject({ code: "record-rejected", details: { step } });
  });

  test("by a document in which an octet was changed, wherever", async () => {
    const jws = await document({});
    for (let at = 0; at < jws.length; at += 7) {
      const other = jws[at] === "A" ? "B" : "A";
      await failureOf(verifyDomainDocument(jws.slice(0, at) + other + jws.slice(at + 1), "beta.test", new Date()));
    }
  });
});

describe("what a domain said", () => {
  test("holds an hour; then it is asked again, and while it is down the old word holds until it expires", async () => {
    const delta = makeTestDomain({ domain: "delta.test" });
    const deltas = await open(delta);
    using alice = await member(alpha, alphas, "alice-later");
    using dan = await member(delta, deltas, "dan");
    await alice.directory.lookup(dan.person.identity, {}, signal());
    await deltas[Symbol.asyncDispose]();
    const start = Date.now();
    try {
      for (const [hours, known] of [
        [2, true],
        [100, true],
        [169, false],
      ] as const) {
        now = () => new Date(start + hours * 3_600_000);
        const answer = await pinnedHttp(alpha, alphas.address, alice.person).request(
          { method: "GET", path: "/v1/domains/delta.test" },
          signal(),
        );
        expect([hours, answer.status]).toEqual([hours, known ? 200 : 504]);
      }
    } finally {
      now = () => new Date();
    }
  });

  test("with other anchors than before is told in the log", async () => {
    const [first, second] = [makeTestDomain({ domain: "moved.test" }), makeTestDomain({ domain: "moved.test" })];
    using alice = await member(alpha, alphas, "alice-moved");
    const start = Date.now();
    try {
      for (const [index, one] of [first, second].entries()) {
        await using server = await open(one);
        now = () => new Date(start + index * 7_200_000);
        const known = await alice.directory.otherDomain("moved.test", signal());
        expect(known.anchors[0]?.sha256).toBe(one.root.certificate.sha256);
        expect(server.address.port).toBeGreaterThan(0);
      }
    } finally {
      now = () => new Date();
    }
    expect(log.lines.filter(({ message }) => message.includes("other anchors"))).toMatchObject([
      { level: "warn", fields: { domain: "moved.test" } },
    ]);
  });
});

test("strangers make us ask for sixty unknown domains a minute, our own people are not kept waiting by it", async () => {
  const crowd = Array.from({ length: 70 }, (_, n) => makeTestDomain({ domain: `crowd${n}.test` }));
  const before = asked.length;
  for (const one of crowd) {
    const at = strangerHttp(beta, betas.address, one.person({ identity: `x@${one.domain}` }));
    await at.request({ method: "GET", path: "/v1/records/bob%40beta.test" }, signal());
    at.close();
  }
  expect(asked.length - before).toBeLessThanOrEqual(60);
  expect(asked.length - before).toBeGreaterThan(50);
  using bob = await member(beta, betas, "bob-own");
  expect((await failureOf(bob.directory.otherDomain("really.test", signal()))).code).toBe("unknown-recipient");
});
