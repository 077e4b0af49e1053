import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Outgoing } from "../../src/delivery/endpoint.ts";
import type { Envelope } from "../../src/delivery/envelope.ts";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { seal } from "../../src/smime/seal.ts";
import { MailClient } from "../../src/smtp/client.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { bytesOf, failureOf, Pieces } from "../support/smime.ts";
import { domain, type MailNode, mailNode, never, Records } from "./mail-people.ts";

const folder = temporaryFolder();
const records = new Records();
const person = (name: string) => domain.person({ identity: `${name}@alpha.test`, encryptionKey: "ec" });
const [alicePerson, bobPerson, carolPerson] = [person("alice"), person("bob"), person("carol")];
const contacts = [alicePerson.identity, bobPerson.identity];
let alice: MailNode;
let bob: MailNode;

beforeAll(async () => {
  alice = await mailNode(join(folder.path, "alice"), alicePerson, records, { contacts });
  bob = await mailNode(join(folder.path, "bob"), bobPerson, records, { contacts });
});

afterAll(async () => {
  await alice[Symbol.asyncDispose]();
  await bob[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

async function send(text: string) {
  const item = await alice.smtp.send({ to: [bobPerson.identity], subject: text.slice(0, 20), text });
  return alice.outbox.settled(item, AbortSignal.timeout(10_000));
}

function sealed(text: string): Promise<Buffer> {
  const head = "From: alice@alpha.test\r\nTo: bob@alpha.test\r\nContent-Type: text/plain; hp=cipher\r\n\r\n";
  return bytesOf(
    seal(new Pieces(Buffer.from(`${head}${text}\r\n`)), {
      signer: alicePerson.auth,
      now: new Date(),
      recipients: [peerCertificate(bobPerson.encryption.certificate)],
      profile: "peer",
      shape: "detached",
    }),
  );
}

/** Something to deliver that no outbox made. */
function outgoing(bytes: Buffer, o: { size?: number; broken?: Error; endless?: () => void } = {}): Outgoing {
  async function* source() {
    yield bytes;
    if (o.broken !== undefined) throw o.broken;
    for (let n = 0; o.endless !== undefined; n++) {
      yield Buffer.alloc(57_000);
      if (n === 3) o.endless();
      await new Promise(setImmediate);
    }
  }
  const entity = { digest: "", size: bytes.length };
  const envelope = {
    kind: "mail",
    from: alicePerson.identity,
    entity,
    outerHeader: MIME,
  } as Envelope;
  return {
    envelope,
    transfer: "00",
    object: "00.p7m",
    size: o.size ?? bytes.length,
    open: () => Readable.from(source(), { objectMode: false }),
    progress: () => undefined,
  };
}

const MIME = "Subject: [...]\r\nContent-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n";

const fromAlice = () => bob.peerTls.connections.filter((one) => one.direction === "in");

test("a hundred mails go over one connection, and listeners do not pile up on it", async () => {
  const warnings: Error[] = [];
  const note = (warning: Error) => warnings.push(warning);
  process.on("warning", note);
  await send("first");
  const [connection] = fromAlice();
  const items = [];
  for (let n = 0; n < 100; n++) {
    items.push(await alice.smtp.send({ to: [bobPerson.identity], subject: `mail ${n}`, text: "x" }));
  }
  for (const item of items) expect(await alice.outbox.settled(item, AbortSignal.timeout(20_000))).toBe("delivered");
  expect(fromAlice()).toEqual([connection]);
  expect(await bob.store.items({ box: "inbox", kind: "mail", limit: 1_000 })).toHaveLength(101);
  process.off("warning", note);
  expect(warnings).toEqual([]);
});

test("a kept connection that turns out to be broken is replaced within the same attempt", async () => {
  await send("before");
  const [connection] = fromAlice();
  connection?.stream.prependOnceListener("data", () => connection.destroy()); // when the next mail begins, unseen until then
  const attempts = records.lookups;
  expect(await send("after")).toBe("delivered");
  expect(connection?.stream.destroyed).toBe(true);
  expect(records.lookups).toBe(attempts + 1);
});

test("a kept connection that breaks behind the final dot is not replaced: the mail waits for the next attempt, and is stored once", async () => {
  await send("before");
  const [connection] = fromAlice();
  const off = bob.store.onReceived("mail", () => connection?.destroy()); // stored, but never answered
  const attempts = records.lookups;
  expect(await send("unanswered")).toBe("delivered");
  off();
  expect(records.lookups).toBe(attempts + 3); // two attempts; the first also asked whether Bob had moved
  const items = await bob.store.items({ box: "inbox", kind: "mail" });
  expect(items.filter(({ title }) => title === "unanswered")).toHaveLength(1);
});

test("a connection is closed when nothing was sent on it for a while", async () => {
  const client = new MailClient({ peerTls: alice.peerTls, name: "alpha.test", idleMs: 50 });
  const before = fromAlice().length;
  await client.deliver(outgoing(await sealed("idle")), await records.lookup(bobPerson.identity), never);
  expect(fromAlice()).toHaveLength(before + 1);
  await expect.poll(() => fromAlice().length).toBe(before);
});

test.each([
  ["is too large for the peer", { size: 80_000_000 }, "limit-exceeded"],
  [
    "cannot be read here",
    { broken: new SuiteError("store-failed", "gone", { fault: "local", temporary: true }) },
    "store-failed",
  ],
  ["is not what the peer opens", {}, "seal-malformed"],
] as const)("a mail that %j fails as what it is", async (_what, o, code) => {
  const client = new MailClient({ peerTls: alice.peerTls, name: "alpha.test" });
  const failure = await failureOf(
    client.deliver(outgoing(Buffer.from("not CMS"), o), await records.lookup(bobPerson.identity), never),
  );
  expect(failure.code).toBe(code === "seal-malformed" ? "seal-unreadable" : code); // 554 5.6.0 says no more
  client.stop();
});

test("a kept connection on which the peer says 421 is replaced, too; on a fresh one it is the peer's answer", async () => {
  const davePerson = person("dave");
  await using dave = await mailNode(join(folder.path, "dave"), davePerson, records, { contacts });
  /** How many mails each connection takes before it says 421. */
  const patience = [1, 1, 0];
  dave.peerTls.onPeer("smtp", ({ stream }) => {
    let left = patience.shift() ?? 0;
    stream.write("220 dave\r\n");
    stream.on("data", (chunk: Buffer) => {
      for (const line of chunk.toString().split("\r\n")) {
        if (line.startsWith("EHLO")) stream.write("250 dave\r\n");
        else if (line.startsWith("MAIL") && left-- === 0) stream.end("421 4.3.2 later\r\n");
        else if (/^(MAIL|RCPT)|^\.$/.test(line)) stream.write("250 2.0.0 ok\r\n");
        else if (line === "DATA") stream.write("354 go\r\n");
      }
    });
  });
  const client = new MailClient({ peerTls: alice.peerTls, name: "alpha.test" });
  const to = await records.lookup(davePerson.identity);
  await client.deliver(outgoing(Buffer.from("one")), to, never);
  await client.deliver(outgoing(Buffer.from("two")), to, never);
  expect(patience).toEqual([0]);
  const failure = await failureOf(client.deliver(outgoing(Buffer.from("three")), to, never));
  expect(failure).toMatchObject({ code: "busy", temporary: true, details: { reply: 421, enhanced: "4.3.2" } });
  expect(patience).toEqual([]);
});

test("when the client has stopped, what was being sent arrives, and no connection is kept", async () => {
  const client = new MailClient({ peerTls: alice.peerTls, name: "alpha.test" });
  const before = fromAlice().length;
  const sending = client.deliver(outgoing(await sealed("last")), await records.lookup(bobPerson.identity), never);
  client.stop();
  await sending;
  await expect.poll(() => fromAlice().length).toBe(before);
});

test("an attempt that is given up ends at once, and its connection with it", async () => {
  const client = new MailClient({ peerTls: alice.peerTls, name: "alpha.test" });
  const stop = new AbortController();
  const before = fromAlice().length;
  const endless = outgoing(Buffer.alloc(0), { endless: () => stop.abort() });
  const failure = await failureOf(client.deliver(endless, await records.lookup(bobPerson.identity), stop.signal));
  expect(failure).toMatchObject({ code: "unreachable", temporary: true });
  await expect.poll(() => fromAlice().length).toBe(before);
});

test("a mail of 3 MB arrives byte for byte, on a lane of its own", async () => {
  await send("small");
  const text = Array.from({ length: 40_000 }, (_, n) => `.${n} ${"x".repeat(n % 120)}`).join("\n");
  expect(await send(text)).toBe("delivered");
  const [item] = await bob.store.items({ box: "inbox", kind: "mail" });
  if (item === undefined) throw new Error("nothing was stored");
  const stored = Buffer.concat(await bob.store.openItem(item).toArray()).toString();
  expect(stored).toContain(text.replaceAll("\n", "\r\n"));
  expect(fromAlice()).toHaveLength(2);
});

test("a peer whose gate does not admit us holds the mail, whoever is away keeps it queued", async () => {
  const carol = await mailNode(join(folder.path, "carol"), carolPerson, records, { contacts: [] });
  const held = await alice.smtp.send({ to: [carolPerson.identity], subject: "hello", text: "x" });
  expect(await alice.outbox.settled(held, AbortSignal.timeout(10_000))).toBe("held");
  expect(await alice.outbox.receipts({ item: held })).toMatchObject([
    { status: { state: "held", reason: "not-admitted" } },
  ]);
  await carol[Symbol.asyncDispose]();
  await alice.outbox.release(held);
  await expect
    .poll(() => alice.outbox.receipts({ item: held }))
    .toMatchObject([{ status: { state: "queued", why: "unreachable" } }]);
  await alice.outbox.cancel(held);
});
