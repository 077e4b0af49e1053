import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Outgoing } from "../../src/delivery/endpoint.ts";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import type { HeartbeatTimes } from "../../src/peertls-core/heartbeat.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { silentLog } from "../../src/pki/log.ts";
import type { PeerRecord } from "../../src/sixid/directory.ts";
import { MailClient } from "../../src/smtp/client.ts";
import type { TestPerson } from "../support/pki.ts";
import { startWire, type Wire } from "../support/wire.ts";
import { domain, never } from "./mail-people.ts";

const [alice, bob] = [domain.person({ identity: "alice@alpha.test" }), domain.person({ identity: "bob@alpha.test" })];
const patient = { activeMs: 3_600_000, idleMs: 3_600_000, activeForMs: 0 };
const hasty = { activeMs: 100, idleMs: 100, activeForMs: 0 };
let ends: AsyncDisposableStack;
let hers: PeerTls;
let wire: Wire;
/** What Bob's node was told, one list for each connection. */
let said: string[][];
/** How Bob's node answers RSET; undefined: with 250. */
let reset: ((say: (reply: string) => void) => void) | undefined;

async function core(person: TestPerson): Promise<PeerTls> {
  const anchor = {
    ...domain.anchor,
    domains: ["alpha.test"],
    organisations: [],
    identitiesFrom: ["rfc822Name"] as const,
  };
  const none = { block: [], allow: [], contacts: [], requestsOnPort: false, otherwise: "deny" as const };
  const trust = new Trust({ anchors: [anchor], rules: [{ domain: "alpha.test" }], ...none });
  const clock = () => new Date();
  const made = await makePeerTls({ credentials: person.auth, trust, clock, random: randomBytes, log: silentLog });
  ends.defer(() => made.close());
  return made;
}

function serve({ stream }: PeerConnection): void {
  const lines: string[] = [];
  let data = false;
  let text = "";
  const say = (reply: string) => void stream.write(`${reply}\r\n`);
  said.push(lines);
  stream.on("error", () => undefined);
  say("220 bob");
  stream.on("data", (chunk: Buffer) => {
    const all = (text + chunk.toString()).split("\r\n");
    text = all.pop() ?? "";
    for (const line of all) {
      if (data && line !== ".") continue;
      lines.push(line.split(" ")[0] ?? "");
      data = line === "DATA";
      if (data) say("354 go");
      else if (line === "RSET" && reset !== undefined) reset(say);
      else say("250 ok");
    }
  });
}

beforeEach(async () => {
  ends = new AsyncDisposableStack();
  said = [];
  reset = undefined;
  const his = await core(bob);
  his.onPeer("smtp", serve);
  hers = await core(alice);
  wire = ends.use(await startWire(await his.listen({ host: "::1", port: 0 })));
});
afterEach(() => ends.disposeAsync());

function client(heartbeat: HeartbeatTimes, answerMs: number): MailClient {
  const made = new MailClient({ peerTls: hers, name: "alpha.test", heartbeat, answerMs });
  ends.defer(() => made.stop());
  return made;
}

function deliver(by: MailClient, signal = never): Promise<void> {
  const certificate = peerCertificate(bob.auth.certificate);
  const address = { host: "::1", port: wire.port, kind: "direct" as const, priority: 0 };
  const to: PeerRecord = {
    ...{ identity: bob.identity, uuid: "b", name: "Bob", chain: [...bob.auth.chain], encryption: [] },
    devices: [{ fingerprint: certificate.fingerprint, label: "test", certificate, addresses: [address] }],
    ...{ capabilities: { cms: ["gcm"] }, seq: 1, stale: false, trust: "pinned" },
  };
  const envelope = { kind: "mail", from: alice.identity, entity: { digest: "", size: 3 }, outerHeader: "A: b\r\n" };
  const item = {
    ...{
      envelope,
      transfer: "00",
      object: "00.p7m",
      size: 3,
      open: () => Readable.from([Buffer.from("abc")]),
      progress: () => undefined,
    },
  } as unknown as Outgoing;
  return by.deliver(item, to, signal);
}

const MAIL = ["MAIL", "RCPT", "DATA", "."];

test("a kept session is asked whether the peer is there, and the next mail goes over it", async () => {
  const mail = client(hasty, 10_000);
  await deliver(mail);
  await expect.poll(() => said[0]?.filter((line) => line === "RSET").length, { timeout: 5_000 }).toBeGreaterThan(3);
  await deliver(mail);
  expect(said).toHaveLength(1);
  expect(said[0]?.filter((line) => line !== "RSET")).toEqual(["EHLO", ...MAIL, ...MAIL]);
});

test("a kept session over which nothing comes any more is gone before the next mail needs it", async () => {
  const mail = client(hasty, 3_600_000);
  await deliver(mail);
  const [kept] = hers.connections;
  wire.cut();
  await expect.poll(() => kept?.stream.destroyed, { timeout: 5_000 }).toBe(true);
  await deliver(mail);
  expect(said.map((lines) => lines.filter((line) => line !== "RSET"))).toEqual([
    ["EHLO", ...MAIL],
    ["EHLO", ...MAIL],
  ]);
});

test("a kept session that does not answer the first command of a mail is replaced within the same attempt", async () => {
  const mail = client(patient, 50);
  await deliver(mail);
  wire.cut("back");
  await deliver(mail);
  expect(said).toEqual([
    ["EHLO", ...MAIL, "MAIL"], // nothing of the mail itself
    ["EHLO", ...MAIL],
  ]);
});

test("a beat under way is over before the mail begins", async () => {
  const mail = client({ ...patient, activeMs: 10, idleMs: 10 }, 10_000);
  const asked = Promise.withResolvers<(reply: string) => void>();
  reset = (say) => {
    asked.resolve(say);
    reset = undefined;
  };
  await deliver(mail);
  const say = await asked.promise;
  const sending = deliver(mail);
  await new Promise((done) => setImmediate(done));
  expect(said[0]?.at(-1)).toBe("RSET");
  say("250 ok");
  await sending;
  expect(said[0]?.slice(-4)).toEqual(MAIL);
});

test("an attempt that is given up while a beat is under way ends at once", async () => {
  const mail = client({ ...patient, activeMs: 10, idleMs: 10 }, 3_600_000);
  const asked = Promise.withResolvers<void>();
  reset = () => asked.resolve();
  await deliver(mail);
  await asked.promise;
  const stop = new AbortController();
  const sending = deliver(mail, stop.signal).catch((error: unknown) => error);
  stop.abort();
  expect(await sending).toMatchObject({ code: "unreachable" });
  expect(said).toHaveLength(1);
});

test("listeners do not pile up on a session that is used again and again", async () => {
  const warnings: Error[] = [];
  const note = (warning: Error) => warnings.push(warning);
  process.on("warning", note);
  const mail = client(patient, 10_000);
  for (let n = 0; n < 20; n += 1) await deliver(mail);
  const [kept] = hers.connections;
  expect([kept?.stream.listenerCount("data"), said.length, warnings]).toEqual([2, 1, []]);
  process.off("warning", note);
});
