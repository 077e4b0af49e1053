import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { setImmediate as turn } from "node:timers/promises";
import { connect } from "node:tls";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import { alertNumber } from "../../src/peertls-core/peer-failure.ts";
import { type ExpectedData, makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { silentLog } from "../../src/pki/log.ts";
import { within } from "../delivery/party.ts";
import { peerOptions, RawTls } from "../ftps/talk.ts";
import { openssl, pemFiles, temporaryFolder } from "../support/openssl.ts";
import { makeTestDomain, type TestCredentials } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const alice = alpha.person({ identity: "alice@alpha.test" });
const bob = alpha.person({ identity: "bob@alpha.test" });
const carol = alpha.person({ identity: "carol@alpha.test" });
const folder = temporaryFolder();
const TOKEN = "7q3kzm2vbn5w4xhd6tprcyfa3e";

let hers: PeerTls;
let his: PeerTls;
let at: { host: string; port: number };
let dialled: PeerConnection;
/** Bob's end of Alice's control connection. */
let control: PeerConnection;
let expected: ExpectedData;

async function core(of: TestCredentials): Promise<PeerTls> {
  const anchor = {
    name: "alpha",
    certificate: alpha.root.certificate,
    domains: ["alpha.test"],
    organisations: [],
    identitiesFrom: ["rfc822Name"] as const,
  };
  const trust = new Trust({
    anchors: [anchor],
    block: [],
    allow: [],
    rules: [{ domain: "alpha.test" }],
    otherwise: "deny",
    contacts: [],
    requestsOnPort: false,
  });
  return makePeerTls({ credentials: of, trust, clock: () => new Date(), random: randomBytes, log: silentLog });
}

beforeAll(async () => {
  [hers, his] = [await core(alice.auth), await core(bob.auth)];
  const accepted = Promise.withResolvers<PeerConnection>();
  his.onPeer("ftps", (connection) => {
    connection.stream.on("error", () => undefined).resume();
    connection.stream.write("220 here\r\n");
    accepted.resolve(connection);
  });
  const { port } = await his.listen({ host: "::1", port: 0 });
  at = { host: "::1", port };
  const whom = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  dialled = await hers.dial(whom, "ftps", [{ kind: "direct", address: at }], AbortSignal.timeout(5_000));
  dialled.stream.on("error", () => undefined).resume();
  control = await accepted.promise;
});
beforeEach(() => {
  expected = his.expectData({ control, token: TOKEN });
});
afterAll(async () => {
  await hers.close();
  await his.close();
  folder[Symbol.dispose]();
});

/** The alert that a data connection with this key and token is refused with. */
function refusal(token: string, as: TestCredentials): Promise<number | undefined> {
  const socket = connect({ ...at, rejectUnauthorized: false, ...peerOptions(token, as) });
  return within(
    new Promise((resolve) => {
      socket.on("error", (error) => resolve(alertNumber(error)));
      socket.on("close", () => resolve(undefined));
      socket.resume();
    }),
    "a refusal",
  );
}

async function bytesOf(connection: PeerConnection): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of connection.stream.iterator({ destroyOnReturn: false })) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

test("the key of the control connection opens the data channel, and its end is known to be meant", async () => {
  const bytes = randomBytes(3_000_000);
  const sent = await hers.dialData(dialled, TOKEN, AbortSignal.timeout(5_000));
  sent.stream.on("error", () => undefined).resume();
  sent.stream.end(bytes);
  const data = await expected.connection;
  expect(data.identity).toBe(alice.identity);
  expect(data.address.host).toBe("::1");
  expect((await bytesOf(data)).equals(bytes)).toBe(true);
  expect(his.endedCleanly(data)).toBe(true);
  data.destroy();
});

test("another's key is refused with 49 and no ticket, and the token still serves the right one", async () => {
  const files = pemFiles(folder.path, "carol", carol.auth);
  const shown = ["-cert", files.certificate, "-key", files.key, "-cert_chain", files.chain];
  const how = ["-connect", `[::1]:${at.port}`, "-alpn", "ftp-data", "-servername", `${TOKEN}.data`, "-msg", "-ign_eof"];
  const { output } = await openssl(["s_client", ...how, ...shown], {
    input: "hello\n",
    until: /alert number|closed|errno/,
  });
  expect(output).toMatch(/SSL alert number 49/);
  expect(output).not.toMatch(/NewSessionTicket/);
  const data = await RawTls.peerData(at, TOKEN, alice.auth);
  expect((await expected.connection).fingerprint).toBe(alice.auth.certificate.fingerprint);
  data.raw.destroy();
});

test("the third wrong key voids the token: then not even the right one is let in", async () => {
  for (let time = 0; time < 3; time += 1) expect(await refusal(TOKEN, carol.auth)).toBe(49);
  expect(await refusal(TOKEN, alice.auth)).toBe(120);
  await expect(expected.connection).rejects.toMatchObject({ code: "cancelled" });
});

test("an unknown, a used and a cancelled token are refused with 120, inside the handshake", async () => {
  expect(await refusal("aaaaaaaaaaaaaaaaaaaaaaaaaa", alice.auth)).toBe(120);
  const first = await RawTls.peerData(at, TOKEN, alice.auth);
  await expected.connection;
  expect(await refusal(TOKEN, alice.auth)).toBe(120);
  first.raw.destroy();
  const again = his.expectData({ control, token: TOKEN });
  again.cancel();
  expect(await refusal(TOKEN, alice.auth)).toBe(120);
});

test("a FIN without close_notify is no clean end, wherever between two records it comes", async () => {
  const data = await RawTls.peerData(at, TOKEN, alice.auth);
  const connection = await expected.connection;
  connection.stream.on("error", () => undefined);
  const bytes = randomBytes(100_000);
  await data.write(bytes);
  data.cut();
  expect((await bytesOf(connection)).equals(bytes)).toBe(true);
  expect(his.endedCleanly(connection)).toBe(false);
  connection.destroy();
});

test("a FIN behind data of two bytes, whose record is as long as that of a close_notify, is no clean end", async () => {
  for (const pieces of [Number.POSITIVE_INFINITY, 1]) {
    const data = await RawTls.peerData(at, TOKEN, alice.auth, pieces);
    const connection = await expected.connection;
    connection.stream.on("error", () => undefined);
    await data.write(Buffer.from("abc"));
    await data.write(Buffer.from("de"));
    data.cut();
    expect((await bytesOf(connection)).toString()).toBe("abcde");
    expect(his.endedCleanly(connection)).toBe(false);
    connection.destroy();
    expected = his.expectData({ control, token: TOKEN });
  }
});

test("a close_notify behind data of two bytes is a clean end, in one segment or byte by byte", async () => {
  for (const pieces of [Number.POSITIVE_INFINITY, 1]) {
    const data = await RawTls.peerData(at, TOKEN, alice.auth, pieces);
    const connection = await expected.connection;
    data.tls.write("ab");
    data.tls.end("cd");
    expect((await bytesOf(connection)).toString()).toBe("abcd");
    expect(his.endedCleanly(connection)).toBe(true);
    connection.destroy();
    expected = his.expectData({ control, token: TOKEN });
  }
});

test("a reset in the middle fails the stream", async () => {
  const data = await RawTls.peerData(at, TOKEN, alice.auth);
  const connection = await expected.connection;
  await data.write(randomBytes(100_000));
  data.reset();
  await expect(bytesOf(connection)).rejects.toThrow();
  connection.destroy();
});

// Sizes at which each of the streams on the way holds something when the reset comes; all of it was received by then.
test.each([60_000, 100_000, 140_000, 160_000, 180_000, 200_000])(
  "a reset behind close_notify loses nothing of %d bytes before it, however slowly they are taken",
  async (size) => {
    const data = await RawTls.peerData(at, TOKEN, alice.auth);
    const connection = await expected.connection;
    connection.stream.on("error", () => undefined);
    const bytes = randomBytes(size);
    await data.write(bytes);
    data.fin = false;
    data.tls.end();
    await once(data.tls, "finish");
    data.reset();
    for (let time = 0; time < 50; time += 1) await turn(); // the node has seen the reset
    const parts: Buffer[] = [];
    for await (const part of connection.stream.iterator({ destroyOnReturn: false })) {
      parts.push(part as Buffer);
      await turn();
    }
    expect(Buffer.concat(parts).equals(bytes)).toBe(true);
    expect(his.endedCleanly(connection)).toBe(true);
    connection.destroy();
  },
);

test("while a data channel is announced, others are let in and refused as ever, in one segment or byte by byte", async () => {
  const whom = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const other = await hers.dial(whom, "ftps", [{ kind: "direct", address: at }], AbortSignal.timeout(5_000));
  other.stream.on("error", () => undefined).resume();
  await other.confirmed;
  other.destroy();
  expect(await refusal(TOKEN, alpha.bad("expired", "alice@alpha.test"))).toBe(45);
  const dripping = await RawTls.peerData(at, TOKEN, alice.auth, 1);
  const data = await expected.connection;
  dripping.tls.end("as slowly");
  expect((await bytesOf(data)).toString()).toBe("as slowly");
  expect(his.endedCleanly(data)).toBe(true);
  data.destroy();
});
