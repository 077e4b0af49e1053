import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { type Certificate, fingerprintOf, parseCertificate } from "../pki/certificate.ts";
import type { Issuer } from "../pki/issue.ts";
import { derToPem } from "../pki/pem.ts";
import { issueDomainServer, issueIssuingCa, issueRoot } from "../pki/profile.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { type CaFiles, certificateIn, filesIn, finishInstall, formerFiles } from "./ca-files.ts";
import { writeDurably } from "./key-file.ts";

/** The keys of one domain's CA, opened. The root's private key is not among them: it is needed once in some years. */
export interface CaKeys extends CaPublic {
  issuing: Issuer;
  /** Issuing CAs before it, the newest first, as long as they are valid: their lists are still signed. */
  former: readonly Issuer[];
}

/** What there is when the issuing key cannot be used: everything is served, nothing is issued. */
export interface LockedCaKeys extends CaPublic {
  issuing: { certificate: Certificate };
  former: readonly { certificate: Certificate }[];
  /** Why. */
  locked: string;
}

export type OpenedCa = CaKeys | LockedCaKeys;

interface CaPublic {
  domain: string;
  root: Certificate;
  server: { privateKey: KeyObject; certificate: Certificate; chain: readonly Certificate[] };
}

export interface CaKeyOptions {
  directory: string;
  domain: string;
  now: Date;
  random: (length: number) => Buffer;
  /** Where the passphrase of the issuing key lies; absent: `passphrase` beside the keys. */
  passphraseFile?: string;
}

/**
 * Makes root (P-384), issuing CA and the domain server's certificate (P-256). Both CA keys are PBES2-encrypted; their
 * passphrase lies in `passphrase` beside them, to be carried away together with `root.key`.
 * @throws SuiteError conflict when there is a CA already
 */
export function createCa(o: CaKeyOptions): CaKeys {
  const files = filesIn(o.directory, o.passphraseFile);
  if (existsSync(files.root))
    throw new SuiteError("conflict", "there is a CA in this directory already", {
      fault: "local",
      details: { directory: o.directory },
    });
  mkdirSync(o.directory, { recursive: true, mode: 0o700 });
  if (!existsSync(files.passphrase)) writeDurably(files.passphrase, `${o.random(24).toString("base64url")}\n`);
  const passphrase = passphraseIn(files);
  const rootKey = generateKeyPairSync("ec", { namedCurve: "secp384r1" }).privateKey;
  const root = issueRoot({ domain: o.domain, privateKey: rootKey, now: o.now, serial: o.random(16) });
  const issuer = { certificate: parseCertificate(root), privateKey: rootKey };
  const caKey = generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
  const ca = issueIssuingCa({ domain: o.domain, issuer, spki: spkiOf(caKey), now: o.now, serial: o.random(16) });
  writeDurably(files.rootKey, encrypted(rootKey, passphrase));
  writeDurably(files.issuingKey, encrypted(caKey, passphrase));
  writeDurably(files.issuing, derToPem(ca, "CERTIFICATE"), 0o644);
  writeServer(o, { certificate: parseCertificate(ca), privateKey: caKey });
  writeDurably(files.root, derToPem(root, "CERTIFICATE"), 0o644); // last: with it the CA is whole
  return openCa(o);
}

/** Opens the keys; renews the server's certificate when two thirds of its life are over. @throws SuiteError config-invalid */
export function openCa(o: CaKeyOptions): CaKeys {
  return opened(o, () => {
    const files = filesIn(o.directory, o.passphraseFile);
    finishInstall(files);
    const passphrase = passphraseIn(files);
    const issuing = issuerIn(files.issuing, files.issuingKey, passphrase);
    if (serverIsDue(files, o.now)) writeServer(o, issuing);
    const former = formerFiles(o.directory)
      .filter(({ certificate }) => certificateIn(certificate).validity.notAfter > o.now)
      .map(({ certificate, key }) => issuerIn(certificate, key, passphrase));
    return { ...publicPart(o, files, issuing.certificate), issuing, former };
  });
}

/**
 * As `openCa`; but a CA whose issuing key is missing, wrong or locked still serves what there is.
 * @throws SuiteError config-invalid when not even the certificates are there
 */
export function openCaOrLocked(o: CaKeyOptions): OpenedCa {
  try {
    return openCa(o);
  } catch (thrown) {
    const { cause } = asSuiteError(thrown);
    return opened(o, () => {
      const files = filesIn(o.directory, o.passphraseFile);
      const certificate = certificateIn(files.issuing);
      const former = formerFiles(o.directory).map((one) => ({ certificate: certificateIn(one.certificate) }));
      const locked = `the issuing key cannot be used: ${cause instanceof Error ? cause.message : "it is not there"}`;
      return { ...publicPart(o, files, certificate), issuing: { certificate }, former, locked };
    });
  }
}

/** A certificate and its key. @throws Error if they do not belong together */
export function issuerIn(certificateFile: string, keyFile: string, passphrase: string): Issuer {
  const certificate = certificateIn(certificateFile);
  const privateKey = createPrivateKey({ key: readFileSync(keyFile, "utf8"), passphrase });
  if (fingerprintOf(privateKey) !== certificate.fingerprint) throw new Error("key and certificate are not a pair");
  return { certificate, privateKey };
}

export function passphraseIn(files: Pick<CaFiles, "passphrase">): string {
  return readFileSync(files.passphrase, "utf8").trim();
}

/** PKCS#8 with PBES2 (RFC 8018). */
export function encrypted(key: KeyObject, passphrase: string): string {
  return key.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase }) as string;
}

export function spkiOf(privateKey: KeyObject): Buffer {
  return createPublicKey(privateKey).export({ type: "spki", format: "der" });
}

function publicPart({ domain }: CaKeyOptions, files: CaFiles, issuing: Certificate): CaPublic {
  const root = certificateIn(files.root);
  const server = {
    privateKey: createPrivateKey(readFileSync(files.serverKey, "utf8")),
    certificate: certificateIn(files.server),
    // The one that signed it; the root too: an invitation tells its hash, and nothing else knows it yet.
    chain: [signerOf(files, issuing), root],
  };
  return { domain, root, server };
}

/** The server's certificate may still be of the issuing CA before. */
function signerOf(files: CaFiles, issuing: Certificate): Certificate {
  const { authorityKeyId } = certificateIn(files.server);
  const all = [issuing, ...formerFiles(files.directory).map(({ certificate }) => certificateIn(certificate))];
  const found = all.find(
    ({ subjectKeyId }) => authorityKeyId && subjectKeyId && Buffer.compare(authorityKeyId, subjectKeyId) === 0,
  );
  return found ?? issuing;
}

function serverIsDue(files: CaFiles, now: Date): boolean {
  const { notBefore, notAfter } = certificateIn(files.server).validity;
  return now.getTime() > notBefore.getTime() + ((notAfter.getTime() - notBefore.getTime()) * 2) / 3;
}

function writeServer(o: CaKeyOptions, issuer: Issuer): void {
  const files = filesIn(o.directory, o.passphraseFile);
  const key = existsSync(files.serverKey)
    ? createPrivateKey(readFileSync(files.serverKey, "utf8"))
    : generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
  const der = issueDomainServer({ issuer, spki: spkiOf(key), domain: o.domain, now: o.now, serial: o.random(16) });
  if (!existsSync(files.serverKey))
    writeDurably(files.serverKey, key.export({ type: "pkcs8", format: "pem" }) as string);
  writeDurably(files.server, derToPem(der, "CERTIFICATE"), 0o644);
}

function opened<T>(o: CaKeyOptions, body: () => T): T {
  try {
    return body();
  } catch (cause) {
    throw new SuiteError("config-invalid", "the keys of the CA cannot be opened", {
      fault: "local",
      cause,
      details: { directory: o.directory },
    });
  }
}
