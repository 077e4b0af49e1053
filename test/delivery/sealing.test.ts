import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import type { Kind } from "../../src/delivery/envelope.ts";
import { makeInbox } from "../../src/delivery/inbox.ts";
import { type KnownCapabilities, smimeOpener, smimeSealer } from "../../src/delivery/sealing.ts";
import { peerCertificate } from "../../src/pki/certificate.ts";
import type { Identity } from "../../src/pki/identity.ts";
import type { Capabilities } from "../../src/smime/profile.ts";
import { makeTestDomain } from "../support/pki.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { openTestStore } from "./party.ts";

const never = new AbortController().signal;
const domain = makeTestDomain({ domain: "a.test" });
const alice = domain.person({ identity: "alice@a.test", name: "Alice A", encryptionKey: "ec" });
const bob = domain.person({ identity: "bob@a.test", name: "Bob B", encryptionKey: "ec" });
const clock = () => new Date();

const body = randomBytes(200_000).toString("base64").replace(/.{76}/g, "$&\r\n");
const entity = (to: string) =>
  Buffer.from(
    `From: alice@a.test\r\nTo: ${to}\r\nSubject: plans\r\nMessage-ID: <1@a.test>\r\nContent-Type: text/plain\r\n\r\n${body}`,
  );

type Choice = Partial<Parameters<typeof smimeSealer>[0]> & { opens?: string[] };

function seal(kind: Kind, bytes: Buffer, { opens = ["gcm"], ...choice }: Choice = {}) {
  const sealer = smimeSealer({ signer: () => alice.auth, clock, ...choice });
  async function* source() {
    yield bytes;
  }
  return sealer.stream(
    source(),
    { kind, from: alice.identity, to: bob.identity, recipient: peerCertificate(bob.encryption.certificate), opens },
    never,
  );
}

type Remembering = Pick<KnownCapabilities, "rememberCapabilities">;

async function bobsInbox(directory: string, anchors = [domain.anchor], known?: Remembering) {
  const store = await openTestStore(directory);
  const open = smimeOpener({
    keys: () => [bob.encryption],
    anchorsFor: () => anchors,
    addressees: [bob.identity],
    clock,
    ...(known === undefined ? {} : { known }),
  });
  return { store, inbox: makeInbox({ store, open }), [Symbol.asyncDispose]: () => store.close() };
}

const certificate = peerCertificate(alice.auth.certificate);
const peer = { identity: alice.identity, fingerprint: certificate.fingerprint, certificate };

test.each(["mail", "file"] as const)(
  "a %s sealed by one person's node is opened, verified and kept by the other's",
  async (kind) => {
    await using folder = await temporaryFolder();
    await using node = await bobsInbox(folder.path);
    const { id } = await node.inbox.receiveSealed(
      { kind, peer, source: seal(kind, entity("bob@a.test")), maxBytes: 1e6 },
      never,
    );
    const item = await node.store.item(String(id));
    expect(item).toMatchObject({
      messageId: "1@a.test",
      protection: { sealed: true, signer: certificate.fingerprint, cipher: "aes-256-gcm" },
    });
    const kept = (await node.store.bytes(item.content)).toString();
    if (kind === "file") expect(kept).toBe(body);
    else {
      expect(kept).toMatch(/^Content-Type: multipart\/signed/);
      expect(kept).toContain(entity("bob@a.test").toString());
    }
  },
);

const choices: [string, Choice, string][] = [
  ["a node that opens GCM", {}, "aes-256-gcm"],
  ["one that does not", { opens: ["cbc"] }, "aes-256-cbc"],
  ["somebody whose program said that it does", { opens: [], known: knowing({ gcm: true, oaep: true }) }, "aes-256-gcm"],
  [
    "somebody whose program said that it does not",
    { opens: [], known: knowing({ gcm: false, oaep: true }) },
    "aes-256-cbc",
  ],
  ["a node, though the owner wants CBC", { contentEncryption: "cbc" }, "aes-256-cbc"],
  ["nobody knows whom, though the owner wants GCM", { opens: [], contentEncryption: "gcm" }, "aes-256-gcm"],
];

function knowing(capabilities: Capabilities) {
  return { capabilitiesOf: (person: Identity) => (person === bob.identity ? capabilities : undefined) };
}

test.each(choices)("sealed for %s, and opened", async (_name, choice, cipher) => {
  await using folder = await temporaryFolder();
  const said: unknown[] = [];
  const remember = (...what: unknown[]) => void said.push(what);
  await using node = await bobsInbox(folder.path, undefined, { rememberCapabilities: remember });
  const source = seal("mail", entity("bob@a.test"), choice);
  const { id } = await node.inbox.receiveSealed({ kind: "mail", peer, source, maxBytes: 1e6 }, never);
  expect(await node.store.item(String(id))).toMatchObject({ protection: { sealed: true, cipher } });
  expect(said).toEqual([[alice.identity, { gcm: true, oaep: true }, expect.any(Date)]]);
});

test("a seal that is not addressed to the owner, or whose signer's CA is not trusted, is refused and leaves nothing", async () => {
  await using folder = await temporaryFolder();
  await using node = await bobsInbox(folder.path);
  const astray = { kind: "mail" as const, peer, source: seal("mail", entity("carol@a.test")), maxBytes: 1e6 };
  await expect(node.inbox.receiveSealed(astray, never)).rejects.toMatchObject({ code: "seal-not-addressed" });
  await using folder2 = await temporaryFolder();
  await using distrustful = await bobsInbox(folder2.path, []);
  const honest = { kind: "mail" as const, peer, source: seal("mail", entity("bob@a.test")), maxBytes: 1e6 };
  await expect(distrustful.inbox.receiveSealed(honest, never)).rejects.toMatchObject({ code: "seal-untrusted" });
  expect(await distrustful.store.items()).toEqual([]);
});
