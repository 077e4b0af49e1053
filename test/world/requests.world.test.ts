import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import type { NodeEvent } from "../../src/delivery/event-types.ts";
import type { PeerNode } from "../../src/node/node.ts";
import { httpsClient } from "../../src/peertls-core/https-client.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { derToPem } from "../../src/pki/pem.ts";
import type { BoxReply } from "../../src/sixid/records.ts";
import { makeRequest } from "../../src/sixid/request.ts";
import { verifyRequest } from "../../src/sixid/verify.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { enrolPerson, type RunningDomain, startDomain, startNode } from "../support/people.ts";
import { makeTestDomain, type TestPerson } from "../support/pki.ts";
import { requestFrom } from "../support/request.ts";

const folder = temporaryFolder();
const running = new Set<PeerNode>();
let alpha: RunningDomain;
let beta: RunningDomain;

beforeAll(async () => {
  alpha = await startDomain(folder.path, "alpha.test");
  beta = await startDomain(folder.path, "beta.test");
  alpha.server.know("beta.test", beta.server.ports.sixid, [beta.root]);
  beta.server.know("alpha.test", alpha.server.ports.sixid, [alpha.root]);
}, 60_000);

afterAll(async () => {
  for (const node of running) await node.stop();
  await alpha.server.stop();
  await beta.server.stop();
  folder[Symbol.dispose]();
});

async function event<T extends NodeEvent["type"]>(
  node: PeerNode,
  type: T,
  fits: (body: NodeEvent & { type: T }) => boolean = () => true,
) {
  for await (const { body } of node.store.events.follow(0, AbortSignal.timeout(15_000))) {
    if (body.type === type && fits(body as NodeEvent & { type: T })) return body as NodeEvent & { type: T };
  }
  throw new Error(`no event ${type} came`);
}

/** All that this node has told its owner so far. */
async function told(node: PeerNode): Promise<NodeEvent[]> {
  const { last } = node.store.events;
  const all: NodeEvent[] = [];
  for await (const { body, seq } of node.store.events.follow(0, AbortSignal.timeout(15_000))) {
    all.push(body);
    if (seq >= last) break;
  }
  return all;
}

interface Ways {
  box: boolean;
  port: boolean;
}

/** A person whose node runs; again: with the same home and other ways. */
async function person(domain: RunningDomain, user: string, ways: Ways = { box: true, port: true }, trust: object = {}) {
  const home = await enrolPerson(folder.path, domain, user);
  const start = async (now: Ways) => {
    const text = stringify({ trust: { requests: now, ...trust } });
    const node = await startNode(home, `${readFileSync(home.config, "utf8")}${text}`);
    running.add(node);
    await event(node, "directory.state");
    return node;
  };
  const stop = async (node: PeerNode) => {
    running.delete(node);
    await node.stop();
  };
  return { node: await start(ways), start, stop };
}

/** What lies in the box of that node's owner at the server. */
async function inBox(node: PeerNode, domain: RunningDomain): Promise<number> {
  const http = httpsClient({
    addresses: () => [domain.server.ports.sixid],
    serverName: domain.name,
    anchors: () => [{ name: domain.name, certificate: domain.root }],
    credentials: () => node.keys.auth,
    clock: () => new Date(),
  });
  try {
    const { body } = await http.request({ method: "GET", path: "/v1/requests" }, AbortSignal.timeout(10_000));
    return (JSON.parse(body.toString("utf8")) as BoxReply).requests.length;
  } finally {
    http.close();
  }
}

/** Writes to somebody whose node refuses the writer for a stranger. @returns the item, held */
async function refused(from: PeerNode, to: PeerNode, text: string) {
  await from.addContact(to.identity, "");
  const item = await from.sip.send([to.identity], text);
  expect(await event(from, "receipt.changed", (body) => body.item === item && body.state === "held")).toMatchObject({
    reason: "not-admitted",
  });
  return item;
}

test("Bob's port takes no requests and his node goes down: Alice's waits in his box, and what she wrote comes when he accepts", async () => {
  const { node: alice } = await person(alpha, "alice");
  const bobs = await person(beta, "bob", { box: false, port: false });
  const item = await refused(alice, bobs.node, "hello Bob");
  expect(await event(alice, "request.sent")).toMatchObject({ to: bobs.node.identity, answer: "pending" });
  bobs.node.box.lookSoon(); // not with `box: false`
  for (let n = 0; n < 5; n += 1) expect(await inBox(bobs.node, beta)).toBe(1);
  expect(bobs.node.state.requests()).toEqual([]);
  await bobs.stop(bobs.node);

  const bob = await bobs.start({ box: true, port: false });
  expect(await event(bob, "request.received")).toMatchObject({ from: alice.identity, name: "alice" });
  await expect.poll(() => inBox(bob, beta)).toBe(0);
  await bob.requests.decide(alice.identity, "accept");
  await event(alice, "receipt.changed", (body) => body.item === item && body.state === "delivered");
}, 30_000);

test("one request by both ways is told once; with Carol's organisation Dora, who has asked, and Erik, who has not, come in", async () => {
  const { node: carol } = await person(alpha, "carol");
  const { node: dora } = await person(alpha, "dora");
  const { node: erik } = await person(alpha, "erik");
  const { node: frank } = await person(beta, "frank");
  const items = [await refused(carol, frank, "from Carol"), await refused(dora, frank, "from Dora")];
  for (const one of [carol, dora]) {
    expect(await event(one, "request.sent")).toMatchObject({ answer: "kept" });
    await event(frank, "request.received", ({ from }) => from === one.identity);
  }
  frank.box.lookSoon();
  await expect.poll(() => inBox(frank, beta)).toBe(0);
  const received = (await told(frank)).filter((one) => one.type === "request.received");
  expect(received.map((one) => one.from).sort()).toEqual([carol.identity, dora.identity]);

  await frank.requests.decide(carol.identity, "accept-organisation");
  for (const [index, one] of [carol, dora].entries())
    await event(one, "receipt.changed", (body) => body.item === items[index] && body.state === "delivered");
  expect(frank.state.requests().map((one) => one.state)).toEqual(["accepted", "accepted"]);
  const item = await erik.sip.send([frank.identity], "from Erik");
  expect(await erik.outbox.settled(item, AbortSignal.timeout(10_000))).toBe("delivered");
}, 30_000);

test("a node that never ran before, and knows no other domain yet, hears who asked meanwhile", async () => {
  const home = await enrolPerson(folder.path, beta, "rosa");
  const { node: sam } = await person(alpha, "sam");
  const to = parseIdentity("rosa@beta.test");
  const own = { from: sam.identity, name: "Sam", text: "It is me", signer: sam.keys.auth };
  await sam.box.handIn(to, await makeRequest({ ...own, to, now: new Date() }), AbortSignal.timeout(10_000));
  const rosa = await startNode(home, readFileSync(home.config, "utf8"));
  running.add(rosa);
  expect(await event(rosa, "request.received")).toMatchObject({ from: sam.identity, name: "Sam", text: "It is me" });
}, 30_000);

test("whom the owner has blocked is answered as anybody, and not heard", async () => {
  const { node: gina } = await person(alpha, "gina");
  const { node: hugo } = await person(beta, "hugo");
  hugo.state.addTrustEntry("block", { identity: gina.identity }, new Date());
  hugo.applyTrust();
  await refused(gina, hugo, "it is me");
  expect(await event(gina, "request.sent")).toMatchObject({ answer: "pending" });
  await expect.poll(() => inBox(hugo, beta)).toBe(0);
  expect(hugo.state.requests()).toEqual([]);
}, 30_000);

test("where an anchor vouches for many domains, the organisation it may name comes in, and no other", async () => {
  const gamma = makeTestDomain({ domain: "gamma.test" });
  const file = join(folder.path, "gamma.pem");
  writeFileSync(file, derToPem(gamma.root.certificate.der, "CERTIFICATE"));
  const anchors = [{ name: "many", file, domains: ["gamma.test", "delta.test"], organisations: ["Partner AG"] }];
  const { node: nora } = await person(beta, "nora", { box: true, port: true }, { anchors });
  const asks = async (user: string, organisation: string) => {
    const asker = gamma.person({ identity: `${user}@gamma.test`, organisation, encryptionKey: "ec" });
    const request = await requestFrom(asker, nora.identity);
    const options = { anchors: nora.anchorsFor("gamma.test"), now: new Date() };
    expect(await nora.requests.takeBoxed(await verifyRequest(request, nora.identity, options))).toBe("kept");
    return asker;
  };
  const verdict = ({ auth }: TestPerson) => nora.peerTls.explain(auth.certificate, auth.chain, "sip").verdict.admit;
  const [olga, paul] = [await asks("olga", "Partner AG"), await asks("paul", "Other AG")];
  await expect(nora.requests.decide(paul.identity, "accept-organisation")).rejects.toMatchObject({ code: "not-found" });
  expect([verdict(olga), verdict(paul)]).toEqual([false, false]);
  await nora.requests.decide(olga.identity, "accept-organisation");
  expect(nora.state.trustEntries("rules")).toEqual([{ organisation: "Partner AG" }]);
  const second = gamma.person({ identity: "quinn@gamma.test", organisation: "Partner AG", encryptionKey: "ec" });
  expect([verdict(olga), verdict(second), verdict(paul)]).toEqual([true, true, false]);
  expect(nora.state.requests().map((one) => one.state)).toEqual(["accepted", "pending"]);
}, 30_000);

test("accepted while the asker's node was down: what she wrote comes when it is up again", async () => {
  const kims = await person(alpha, "kim");
  const { node: leo } = await person(beta, "leo");
  const item = await refused(kims.node, leo, "from Kim");
  await event(leo, "request.received");
  await kims.stop(kims.node);
  await leo.requests.decide(kims.node.identity, "accept");
  const kim = await kims.start({ box: true, port: true });
  expect(await event(kim, "receipt.changed", (body) => body.item === item && body.state === "delivered")).toBeDefined();
}, 30_000);

test("the other domain's directory is away: the request goes by the port alone", async () => {
  const { node: ivan } = await person(alpha, "ivan");
  const { node: judy } = await person(beta, "judy");
  await ivan.directory.lookup(judy.identity, {}, AbortSignal.timeout(10_000));
  alpha.server.know("beta.test", { host: "::1", port: 1 }, [beta.root]);
  await refused(ivan, judy, "hello Judy");
  expect(await event(judy, "request.received")).toMatchObject({ from: parseIdentity("ivan@alpha.test") });
  expect(await event(ivan, "request.sent")).toMatchObject({ answer: "kept" });
  expect(await inBox(judy, beta)).toBe(0);
  alpha.server.know("beta.test", beta.server.ports.sixid, [beta.root]);
}, 30_000);
