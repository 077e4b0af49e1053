import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import type { Issuer } from "../pki/issue.ts";
import { derToPem, pemToDer } from "../pki/pem.ts";
import { issueDomainServer, issueIssuingCa, issueRoot } from "../pki/profile.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { writeDurably } from "./key-file.ts";

/** The keys of one domain's CA, opened. The root's private key is not among them: it is needed once in five years. */
export interface CaKeys {
  domain: string;
  root: Certificate;
  issuing: Issuer;
  server: { privateKey: KeyObject; certificate: Certificate; chain: readonly Certificate[] };
}

export interface CaKeyOptions {
  directory: string;
  domain: string;
  now: Date;
  random: (length: number) => Buffer;
}

/**
 * Makes root (P-384), issuing CA and the domain server's certificate (P-256). Both CA keys are PBES2-encrypted; their
 * passphrase lies in `passphrase` beside them, to be carried away together with `root.key`.
 * @throws SuiteError conflict when there is a CA already
 */
export function createCa(o: CaKeyOptions): CaKeys {
  const files = filesIn(o.directory);
  if (existsSync(files.root))
    throw new SuiteError("conflict", "there is a CA in this directory already", {
      fault: "local",
      details: { directory: o.directory },
    });
  mkdirSync(o.directory, { recursive: true, mode: 0o700 });
  const passphrase = o.random(24).toString("base64url");
  const rootKey = generateKeyPairSync("ec", { namedCurve: "secp384r1" }).privateKey;
  const root = issueRoot({ domain: o.domain, privateKey: rootKey, now: o.now, serial: o.random(16) });
  const issuer = { certificate: parseCertificate(root), privateKey: rootKey };
  const caKey = generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
  const ca = issueIssuingCa({ domain: o.domain, issuer, spki: spkiOf(caKey), now: o.now, serial: o.random(16) });
  writeDurably(files.passphrase, `${passphrase}\n`);
  writeDurably(files.rootKey, encrypted(rootKey, passphrase));
  writeDurably(files.issuingKey, encrypted(caKey, passphrase));
  writeDurably(files.issuing, derToPem(ca, "CERTIFICATE"), 0o644);
  writeServer(o, { certificate: parseCertificate(ca), privateKey: caKey });
  writeDurably(files.root, derToPem(root, "CERTIFICATE"), 0o644); // last: with it the CA is whole
  return openCa(o);
}

/** Opens the keys; renews the server's certificate when two thirds of its life are over. @throws SuiteError config-invalid */
export function openCa(o: CaKeyOptions): CaKeys {
  const files = filesIn(o.directory);
  try {
    const passphrase = readFileSync(files.passphrase, "utf8").trim();
    const root = certificateIn(files.root);
    const privateKey = createPrivateKey({ key: readFileSync(files.issuingKey, "utf8"), passphrase });
    const issuing = { certificate: certificateIn(files.issuing), privateKey };
    const { notBefore, notAfter } = certificateIn(files.server).validity;
    if (o.now.getTime() > notBefore.getTime() + ((notAfter.getTime() - notBefore.getTime()) * 2) / 3)
      writeServer(o, issuing);
    const server = {
      privateKey: createPrivateKey(readFileSync(files.serverKey, "utf8")),
      certificate: certificateIn(files.server),
      chain: [issuing.certificate, root], // the root too: an invitation tells its hash, and nothing else knows it yet
    };
    return { domain: o.domain, root, issuing, server };
  } catch (cause) {
    throw new SuiteError("config-invalid", "the keys of the CA cannot be opened", {
      fault: "local",
      cause,
      details: { directory: o.directory },
    });
  }
}

function writeServer(o: CaKeyOptions, issuer: Issuer): void {
  const files = filesIn(o.directory);
  const key = generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
  const der = issueDomainServer({ issuer, spki: spkiOf(key), domain: o.domain, now: o.now, serial: o.random(16) });
  writeDurably(files.serverKey, key.export({ type: "pkcs8", format: "pem" }) as string);
  writeDurably(files.server, derToPem(der, "CERTIFICATE"), 0o644);
}

function filesIn(directory: string) {
  const file = (name: string) => join(directory, name);
  return {
    passphrase: file("passphrase"),
    root: file("root.pem"),
    rootKey: file("root.key"),
    issuing: file("issuing.pem"),
    issuingKey: file("issuing.key"),
    server: file("server.pem"),
    serverKey: file("server.key"),
  };
}

function certificateIn(file: string): Certificate {
  const [der] = pemToDer(readFileSync(file, "utf8"), "CERTIFICATE");
  if (der === undefined) throw new Error(`${file} holds no certificate`);
  return parseCertificate(der);
}

function spkiOf(privateKey: KeyObject): Buffer {
  return createPublicKey(privateKey).export({ type: "spki", format: "der" });
}

/** PKCS#8 with PBES2 (RFC 8018). */
function encrypted(key: KeyObject, passphrase: string): string {
  return key.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase }) as string;
}
