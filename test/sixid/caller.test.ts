import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { type PeerCertificate, parseCertificate, peerCertificate } from "../../src/pki/certificate.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { issueAuth, issueDomainServer } from "../../src/pki/profile.ts";
import { callerOfCertificate } from "../../src/sixid/server/caller.ts";
import { makeEcKey, makeTestDomain, spkiOf } from "../support/pki.ts";

const beta = makeTestDomain({ domain: "beta.test" });
const address = { host: "::1", port: 1 };
const certificateOf = (der: Uint8Array): PeerCertificate => peerCertificate(parseCertificate(der));
const common = () => ({ issuer: beta.root, now: beta.now, serial: randomBytes(16), spki: spkiOf(makeEcKey()) });
const person = (identity: string) =>
  certificateOf(issueAuth({ ...common(), identity: parseIdentity(identity), name: "X" }));
const server = (domain: string) => certificateOf(issueDomainServer({ ...common(), domain }));

test.each<[string, PeerCertificate | undefined, string | undefined, object]>([
  ["its own person", person("bob@beta.test"), "beta.test", { kind: "person", by: "sca", identity: "bob@beta.test" }],
  ["its own server", server("beta.test"), "beta.test", { kind: "domain", domain: "beta.test" }],
  ["another domain's person", person("alice@alpha.test"), "beta.test", { kind: "anonymous" }],
  ["another domain's server", server("alpha.test"), "beta.test", { kind: "anonymous" }],
  ["a person of a domain below it", person("eve@sub.beta.test"), "beta.test", { kind: "anonymous" }],
  ["nobody, by an unknown issuer", person("bob@beta.test"), undefined, { kind: "anonymous" }],
  ["nobody, without a certificate", undefined, undefined, { kind: "anonymous" }],
])("a domain's anchor vouches for its own people and server only: %s", (_name, certificate, anchor, caller) => {
  const service = {
    address,
    ...(certificate === undefined ? {} : { certificate }),
    ...(anchor === undefined ? {} : { anchor }),
  };
  expect(callerOfCertificate(service)).toMatchObject(caller);
});
