import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { EndpointPort, Outgoing } from "../../src/delivery/endpoint.ts";
import { type Inbox, makeInbox } from "../../src/delivery/inbox.ts";
import type { OwnerAccess } from "../../src/delivery/owner-access.ts";
import type { Store } from "../../src/delivery/store.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { SipEndpoint, type SipSettings } from "../../src/sip/endpoint.ts";
import { instantMessage } from "../../src/sip/instant.ts";
import type { PeerRecord } from "../../src/sixid/directory.ts";
import { openTestStore } from "../delivery/party.ts";
import { makeTestDomain, type TestPerson } from "../support/pki.ts";
import { failureOf } from "../support/smime.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { startWire, type Wire } from "../support/wire.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const [alice, bob] = [alpha.person({ identity: "alice@alpha.test" }), alpha.person({ identity: "bob@alpha.test" })];
const server = alpha.domainServer();
const tls = {
  certificatePem: derToPem(server.certificate.der, "CERTIFICATE"),
  keyPem: server.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
};
let ends: AsyncDisposableStack;
const patient = { activeMs: 3_600_000, idleMs: 3_600_000, activeForMs: 0 };

interface Party {
  sip: SipEndpoint;
  peerTls: PeerTls;
  store: Store;
}

async function party(
  person: TestPerson,
  o: Pick<SipSettings, "heartbeat" | "stillThereMs">,
  around: (inbox: Inbox) => Inbox = (inbox) => inbox,
): Promise<Party> {
  const anchor = {
    ...alpha.anchor,
    domains: ["alpha.test"],
    organisations: [],
    identitiesFrom: ["rfc822Name"] as const,
  };
  const trust = new Trust({
    ...{ anchors: [anchor], block: [], allow: [], rules: [], otherwise: "contacts", requestsOnPort: false },
    contacts: [alice.identity, bob.identity],
  });
  const clock = () => new Date();
  const peerTls = await makePeerTls({
    ...{ credentials: person.auth, trust, clock, random: randomBytes, log: silentLog },
  });
  const folder = ends.use(await temporaryFolder());
  const store = await openTestStore(folder.path);
  const access: OwnerAccess = { owner: person.identity, realm: "", verify: () => undefined, ha1s: () => [] };
  const local = { host: "127.0.0.1", sipPort: 0, sipsPort: 0, tls };
  const sip = new SipEndpoint({ owner: person.identity, access, random: randomBytes, local, ...o });
  const inbox = around(makeInbox({ store, open: () => Promise.reject(new Error("not here")) }));
  await sip.start({
    ...{ peerTls, inbox, store, clock, log: silentLog },
    onPeer: (protocol: "sip", accept: Parameters<PeerTls["onPeer"]>[1]) => peerTls.onPeer(protocol, accept),
  } as unknown as EndpointPort);
  ends.defer(async () => {
    await sip.stop();
    await peerTls.close();
    await store.close();
  });
  return { sip, peerTls, store };
}

let his: Party;
let wire: Wire;
/** Called when a message of Alice's arrived, before it is stored. */
let arriving: () => Promise<void> | void;

beforeEach(async () => {
  ends = new AsyncDisposableStack();
  arriving = () => undefined;
  his = await party(bob, {}, (inbox) => ({
    ...inbox,
    receivePlain: async (arrival, signal) => {
      await arriving();
      return inbox.receivePlain(arrival, signal);
    },
  }));
  wire = ends.use(await startWire(await his.peerTls.listen({ host: "::1", port: 0 })));
});
afterEach(async () => {
  await ends.disposeAsync();
});

function record(): PeerRecord {
  const certificate = peerCertificate(bob.auth.certificate);
  const address = { host: "::1", port: wire.port, kind: "direct" as const, priority: 0 };
  return {
    ...{ identity: bob.identity, uuid: "b", name: "Bob", chain: [...bob.auth.chain], encryption: [] },
    devices: [{ fingerprint: certificate.fingerprint, label: "test", certificate, addresses: [address] }],
    ...{ capabilities: { cms: ["gcm"] }, seq: 1, stale: false, trust: "pinned" },
  };
}

function outgoing(text: string): { item: Outgoing; progress: number[] } {
  const id = randomBytes(8).toString("hex");
  const { bytes } = instantMessage({ from: alice.identity, to: bob.identity, text, id, now: new Date() });
  const envelope = { kind: "message", from: alice.identity, messageId: id } as Outgoing["envelope"];
  const progress: number[] = [];
  return {
    item: {
      ...{ envelope, transfer: "00", object: "00.p7m", size: bytes.length, open: () => Readable.from([bytes]) },
      progress: (sent) => void progress.push(sent === 0 ? 0 : 1),
    },
    progress,
  };
}

/** As if it came from Bob. */
function back(text: string): Outgoing {
  const id = randomBytes(8).toString("hex");
  const { bytes } = instantMessage({ from: bob.identity, to: alice.identity, text, id, now: new Date() });
  const { item } = outgoing(text);
  const envelope = { ...item.envelope, from: bob.identity, messageId: id };
  return { ...item, envelope, size: bytes.length, open: () => Readable.from([bytes]) };
}

const deliver = (hers: Party, item: Outgoing) => hers.sip.deliver(item, record(), AbortSignal.timeout(10_000));
const titles = async () => (await his.store.items({ box: "inbox", kind: "message" })).map(({ title }) => title).sort();

test("an idle flow over which nothing comes any more is gone before the next message needs it", async () => {
  const hers = await party(alice, { heartbeat: { activeMs: 100, idleMs: 100, activeForMs: 0 }, stillThereMs: 60_000 });
  await deliver(hers, outgoing("one").item);
  const [flow] = hers.peerTls.connections;
  wire.cut();
  await expect.poll(() => flow?.stream.destroyed, { timeout: 5_000 }).toBe(true);
  await deliver(hers, outgoing("two").item);
  expect([wire.count, await titles()]).toEqual([2, ["one", "two"]]);
});

test("a flow on which the peer answers the pings lives on", async () => {
  const hers = await party(alice, { heartbeat: { activeMs: 200, idleMs: 200, activeForMs: 0 } });
  await deliver(hers, outgoing("one").item);
  const [flow] = hers.peerTls.connections;
  let pongs = 0;
  await new Promise<void>((done) => flow?.stream.on("data", () => (pongs++ === 3 ? done() : undefined)));
  await deliver(hers, outgoing("two").item);
  expect([flow?.stream.destroyed, wire.count]).toEqual([false, 1]);
});

test("a message over a flow that has died unseen is dialled anew within the same attempt", async () => {
  const hers = await party(alice, { heartbeat: patient, stillThereMs: 50 });
  await deliver(hers, outgoing("one").item);
  const [flow] = hers.peerTls.connections;
  wire.cut();
  const { item, progress } = outgoing("two");
  await deliver(hers, item);
  expect(flow?.stream.destroyed).toBe(true);
  expect([wire.count, await titles(), progress]).toEqual([2, ["one", "two"], [0, 1]]);
});

test("what had arrived before the flow died, though its answer had not, is stored once", async () => {
  const hers = await party(alice, { heartbeat: patient, stillThereMs: 50 });
  await deliver(hers, outgoing("one").item);
  let arrived = 0;
  arriving = () => void (arrived += 1);
  wire.cut("back");
  await deliver(hers, outgoing("two").item);
  expect([arrived, wire.count, await titles()]).toEqual([2, 2, ["one", "two"]]);
});

test("also while the first copy is still being stored", async () => {
  const hers = await party(alice, { heartbeat: patient, stillThereMs: 50 });
  await deliver(hers, outgoing("one").item);
  const both = Promise.withResolvers<void>();
  let arrived = 0;
  arriving = () => {
    arrived += 1;
    if (arrived === 2) both.resolve();
    return both.promise;
  };
  wire.cut("back");
  await deliver(hers, outgoing("two").item);
  await expect.poll(titles).toEqual(["one", "two"]);
  expect(arrived).toBe(2);
});

test("who was dialled twice answers over the newer flow: the older one may be dead", async () => {
  const hers = await party(alice, { heartbeat: patient, stillThereMs: 50 });
  await deliver(hers, outgoing("one").item);
  wire.cut();
  await deliver(hers, outgoing("two").item);
  expect(his.peerTls.connections).toHaveLength(2);
  const certificate = peerCertificate(alice.auth.certificate);
  const device = { fingerprint: certificate.fingerprint, label: "test", certificate, addresses: [] };
  const to = { ...record(), identity: alice.identity, chain: [...alice.auth.chain], devices: [device] };
  await his.sip.deliver(back("three"), to, AbortSignal.timeout(10_000));
  expect((await hers.store.items({ box: "inbox", kind: "message" })).map(({ title }) => title)).toEqual(["three"]);
});

test("a peer that is slow, but there, is waited for", async () => {
  const hers = await party(alice, { heartbeat: patient, stillThereMs: 50 });
  await deliver(hers, outgoing("one").item);
  const { item, progress } = outgoing("two");
  const there = Promise.withResolvers<void>();
  arriving = () => there.promise; // stored only when the sender has heard that somebody is there
  const heard = (sent: number) => {
    item.progress(sent);
    there.resolve();
  };
  await deliver(hers, { ...item, progress: heard });
  expect([wire.count, progress]).toEqual([1, [0, 1]]);
});

test("a peer that answers at once is not asked besides", async () => {
  const hers = await party(alice, { heartbeat: patient, stillThereMs: 60_000 });
  await deliver(hers, outgoing("one").item);
  const heard: string[] = [];
  hers.peerTls.connections[0]?.stream.on("data", (chunk: Buffer) => heard.push(chunk.toString()));
  for (const text of ["two", "three"]) await deliver(hers, outgoing(text).item);
  expect(heard.map((one) => one.slice(0, 12))).toEqual(["SIP/2.0 200 ", "SIP/2.0 200 "]);
});

test("an attempt that is given up over an open flow is not made again over a new one", async () => {
  const hers = await party(alice, { heartbeat: patient });
  await deliver(hers, outgoing("one").item);
  wire.cut();
  const stop = new AbortController();
  const failure = failureOf(hers.sip.deliver(outgoing("two").item, record(), stop.signal));
  setImmediate(() => stop.abort());
  expect(await failure).toMatchObject({ code: "unreachable", temporary: true });
  expect(wire.count).toBe(1);
});
