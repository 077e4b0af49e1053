import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseDataToken } from "../../src/ftps/grammar.ts";
import { alertNumber } from "../../src/peertls-core/peer-failure.ts";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { fileHead } from "../../src/smime/file-name.ts";
import { seal } from "../../src/smime/seal.ts";
import { temporaryFolder } from "../support/openssl.ts";
import type { TestCredentials, TestPerson } from "../support/pki.ts";
import { bytesOf, flipped } from "../support/smime.ts";
import { type FileNode, FileWorld, pieces, startFileNode } from "./file-node.ts";
import { RawTls, Talk } from "./talk.ts";

const folder = temporaryFolder();
const world = new FileWorld();
let alice: FileNode;
let bob: FileNode;
const carol = world.person("carol");

beforeAll(async () => {
  alice = await startFileNode(world, world.person("alice"), folder.path);
  bob = await startFileNode(world, world.person("bob"), folder.path);
});
afterAll(async () => {
  await alice[Symbol.asyncDispose]();
  await bob[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

test("a file of several megabytes arrives equal, sealed on the way, and the sender's receipt says delivered", async () => {
  const bytes = randomBytes(7_000_003);
  const item = await alice.ftps.send({ to: [bob.person.identity], name: "film.mkv", source: pieces(bytes) });
  expect(await alice.outbox.settled(item, AbortSignal.timeout(15_000))).toBe("delivered");
  const [stored] = await bob.store.items({ box: "inbox", kind: "file" });
  expect(stored).toMatchObject({ from: alice.person.identity, fileName: "film.mkv", size: bytes.length });
  expect(stored?.protection).toMatchObject({ sealed: true, signer: alice.person.auth.certificate.fingerprint });
  const hash = createHash("sha256");
  if (stored !== undefined) for await (const chunk of bob.store.openItem(stored)) hash.update(chunk as Buffer);
  expect(hash.digest("hex")).toBe(createHash("sha256").update(bytes).digest("hex"));
});

test("files to one peer share a control connection", async () => {
  const controls: string[] = [];
  bob.core.onConnected((connection) => controls.push(connection.id));
  for (const name of ["one", "two", "three"]) {
    const item = await alice.ftps.send({ to: [bob.person.identity], name, source: pieces(randomBytes(100)) });
    expect(await alice.outbox.settled(item, AbortSignal.timeout(10_000))).toBe("delivered");
  }
  expect(controls).toEqual([]);
});

test("a control connection that died while it was kept does not make the next file fail", async () => {
  for (const connection of bob.core.connections) connection.destroy();
  const item = await alice.ftps.send({ to: [bob.person.identity], name: "four", source: pieces(randomBytes(100)) });
  expect(await alice.outbox.settled(item, AbortSignal.timeout(10_000))).toBe("delivered");
  expect((await alice.outbox.receipts({ item }))[0]?.attempts).toBe(1);
});

/** Alice's node, spoken by hand. */
async function control(): Promise<Talk> {
  const whom = { identity: bob.person.identity, fingerprints: [bob.person.auth.certificate.fingerprint] };
  const routes = [{ kind: "direct" as const, address: { host: "::1", port: bob.peerPort } }];
  const connection = await alice.core.dial(whom, "ftps", routes, AbortSignal.timeout(5_000));
  const talk = new Talk(connection.stream);
  await talk.answer(220);
  return talk;
}

async function loggedIn(): Promise<Talk> {
  const talk = await control();
  await talk.ask("USER alice@alpha.test", 232);
  await talk.ask("TYPE I", 200);
  return talk;
}

async function dataOf(talk: Talk, as: TestCredentials = alice.person.auth): Promise<RawTls> {
  const { code, text } = await talk.ask("EPSV", 229);
  return RawTls.peerData({ host: "::1", port: bob.peerPort }, parseDataToken(`${code} ${text}`), as);
}

/** A sealed file, as another tool could make it. */
function sealed(body: Buffer, signer: TestPerson = alice.person, to: TestPerson = bob.person): Promise<Buffer> {
  const messageId = `${randomBytes(8).toString("hex")}@alpha.test`;
  const facts = { name: "by hand.txt", mediaType: "text/plain", from: signer.identity, to: [to.identity] };
  const head = fileHead({ ...facts, date: new Date(), messageId });
  const recipients = [peerCertificate(to.encryption.certificate)];
  const how = { now: new Date(), recipients, profile: "peer" as const, shape: "opaque" as const, head };
  return bytesOf(seal(pieces(body), { signer: signer.auth, ...how }));
}

const received = async () => (await bob.store.items({ box: "inbox", kind: "file", limit: 1_000 })).length;
const unfinished = () => readdirSync(join(folder.path, "bob", "content", "tmp"));

describe("an upload that a peer makes by hand", () => {
  test("is answered with the digest that was signed, and listed to this peer as opened", async () => {
    const talk = await loggedIn();
    const data = await dataOf(talk);
    const bytes = await sealed(Buffer.from("hello"));
    await talk.ask("STOR /inbox/00ff.p7m", 150);
    data.tls.end(bytes);
    const { text } = await talk.answer(226);
    expect(text).toMatch(/^Opened [0-9a-f]{64}$/);
    const listed = await talk.ask("MLST /inbox/00ff.p7m", 250);
    expect(listed.text).toContain(`size=${bytes.length};`);
    expect(listed.text).toContain(`x.state=opened;x.digest=${text.slice("Opened ".length)};`);
    talk.stream.destroy();
  });

  test("is refused with one text, at its end, whatever is wrong with the seal", async () => {
    const before = await received();
    const good = await sealed(randomBytes(200_000));
    const wrong: [string, Buffer][] = [
      ["a bit flipped in the content", flipped(good, 100_000)],
      ["a bit flipped in the tag", flipped(good, good.length - 3)],
      ["cut", good.subarray(0, 150_000)],
      ["not sealed", Buffer.alloc(200_000, "plain text ")],
      ["signed by another", await sealed(randomBytes(200_000), carol)],
      ["sealed to another", await sealed(randomBytes(200_000), alice.person, carol)],
    ];
    const talk = await loggedIn();
    for (const [what, bytes] of wrong) {
      const data = await dataOf(talk);
      await talk.ask("STOR /inbox/bad.p7m", 150);
      await data.write(bytes.subarray(0, -1));
      const taken = new RegExp(`: ${bytes.length - 1} bytes`);
      while (!taken.test((await talk.ask("STAT", 211)).text)) await new Promise((resolve) => setImmediate(resolve));
      data.tls.end(bytes.subarray(-1));
      expect([what, await talk.answer()]).toEqual([what, { code: 553, text: "Seal not accepted." }]);
    }
    expect(await received()).toBe(before);
    expect(unfinished()).toEqual([]);
    talk.stream.destroy();
  });

  test("that is cut by a FIN without close_notify, a reset or a killed node gets 426 and leaves nothing", async () => {
    const before = await received();
    const bytes = await sealed(randomBytes(300_000));
    const talk = await loggedIn();
    const cuts: [string, (data: RawTls) => void][] = [
      ["fin behind the whole seal", (data) => data.cut()],
      ["reset", (data) => data.reset()],
    ];
    for (const [what, cut] of cuts) {
      const data = await dataOf(talk);
      await talk.ask("STOR /inbox/cut.p7m", 150);
      await data.write(bytes);
      cut(data);
      expect([what, (await talk.answer()).code]).toEqual([what, 426]);
    }
    const data = await dataOf(talk);
    await talk.ask("STOR /inbox/cut.p7m", 150);
    await data.write(bytes.subarray(0, 200_000));
    data.reset();
    talk.stream.destroy();
    while (unfinished().length > 0) await new Promise((resolve) => setImmediate(resolve));
    const again = await loggedIn();
    await again.ask("NOOP", 200);
    expect(await received()).toBe(before);
    expect(unfinished()).toEqual([]);
    again.stream.destroy();
  });

  test("that was cut is told as far as it came, and goes on from there to the same end", async () => {
    const bytes = await sealed(randomBytes(700_000));
    const talk = await loggedIn();
    const cut = await dataOf(talk);
    await talk.ask("STOR /inbox/resume.p7m", 150);
    await cut.write(bytes.subarray(0, 400_000));
    while (!/: 400000 bytes/.test((await talk.ask("STAT", 211)).text)) await new Promise(setImmediate);
    cut.reset();
    await talk.answer(426);
    talk.stream.destroy();

    const again = await loggedIn();
    expect((await again.ask("MLST /inbox/resume.p7m", 250)).text).toMatch(/perm=adw;.*x\.state=partial;/s);
    expect(await again.ask("SIZE /inbox/resume.p7m")).toEqual({ code: 213, text: "400000" });
    const prefix = createHash("sha256").update(bytes.subarray(0, 400_000)).digest("hex");
    const hashed = await again.ask("HASH /inbox/resume.p7m", 213);
    expect(hashed.text).toBe(`SHA-256 0-400000 ${prefix} /inbox/resume.p7m`);
    await again.ask("REST 400001", 350);
    await again.ask("STOR /inbox/resume.p7m", 554);
    const data = await dataOf(again);
    await again.ask("REST 400000", 350);
    await again.ask("STOR /inbox/resume.p7m", 150);
    data.tls.end(bytes.subarray(400_000));
    const { text } = await again.answer(226);
    expect(text).toMatch(/^Opened /);
    expect((await again.ask("MLST /inbox/resume.p7m", 250)).text).toContain("x.state=opened");
    await again.ask("HASH /inbox/resume.p7m", 550);
    const [stored] = await bob.store.items({ box: "inbox", kind: "file", limit: 1 });
    const original = Buffer.concat(
      (await bob.store.openOriginal(stored as NonNullable<typeof stored>).toArray()) as Buffer[],
    );
    expect(original.equals(bytes)).toBe(true);
    again.stream.destroy();
  });

  test("that was cut is nobody else's, and can be given up", async () => {
    const talk = await loggedIn();
    const cut = await dataOf(talk);
    await talk.ask("STOR /inbox/mine.p7m", 150);
    await cut.write(Buffer.alloc(100));
    cut.reset();
    await talk.answer(426);
    await talk.ask("DELE /inbox/mine.p7m", 250);
    await talk.ask("MLST /inbox/mine.p7m", 550);
    talk.stream.destroy();
  });

  test("is aborted within 100 ms, and the session goes on", async () => {
    const talk = await loggedIn();
    const data = await dataOf(talk);
    await talk.ask("STOR /inbox/abort.p7m", 150);
    await data.write((await sealed(randomBytes(300_000))).subarray(0, 200_000));
    const status = await talk.ask("STAT", 211);
    expect(status.text).toMatch(/STOR \/inbox\/abort\.p7m: \d+ bytes/);
    const begun = performance.now();
    await talk.ask("ABOR", 426);
    await talk.answer(226);
    expect(performance.now() - begun).toBeLessThan(100);
    await talk.ask("NOOP", 200);
    expect(unfinished()).toEqual([]);
    talk.stream.destroy();
  });
});

describe("the token of a data channel", () => {
  test("admits no other key, and her session is unharmed by whoever tries", async () => {
    const talk = await loggedIn();
    const { code, text } = await talk.ask("EPSV", 229);
    const token = parseDataToken(`${code} ${text}`);
    const intruder = await RawTls.peerData({ host: "::1", port: bob.peerPort }, token, carol.auth);
    const [error] = (await once(intruder.tls, "error")) as [Error];
    expect(alertNumber(error)).toBe(49);
    const data = await RawTls.peerData({ host: "::1", port: bob.peerPort }, token, alice.person.auth);
    await talk.ask("STOR /inbox/token.p7m", 150);
    data.tls.end(await sealed(Buffer.from("mine")));
    await talk.answer(226);
    talk.stream.destroy();
  });

  test("is void after the next EPSV, and after one use", async () => {
    const talk = await loggedIn();
    const first = await talk.ask("EPSV", 229);
    const data = await dataOf(talk);
    const attempt = RawTls.peerData(
      { host: "::1", port: bob.peerPort },
      parseDataToken(`229 ${first.text}`),
      alice.person.auth,
    );
    await expect(attempt).rejects.toThrow(/no application protocol/i);
    await talk.ask("STOR /inbox/used.p7m", 150);
    data.tls.end(await sealed(Buffer.from("used")));
    await talk.answer(226);
    await talk.ask("STOR /inbox/used.p7m", 425);
    talk.stream.destroy();
  });

  test("is void although its connection has come, which is closed", async () => {
    const talk = await loggedIn();
    const first = await dataOf(talk);
    const ended = new Promise((resolve) => first.raw.once("end", resolve).once("close", resolve));
    await talk.ask("NOOP", 200);
    const second = await dataOf(talk);
    await ended;
    await talk.ask("STOR /inbox/second.p7m", 150);
    second.tls.end(await sealed(Buffer.from("second")));
    await talk.answer(226);
    talk.stream.destroy();
  });

  test("300 EPSV leave one token", async () => {
    const talk = await loggedIn();
    for (let time = 0; time < 300; time += 1) await talk.ask("EPSV", 229);
    const data = await dataOf(talk);
    await talk.ask("STOR /inbox/last.p7m", 150);
    data.tls.end(await sealed(Buffer.from("last")));
    await talk.answer(226);
    talk.stream.destroy();
  });
});

test.each([
  ["PASV", 502],
  ["PORT 127,0,0,1,4,1", 502],
  ["EPRT |1|127.0.0.1|1025|", 502],
  ["EPSV 1", 522],
  ["EPSV 2", 229],
  ["PROT C", 534],
  ["PROT P", 200],
  ["PROT S", 536],
  ["CCC", 534],
  ["AUTH TLS", 503],
  ["RETR /inbox/x.p7m", 550],
  ["DELE /inbox/x.p7m", 550],
  ["STOR /x.p7m", 550],
  ["STOR /inbox/x.txt", 553],
  ["STOR /inbox/deep/x.p7m", 550],
  ["STOR /inbox/x.p7m", 425],
  ["REST 5\r\nSTOR /inbox/x.p7m", 350, 554],
  ["TYPE A\r\nSTOR /inbox/x.p7m", 200, 504],
  ["ALLO 99999999999999", 552],
  ["CWD /shared", 550],
  ["CWD /inbox", 250],
  ["MKD /inbox/x", 550],
  ["SITE CHMOD 777 x", 500],
  ["PASS x", 230],
] as [string, ...number[]][])("a peer that says %j gets %d", async (line, ...codes) => {
  const talk = await loggedIn();
  talk.say(line);
  for (const code of codes) await talk.answer(code);
  await talk.ask("QUIT", 221);
});

test.each(["alice", "ALICE", "alice@alpha.test", "Alice@Alpha.Test"])("the person may say %s", async (name) => {
  const talk = await control();
  await talk.ask(`USER ${name}`, 232);
  await talk.ask("QUIT", 221);
});

test("nobody but the certificate's person is let in, and the third other name ends the connection", async () => {
  const talk = await control();
  await talk.ask("LIST", 530);
  expect((await talk.ask("CWD /inbox", 530)).text).toBe("Log in with USER and PASS first.");
  for (const name of ["anonymous", "bob@alpha.test", "root"]) await talk.ask(`USER ${name}`, 530);
  await talk.end();
});
