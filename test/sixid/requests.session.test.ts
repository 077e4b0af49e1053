import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseCertificate } from "../../src/pki/certificate.ts";
import { encodeRfc822Name } from "../../src/pki/general-name.ts";
import type { Identity } from "../../src/pki/identity.ts";
import { issueCertificate } from "../../src/pki/issue.ts";
import type { BoxReply } from "../../src/sixid/records.ts";
import { httpTo, payloadOf, startDirectory, type TestDirectory } from "../support/directory.ts";
import { authTemplate, makeEcKey, makeTestDomain, type TestCredentials, type TestPerson } from "../support/pki.ts";
import { altered, expiredRequest, requestFrom, tampered } from "../support/request.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const beta = makeTestDomain({ domain: "beta.test" });
const gamma = makeTestDomain({ domain: "gamma.test" });
const DAY = 86_400_000;
const signal = () => AbortSignal.timeout(20_000);
/** How far ahead of the real time beta's server and the askers are. */
let ahead = 0;
const clock = () => new Date(Date.now() + ahead);
let alphas: TestDirectory;
let betas: TestDirectory;

beforeAll(async () => {
  betas = await startDirectory(beta, {
    others: [{ domain: alpha, at: () => alphas.address }],
    clock,
  });
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

const requestOf = (from: TestPerson, to: Identity, text?: string, by?: TestCredentials) =>
  requestFrom(from, to, { now: clock(), ...(text === undefined ? {} : { text }), ...(by === undefined ? {} : { by }) });

/** A certificate for two people, by a CA whose names nothing constrains. */
function twoNames(...identities: [Identity, Identity]): TestCredentials {
  const privateKey = makeEcKey();
  const template = authTemplate(identities[0], alpha.now, alpha.root, privateKey);
  const subjectAltNames = identities.map((identity) => encodeRfc822Name(identity));
  const certificate = parseCertificate(issueCertificate({ ...template, subjectAltNames }, alpha.root.privateKey));
  return { privateKey, certificate, chain: [] };
}

async function ask(
  as: TestCredentials | undefined,
  method: string,
  path: string,
  body?: string,
  headers: Record<string, string> = { "content-type": "application/jose" },
) {
  const http = httpTo(beta, betas.address, as);
  try {
    return await http.request({ method, path, headers, ...(body === undefined ? {} : { body }) }, signal());
  } finally {
    http.close();
  }
}

const post = (as: TestCredentials | undefined, jws: string) => ask(as, "POST", "/v1/requests", jws);

async function boxOf(person: TestPerson): Promise<BoxReply["requests"]> {
  const response = await ask(person.auth, "GET", "/v1/requests");
  expect(response.status).toBe(200);
  return (JSON.parse(response.body.toString("utf8")) as BoxReply).requests;
}

/** All of an answer that an asker could tell apart; the date aside. */
function shownBy({ status, headers, body }: Awaited<ReturnType<typeof ask>>): string {
  const { date: _date, ...others } = headers;
  return JSON.stringify([status, others, body.toString("utf8")]);
}

describe("handing in", () => {
  test("a request of another domain's person waits in the box until the owner takes it out", async () => {
    const [alice, bob] = [stranger(), await owner()];
    const jws = await requestOf(alice, bob.identity);
    expect((await post(alice.auth, jws)).status).toBe(202);
    const waiting = await boxOf(bob);
    expect(waiting.map((one) => one.jws)).toEqual([jws]);
    expect((await ask(bob.auth, "DELETE", `/v1/requests/${waiting[0]?.id}`)).status).toBe(204);
    expect(await boxOf(bob)).toEqual([]);
  });

  test.each<
    [string, number, string, (alice: TestPerson, bob: TestPerson) => Promise<[TestCredentials | undefined, string]>]
  >([
    ["without a certificate", 403, "forbidden", async (a, b) => [undefined, await requestOf(a, b.identity)]],
    [
      "by a server of the asker's domain",
      403,
      "forbidden",
      async (a, b) => [alpha.domainServer(), await requestOf(a, b.identity)],
    ],
    [
      "by somebody else: replayed",
      422,
      "record-rejected",
      async (a, b) => [stranger().auth, await requestOf(a, b.identity)],
    ],
    [
      "by another key of the asker's than signed it",
      422,
      "record-rejected",
      async (a, b) => [
        alpha.person({ identity: a.identity, encryptionKey: "ec" }).auth,
        await requestOf(a, b.identity),
      ],
    ],
    [
      "with somebody else's signature",
      422,
      "record-rejected",
      async (a, b) => [a.auth, await requestOf(a, b.identity, "", stranger().auth)],
    ],
    [
      "tampered",
      422,
      "record-rejected",
      async (a, b) => {
        return [a.auth, tampered(await requestOf(a, b.identity))];
      },
    ],
    [
      "in another person's name",
      422,
      "record-rejected",
      async (a, b) => [a.auth, await altered(a, b.identity, { from: "boss@alpha.test" })],
    ],
    [
      "in the name of another domain's person, whom the asker's own CA has certified",
      422,
      "record-rejected",
      async (a, b) => {
        const both = twoNames(a.identity, "boss@gamma.test" as Identity);
        return [both, await requestFrom({ ...a, identity: "boss@gamma.test" as Identity }, b.identity, { by: both })];
      },
    ],
    [
      "for a person of another domain",
      422,
      "record-rejected",
      async (a) => [a.auth, await requestOf(a, "x@gamma.test" as Identity)],
    ],
    ["expired", 422, "record-rejected", async (a, b) => [a.auth, await expiredRequest(a, b.identity)]],
    [
      "that wants to live for a year",
      422,
      "record-rejected",
      async (a, b) => [a.auth, await altered(a, b.identity, { expires: Math.floor(Date.now() / 1000) + 31_536_000 })],
    ],
    [
      "of a person of a domain that the server does not know",
      403,
      "forbidden",
      async (_a, b) => {
        const carol = stranger(gamma);
        return [carol.auth, await requestOf(carol, b.identity)];
      },
    ],
    [
      "of 20 KB",
      422,
      "record-rejected",
      async (a, b) => [a.auth, await altered(a, b.identity, { text: "x".repeat(20_000) })],
    ],
    ["that is none", 422, "record-rejected", async (a) => [a.auth, "x.y.z"]],
  ])("%s is refused, and the box stays empty", async (_name, status, code, forge) => {
    const [alice, bob] = [stranger(), await owner()];
    const [as, jws] = await forge(alice, bob);
    const response = await post(as, jws);
    expect([response.status, (JSON.parse(response.body.toString("utf8")) as { code: string }).code]).toEqual([
      status,
      code,
    ]);
    expect(await boxOf(bob)).toEqual([]);
  });

  test("an unknown name, a blocked account, a full box and a taken request get one and the same answer", async () => {
    const [bob, full] = [await owner(), await owner()];
    const uuid = (await betas.accounts.find(full.identity))?.uuid ?? "";
    const fill = { windowMs: 0, perAsker: 1_000, perDomain: 1_000, total: 1_000, pending: 100 };
    for (let n = 0; n < 100; n += 1) {
      const from = `filler${n}@filler.test` as Identity;
      const one = { hash: `${n}`, from, to: full.identity, owner: uuid, signer: `${n}`, jws: "x" };
      await betas.store.putRequest({ ...one, at: clock().getTime(), expires: clock().getTime() + DAY }, fill);
    }
    const shown = new Set<string>();
    for (const to of [bob.identity, "nobody@beta.test" as Identity, full.identity]) {
      const alice = stranger();
      const jws = await requestOf(alice, to);
      shown.add(shownBy(await post(alice.auth, jws)));
      shown.add(shownBy(await post(alice.auth, jws))); // and again: only the answer was lost
    }
    expect([...shown]).toHaveLength(1);
    expect([...shown][0]).toContain("pending");
    expect(await boxOf(bob)).toHaveLength(1);
    expect(await betas.store.requestsOf(uuid, clock().getTime())).toHaveLength(100);
  });

  test("whoever has 100 requests still gets the newer words of an asker who is among them", async () => {
    const [alice, bob] = [stranger(), await owner()];
    const uuid = (await betas.accounts.find(bob.identity))?.uuid ?? "";
    const put = (from: Identity, hash: string) =>
      betas.store.putRequest(
        {
          ...{ hash, from, to: bob.identity, owner: uuid, signer: hash, jws: hash },
          ...{ at: clock().getTime(), expires: clock().getTime() + DAY },
        },
        { windowMs: 0, perAsker: 1_000, perDomain: 1_000, total: 1_000, pending: 2 },
      );
    expect(await put(alice.identity, "first")).toEqual({ outcome: "kept" });
    expect(await put("other@x.test" as Identity, "other")).toEqual({ outcome: "kept" });
    expect(await put("third@x.test" as Identity, "third")).toEqual({ outcome: "noted" });
    expect(await put(alice.identity, "second")).toEqual({ outcome: "kept" });
    expect((await betas.store.requestsOf(uuid, 0)).map((one) => one.id).sort()).toEqual(["other", "second"]);
  });
});

describe("the owner alone", () => {
  test("lists and takes out; nobody else does, and the asker neither", async () => {
    const [alice, bob, eve] = [stranger(), await owner(), await owner()];
    await post(alice.auth, await requestOf(alice, bob.identity));
    const [waiting] = await boxOf(bob);
    expect(await boxOf(eve)).toEqual([]);
    for (const who of [undefined, alice.auth, alpha.domainServer(), beta.domainServer()]) {
      expect((await ask(who, "GET", "/v1/requests")).status).toBe(403);
      expect((await ask(who, "DELETE", `/v1/requests/${waiting?.id}`)).status).toBe(403);
    }
    expect((await ask(eve.auth, "DELETE", `/v1/requests/${waiting?.id}`)).status).toBe(204);
    expect(await boxOf(bob)).toEqual([waiting]);
  });

  test("also by a token, which does not hand in", async () => {
    const [alice, bob] = [stranger(), await owner()];
    await post(alice.auth, await requestOf(alice, bob.identity));
    const account = await betas.accounts.find(bob.identity);
    const { token } = await betas.accounts.openSession(
      account ?? { uuid: "", identity: bob.identity, name: "", roles: [] },
    );
    const headers = { authorization: `Bearer ${token}` };
    const listed = await ask(undefined, "GET", "/v1/requests", undefined, headers);
    const { requests } = JSON.parse(listed.body.toString("utf8")) as BoxReply;
    expect(requests).toHaveLength(1);
    const jose = { ...headers, "content-type": "application/jose" };
    const jws = await requestOf(bob, alice.identity);
    expect((await ask(undefined, "POST", "/v1/requests", jws, jose)).status).toBe(403);
    expect((await ask(undefined, "DELETE", `/v1/requests/${requests[0]?.id}`, undefined, headers)).status).toBe(204);
    expect(await boxOf(bob)).toEqual([]);
  });
});

describe("how often one may ask", () => {
  test("once a day and person, whether or not she exists or has taken the first one out; a newer one replaces what waits", async () => {
    const [alice, bob] = [stranger(), await owner()];
    const nobody = "nobody@beta.test" as Identity;
    for (const to of [bob.identity, nobody]) {
      expect((await post(alice.auth, await requestOf(alice, to, "one"))).status).toBe(202);
      const again = await post(alice.auth, await requestOf(alice, to, "two"));
      expect([again.status, Number(again.headers["retry-after"]) > 86_000]).toEqual([429, true]);
    }
    expect(await boxOf(bob)).toHaveLength(1);
    ahead += DAY + 1;
    expect((await post(alice.auth, await requestOf(alice, bob.identity, "three"))).status).toBe(202);
    expect((await boxOf(bob)).map(({ jws }) => JSON.parse(payloadOf(jws)) as object)).toMatchObject([
      { text: "three" },
    ]);
    const [waiting] = await boxOf(bob);
    await ask(bob.auth, "DELETE", `/v1/requests/${waiting?.id}`);
    expect((await post(alice.auth, await requestOf(alice, bob.identity, "four"))).status).toBe(429);
    expect((await post(alice.auth, waiting?.jws ?? "")).status).toBe(202);
    expect(await boxOf(bob)).toEqual([]); // what was taken out does not come back
  });

  test("five people a day and asker, those that do not exist among them", async () => {
    ahead += DAY + 1;
    const [alice, bob] = [stranger(), await owner()];
    const statuses = [];
    for (const to of [1, 2, 3, 4].map((n) => `none${n}@beta.test`)) {
      statuses.push((await post(alice.auth, await requestOf(alice, to as Identity))).status);
    }
    statuses.push((await post(alice.auth, await requestOf(alice, bob.identity))).status);
    const sixth = await owner();
    statuses.push((await post(alice.auth, await requestOf(alice, sixth.identity))).status);
    statuses.push((await post(alice.auth, await requestOf(alice, "none9@beta.test" as Identity))).status);
    expect(statuses).toEqual([202, 202, 202, 202, 202, 429, 429]);
    ahead += DAY + 1;
    expect((await post(alice.auth, await requestOf(alice, sixth.identity))).status).toBe(202);
  });

  test("fifty a day of another domain's people together; the own domain's are not counted so", async () => {
    ahead += DAY + 1;
    const bob = await owner();
    for (let n = 0; n < 50; n += 1) {
      const one = stranger();
      const status = (await post(one.auth, await requestOf(one, bob.identity))).status;
      expect([n, status]).toEqual([n, 202]);
    }
    const [late, own] = [stranger(), stranger(beta)];
    expect((await post(late.auth, await requestOf(late, bob.identity))).status).toBe(429);
    expect((await post(own.auth, await requestOf(own, bob.identity))).status).toBe(202);
    expect(await boxOf(bob)).toHaveLength(51);
    const uuid = (await betas.accounts.find(bob.identity))?.uuid ?? "";
    const at = (days: number) => betas.store.requestsOf(uuid, clock().getTime() + days * DAY);
    expect([(await at(29.9)).length, (await at(30)).length]).toEqual([51, 0]);
  });
});
