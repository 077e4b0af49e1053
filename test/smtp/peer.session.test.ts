import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { encodeBase64 } from "../../src/smime/base64.ts";
import { envelopedData } from "../../src/smime/envelope-write.ts";
import { algorithmsOf } from "../../src/smime/profile.ts";
import { seal } from "../../src/smime/seal.ts";
import { openssl, pemFiles, temporaryFolder } from "../support/openssl.ts";
import type { TestPerson } from "../support/pki.ts";
import { bytesOf, flipped } from "../support/smime.ts";
import { domain, type MailNode, mailNode, Records } from "./mail-people.ts";
import { originalText, storedText } from "./stored.ts";
import { Talk } from "./talk.ts";

const person = (name: string) => domain.person({ identity: `${name}@alpha.test`, encryptionKey: "ec" });
const [alice, bob, carol, mallory] = [person("alice"), person("bob"), person("carol"), person("mallory")];
let folder: ReturnType<typeof temporaryFolder>;
let bobs: MailNode;
let alices: MailNode;
let mallorys: MailNode;
const open: Talk[] = [];

beforeEach(async () => {
  folder = temporaryFolder();
  const records = new Records();
  const contacts = [alice.identity, mallory.identity];
  bobs = await mailNode(join(folder.path, "bob"), bob, records, { contacts });
  alices = await mailNode(join(folder.path, "alice"), alice, records, { contacts });
  mallorys = await mailNode(join(folder.path, "mallory"), mallory, records, { contacts });
});

afterEach(async () => {
  for (const talk of open.splice(0)) talk.socket.destroy();
  for (const node of [bobs, alices, mallorys]) await node[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

/** A connection to Bob's node, as the gate admits it. */
async function visit(from: MailNode): Promise<Talk> {
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const address = { host: "::1", port: bobs.peerPort };
  const connection = await from.peerTls.dial(
    expected,
    "smtp",
    [{ kind: "direct", address }],
    AbortSignal.timeout(5_000),
  );
  const talk = new Talk(connection.stream as Socket);
  open.push(talk);
  expect(await talk.reply()).toBe("220 alpha.test ESMTP SixTalk");
  return talk;
}

const payload = (o: { from?: string; to?: string; id?: string; text?: string } = {}) =>
  Buffer.from(
    `From: ${o.from ?? alice.identity}\r\nTo: ${o.to ?? bob.identity}\r\nSubject: plans\r\nMessage-ID: <${o.id ?? "1@alpha.test"}>\r\n` +
      `Content-Type: text/plain; hp="cipher"\r\n\r\n${o.text ?? "the plan"}\r\n`,
  );

async function* only(bytes: Uint8Array) {
  yield bytes;
}

function sealed(o: { by?: TestPerson; for?: TestPerson; entity?: Buffer } = {}): Promise<Buffer> {
  const recipients = [peerCertificate((o.for ?? bob).encryption.certificate)];
  const signer = (o.by ?? alice).auth;
  return bytesOf(
    seal(only(o.entity ?? payload()), { signer, now: new Date(), recipients, profile: "peer", shape: "detached" }),
  );
}

const OUTER = "From: alice@alpha.test\r\nSubject: [...]\r\n";
const MIME =
  "Content-Type: application/pkcs7-mime; smime-type=authEnveloped-data\r\nContent-Transfer-Encoding: base64\r\n";

async function mailOf(der: Buffer, head = OUTER): Promise<string> {
  return `${head}${MIME}\r\n${(await bytesOf(encodeBase64(only(der)))).toString()}.\r\n`;
}

/** MAIL, RCPT, DATA, the mail: the reply to its end. */
async function hand(talk: Talk, mail: string, from: string = alice.identity): Promise<string | undefined> {
  expect(await talk.begin(from, bob.identity)).toMatch(/^354 /);
  talk.write(mail);
  return talk.reply();
}

const inbox = () => bobs.store.items({ box: "inbox", kind: "mail" });
const leftovers = () => readdirSync(join(folder.path, "bob", "content", "tmp"));

describe("whoever does not speak for himself, or to the owner, is refused", () => {
  test("MAIL FROM is an identity of the peer's certificate", async () => {
    const talk = await visit(mallorys);
    await talk.say("EHLO mallory");
    expect(await talk.say(`MAIL FROM:<${alice.identity}>`)).toBe("550 5.7.1 The sender is not in your certificate");
    expect(await talk.say("MAIL FROM:<ALICE@ALPHA.test>")).toMatch(/^550 5\.7\.1 /);
    expect(await talk.say(`MAIL FROM:<${mallory.identity}>`)).toBe("250 2.1.0 Accepted");
  });

  test("RCPT is the owner", async () => {
    const talk = await visit(alices);
    await talk.say("EHLO alice");
    await talk.say("MAIL FROM:<alice@alpha.test>");
    expect(await talk.say("RCPT TO:<carol@alpha.test>")).toBe("550 5.1.1 No such person here");
    expect(await talk.say("RCPT TO:<Bob@Alpha.test>")).toBe("250 2.1.5 Accepted");
  });

  test.each([
    ["plain", "Subject: x\r\n\r\nhello\r\n.\r\n"],
    ["only signed", "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n.\r\n"],
  ])("%s mail is told that it has to be sealed", async (_kind, mail) => {
    expect(await hand(await visit(alices), mail)).toBe("523 5.7.10 Encryption needed");
    expect(await inbox()).toEqual([]);
  });

  test("a seal to somebody else's key is told so, one in another encoding is not read", async () => {
    const talk = await visit(alices);
    expect(await hand(talk, await mailOf(await sealed({ for: carol })))).toBe(
      "554 5.7.5 Not sealed to a key of the recipient",
    );
    const undeclared = (await mailOf(await sealed())).replace("Transfer-Encoding: base64", "Transfer-Encoding: 7bit");
    expect(await hand(talk, undeclared)).toMatch(/^554 5\.6\.0 /);
    expect(await hand(talk, await mailOf(await sealed()))).toMatch(/^250 2\.6\.0 stored \w{26}$/);
  });

  test("what can be found only with the private key is refused with one reply, byte for byte", async () => {
    const talk = await visit(alices);
    const good = await sealed();
    const refused = [
      await hand(talk, await mailOf(flipped(good, good.length - 1))), // the tag
      await hand(talk, await mailOf(flipped(good, good.length - 100))), // the ciphertext
      await hand(talk, await mailOf(await sealed({ entity: payload({ from: "carol@alpha.test" }) }))),
      await hand(talk, await mailOf(await sealed({ entity: payload({ from: "alice@alpha.test, carol@alpha.test" }) }))),
      await hand(talk, await mailOf(await sealed({ by: carol }))),
      await hand(talk, await mailOf(await sealed({ entity: payload({ to: "carol@alpha.test" }) }))),
      await hand(
        talk,
        await mailOf(
          await bytesOf(
            envelopedData(only(payload()), [peerCertificate(bob.encryption.certificate)], algorithmsOf("peer")),
          ),
        ),
      ), // not signed
    ];
    expect(new Set(refused)).toEqual(new Set(["554 5.6.0 Mail cannot be opened and verified"]));
    expect(await inbox()).toEqual([]);
    expect(leftovers()).toEqual([]);
  });

  test("another peer cannot bring an old mail of Alice's again", async () => {
    const mail = await mailOf(await sealed());
    expect(await hand(await visit(alices), mail)).toMatch(/^250 /);
    const talk = await visit(mallorys);
    expect(await hand(talk, mail, mallory.identity)).toBe("554 5.6.0 Mail cannot be opened and verified");
    expect(await inbox()).toHaveLength(1);
  });

  test("after twenty mails that could not be opened the next one waits, unread", async () => {
    const bad = await mailOf(await sealed());
    for (let connection = 0; connection < 2; connection++) {
      const talk = await visit(mallorys); // another one, since a connection has fifty commands without a mail
      for (let n = 0; n < 10; n++) expect(await hand(talk, bad, mallory.identity)).toMatch(/^554 5\.6\.0 /);
    }
    const good = await mailOf(await sealed({ by: mallory }));
    expect(await hand(await visit(mallorys), good, mallory.identity)).toMatch(/^451 4\.7\.1 /);
    expect(await hand(await visit(alices), await mailOf(await sealed()))).toMatch(/^250 /);
  });

  test("the fifth connection of a peer is turned away", async () => {
    const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
    const address = { host: "::1", port: bobs.peerPort };
    for (let n = 0; n < 4; n++) await visit(alices);
    const route = { kind: "direct" as const, address };
    const fifth = await alices.peerTls.dial(expected, "smtp", [route], AbortSignal.timeout(5_000));
    expect(await new Talk(fifth.stream as Socket).reply()).toBe("421 4.7.0 Too many connections");
    await visit(mallorys);
  });
});

describe("faults of form", () => {
  test("bare line ends, thirty-one hops, a header that is none or too long", async () => {
    const talk = await visit(alices);
    expect(await hand(talk, `${OUTER}${MIME}\r\nAAAA\nAAAA\r\n.\r\n`)).toBe("554 5.5.2 Syntax error");
    expect(await hand(talk, `${"Received: x\r\n".repeat(31)}${MIME}\r\nAAAA\r\n.\r\n`)).toBe("554 5.4.6 Too many hops");
    expect(await hand(talk, "what is this\r\n\r\nx\r\n.\r\n")).toBe("554 5.6.0 The header cannot be read");
    expect(await hand(talk, `X: ${"x".repeat(66_000)}\r\n\r\nx\r\n.\r\n`)).toBe("554 5.6.0 The header cannot be read");
    expect(await hand(talk, `X: ${"x".repeat(1_000_000)}\r\n\r\nx\r\n.\r\n`)).toBe(
      "554 5.6.0 The header cannot be read",
    );
    expect(await hand(talk, `${OUTER}${MIME}\r\nnot base64!\r\n.\r\n`)).toMatch(/^554 5\.6\.0 /);
    expect(await hand(talk, await mailOf(await sealed()))).toMatch(/^250 /);
  });

  test("a peer that dies in the middle of a mail leaves nothing", async () => {
    const large = await sealed({ entity: payload({ text: "line\r\n".repeat(200_000) }) });
    const mail = await mailOf(large);
    const talk = await visit(alices);
    await talk.begin(alice.identity, bob.identity);
    talk.write(mail.slice(0, mail.length / 2));
    await expect.poll(leftovers).not.toEqual([]);
    talk.socket.destroy();
    await expect.poll(leftovers).toEqual([]);
    expect(await inbox()).toEqual([]);
    expect(await hand(await visit(alices), mail)).toMatch(/^250 /);
    expect(await inbox()).toHaveLength(1);
  });
});

describe("what is stored", () => {
  test("a mail that comes twice is stored once, and answered with the same id", async () => {
    const talk = await visit(alices);
    const mail = await mailOf(await sealed());
    const first = await hand(talk, mail);
    expect(first).toMatch(/^250 2\.6\.0 stored \w{26}$/);
    expect(await hand(talk, await mailOf(await sealed()))).toBe(first); // sealed anew
    expect(await inbox()).toHaveLength(1);
  });

  test("a mail with the null path is the peer's own", async () => {
    expect(await hand(await visit(alices), await mailOf(await sealed()), "")).toMatch(/^250 /);
    const [item] = await inbox();
    if (item === undefined) throw new Error("nothing was stored");
    expect(item.from).toBe(alice.identity);
    expect(await storedText(bobs.store, item)).toMatch(/^Return-Path: <>\r\n/);
  });

  test("shows the verdict and the signed header, and nothing that came from outside the seal", async () => {
    const forged =
      "X-SixTalk-Seal: sealed; signer=boss@alpha.test\r\nX-SixTalk-Peer: boss@alpha.test\r\n" +
      "Authentication-Results: alpha.test; smime=pass\r\nSubject: another\r\nFrom: boss@alpha.test\r\nX-Evil: yes\r\n";
    await hand(await visit(alices), await mailOf(await sealed(), forged));
    const [item] = await inbox();
    if (item === undefined) throw new Error("nothing was stored");
    const text = await storedText(bobs.store, item);
    const head = text.slice(0, text.indexOf("\r\n\r\n")).replace(/\r\n[ \t]+/g, " ");
    expect(head.split("\r\n").map((line) => line.split(":")[0])).toEqual([
      "Return-Path",
      "Received",
      "Authentication-Results",
      "X-SixTalk-Peer",
      "X-SixTalk-Seal",
      "From",
      "To",
      "Subject",
      "Message-ID",
      "MIME-Version",
      "Content-Type",
    ]);
    expect(head).toContain("Authentication-Results: alpha.test; smime=pass body.smime-identifier=alice@alpha.test");
    expect(head).toContain(
      `X-SixTalk-Peer: alice@alpha.test; key=sha256:${alice.auth.certificate.fingerprint}; issuer="`,
    );
    expect(head).toMatch(/X-SixTalk-Seal: sealed; signer=alice@alpha\.test; signed=[\d-]+T[\d:]+Z; cipher=aes-256-gcm/);
    expect(head).toMatch(/Received: from test\.example \(\[IPv6:::1\]\) by alpha\.test .*\(TLSv1\.3 TLS_/);
    expect(head).toContain("Subject: plans");
    expect(text).not.toMatch(/boss|X-Evil/);
    expect(item).toMatchObject({ title: "plans", from: "alice@alpha.test", messageId: "1@alpha.test" });
  });

  test("fields that a peer put inside the seal but outside the signature are not taken for ours", async () => {
    const signed = await opensslSigned(payload());
    const entity = Buffer.from(`X-SixTalk-Seal: sealed; signer=boss@alpha.test\r\nFrom: boss@alpha.test\r\n${signed}`);
    const recipients = [peerCertificate(bob.encryption.certificate)];
    const der = await bytesOf(envelopedData(only(entity), recipients, algorithmsOf("peer")));
    expect(await hand(await visit(alices), await mailOf(der))).toMatch(/^554 5\.6\.0 /);
    const honest = await bytesOf(envelopedData(only(Buffer.from(signed)), recipients, algorithmsOf("peer")));
    expect(await hand(await visit(alices), await mailOf(honest))).toMatch(/^250 /);
  });

  test.each([100, 100_000])(
    "a signer's own verdict in a SignedData without MIME around it is not taken for ours (%i octets)",
    async (size) => {
      const forged =
        "X-SixTalk-Seal: sealed; signer=boss@alpha.test\r\nAuthentication-Results: alpha.test; smime=pass\r\n";
      const entity = Buffer.from(`${forged}${payload({ text: "x\r\n".repeat(size / 3) }).toString()}`);
      const recipients = [peerCertificate(bob.encryption.certificate)];
      const der = await bytesOf(envelopedData(only(await opensslOpaque(entity)), recipients, algorithmsOf("peer")));
      expect(await hand(await visit(alices), await mailOf(der))).toMatch(/^250 /);
      const [item] = await inbox();
      if (item === undefined) throw new Error("nothing was stored");
      const text = await storedText(bobs.store, item);
      expect(text).not.toContain("boss");
      for (const name of ["From", "Authentication-Results", "X-SixTalk-Seal"])
        expect(text.match(new RegExp(`^${name}:`, "gm"))).toHaveLength(1);
      expect(text.endsWith(`\r\n\r\n${"x\r\n".repeat(size / 3)}\r\n`)).toBe(true);
    },
  );

  test("the kept original is a whole mail that openssl decrypts and verifies", async () => {
    await hand(await visit(alices), await mailOf(await sealed()));
    const [item] = await inbox();
    if (item === undefined) throw new Error("nothing was stored");
    const keys = pemFiles(folder.path, "bob", bob.encryption);
    const file = (name: string, text: string) => {
      writeFileSync(join(folder.path, name), text);
      return join(folder.path, name);
    };
    const original = await originalText(bobs.store, item);
    expect(original.startsWith(`${OUTER}${MIME}\r\n`)).toBe(true);
    const mail = file("original.eml", original);
    const decrypted = await openssl(["cms", "-decrypt", "-in", mail, "-recip", keys.certificate, "-inkey", keys.key]);
    expect(decrypted.output).toMatch(/^Content-Type: multipart\/signed/);
    const root = file("root.pem", derToPem(domain.root.certificate.der, "CERTIFICATE"));
    const stored = file("stored.eml", await storedText(bobs.store, item));
    for (const signed of [file("decrypted.eml", decrypted.output), stored]) {
      const verified = await openssl(["cms", "-verify", "-in", signed, "-CAfile", root, "-purpose", "any"]);
      expect(verified.output).toMatch(/verification successful/i);
      expect(verified.output).toContain("the plan");
    }
  });
});

/** multipart/signed by Alice, made by somebody else's program. */
async function opensslSigned(entity: Buffer): Promise<string> {
  const keys = pemFiles(folder.path, "alice", alice.auth);
  const file = join(folder.path, "entity.eml");
  writeFileSync(file, entity);
  const { output } = await openssl([
    "cms",
    "-sign",
    "-in",
    file,
    "-binary",
    "-signer",
    keys.certificate,
    "-inkey",
    keys.key,
    "-certfile",
    keys.chain,
    "-md",
    "sha256",
  ]);
  return output.replace(/\r?\n/g, "\r\n");
}

/** The entity inside a SignedData by Alice, DER, made by somebody else's program. */
async function opensslOpaque(entity: Buffer): Promise<Buffer> {
  const keys = pemFiles(folder.path, "alice", alice.auth);
  const [file, out] = [join(folder.path, "entity.eml"), join(folder.path, "entity.der")];
  writeFileSync(file, entity);
  const by = ["-signer", keys.certificate, "-inkey", keys.key, "-certfile", keys.chain, "-md", "sha256"];
  await openssl(["cms", "-sign", "-nodetach", "-binary", "-in", file, ...by, "-outform", "DER", "-out", out]);
  return readFileSync(out);
}
