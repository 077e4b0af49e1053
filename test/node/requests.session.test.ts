import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import type { NodeEvent } from "../../src/delivery/event-types.ts";
import { openCa } from "../../src/irp/ca-keys.ts";
import type { PeerNode } from "../../src/node/node.ts";
import { ownRecord } from "../../src/node/own-record.ts";
import { Requests } from "../../src/node/requests.ts";
import { parseCertificate } from "../../src/pki/certificate.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { issueAuth } from "../../src/pki/profile.ts";
import { makeRequest } from "../../src/sixid/request.ts";
import { verifyRequest } from "../../src/sixid/verify.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { enrolPerson, type RunningDomain, startDomain, startNode } from "../support/people.ts";
import { makeEcKey, makeTestDomain, spkiOf } from "../support/pki.ts";

const DAY_MS = 86_400_000;
const folder = temporaryFolder();
/** Of another domain, whose people are known by their certificates alone. */
const gamma = makeTestDomain({ domain: "gamma.test" });
let alpha: RunningDomain;
let nora: PeerNode;
let alice: PeerNode;

beforeAll(async () => {
  alpha = await startDomain(folder.path, "alpha.test");
  const file = join(folder.path, "gamma.pem");
  writeFileSync(file, derToPem(gamma.root.certificate.der, "CERTIFICATE"));
  const trust = stringify({ trust: { anchors: [{ name: "gamma", file, domains: ["gamma.test"] }] } });
  const start = async (user: string) => {
    const home = await enrolPerson(folder.path, alpha, user);
    return startNode(home, `${readFileSync(home.config, "utf8")}${trust}`);
  };
  nora = await start("nora");
  alice = await start("alice");
}, 60_000);

afterAll(async () => {
  await nora.stop();
  await alice.stop();
  await alpha.server.stop();
  folder[Symbol.dispose]();
});

/** Nora's requests, and the day that it is for them. */
function calendar() {
  const begin = Date.now();
  let today = new Date(begin);
  return {
    requests: new Requests({ node: nora, log: silentLog, clock: () => today }),
    today: () => today,
    goTo(day: number, milliseconds = 0) {
      today = new Date(begin + day * DAY_MS + milliseconds);
    },
  };
}

/** A request as somebody of gamma.test writes and signs it that day. */
async function asks(user: string, now: Date, text: string) {
  const person = gamma.person({ identity: `${user}@gamma.test`, encryptionKey: "ec" });
  const privateKey = makeEcKey();
  const der = issueAuth({
    ...{ issuer: gamma.issuing, identity: person.identity, name: user, spki: spkiOf(privateKey), now },
    serial: randomBytes(16),
  });
  const signer = { privateKey, certificate: parseCertificate(der), chain: [gamma.issuing.certificate] };
  const jws = await makeRequest({ from: person.identity, name: user, to: nora.identity, text, signer, now });
  return verifyRequest(jws, nora.identity, { anchors: nora.anchorsFor("gamma.test"), now });
}

async function received(user: string): Promise<string[]> {
  const { last } = nora.store.events;
  const all: NodeEvent[] = [];
  if (last > 0)
    for await (const { body, seq } of nora.store.events.follow(0, AbortSignal.timeout(5_000))) {
      all.push(body);
      if (seq >= last) break;
    }
  return all.flatMap((one) => (one.type === "request.received" && one.from === `${user}@gamma.test` ? [one.text] : []));
}

const stateOf = (user: string) => nora.state.requests().find(({ from }) => from === `${user}@gamma.test`);

test("a rejection lasts ninety days: till then it is answered as ever and nothing shows, then one may ask again", async () => {
  const { requests, today, goTo } = calendar();
  const ask = async (text: string) => requests.takeBoxed(await asks("paul", today(), text));
  expect(await ask("first")).toBe("kept");
  goTo(10);
  await requests.decide(gamma.person({ identity: "paul@gamma.test" }).identity, "reject");
  goTo(11);
  expect(await ask("the day after")).toBe("kept");
  goTo(100);
  expect(await ask("on the last day")).toBe("kept");
  expect(stateOf("paul")).toMatchObject({ state: "rejected", text: "first" });
  expect(await received("paul")).toEqual(["first"]);
  goTo(100, 1);
  expect(await ask("again")).toBe("kept");
  expect(stateOf("paul")).toMatchObject({ state: "pending", text: "again", receivedAt: today() });
  expect(await received("paul")).toEqual(["first", "again"]);
  goTo(101);
  await requests.decide(gamma.person({ identity: "paul@gamma.test" }).identity, "reject");
  goTo(190);
  expect(await ask("too early again")).toBe("kept");
  expect(await received("paul")).toEqual(["first", "again"]);
}, 30_000);

test("whom the owner blocked does not show however long ago that was", async () => {
  const { requests, today, goTo } = calendar();
  const { from } = await asks("mallory", today(), "first");
  expect(await requests.takeBoxed(await asks("mallory", today(), "first"))).toBe("kept");
  await requests.decide(from, "block");
  nora.state.removeTrustEntry("block", { identity: from }); // even if the gate would hear him again
  nora.applyTrust();
  goTo(400);
  expect(await requests.takeBoxed(await asks("mallory", today(), "again"))).toBe("kept");
  expect(stateOf("mallory")).toMatchObject({ state: "blocked", text: "first" });
  expect(await received("mallory")).toEqual(["first"]);
});

test("whoever was accepted and is no contact any more is heard again", async () => {
  const { requests, today, goTo } = calendar();
  const { from } = await asks("quinn", today(), "first");
  const ask = async (text: string) => requests.takeBoxed(await asks("quinn", today(), text));
  await ask("first");
  await requests.decide(from, "accept");
  goTo(1);
  expect(await ask("while a contact")).toBe("kept");
  expect(await received("quinn")).toEqual(["first"]);
  await nora.removeContact(from);
  expect(await ask("let me in again")).toBe("kept");
  expect(stateOf("quinn")).toMatchObject({ state: "pending", text: "let me in again" });
  expect(await received("quinn")).toEqual(["first", "let me in again"]);
});

test("whoever is accepted is knocked at, though the first of his devices and the last are down", async () => {
  const { identity, keys } = alice;
  const { issuing } = openCa({
    ...{ domain: "alpha.test", directory: join(alpha.home.domain, "ca") },
    random: randomBytes,
    now: new Date(),
  });
  const device = (label: string) => {
    const spki = spkiOf(makeEcKey());
    const o = { issuer: issuing, identity, name: "Alice", spki, now: new Date(), serial: randomBytes(16) };
    return { certificate: parseCertificate(issueAuth(o)), label };
  };
  const own = ownRecord(identity, "Alice", "running", keys, new Date());
  const devices = [device("never seen"), ...own.devices, device("nor this one")];
  await alice.directory.publishIdentity({ ...own, devices }, AbortSignal.timeout(10_000));
  const known = async () => {
    const record = await nora.directory.lookup(identity, { fresh: true }, AbortSignal.timeout(10_000));
    return record.devices.map(({ label, addresses }) => `${label}: ${addresses.length > 0 ? "somewhere" : "nowhere"}`);
  };
  await expect.poll(known).toEqual(["never seen: nowhere", "running: somewhere", "nor this one: nowhere"]);

  await alice.addContact(nora.identity, "Nora");
  nora.state.addRequest({
    ...{ from: identity, name: "Alice", text: "", receivedAt: new Date(), state: "pending" },
    ...{ fingerprint: keys.auth.certificate.fingerprint, issuer: "alpha.test" },
  });
  const arrived = new Promise<string>((resolve) => alice.peerTls.onConnected((peer) => resolve(peer.identity)));
  await nora.requests.decide(identity, "accept");
  expect(await arrived).toBe(nora.identity);
});
