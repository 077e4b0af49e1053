import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import { pemToDer } from "../pki/pem.ts";
import { writeDurably } from "./key-file.ts";

/** Where the CA's keys and certificates lie. */
export interface CaFiles {
  directory: string;
  passphrase: string;
  root: string;
  rootKey: string;
  issuing: string;
  issuingKey: string;
  server: string;
  serverKey: string;
  /** The issuing CA to come: its key and request, and its certificate when it is to be put in force. */
  nextKey: string;
  nextCsr: string;
  next: string;
}

export function filesIn(directory: string, passphraseFile?: string): CaFiles {
  const file = (name: string) => join(directory, name);
  return {
    directory,
    passphrase: passphraseFile ?? file("passphrase"),
    root: file("root.pem"),
    rootKey: file("root.key"),
    issuing: file("issuing.pem"),
    issuingKey: file("issuing.key"),
    server: file("server.pem"),
    serverKey: file("server.key"),
    nextKey: file("next.key"),
    nextCsr: file("next.csr"),
    next: file("next.pem"),
  };
}

/** Former issuing CAs, the newest first. */
export function formerFiles(directory: string): { certificate: string; key: string; number: number }[] {
  return readdirSync(directory)
    .flatMap((name) => {
      const number = /^former-(\d+)\.pem$/.exec(name)?.[1];
      return number === undefined ? [] : [Number(number)];
    })
    .sort((a, b) => b - a)
    .map((number) => ({
      number,
      certificate: join(directory, `former-${number}.pem`),
      key: join(directory, `former-${number}.key`),
    }));
}

/**
 * Puts the certificate in `next.pem` in force, with its key; what was in force becomes a former one. Repeatable: cut off
 * anywhere it goes on when the CA is opened next.
 */
export function finishInstall(files: CaFiles): void {
  if (!existsSync(files.next)) return;
  const next = certificateIn(files.next);
  const present = certificateIn(files.issuing);
  const former = formerFiles(files.directory);
  if (
    present.sha256 !== next.sha256 &&
    !former.some((one) => certificateIn(one.certificate).sha256 === present.sha256)
  ) {
    const number = (former[0]?.number ?? 0) + 1;
    writeDurably(join(files.directory, `former-${number}.key`), readFileSync(files.issuingKey));
    writeDurably(join(files.directory, `former-${number}.pem`), readFileSync(files.issuing), 0o644); // last
  }
  if (existsSync(files.nextKey)) writeDurably(files.issuingKey, readFileSync(files.nextKey));
  writeDurably(files.issuing, readFileSync(files.next), 0o644);
  rmSync(files.nextKey, { force: true });
  rmSync(files.nextCsr, { force: true });
  rmSync(files.next);
}

/** The first certificate of a PEM file. @throws Error */
export function certificateIn(file: string): Certificate {
  const [der] = pemToDer(readFileSync(file, "utf8"), "CERTIFICATE");
  if (der === undefined) throw new Error(`${file} holds no certificate`);
  return parseCertificate(der);
}
