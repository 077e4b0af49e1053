import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { type Certificate, parseCertificate } from "../../src/pki/certificate.ts";
import { encodeRfc822Name, encodeSipUri } from "../../src/pki/general-name.ts";
import { type Identity, parseIdentity } from "../../src/pki/identity.ts";
import { type CertificateTemplate, type Issuer, issueCertificate, keyIdentifier } from "../../src/pki/issue.ts";
import { encodeName } from "../../src/pki/name.ts";
import { attributeType, extendedKeyUsage } from "../../src/pki/oid.ts";
import type { TrustAnchor } from "../../src/pki/path.ts";
import { issueAuth, issueDomainServer, issueEncryption, issueIssuingCa, issueRoot } from "../../src/pki/profile.ts";

/** Fits Credentials of the core and Signer of smime. `chain`: the issuing CA, without the root. */
export interface TestCredentials {
  readonly privateKey: KeyObject;
  readonly certificate: Certificate;
  readonly chain: readonly Certificate[];
}

export interface TestPerson {
  readonly identity: Identity;
  /** ECDSA P-256: PeerTLS and signatures. */
  readonly auth: TestCredentials;
  /** RSA-3072, or P-256 where asked for; made when first looked at: the RSA key takes a good part of a second. */
  readonly encryption: TestCredentials;
}

/** One domain's PKI in memory: a root, a name-constrained issuing CA, and whom it certifies. */
export interface TestDomain {
  readonly domain: string;
  readonly now: Date;
  readonly root: Issuer;
  readonly issuing: Issuer;
  readonly anchor: TrustAnchor;
  person(o: { identity: string; name?: string; organisation?: string; encryptionKey?: "rsa" | "ec" }): TestPerson;
  /** The domain's SixID and IRP server. `name`: its dNSName, the domain itself if absent. */
  domainServer(o?: { name?: string }): TestCredentials;
  /** A leaf that differs from an AUTH certificate as `kind` says. `identity`: `bad@DOMAIN` if absent. */
  bad(kind: BadKind, identity?: string): TestCredentials;
}

export type BadKind =
  | "expired"
  | "not-yet-valid"
  /** By another root of the same names. */
  | "untrusted"
  | "code-signing-only"
  | "email-protection-only"
  | "client-auth-only"
  | "no-extended-usage"
  | "rsa"
  | "ed25519"
  /** No common name: nobody to show but a mail address. */
  | "mail-only"
  /** An identity outside of the CA's name constraints. */
  | "wrong-domain";

/** `now`: what the certificates count from; the real time if absent, so that TLS stacks accept them too. */
export function makeTestDomain(o: { domain: string; now?: Date }): TestDomain {
  const { domain, now = new Date() } = o;
  const root = makeRoot(domain, now);
  const issuing = makeIssuing(domain, now, root);
  const chain = [issuing.certificate];
  const made = (privateKey: KeyObject, der: Uint8Array): TestCredentials => ({
    privateKey,
    certificate: parseCertificate(der),
    chain,
  });

  return {
    domain,
    now,
    root,
    issuing,
    anchor: { name: domain, certificate: root.certificate },

    person(person) {
      const identity = parseIdentity(person.identity);
      const options = (privateKey: KeyObject) => ({
        ...{ issuer: issuing, now, serial: randomBytes(16), identity, spki: spkiOf(privateKey) },
        name: person.name ?? nameOf(identity),
        ...(person.organisation === undefined ? {} : { organisation: person.organisation }),
      });
      const authKey = makeEcKey();
      const auth = made(authKey, issueAuth(options(authKey)));
      let encryption: TestCredentials | undefined;
      return {
        identity,
        auth,
        get encryption() {
          if (encryption !== undefined) return encryption;
          const key = person.encryptionKey === "ec" ? makeEcKey() : rsaKeyOf(identity);
          encryption = made(key, issueEncryption(options(key)));
          return encryption;
        },
      };
    },

    domainServer({ name = domain } = {}) {
      const key = makeEcKey();
      const der = issueDomainServer({ issuer: issuing, now, serial: randomBytes(16), spki: spkiOf(key), domain: name });
      return made(key, der);
    },

    bad(kind, identity = kind === "wrong-domain" ? "bad@elsewhere.test" : `bad@${domain}`) {
      if (kind === "untrusted") return makeTestDomain({ domain, now }).person({ identity }).auth;
      const key = kind === "rsa" ? rsaKeyOf(identity) : kind === "ed25519" ? makeEd25519Key() : makeEcKey();
      const template = {
        ...authTemplate(parseIdentity(identity), now, issuing, key),
        ...differences(kind, identity, now),
      };
      return made(key, issueCertificate(template, issuing.privateKey));
    },
  };
}

/** A new P-256 key. */
export function makeEcKey(): KeyObject {
  return generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
}

export function makeEd25519Key(): KeyObject {
  return generateKeyPairSync("ed25519").privateKey;
}

/** One RSA-3072 key a name and process. */
export function rsaKeyOf(name: string): KeyObject {
  const known = rsaKeys.get(name);
  if (known !== undefined) return known;
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 3072 });
  rsaKeys.set(name, privateKey);
  return privateKey;
}

export function spkiOf(privateKey: KeyObject): Uint8Array {
  return createPublicKey(privateKey).export({ type: "spki", format: "der" });
}

/** What `issueAuth` would put in, open to change. */
export function authTemplate(identity: Identity, now: Date, issuer: Issuer, key: KeyObject): CertificateTemplate {
  const { clientAuth, serverAuth, emailProtection, sipDomain } = extendedKeyUsage;
  return {
    serial: Buffer.concat([Buffer.of(0x40), randomBytes(15)]),
    issuer: issuer.certificate.subjectDer,
    subject: encodeName([
      [attributeType.commonName, nameOf(identity)],
      [attributeType.emailAddress, identity],
    ]),
    validity: { notBefore: new Date(now.getTime() - 300_000), notAfter: new Date(now.getTime() + 30 * dayMs) },
    spki: spkiOf(key),
    keyUsage: ["digitalSignature"],
    extendedKeyUsage: [clientAuth, serverAuth, emailProtection, sipDomain],
    subjectAltNames: [encodeRfc822Name(identity), encodeSipUri(identity)],
    authorityKeyId: keyIdentifier(issuer.certificate.spki),
  };
}

/** A CA of a made name below `issuer`, or self-signed; valid from a day ago to a day ahead. */
export function makeCa(
  name: string,
  now: Date,
  o: { issuer?: Issuer | undefined; key?: KeyObject | undefined; differences?: Partial<CertificateTemplate> } = {},
): Issuer {
  const { issuer, key = makeEcKey(), differences = {} } = o;
  const subject = encodeName([[attributeType.commonName, name]]);
  const template: CertificateTemplate = {
    serial: Buffer.concat([Buffer.of(1), randomBytes(15)]),
    issuer: issuer?.certificate.subjectDer ?? subject,
    subject,
    validity: { notBefore: new Date(now.getTime() - dayMs), notAfter: new Date(now.getTime() + dayMs) },
    spki: spkiOf(key),
    keyUsage: ["keyCertSign", "cRLSign"],
    extendedKeyUsage: [],
    subjectAltNames: [],
    ca: {},
    ...(issuer === undefined ? {} : { authorityKeyId: keyIdentifier(issuer.certificate.spki) }),
    ...differences,
  };
  return { certificate: parseCertificate(issueCertificate(template, issuer?.privateKey ?? key)), privateKey: key };
}

const dayMs = 86_400_000;
const rsaKeys = new Map<string, KeyObject>();

function makeRoot(domain: string, now: Date): Issuer {
  const privateKey = makeEcKey();
  const der = issueRoot({ domain, privateKey, now, serial: randomBytes(16) });
  return { certificate: parseCertificate(der), privateKey };
}

function makeIssuing(domain: string, now: Date, root: Issuer): Issuer {
  const privateKey = makeEcKey();
  const der = issueIssuingCa({ domain, issuer: root, spki: spkiOf(privateKey), now, serial: randomBytes(16) });
  return { certificate: parseCertificate(der), privateKey };
}

/** `alice.smith@…` → `Alice Smith`. */
function nameOf(identity: string): string {
  const words = identity.slice(0, identity.indexOf("@")).split(/[._-]+/);
  return words.map((word) => word.slice(0, 1).toUpperCase() + word.slice(1)).join(" ");
}

function differences(kind: BadKind, identity: string, now: Date): Partial<CertificateTemplate> {
  switch (kind) {
    case "expired":
      return {
        validity: { notBefore: new Date(now.getTime() - 2 * dayMs), notAfter: new Date(now.getTime() - dayMs) },
      };
    case "not-yet-valid":
      return {
        validity: { notBefore: new Date(now.getTime() + dayMs), notAfter: new Date(now.getTime() + 2 * dayMs) },
      };
    case "code-signing-only":
      return { extendedKeyUsage: [extendedKeyUsage.codeSigning] };
    case "email-protection-only":
      return { extendedKeyUsage: [extendedKeyUsage.emailProtection] };
    case "client-auth-only":
      return { extendedKeyUsage: [extendedKeyUsage.clientAuth] };
    case "no-extended-usage":
      return { extendedKeyUsage: [] };
    case "rsa":
      return { keyUsage: ["digitalSignature", "keyEncipherment"] };
    case "mail-only":
      return { subject: encodeName([[attributeType.emailAddress, identity]]) };
    case "untrusted":
    case "wrong-domain":
    case "ed25519":
      return {};
  }
}
