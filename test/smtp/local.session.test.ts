import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { domain, localTls, type MailNode, mailNode, PASSWORD, Records } from "./mail-people.ts";
import { Talk } from "./talk.ts";

const folder = temporaryFolder();
const records = new Records();
const people = ["alice", "bob", "carol"].map((name) =>
  domain.person({ identity: `${name}@alpha.test`, encryptionKey: "ec" }),
);
const [aliceId, bobId, carolId] = ["alice@alpha.test", "bob@alpha.test", "carol@alpha.test"];
const tls = localTls();
const talks: Talk[] = [];
let alice: MailNode;
let bob: MailNode;
let carol: MailNode;

beforeAll(async () => {
  const contacts = people.map((person) => person.identity);
  const nodes = [];
  for (const person of people)
    nodes.push(await mailNode(join(folder.path, person.identity), person, records, { contacts, tls }));
  [alice, bob, carol] = nodes as [MailNode, MailNode, MailNode];
}, 60_000);

afterAll(async () => {
  for (const node of [alice, bob, carol]) await node[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

afterEach(() => {
  for (const talk of talks.splice(0)) talk.socket.destroy();
});

function tracked(talk: Talk): Talk {
  talks.push(talk);
  return talk;
}

const plain = (user: string, password: string) => Buffer.from(`\0${user}\0${password}`).toString("base64");

async function overTls(): Promise<Talk> {
  const talk = tracked(await Talk.tls(alice.smtp.addresses?.smtps.port ?? 0, tls.ca));
  expect(await talk.reply()).toBe("220 alpha.test ESMTP SixTalk");
  await talk.say("EHLO program");
  return talk;
}

async function loggedIn(): Promise<Talk> {
  const talk = await overTls();
  expect(await talk.say(`AUTH PLAIN ${plain("alice", PASSWORD)}`)).toMatch(/^235 2\.7\.0 /);
  return talk;
}

async function submit(talk: Talk, to: readonly string[], mail: string): Promise<string | undefined> {
  await talk.say(`MAIL FROM:<${aliceId}>`);
  for (const one of to) await talk.say(`RCPT TO:<${one}>`);
  await talk.say("DATA");
  talk.write(`${mail.replace(/^\./gm, "..")}\r\n.\r\n`);
  return talk.reply();
}

async function delivered(reply: string | undefined) {
  const id = /^250 2\.6\.0 queued (\w{26})$/.exec(reply ?? "")?.[1];
  if (id === undefined) throw new Error(`not queued: ${reply}`);
  const item = await alice.store.item(id);
  expect(await alice.outbox.settled(item.id, AbortSignal.timeout(10_000))).toBe("delivered");
  return item;
}

async function newest(node: MailNode) {
  const [item] = await node.store.items({ box: "inbox", kind: "mail" });
  if (item === undefined) throw new Error("nothing was stored");
  return { item, text: Buffer.concat(await node.store.openItem(item).toArray()).toString() };
}

describe("a program has to show the app password, inside TLS", () => {
  test("TLS on one port: AUTH is offered, and MAIL without it refused", async () => {
    const talk = tracked(await Talk.tls(alice.smtp.addresses?.smtps.port ?? 0, tls.ca));
    await talk.reply();
    expect(await talk.say("EHLO program")).toContain("\r\n250-AUTH PLAIN LOGIN\r\n");
    expect(await talk.say(`MAIL FROM:<${aliceId}>`)).toMatch(/^530 5\.7\.0 /);
  });

  test.each([
    ["PLAIN", "alice"],
    ["PLAIN", "alice@alpha.test"],
    ["LOGIN", "alice"],
  ])("%s as %s", async (mechanism, user) => {
    const talk = await overTls();
    if (mechanism === "PLAIN") {
      expect(await talk.say(`AUTH PLAIN ${plain(user, PASSWORD)}`)).toMatch(/^235 2\.7\.0 /);
    } else {
      expect(await talk.say("AUTH LOGIN")).toMatch(/^334 /);
      expect(await talk.say(Buffer.from(user).toString("base64"))).toMatch(/^334 /);
      expect(await talk.say(Buffer.from(PASSWORD).toString("base64"))).toMatch(/^235 2\.7\.0 /);
    }
    expect(await talk.say(`MAIL FROM:<${aliceId}>`)).toBe("250 2.1.0 Accepted");
  });

  test("a wrong password gets 535 5.7.8; the third ends the connection", async () => {
    const talk = await overTls();
    expect(await talk.say(`AUTH PLAIN ${plain("alice", "wrong")}`)).toBe("535 5.7.8 User or password wrong");
    expect(await talk.say(`AUTH PLAIN ${plain("bob", PASSWORD)}`)).toBe("535 5.7.8 User or password wrong");
    expect(await talk.say(`AUTH PLAIN ${plain("alice", "")}`)).toBe("421 4.7.0 Too many wrong passwords");
    expect(await talk.rest()).toBe("");
  });

  test("somebody else's authorization identity is not taken", async () => {
    const talk = await overTls();
    const token = Buffer.from(`bob\0alice\0${PASSWORD}`).toString("base64");
    expect(await talk.say(`AUTH PLAIN ${token}`)).toMatch(/^535 /);
  });
});

describe("STARTTLS", () => {
  test("before it, AUTH is not offered and refused with 538, MAIL with 530; behind it both work", async () => {
    const talk = tracked(await Talk.tcp(alice.smtp.addresses?.submission.port ?? 0));
    await talk.reply();
    const offered = await talk.say("EHLO program");
    expect(offered).toContain("250-STARTTLS");
    expect(offered).not.toContain("AUTH");
    expect(await talk.say(`AUTH PLAIN ${plain("alice", PASSWORD)}`)).toMatch(/^538 5\.7\.11 /);
    expect(await talk.say(`MAIL FROM:<${aliceId}>`)).toMatch(/^530 5\.7\.0 /);
    expect(await talk.say("STARTTLS")).toMatch(/^220 /);
    await talk.startTls(tls.ca);
    expect(await talk.say(`MAIL FROM:<${aliceId}>`)).toMatch(/^503 /); // what was said before TLS is forgotten
    expect(await talk.say("EHLO program")).toContain("AUTH PLAIN LOGIN");
    expect(await talk.say(`AUTH PLAIN ${plain("alice", PASSWORD)}`)).toMatch(/^235 /);
    const item = await delivered(
      await submit(talk, [bobId ?? ""], `From: ${aliceId}\r\nTo: ${bobId}\r\n\r\nby STARTTLS`),
    );
    expect(item.to).toEqual([bobId]);
    expect((await newest(bob)).text).toContain("by STARTTLS");
  });

  test("commands that came in clear behind STARTTLS are never run", async () => {
    const talk = tracked(await Talk.tcp(alice.smtp.addresses?.submission.port ?? 0));
    await talk.reply();
    await talk.say("EHLO program");
    talk.write(`STARTTLS\r\nEHLO injected\r\nAUTH PLAIN ${plain("alice", PASSWORD)}\r\nMAIL FROM:<${aliceId}>\r\n`);
    expect(await talk.reply()).toMatch(/^220 /);
    await talk.startTls(tls.ca);
    expect(await talk.say("NOOP")).toBe("250 2.0.0 OK"); // the first thing that is answered inside TLS
    expect(await talk.say(`MAIL FROM:<${aliceId}>`)).toMatch(/^503 /);
    await talk.say("EHLO program");
    expect(await talk.say(`MAIL FROM:<${aliceId}>`)).toMatch(/^530 /);
  });

  test("twenty-five sessions one after the other leave no connection counted", async () => {
    for (let n = 0; n < 25; n++) {
      const talk = await Talk.tcp(alice.smtp.addresses?.submission.port ?? 0);
      expect(await talk.reply()).toMatch(/^220 /);
      await talk.say("EHLO program");
      await talk.say("STARTTLS");
      await talk.startTls(tls.ca);
      await talk.say("QUIT");
      await talk.rest();
    }
  });

  test("the twenty-first connection at once is turned away", async () => {
    const port = alice.smtp.addresses?.submission.port ?? 0;
    const admitted = async () => {
      const open: Talk[] = [];
      for (let reply: string | undefined = "220"; reply?.startsWith("220"); ) {
        const talk = await Talk.tcp(port);
        reply = await talk.reply();
        if (!reply?.startsWith("220")) expect(reply).toBe("421 4.7.0 Too many connections");
        open.push(talk);
      }
      for (const talk of open) talk.socket.destroy();
      return open.length - 1;
    };
    await expect.poll(admitted).toBe(20); // once the server has seen the ends of earlier ones
    await expect.poll(async () => (await Talk.tcp(port)).reply()).toMatch(/^220 /);
  });
});

describe("who may write to whom", () => {
  test("the sender is the owner, and so are From and Sender", async () => {
    const talk = await loggedIn();
    expect(await talk.say(`MAIL FROM:<${bobId}>`)).toMatch(/^550 5\.7\.1 /);
    expect(await talk.say("MAIL FROM:<>")).toMatch(/^550 5\.7\.1 /);
    for (const head of [
      `From: ${bobId}`,
      `From: ${aliceId}, ${bobId}`,
      `From: ${aliceId}\r\nFrom: ${bobId}`,
      `From: ${aliceId}\r\nSender: ${bobId}`,
      "Subject: nobody's",
    ]) {
      expect(await submit(talk, [bobId ?? ""], `${head}\r\nTo: ${bobId}\r\n\r\nx`)).toMatch(/^550 5\.7\.1 /);
    }
  });

  test("each recipient is answered from the directory; when that is away the mail is queued", async () => {
    const talk = await loggedIn();
    await talk.say(`MAIL FROM:<${aliceId}>`);
    expect(await talk.say(`RCPT TO:<${bobId}>`)).toBe("250 2.1.5 Accepted");
    expect(await talk.say("RCPT TO:<nobody@alpha.test>")).toBe("550 5.1.1 No such person here");
    expect(await talk.say("RCPT TO:<postmaster>")).toMatch(/^553 5\.1\.3 /);
    records.failure = new SuiteError("directory-unavailable", "away", { fault: "service", temporary: true });
    expect(await talk.say("RCPT TO:<who@elsewhere.test>")).toBe("250 2.1.5 Accepted");
    await talk.say("DATA");
    talk.write(`From: ${aliceId}\r\nTo: ${bobId}, who@elsewhere.test\r\n\r\nx\r\n.\r\n`);
    const id = /queued (\w+)/.exec((await talk.reply()) ?? "")?.[1] ?? "";
    const item = await alice.store.item(id);
    expect(await alice.outbox.receipts({ item: item.id })).toHaveLength(2);
    records.failure = undefined;
    await alice.outbox.cancel(item.id);
  });
});

describe("a submitted mail", () => {
  test("gets Date and Message-ID, loses Bcc, and arrives with CRLF line ends", async () => {
    const talk = await loggedIn();
    const mail = `From: Alice <${aliceId}>\r\nTo: ${bobId}\r\nBcc: ${carolId}\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\n\r\nbare\nLF, ..dots\r\n.x\r\n`;
    const item = await delivered(await submit(talk, [bobId ?? ""], mail));
    expect(item.title).toBe("Café");
    const { text, item: stored } = await newest(bob);
    expect(stored.title).toBe("Café");
    expect(text).toContain("bare\r\nLF, ..dots\r\n.x\r\n");
    expect(text).not.toMatch(/[^\r]\n/);
    expect((await alice.store.bytes(item.content)).toString()).not.toMatch(/[^\r]\n/);
    expect(text).not.toContain("carol");
    expect(text).toMatch(/\r\nDate: \w{3}, /);
    expect(text).toMatch(/\r\nMessage-ID:\s+<[0-9a-f]{32}@alpha\.test>/);
  });

  test("with a hidden recipient: he alone is named in his copy, and nobody else's bytes name him", async () => {
    const talk = await loggedIn();
    const mail = `From: ${aliceId}\r\nTo: ${bobId}\r\nBcc: ${carolId}\r\nSubject: hidden\r\n\r\npsst`;
    await delivered(await submit(talk, [bobId ?? "", carolId ?? ""], mail));
    await expect.poll(() => carol.store.items({ box: "inbox", kind: "mail" })).toHaveLength(1);
    const [his, hers] = [await newest(bob), await newest(carol)];
    expect(his.text).toContain("psst");
    expect(his.text).not.toContain("carol");
    const original = Buffer.concat(await bob.store.openOriginal(his.item).toArray()).toString();
    expect(original).not.toContain("carol");
    expect(hers.text).toContain("psst");
    expect(hers.text).toContain(`\r\nBcc: ${carolId}\r\n`);
    expect(
      Buffer.concat(await carol.store.openOriginal(hers.item).toArray())
        .toString()
        .split("\r\n\r\n")[0],
    ).not.toContain("Bcc");
  });

  test("that the program signed keeps every byte inside; one that it sealed is refused", async () => {
    const talk = await loggedIn();
    const inner = `--b\r\nContent-Type: text/plain\r\n\r\ntrailing space \r\n\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nAAAA\r\n--b--\r\n`;
    const signed = `From: ${aliceId}\r\nTo: ${bobId}\r\nContent-Type: multipart/signed; boundary=b;\r\n protocol="application/pkcs7-signature"\r\n\r\n${inner}`;
    await delivered(await submit(talk, [bobId ?? ""], signed));
    expect((await newest(bob)).text).toContain(inner);
    const sealed = `From: ${aliceId}\r\nTo: ${bobId}\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\r\nAAAA`;
    expect(await submit(talk, [bobId ?? ""], sealed)).toMatch(/^554 5\.7\.5 Already sealed/);
  });

  test("with a NUL is refused, and the session goes on", async () => {
    const talk = await loggedIn();
    expect(await submit(talk, [bobId ?? ""], `From: ${aliceId}\r\n\r\na\0b`)).toBe("554 5.5.2 Syntax error");
    expect(await talk.say("NOOP")).toBe("250 2.0.0 OK");
  });

  test("with a header that cannot be read, or too long, is refused", async () => {
    const talk = await loggedIn();
    expect(await submit(talk, [bobId ?? ""], "no field at all\r\n\r\nx")).toBe("554 5.6.0 The header cannot be read");
    const long = `From: ${aliceId}\r\nX-Long: ${"x".repeat(70_000)}\r\n\r\nx`;
    expect(await submit(talk, [bobId ?? ""], long)).toBe("554 5.6.0 The header cannot be read");
    expect(await talk.say("NOOP")).toBe("250 2.0.0 OK");
  });
});
