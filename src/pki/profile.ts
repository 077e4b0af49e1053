import { createPublicKey, type KeyObject } from "node:crypto";
import { readKeyInfo } from "./algorithm.ts";
import * as der from "./der.ts";
import { encodeDnsName, encodeRfc822Name, encodeSipUri, encodeSmtpUtf8Mailbox } from "./general-name.ts";
import type { Identity } from "./identity.ts";
import { type CertificateTemplate, type Issuer, issueCertificate, keyIdentifier } from "./issue.ts";
import { encodeName, type RdnTemplate } from "./name.ts";
import { attributeType, extendedKeyUsage } from "./oid.ts";
import { SuiteError } from "./suite-error.ts";
import type { Window } from "./time.ts";

/** What every certificate of ours needs. `serial`: 16 random octets. */
export interface IssueOptions {
  now: Date;
  serial: Uint8Array;
  /** Days; the profile's own if absent. Never past the issuer's own end. */
  days?: number;
  /** Where the issuer publishes its CRL and answers OCSP requests. */
  crlUrl?: string;
  ocspUrl?: string;
}

export interface PersonOptions extends IssueOptions {
  issuer: Issuer;
  spki: Uint8Array;
  identity: Identity;
  name: string;
  organisation?: string;
}

const dayMs = 86_400_000;
/** Clocks differ: a new certificate is valid from a little before. */
const backdatedMs = 300_000;

/** The root of a domain: self-signed, 20 years. */
export function issueRoot(o: IssueOptions & { domain: string; privateKey: KeyObject }): Buffer {
  const subject = encodeName([[attributeType.commonName, `${o.domain} root`]]);
  const template: CertificateTemplate = {
    serial: positive(o.serial),
    issuer: subject,
    subject,
    validity: windowOf(o, 20 * 365),
    spki: spkiOf(o.privateKey),
    keyUsage: ["keyCertSign", "cRLSign"],
    extendedKeyUsage: [],
    subjectAltNames: [],
    ca: {},
  };
  return issueCertificate({ ...template, authorityKeyId: keyIdentifier(template.spki) }, o.privateKey);
}

/** The issuing CA: 5 years, path length 0, bound to the names of its domain. No URI constraint: OpenSSL refuses `sip:` under one. */
export function issueIssuingCa(o: IssueOptions & { domain: string; issuer: Issuer; spki: Uint8Array }): Buffer {
  return issueCertificate(
    {
      ...below(o.issuer, o, 5 * 365),
      subject: encodeName([[attributeType.commonName, `${o.domain} CA`]]),
      spki: o.spki,
      keyUsage: ["keyCertSign", "cRLSign"],
      extendedKeyUsage: [],
      subjectAltNames: [],
      ca: { pathLength: 0 },
      permitted: [encodeRfc822Name(o.domain), encodeDnsName(o.domain)],
    },
    o.issuer.privateKey,
  );
}

/** AUTH, one per device: signs and does PeerTLS; 30 days. */
export function issueAuth(o: PersonOptions): Buffer {
  const { clientAuth, serverAuth, emailProtection, sipDomain } = extendedKeyUsage;
  return person(o, ["digitalSignature"], [clientAuth, serverAuth, emailProtection, sipDomain], 30);
}

/** ENCRYPTION, one per person: decrypts, may be escrowed; 825 days. RSA enciphers keys, EC agrees on them. */
export function issueEncryption(o: PersonOptions): Buffer {
  const { keyType } = readKeyInfo(der.readDer(o.spki));
  if (keyType !== "rsa" && keyType !== "ec") {
    throw new SuiteError("unsupported", "nothing can be sealed to this kind of key", {
      fault: "peer",
      details: { keyType },
    });
  }
  return person(o, [keyType === "rsa" ? "keyEncipherment" : "keyAgreement"], [extendedKeyUsage.emailProtection], 825);
}

/** The certificate of the domain's own servers: 90 days. */
export function issueDomainServer(o: IssueOptions & { issuer: Issuer; spki: Uint8Array; domain: string }): Buffer {
  return server(o, [encodeDnsName(o.domain)], o.domain, 90);
}

/** For the listeners of the owner's own programs: localhost by name and by address; 825 days. */
export function issueLocalServer(o: IssueOptions & { issuer: Issuer; spki: Uint8Array }): Buffer {
  const loopback4 = der.implicitPrimitive(7, Buffer.from([127, 0, 0, 1]));
  const loopback6 = der.implicitPrimitive(7, Buffer.concat([Buffer.alloc(15), Buffer.from([1])]));
  return server(o, [encodeDnsName("localhost"), loopback4, loopback6], "localhost", 825);
}

function server(
  o: IssueOptions & { issuer: Issuer; spki: Uint8Array },
  names: readonly Buffer[],
  commonName: string,
  days: number,
): Buffer {
  return issueCertificate(
    {
      ...below(o.issuer, o, days),
      subject: encodeName([[attributeType.commonName, commonName]]),
      spki: o.spki,
      keyUsage: ["digitalSignature"],
      extendedKeyUsage: [extendedKeyUsage.serverAuth, extendedKeyUsage.clientAuth],
      subjectAltNames: names,
    },
    o.issuer.privateKey,
  );
}

function person(
  o: PersonOptions,
  keyUsage: CertificateTemplate["keyUsage"],
  usages: readonly string[],
  days: number,
): Buffer {
  const ascii = /^[\x21-\x7e]+$/.test(o.identity);
  const mail: RdnTemplate = ascii ? [attributeType.emailAddress, o.identity] : [attributeType.userId, o.identity];
  const organisation: RdnTemplate[] =
    o.organisation === undefined ? [] : [[attributeType.organizationName, o.organisation]];
  const mailName = ascii ? encodeRfc822Name(o.identity) : encodeSmtpUtf8Mailbox(o.identity);
  return issueCertificate(
    {
      ...below(o.issuer, o, days),
      subject: encodeName([...organisation, [attributeType.commonName, o.name], mail]),
      spki: o.spki,
      keyUsage,
      extendedKeyUsage: usages,
      subjectAltNames: [mailName, encodeSipUri(o.identity)],
    },
    o.issuer.privateKey,
  );
}

function below(issuer: Issuer, o: IssueOptions, days: number) {
  const { certificate } = issuer;
  const window = windowOf(o, days);
  const end = Math.min(window.notAfter.getTime(), certificate.validity.notAfter.getTime());
  return {
    serial: positive(o.serial),
    issuer: certificate.subjectDer,
    authorityKeyId: certificate.subjectKeyId ?? keyIdentifier(certificate.spki),
    validity: { notBefore: window.notBefore, notAfter: new Date(end) },
    ...(o.crlUrl === undefined ? {} : { crlUrl: o.crlUrl }),
    ...(o.ocspUrl === undefined ? {} : { ocspUrl: o.ocspUrl }),
  };
}

function windowOf({ now, days }: IssueOptions, profileDays: number): Window {
  const second = (time: number) => new Date(Math.floor(time / 1000) * 1000);
  return {
    notBefore: second(now.getTime() - backdatedMs),
    notAfter: second(now.getTime() + (days ?? profileDays) * dayMs),
  };
}

/** Never negative, never 0, as long as it was: what RFC 5280 §4.1.2.2 asks of a serial. */
function positive(serial: Uint8Array): Uint8Array {
  if (serial.length < 8 || serial.length > 20) {
    throw new SuiteError("internal", "a serial number of a wrong length", { fault: "local" });
  }
  const own = Uint8Array.from(serial);
  own[0] = ((own[0] ?? 0) & 0x7f) | 0x40;
  return own;
}

function spkiOf(privateKey: KeyObject): Uint8Array {
  return createPublicKey(privateKey).export({ type: "spki", format: "der" });
}
