import { readFileSync } from "node:fs";
import { connect } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import type { Home } from "../../src/node/home.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import type { PeerNode } from "../../src/node/node.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { serialise } from "../../src/sip/message.ts";
import { request } from "../sip/request.ts";
import { enrolPerson, type RunningDomain, startDomain, startNode } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";

const bob = parseIdentity("bob@alpha.test");
const ends = new AsyncDisposableStack();
let domain: RunningDomain;
let aliceHome: Home;
let alice: PeerNode;
let keys: { key: string; cert: string };

const withClassic = (home: Home, classic: Record<string, number>) => {
  const config = parse(readFileSync(home.config, "utf8")) as { peer: object };
  return startNode(home, stringify({ peer: { ...config.peer, classic } }));
};

beforeAll(async () => {
  const folder = ends.use(await temporaryFolder());
  domain = await startDomain(folder.path, "alpha.test");
  ends.defer(() => domain.server.stop());
  aliceHome = await enrolPerson(folder.path, domain, "alice");
  const { auth } = new KeyFiles(await enrolPerson(folder.path, domain, "bob")).load(bob);
  keys = {
    key: auth.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    cert: [auth.certificate, ...auth.chain].map(({ der }) => derToPem(der, "CERTIFICATE")).join(""),
  };
  alice = await withClassic(aliceHome, { sips: 0, smtps: 0 });
  ends.defer(() => alice.stop());
  await alice.addContact(bob, "Bob");
});
afterAll(() => ends.disposeAsync());

/** Talks without ALPN until what was said fits. */
async function talk(port: number, says: string | Buffer, until: RegExp): Promise<string> {
  const socket = connect({ host: "::1", port, rejectUnauthorized: false, ...keys });
  let heard = "";
  socket.write(says);
  for await (const chunk of socket) {
    heard += String(chunk);
    if (until.test(heard)) break;
  }
  return heard;
}

test("a peer's SIP program without ALPN is answered at the SIP port of a node", async () => {
  const options = serialise(request({ method: "OPTIONS", uri: "sip:alice@alpha.test" }));
  expect(await talk(alice.ports.peerSips?.port ?? 0, options, /\r\n\r\n/)).toMatch(/^SIP\/2\.0 200 OK\r\n/);
});

test("a peer's mail program without ALPN is answered at its SMTP port", async () => {
  const heard = await talk(alice.ports.peerSmtps?.port ?? 0, "EHLO bob\r\nQUIT\r\n", /\r\n221 /);
  expect(heard).toMatch(/^220 [\s\S]*\r\n250[ -]SIZE/);
});

test("neither is open unless the configuration says so", async () => {
  await alice.stop();
  alice = await withClassic(aliceHome, { smtps: 0 });
  expect(Object.keys(alice.ports)).toEqual(["peer", "peerSmtps", "smtps", "submission", "ftp", "sip", "sips"]);
});
