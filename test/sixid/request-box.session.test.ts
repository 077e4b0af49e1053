import { afterAll, beforeAll, expect, test } from "vitest";
import type { PeerAddress } from "../../src/peertls-core/connection.ts";
import { httpsClient } from "../../src/peertls-core/https-client.ts";
import type { Identity } from "../../src/pki/identity.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import type { KnownDomain } from "../../src/sixid/client.ts";
import { RequestBox } from "../../src/sixid/request-box.ts";
import { httpTo, startDirectory, startLiar, type TestDirectory } from "../support/directory.ts";
import { makeTestDomain, type TestPerson } from "../support/pki.ts";
import { expiredRequest, requestFrom, tampered } from "../support/request.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const beta = makeTestDomain({ domain: "beta.test" });
const gamma = makeTestDomain({ domain: "gamma.test" });
const signal = () => AbortSignal.timeout(20_000);
let alphas: TestDirectory;
let betas: TestDirectory;

beforeAll(async () => {
  betas = await startDirectory(beta, { others: [{ domain: alpha, at: () => alphas.address }] });
  alphas = await startDirectory(alpha, { others: [{ domain: beta, at: () => betas.address }] });
});
afterAll(async () => {
  await alphas[Symbol.asyncDispose]();
  await betas[Symbol.asyncDispose]();
});

let people = 0;
const stranger = (domain = alpha) =>
  domain.person({ identity: `stranger${(people += 1)}@${domain.domain}`, encryptionKey: "ec" });

/** A person of beta's with an account. */
async function owner(): Promise<TestPerson> {
  const person = beta.person({ identity: `owner${(people += 1)}@beta.test`, encryptionKey: "ec" });
  await betas.account(person.identity);
  return person;
}

async function stored(person: TestPerson): Promise<{ id: string; jws: string }[]> {
  return betas.store.requestsOf((await betas.accounts.find(person.identity))?.uuid ?? "", Date.now());
}

/** The box as a node of that person uses it, at that server. */
function boxAt(person: TestPerson, at: () => PeerAddress, home = beta, known: readonly KnownDomain[] = []) {
  const http = httpTo(home, at(), person.auth);
  const box = new RequestBox({
    identity: person.identity,
    http,
    directory: {
      otherDomain: async (domain) => {
        const found = known.find((one) => one.domain === domain);
        if (found !== undefined) return found;
        throw new SuiteError("unknown-recipient", "no directory is known for this domain", { fault: "peer" });
      },
      learnDomain: async () => undefined,
    },
    httpTo: ({ domain, at: address, anchors }) =>
      httpsClient({
        addresses: () => (address === undefined ? [] : [address]),
        serverName: domain,
        anchors: () => anchors.map((certificate) => ({ name: domain, certificate })),
        credentials: () => person.auth,
        clock: () => new Date(),
      }),
    anchorsFor: (domain) => [alpha, beta].filter((one) => one.domain === domain).map((one) => one.anchor),
    clock: () => new Date(),
  });
  return { box, [Symbol.dispose]: () => http.close() };
}

const toBeta = (anchors = [beta.root.certificate]) => [{ domain: "beta.test", anchors, at: betas.address }];

test("asks at the other domain's server itself; the owner's node finds the request, verified, and drops it", async () => {
  const [alice, bob] = [stranger(), await owner()];
  using alices = boxAt(alice, () => alphas.address, alpha, toBeta());
  using bobs = boxAt(bob, () => betas.address);
  await alices.box.handIn(bob.identity, await requestFrom(alice, bob.identity), signal());
  const [waiting] = await bobs.box.list(signal());
  expect(waiting).toMatchObject({ request: { from: alice.identity, body: { text: "Hello" } } });
  await bobs.box.drop(waiting?.id ?? "", signal());
  expect(await bobs.box.list(signal())).toEqual([]);
});

test("asks somebody of the own domain at the own server", async () => {
  const [alice, bob] = [stranger(beta), await owner()];
  using alices = boxAt(alice, () => betas.address);
  await alices.box.handIn(bob.identity, await requestFrom(alice, bob.identity), signal());
  expect(await stored(bob)).toHaveLength(1);
});

test("tells nobody anything at a server that is not the domain's, and knows no way to an unknown one", async () => {
  const [alice, bob] = [stranger(), await owner()];
  const jws = await requestFrom(alice, bob.identity);
  using misled = boxAt(alice, () => alphas.address, alpha, toBeta([gamma.root.certificate]));
  await expect(misled.box.handIn(bob.identity, jws, signal())).rejects.toMatchObject({
    code: "directory-unavailable",
  });
  using lost = boxAt(alice, () => alphas.address, alpha, []);
  await expect(lost.box.handIn(bob.identity, jws, signal())).rejects.toMatchObject({ code: "unknown-recipient" });
  expect(await stored(bob)).toEqual([]);
});

const id = "0".repeat(64);
test.each<[string, string, (alice: TestPerson, bob: TestPerson) => Promise<string>]>([
  ["a request that another key signed", "signer path", (a, b) => requestFrom(a, b.identity, { by: stranger().auth })],
  ["a request to somebody else", "addressee", (a) => requestFrom(a, "other@beta.test" as Identity)],
  ["an expired request, replayed", "expired", (a, b) => expiredRequest(a, b.identity)],
  ["a request of a domain that is not known", "signer path", (_a, b) => requestFrom(stranger(gamma), b.identity)],
  ["a tampered request", "signature", async (a, b) => tampered(await requestFrom(a, b.identity))],
])("a lying server's box holds %s: it is refused beside the good one", async (_name, step, forge) => {
  const [alice, bob] = [stranger(), await owner()];
  const [good, bad] = [await requestFrom(alice, bob.identity), await forge(alice, bob)];
  await using liar = await startLiar(beta, () => ({
    body: {
      requests: [
        { id, jws: bad },
        { id, jws: good },
      ],
    },
  }));
  using bobs = boxAt(bob, () => liar.address);
  expect(await bobs.box.list(signal())).toMatchObject([
    { refused: { code: "record-rejected", details: { step } } },
    { request: { from: alice.identity } },
  ]);
});

test.each<[string, object | string]>([
  ["no JSON", "<html>"],
  ["another form", { requests: [{ id: 7 }] }],
  ["a name that is a path", { requests: [{ id: "../identity", jws: "x" }] }],
  ["101 requests", { requests: Array.from({ length: 101 }, () => ({ id, jws: "x" })) }],
  ["a request of 20 KB", { requests: [{ id, jws: "x".repeat(20_000) }] }],
])("a lying server's answer of %s is refused as a whole", async (_name, body) => {
  const bob = await owner();
  await using liar = await startLiar(beta, () => ({ body }));
  using bobs = boxAt(bob, () => liar.address);
  await expect(bobs.box.list(signal())).rejects.toMatchObject({
    code: "record-rejected",
    details: { step: "reply" },
  });
});
