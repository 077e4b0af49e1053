import { generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import type { TrustRules } from "../../src/peertls-core/policy.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { parseCertificate } from "../../src/pki/certificate.ts";
import { encodeRfc822Name, encodeSmtpUtf8Mailbox } from "../../src/pki/general-name.ts";
import { type Identity, parseIdentity } from "../../src/pki/identity.ts";
import { type CertificateTemplate, issueCertificate } from "../../src/pki/issue.ts";
import { silentLog } from "../../src/pki/log.ts";
import { encodeName } from "../../src/pki/name.ts";
import { attributeType, extendedKeyUsage } from "../../src/pki/oid.ts";
import { authTemplate, makeEcKey, makeTestDomain, type TestCredentials } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const bob = alpha.person({ identity: "bob@alpha.test" });
const ALICE = parseIdentity("alice@alpha.test");
const { commonName, emailAddress, userId, organizationName } = attributeType;
const { clientAuth, serverAuth, emailProtection } = extendedKeyUsage;

/** The certificates that people really have (pki.md §2.5): what differs from ours, and the person that it names. */
const shapes: [string, Partial<CertificateTemplate>, { key?: () => KeyObject; identity?: string }?][] = [
  ["ours", {}],
  ["client authentication alone", { extendedKeyUsage: [clientAuth] }],
  ["server authentication alone", { extendedKeyUsage: [serverAuth] }],
  ["S/MIME alone", { extendedKeyUsage: [emailProtection] }],
  ["a public S/MIME certificate", { extendedKeyUsage: [emailProtection, clientAuth] }],
  ["no extended key usage", { extendedKeyUsage: [] }],
  ["one RSA key for all", { keyUsage: ["digitalSignature", "keyEncipherment"] }, { key: () => rsa(2048) }],
  ["RSA of 4096 bits", {}, { key: () => rsa(4096) }],
  ["one EC key for all", { keyUsage: ["digitalSignature", "keyAgreement"] }],
  ["P-384", {}, { key: () => generateKeyPairSync("ec", { namedCurve: "secp384r1" }).privateKey }],
  ["Ed25519", {}, { key: () => generateKeyPairSync("ed25519").privateKey }],
  [
    "names with escapes and several attributes in one RDN",
    {
      subject: encodeName([
        [organizationName, 'Müller, "Söhne" + Töchter; <GmbH>\\'],
        [
          [commonName, " Alice\nExample, #1 "],
          [userId, "a1"],
        ],
      ]),
    },
  ],
  ["an address in the subject alone", { subject: encodeName([[emailAddress, ALICE]]), subjectAltNames: [] }],
  ["a user ID alone", { subject: encodeName([[userId, ALICE]]), subjectAltNames: [] }],
  [
    "several addresses, the first of another domain",
    { subjectAltNames: ["alice@other.test", ALICE, "a.example@alpha.test"].map((one) => encodeRfc822Name(one)) },
  ],
  [
    "an internationalised address",
    { subjectAltNames: [encodeSmtpUtf8Mailbox("zoë@alpha.test")], subject: encodeName([[commonName, "Zoë"]]) },
    { identity: "zoë@alpha.test" },
  ],
];

const rsa = (modulusLength: number) => generateKeyPairSync("rsa", { modulusLength }).privateKey;

function made(change: Partial<CertificateTemplate>, privateKey: KeyObject, identity: Identity): TestCredentials {
  const ascii = /^[\x20-\x7e]+$/.test(identity) ? identity : ALICE;
  const template = { ...authTemplate(ascii, new Date(), alpha.root, privateKey), ...change };
  const der = issueCertificate(template, alpha.root.privateKey);
  return { privateKey, certificate: parseCertificate(der), chain: [] };
}

const rules: TrustRules = {
  anchors: [
    {
      name: "alpha",
      certificate: alpha.root.certificate,
      domains: ["alpha.test"],
      organisations: [],
      identitiesFrom: ["rfc822Name", "smtpUtf8", "emailAddress", "uid", "sipUri"],
    },
  ],
  block: [],
  allow: [],
  rules: [{ domain: "alpha.test" }],
  otherwise: "deny",
  contacts: [],
  requestsOnPort: false,
};

async function core(credentials: TestCredentials, admitted: PeerConnection[]): Promise<PeerTls> {
  const made = await makePeerTls({
    credentials,
    trust: new Trust(rules),
    clock: () => new Date(),
    random: randomBytes,
    log: silentLog,
  });
  made.onPeer("sip", (connection) => {
    admitted.push(connection);
    connection.stream.on("error", () => undefined);
    connection.stream.write("welcome");
  });
  await made.listen({ host: "::1", port: 0 });
  return made;
}

let node: PeerTls;
const atNode: PeerConnection[] = [];
beforeAll(async () => {
  node = await core(bob.auth, atNode);
});
afterAll(() => node.close());

test.each(shapes)("%s: admitted, accepted and dialled", async (_name, change, about) => {
  const identity = parseIdentity(about?.identity ?? ALICE);
  const credentials = made(change, about?.key?.() ?? makeEcKey(), identity);
  const peer = await core(credentials, []);
  const dial = async (from: PeerTls, to: PeerTls, whom: Identity, of: TestCredentials) => {
    const expected = { identity: whom, fingerprints: [of.certificate.fingerprint] };
    const route = { kind: "direct" as const, address: { host: "::1", port: to.address?.port ?? 0 } };
    const connection = await from.dial(expected, "sip", [route], AbortSignal.timeout(10_000));
    await connection.confirmed;
    return connection;
  };
  atNode.length = 0;
  (await dial(peer, node, bob.identity, bob.auth)).destroy();
  expect(atNode.map((one) => one.identity)).toEqual([identity]);
  const dialled = await dial(node, peer, identity, credentials);
  expect(dialled.identity).toBe(identity);
  expect(dialled.certificate.commonName ?? "").not.toMatch(/[\n\r]/);
  await peer.close();
});
