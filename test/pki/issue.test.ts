import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Certificate, parseCertificate, peerCertificate } from "../../src/pki/certificate.ts";
import { encodeDnsName, encodeRfc822Name } from "../../src/pki/general-name.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { issueCertificate } from "../../src/pki/issue.ts";
import { encodeName, showName } from "../../src/pki/name.ts";
import { attributeType } from "../../src/pki/oid.ts";
import { validatePath } from "../../src/pki/path.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { issueAuth, issueEncryption, issueLocalServer } from "../../src/pki/profile.ts";
import { openssl, temporaryFolder } from "../support/openssl.ts";
import { authTemplate, type BadKind, makeEcKey, makeEd25519Key, makeTestDomain, spkiOf } from "../support/pki.ts";

const home = makeTestDomain({ domain: "example.test" });
const now = home.now;
const alice = home.person({ identity: "alice@example.test", name: "Alice Smith", organisation: "Example Ltd" });
const dana = home.person({ identity: "dana@example.test", encryptionKey: "ec" });
const server = home.domainServer();
const days = (certificate: Certificate) =>
  Math.round((certificate.validity.notAfter.getTime() - certificate.validity.notBefore.getTime()) / 86_400_000);

const personOptions = (identity: string, key = makeEcKey()) => ({
  ...{ issuer: home.issuing, spki: spkiOf(key), identity: parseIdentity(identity), name: "Zoë Ö" },
  ...{ now, serial: randomBytes(16) },
});

/** What `openssl verify` says of the leaf below our root. */
async function opensslVerify(leaf: Certificate, purpose: string, ...options: string[]): Promise<string> {
  using folder = temporaryFolder();
  const [root, middle, end] = ["root.pem", "ca.pem", "leaf.pem"].map((name) => join(folder.path, name)) as [
    string,
    string,
    string,
  ];
  writeFileSync(root, derToPem(home.root.certificate.der, "CERTIFICATE"));
  writeFileSync(middle, derToPem(home.issuing.certificate.der, "CERTIFICATE"));
  writeFileSync(end, derToPem(leaf.der, "CERTIFICATE"));
  const files = ["-CAfile", root, "-untrusted", middle, ...options, end];
  const { output, code } = await openssl(["verify", "-x509_strict", "-purpose", purpose, ...files]);
  return code === 0 ? "OK" : (/error \d+ at \d depth lookup: (.*)/.exec(output)?.[1] ?? output);
}

describe("the profiles", () => {
  test("AUTH: digitalSignature, four usages, mail and sip names, 30 days", () => {
    const { certificate } = alice.auth;
    expect([...(certificate.keyUsage ?? [])]).toEqual(["digitalSignature"]);
    expect(certificate.extendedKeyUsage).toEqual(["2", "1", "4", "20"].map((last) => `1.3.6.1.5.5.7.3.${last}`));
    expect(certificate.subjectAltNames).toEqual([
      { type: "rfc822Name", text: "alice@example.test" },
      { type: "uri", text: "sip:alice@example.test" },
    ]);
    expect(showName(certificate.subject)).toBe("emailAddress=alice@example.test,CN=Alice Smith,O=Example Ltd");
    expect(days(certificate)).toBe(30);
    expect(now.getTime() - certificate.validity.notBefore.getTime()).toBeGreaterThanOrEqual(300_000);
    expect(certificate.serial).toHaveLength(16);
    expect(certificate.basicConstraints).toBeUndefined();
  });

  test("ENCRYPTION: RSA enciphers keys, EC agrees on them, 825 days, for mail alone", () => {
    const { certificate } = alice.encryption;
    expect([...(certificate.keyUsage ?? [])]).toEqual(["keyEncipherment"]);
    expect([...(dana.encryption.certificate.keyUsage ?? [])]).toEqual(["keyAgreement"]);
    expect(certificate.extendedKeyUsage).toEqual(["1.3.6.1.5.5.7.3.4"]);
    expect(days(certificate)).toBe(825);
    expect(peerCertificate(certificate).uses).toEqual({ peer: false, sign: false, seal: true });
    expect(() => issueEncryption(personOptions("a@example.test", makeEd25519Key()))).toThrow(
      expect.objectContaining({ code: "unsupported" }),
    );
  });

  test("the issuing CA issues leaves only, for its domain only, and says so critically", () => {
    const { certificate } = home.issuing;
    expect(certificate.basicConstraints).toEqual({ ca: true, pathLength: 0 });
    expect([...(certificate.keyUsage ?? [])]).toEqual(["keyCertSign", "cRLSign"]);
    expect(certificate.nameConstraints).toEqual({
      permitted: [
        { type: "rfc822Name", text: "example.test" },
        { type: "dNSName", text: "example.test" },
      ],
      excluded: [],
    });
    // basicConstraints, keyUsage and nameConstraints are critical: OID, then BOOLEAN TRUE.
    for (const type of ["0603551d13", "0603551d0f", "0603551d1e"]) {
      expect(Buffer.from(certificate.der).toString("hex")).toContain(`${type}0101ff`);
    }
    expect(days(certificate)).toBe(5 * 365);
  });

  test("the domain's server: its name, 90 days", () => {
    expect(server.certificate.subjectAltNames).toEqual([{ type: "dNSName", text: "example.test" }]);
    expect(days(server.certificate)).toBe(90);
  });

  test("nothing outlives its issuer", () => {
    const long = parseCertificate(issueAuth({ ...personOptions("a@example.test"), days: 36500 }));
    expect(long.validity.notAfter).toEqual(home.issuing.certificate.validity.notAfter);
  });

  test("a CRL and an OCSP address come back", () => {
    const urls = { crlUrl: "http://example.test/ca.crl", ocspUrl: "http://example.test/ocsp" };
    const certificate = parseCertificate(issueAuth({ ...personOptions("a@example.test"), ...urls }));
    expect([certificate.crlUrls, certificate.ocspUrls]).toEqual([[urls.crlUrl], [urls.ocspUrl]]);
  });

  test("whatever the random octets, a serial number is above 0 and at most 20 octets", () => {
    for (const serial of [Buffer.alloc(16), Buffer.alloc(16, 0xff), Buffer.alloc(20, 0xff)]) {
      const certificate = parseCertificate(issueAuth({ ...personOptions("a@example.test"), serial }));
      expect(certificate.serial).toHaveLength(serial.length);
      expect(certificate.serial[0]).toBeLessThan(0x80);
      expect(certificate.serial[0]).toBeGreaterThan(0);
    }
    expect(() => issueAuth({ ...personOptions("a@example.test"), serial: new Uint8Array(4) })).toThrow();
  });

  test.each([
    ["alice+work@example.test", "sip:alice+work@example.test"],
    ["50%#@example.test", "sip:50%25%23@example.test"],
    ["zoë@example.test", "sip:zo%C3%AB@example.test"],
  ])("%s stands in its certificate, and as %s", (identity, uri) => {
    const peer = peerCertificate(parseCertificate(issueAuth(personOptions(identity))));
    expect(peer.identities.map((found) => found.identity)).toEqual([identity]);
    expect(peer.certificate.subjectAltNames[1]).toEqual({ type: "uri", text: uri });
  });
});

describe("openssl verify -x509_strict", () => {
  test.each<[string, () => Certificate, string]>([
    ["AUTH as a TLS client", () => alice.auth.certificate, "sslclient"],
    ["AUTH as a TLS server", () => alice.auth.certificate, "sslserver"],
    ["AUTH as a signer of mail", () => alice.auth.certificate, "smimesign"],
    ["ENCRYPTION with RSA", () => alice.encryption.certificate, "smimeencrypt"],
    ["ENCRYPTION with EC", () => dana.encryption.certificate, "any"],
    ["the domain's server", () => server.certificate, "sslserver"],
    [
      "an identity that is not ASCII",
      () => parseCertificate(issueAuth(personOptions("zoë@example.test"))),
      "sslclient",
    ],
    [
      "an identity that needs escapes",
      () => parseCertificate(issueAuth(personOptions("50%#@example.test"))),
      "sslclient",
    ],
    [
      "CRL and OCSP addresses",
      () =>
        parseCertificate(
          issueAuth({ ...personOptions("a@example.test"), crlUrl: "http://x.test/c", ocspUrl: "http://x.test/o" }),
        ),
      "sslclient",
    ],
    ["the issuing CA", () => home.issuing.certificate, "any"],
    ["the root", () => home.root.certificate, "any"],
  ])("accepts %s", async (_, leaf, purpose) => {
    expect(await opensslVerify(leaf(), purpose)).toBe("OK");
  });

  test("accepts the certificate of the owner's own listeners, below a CA of no domain", async () => {
    const { certificate, privateKey } = home.root;
    const options = { issuer: { certificate, privateKey }, spki: spkiOf(makeEcKey()), now, serial: randomBytes(16) };
    const local = parseCertificate(issueLocalServer(options));
    expect(await opensslVerify(local, "sslserver", "-verify_hostname", "localhost")).toBe("OK");
    expect(await opensslVerify(local, "sslserver", "-verify_ip", "::1")).toBe("OK");
  });

  test("confirms the address in AUTH and the host in the server's", async () => {
    expect(await opensslVerify(alice.auth.certificate, "smimesign", "-verify_email", "alice@example.test")).toBe("OK");
    expect(await opensslVerify(alice.auth.certificate, "smimesign", "-verify_email", "bob@example.test")).not.toBe(
      "OK",
    );
    expect(await opensslVerify(server.certificate, "sslserver", "-verify_hostname", "example.test")).toBe("OK");
  });
});

describe("openssl and we judge alike", () => {
  const ours = (leaf: Certificate): string => {
    const result = validatePath({
      leaf,
      candidates: [home.issuing.certificate],
      anchors: [home.anchor],
      time: now,
      purpose: "any",
    });
    return result.ok ? "OK" : result.reason;
  };
  test.each<[BadKind, string, string]>([
    ["expired", "expired", "certificate has expired"],
    ["not-yet-valid", "not-yet-valid", "certificate is not yet valid"],
    ["wrong-domain", "name-constraints", "permitted subtree violation"],
    ["untrusted", "issuer-unknown", "unable to get local issuer certificate"],
    ["no-extended-usage", "OK", "OK"],
    ["rsa", "OK", "OK"],
    ["ed25519", "OK", "OK"],
    ["mail-only", "OK", "OK"],
  ])("%s: %s, %s", async (kind, mine, judges) => {
    const { certificate } = home.bad(kind);
    expect(ours(certificate)).toBe(mine);
    expect(await opensslVerify(certificate, "any")).toBe(judges);
  });

  test.each<[string, Uint8Array[], boolean]>([
    ["a mailbox of the domain", [encodeRfc822Name("a@example.test")], true],
    ["a mailbox below the domain", [encodeRfc822Name("a@sub.example.test")], false],
    ["a host below the domain", [encodeDnsName("a.example.test")], true],
    ["a host that only ends alike", [encodeDnsName("anexample.test")], false],
    ["one of two outside", [encodeRfc822Name("a@example.test"), encodeRfc822Name("a@evil.test")], false],
  ])("%s: %s", async (_, subjectAltNames, good) => {
    const template = authTemplate(parseIdentity("a@example.test"), now, home.issuing, makeEcKey());
    const subject = encodeName([[attributeType.commonName, "A"]]);
    const leaf = parseCertificate(issueCertificate({ ...template, subject, subjectAltNames }, home.issuing.privateKey));
    expect(ours(leaf) === "OK").toBe(good);
    expect((await opensslVerify(leaf, "any")) === "OK").toBe(good);
  });
});
