import { createHash, randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { NodeEvent } from "../../src/delivery/event-types.ts";
import type { Home } from "../../src/node/home.ts";
import type { PeerNode } from "../../src/node/node.ts";
import type { Certificate } from "../../src/pki/certificate.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { storedText } from "../../src/sip/instant.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { enrolPerson, type RunningDomain, startDomain, startNode } from "../support/people.ts";

const folder = temporaryFolder();
const aliceId = parseIdentity("alice@alpha.test");
const bobId = parseIdentity("bob@beta.test");
let alpha: RunningDomain;
let beta: RunningDomain;
let homes: { alice: Home; bob: Home };
let alice: PeerNode;
let bob: PeerNode;

const start = (home: Home) => startNode(home, readFileSync(home.config, "utf8"));

/** Resolves with the first event from now on, or already kept, that fits. */
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

async function texts(node: PeerNode): Promise<string[]> {
  const items = await node.store.items({ box: "inbox", kind: "message" });
  return Promise.all(items.reverse().map(async (item) => storedText(await node.store.bytes(item.content))));
}

beforeAll(async () => {
  alpha = await startDomain(folder.path, "alpha.test");
  beta = await startDomain(folder.path, "beta.test");
  alpha.server.know("beta.test", beta.server.ports.sixid, [beta.root]);
  beta.server.know("alpha.test", alpha.server.ports.sixid, [alpha.root]);
  homes = { alice: await enrolPerson(folder.path, alpha, "alice"), bob: await enrolPerson(folder.path, beta, "bob") };
  alice = await start(homes.alice);
  bob = await start(homes.bob);
  await event(alice, "directory.state");
  await event(bob, "directory.state");
}, 60_000);

afterAll(async () => {
  await alice.stop();
  await bob.stop();
  await alpha.server.stop();
  await beta.server.stop();
  folder[Symbol.dispose]();
});

test("a stranger is refused in the handshake, her request reaches the owner, and what she wrote comes when he accepts", async () => {
  await alice.addContact(bobId, "Bob");
  const item = await alice.sip.send([bobId], "hello Bob");
  expect(await event(alice, "receipt.changed", (body) => body.state === "held")).toMatchObject({
    item,
    reason: "not-admitted",
  });
  expect(await event(bob, "peer.denied")).toMatchObject({ reason: "not-admitted", alert: 49, claims: [aliceId] });
  expect(await event(bob, "request.received")).toMatchObject({ from: aliceId, name: "alice" });
  expect(await texts(bob)).toEqual([]);
  await bob.requests.decide(aliceId, "accept");
  await event(alice, "receipt.changed", (body) => body.item === item && body.state === "delivered");
  expect(await texts(bob)).toEqual(["hello Bob"]);
});

test("messages go both ways, each once, in their order", async () => {
  const sent = Array.from({ length: 20 }, (_one, n) => `message ${n}`);
  const items = [];
  for (const text of sent) items.push(await alice.sip.send([bobId], text));
  for (const item of items) expect(await alice.outbox.settled(item, AbortSignal.timeout(10_000))).toBe("delivered");
  expect((await texts(bob)).slice(1)).toEqual(sent);
  const answer = await bob.sip.send([aliceId], "thank you");
  expect(await bob.outbox.settled(answer, AbortSignal.timeout(10_000))).toBe("delivered");
  expect(await texts(alice)).toEqual(["thank you"]);
});

test("Bob's node moves to another port, and Alice's next message finds him", async () => {
  const before = bob.ports.peer.port;
  await bob.stop();
  const item = await alice.sip.send([bobId], "where are you?");
  bob = await start(homes.bob);
  expect(bob.ports.peer.port).not.toBe(before);
  expect(await alice.outbox.settled(item, AbortSignal.timeout(15_000))).toBe("delivered");
  expect((await texts(bob)).filter((text) => text === "where are you?")).toHaveLength(1);
});

test("the CAs of the own domain, and of people looked up, are known though whoever comes does not show them", async () => {
  const [carol, dave] = [await enrolPerson(folder.path, alpha, "carol"), await enrolPerson(folder.path, beta, "dave")];
  const leaves: Certificate[] = [];
  for (const home of [carol, dave]) {
    const node = await start(home);
    leaves.push(node.keys.auth.certificate);
    await node.stop();
  }
  for (const node of [alice, bob])
    for (const leaf of leaves) expect(node.trust.paths.find(leaf, [], new Date())).toMatchObject({ ok: true });
});

test("a message to somebody whom no directory knows has failed, and says why", async () => {
  const item = await alice.sip.send([parseIdentity("nobody@beta.test")], "anybody?");
  expect(await alice.outbox.settled(item, AbortSignal.timeout(10_000))).toBe("failed");
});

test("a SIP program registers by digest, is shown what it missed, and its own message reaches the peer", async () => {
  const { password } = bob.access.create("test", new Date(), randomBytes);
  const phone = createSocket("udp4");
  await new Promise<void>((resolve) => phone.bind(0, "127.0.0.1", resolve));
  const received: string[] = [];
  const waiting: { fits: RegExp; found: (text: string) => void }[] = [];
  const next = (fits: RegExp) => new Promise<string>((found) => waiting.push({ fits, found }));
  phone.on("message", (bytes) => {
    const text = bytes.toString();
    received.push(text);
    if (text.startsWith("MESSAGE ")) {
      const copied = text.split("\r\n").filter((line) => /^(Via|From|To|Call-ID|CSeq):/i.test(line));
      send(["SIP/2.0 200 OK", ...copied, "Content-Length: 0", "", ""].join("\r\n"));
    }
    const at = waiting.findIndex((one) => one.fits.test(text));
    if (at >= 0) waiting.splice(at, 1)[0]?.found(text);
  });
  const port = phone.address().port;
  const send = (text: string) => phone.send(text, bob.ports.sip.port, "127.0.0.1");
  const request = (method: string, uri: string, to: string, cseq: number, extra: string[], body = "") =>
    [
      `${method} ${uri} SIP/2.0`,
      `Via: SIP/2.0/UDP 127.0.0.1:${port};branch=z9hG4bK${randomBytes(8).toString("hex")};rport`,
      "Max-Forwards: 70",
      "From: <sip:bob@beta.test>;tag=a1",
      `To: <${to}>`,
      `Call-ID: c-${method}@phone`,
      `CSeq: ${cseq} ${method}`,
      ...extra,
      `Content-Length: ${Buffer.byteLength(body)}`,
      "",
      body,
    ].join("\r\n");
  const answerTo = (challenge: string, method: string, uri: string) => {
    const nonce = /nonce="([^"]+)"/.exec(challenge)?.[1] ?? "";
    const hash = (text: string) => createHash("sha256").update(text).digest("hex");
    const response = hash(`${hash(`bob:beta.test:${password}`)}:${nonce}:00000001:cn:auth:${hash(`${method}:${uri}`)}`);
    return `Authorization: Digest username="bob", realm="beta.test", nonce="${nonce}", uri="${uri}", qop=auth, nc=00000001, cnonce="cn", algorithm=SHA-256, response="${response}"`;
  };
  const contact = `Contact: <sip:bob@127.0.0.1:${port}>`;
  const challenged = next(/^SIP\/2\.0 401[\s\S]*CSeq: 1 REGISTER/);
  send(request("REGISTER", "sip:beta.test", "sip:bob@beta.test", 1, [contact]));
  const registered = next(/^SIP\/2\.0 200[\s\S]*CSeq: 2 REGISTER/);
  const missed = next(/^MESSAGE [\s\S]*hello Bob$/);
  send(
    request("REGISTER", "sip:beta.test", "sip:bob@beta.test", 2, [
      contact,
      answerTo(await challenged, "REGISTER", "sip:beta.test"),
    ]),
  );
  expect(await registered).toContain(`<sip:bob@127.0.0.1:${port}>`);
  expect(await missed).toMatch(/^From: <sip:alice@alpha\.test>/m);

  const wanted = next(/^SIP\/2\.0 401[\s\S]*CSeq: 3 MESSAGE/);
  const text = ["Content-Type: text/plain"];
  send(request("MESSAGE", "sip:alice@alpha.test", "sip:alice@alpha.test", 3, text, "typed on a phone"));
  const taken = next(/^SIP\/2\.0 20[02][\s\S]*CSeq: 4 MESSAGE/);
  send(
    request(
      "MESSAGE",
      "sip:alice@alpha.test",
      "sip:alice@alpha.test",
      4,
      [...text, answerTo(await wanted, "MESSAGE", "sip:alice@alpha.test")],
      "typed on a phone",
    ),
  );
  expect(await taken).toMatch(/^SIP\/2\.0 200/);
  expect(await texts(alice)).toContain("typed on a phone");
  phone.close();
});
