import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../support/openssl.ts";
import { domain, type MailNode, mailNode, Records } from "./mail-people.ts";
import { originalText, storedText } from "./stored.ts";

const folder = temporaryFolder();
const records = new Records();
const alicePerson = domain.person({ identity: "alice@alpha.test", encryptionKey: "ec" });
const bobPerson = domain.person({ identity: "bob@alpha.test", encryptionKey: "ec" });
let alice: MailNode;
let bob: MailNode;

beforeAll(async () => {
  const contacts = [alicePerson.identity, bobPerson.identity];
  alice = await mailNode(join(folder.path, "alice"), alicePerson, records, { contacts });
  bob = await mailNode(join(folder.path, "bob"), bobPerson, records, { contacts });
});

afterAll(async () => {
  await alice[Symbol.asyncDispose]();
  await bob[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

test("mail goes both ways, sealed on the wire, and is stored opened with the verdict in its header", async () => {
  const there = await alice.smtp.send({ to: [bob.person.identity], subject: "Grüße", text: "Hello Bob,\nsee you." });
  expect(await alice.outbox.settled(there, AbortSignal.timeout(10_000))).toBe("delivered");
  const [item] = await bob.store.items({ box: "inbox", kind: "mail" });
  if (item === undefined) throw new Error("nothing was stored");
  expect(item).toMatchObject({ from: "alice@alpha.test", to: ["bob@alpha.test"], title: "Grüße" });
  const text = await storedText(bob.store, item);
  expect(text).toMatch(/^Return-Path: <alice@alpha\.test>\r\nReceived: from alpha\.test /);
  expect(text).toContain("\r\nX-SixTalk-Seal: sealed; signer=alice@alpha.test; signed=");
  expect(text).toContain("\r\nSubject: =?UTF-8?B?R3LDvMOfZQ==?=\r\n");
  expect(text).toContain("\r\nContent-Type: multipart/signed;");
  expect(text).toContain("Hello Bob,\r\nsee you.\r\n");
  expect(await originalText(bob.store, item)).toContain("smime-type=authEnveloped-data");

  const back = await bob.smtp.send({ to: [alice.person.identity], subject: "Re: Grüße", text: "Yes." });
  expect(await bob.outbox.settled(back, AbortSignal.timeout(10_000))).toBe("delivered");
  expect(await alice.store.items({ box: "inbox", kind: "mail" })).toMatchObject([{ title: "Re: Grüße" }]);
});

test("what is sealed for older programs says so in its header", async () => {
  const person = domain.person({ identity: "carol@alpha.test", encryptionKey: "rsa" });
  const contacts = [alicePerson.identity, bobPerson.identity];
  const how = { contacts, contentEncryption: "cbc" } as const;
  await using carol = await mailNode(join(folder.path, "carol"), person, records, how);
  await using dave = await mailNode(join(folder.path, "dave"), bobPerson, records, { contacts: [person.identity] });
  const there = await carol.smtp.send({ to: [dave.person.identity], subject: "old", text: "Hello" });
  expect(await carol.outbox.settled(there, AbortSignal.timeout(10_000))).toBe("delivered");
  const [item] = await dave.store.items({ box: "inbox", kind: "mail" });
  if (item === undefined) throw new Error("nothing was stored");
  expect(item.protection).toMatchObject({ sealed: true, cipher: "aes-256-cbc" });
  expect(await originalText(dave.store, item)).toContain("smime-type=enveloped-data");
  expect(await storedText(dave.store, item)).toContain("Hello");
});
