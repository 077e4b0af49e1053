import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../support/openssl.ts";
import { domain, type MailNode, mailNode, Records } from "./mail-people.ts";

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

test("a kept connection that the peer has closed meanwhile is replaced within the same attempt", async () => {
  await send("before");
  for (const connection of fromAlice()) connection.destroy();
  const item = await alice.smtp.send({ to: [bobPerson.identity], subject: "after", text: "x" });
  expect(await alice.outbox.settled(item, AbortSignal.timeout(10_000))).toBe("delivered");
  expect(await alice.outbox.receipts({ item })).toMatchObject([{ attempts: 1 }]);
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
