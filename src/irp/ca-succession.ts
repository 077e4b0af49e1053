import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { parseCertificate } from "../pki/certificate.ts";
import { makeCsr, parseCsr } from "../pki/csr.ts";
import { validatePath } from "../pki/path.ts";
import { derToPem, pemToDer } from "../pki/pem.ts";
import { issueIssuingCa } from "../pki/profile.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { certificateIn, filesIn, finishInstall } from "./ca-files.ts";
import { type CaKeyOptions, encrypted, issuerIn, passphraseIn } from "./ca-keys.ts";
import { createDurably } from "./key-file.ts";

/** Makes the key of the next issuing CA and its request, PEM, to be carried to the root. The same one until it is installed. */
export function requestIssuing(o: CaKeyOptions): string {
  const files = filesIn(o.directory, o.passphraseFile);
  const passphrase = passphraseIn(files);
  if (!existsSync(files.nextKey)) {
    const made = generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
    createDurably(files.nextKey, encrypted(made, passphrase));
  }
  const privateKey = createPrivateKey({ key: readFileSync(files.nextKey, "utf8"), passphrase });
  if (!existsSync(files.nextCsr)) {
    const csr = makeCsr({ privateKey, commonName: `${o.domain} CA` });
    createDurably(files.nextCsr, derToPem(csr, "CERTIFICATE REQUEST"), 0o644);
  }
  return readFileSync(files.nextCsr, "utf8");
}

/**
 * Signs the request of an issuing CA by the root's key; needs nothing but the root's files, so it can be done on a machine
 * that has never seen a network. Of the request only the key counts.
 * @returns the certificate, PEM
 * @throws SuiteError config-invalid, syntax
 */
export function signIssuing(o: {
  rootFile: string;
  rootKeyFile: string;
  passphraseFile: string;
  domain: string;
  csr: string;
  now: Date;
  random: (length: number) => Buffer;
}): string {
  const [der] = pemToDer(o.csr, "CERTIFICATE REQUEST");
  if (der === undefined) throw new SuiteError("syntax", "there is no request in the file", { fault: "local" });
  const { spki } = parseCsr(der);
  let issuer: ReturnType<typeof issuerIn>;
  try {
    issuer = issuerIn(o.rootFile, o.rootKeyFile, passphraseIn({ passphrase: o.passphraseFile }));
  } catch (cause) {
    throw new SuiteError("config-invalid", "the root's key cannot be opened", { fault: "local", cause });
  }
  const made = issueIssuingCa({ domain: o.domain, issuer, spki, now: o.now, serial: o.random(16) });
  return derToPem(made, "CERTIFICATE");
}

/**
 * Puts a certificate that the root signed in force. The issuing CA before it stays, and is published, as long as it is valid.
 * @throws SuiteError conflict when it is not for the key that was requested; certificate-invalid when the root did not sign it
 */
export function installIssuing(o: CaKeyOptions, pem: string): void {
  const files = filesIn(o.directory, o.passphraseFile);
  const [der] = pemToDer(pem, "CERTIFICATE");
  if (der === undefined) throw new SuiteError("syntax", "there is no certificate in the file", { fault: "local" });
  const certificate = parseCertificate(der);
  const root = certificateIn(files.root);
  const path = validatePath({
    ...{ leaf: certificate, candidates: [], anchors: [{ name: "root", certificate: root }] },
    ...{ time: o.now, purpose: "any" as const },
  });
  const ca = certificate.basicConstraints?.ca === true && certificate.keyUsage?.has("keyCertSign") === true;
  if (!path.ok || !ca)
    throw new SuiteError("certificate-invalid", "the domain's root has not made this an issuing CA", {
      fault: "local",
      details: { reason: path.ok ? "not-a-ca" : path.reason },
    });
  if (existsSync(files.issuing) && certificateIn(files.issuing).sha256 === certificate.sha256) return;
  const csr = existsSync(files.nextCsr)
    ? pemToDer(readFileSync(files.nextCsr, "utf8"), "CERTIFICATE REQUEST")[0]
    : undefined;
  if (csr === undefined || parseCsr(csr).fingerprint !== certificate.fingerprint)
    throw new SuiteError("conflict", "the certificate is not for the key that was requested", { fault: "local" });
  createDurably(files.next, derToPem(der, "CERTIFICATE"), 0o644); // with it the change is decided
  finishInstall(files);
}

/** At half the life of the issuing CA its successor is due (irp.md §2.4). */
export function successionIsDue(o: CaKeyOptions): boolean {
  const { notBefore, notAfter } = certificateIn(filesIn(o.directory).issuing).validity;
  return o.now.getTime() > (notBefore.getTime() + notAfter.getTime()) / 2;
}

/** Does all three steps where the root's key is at hand. @returns false if it was carried away */
export function succeedHere(o: CaKeyOptions): boolean {
  const files = filesIn(o.directory, o.passphraseFile);
  if (!existsSync(files.rootKey)) return false;
  const csr = requestIssuing(o);
  const root = { rootFile: files.root, rootKeyFile: files.rootKey, passphraseFile: files.passphrase };
  installIssuing(o, signIssuing({ ...root, domain: o.domain, csr, now: o.now, random: o.random }));
  return true;
}
