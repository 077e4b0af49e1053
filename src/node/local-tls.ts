import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { writeDurably } from "../irp/key-file.ts";
import type { LocalTls } from "../peertls-core/loopback.ts";
import { parseCertificate } from "../pki/certificate.ts";
import { derToPem, pemToDer } from "../pki/pem.ts";
import { issueLocalServer, issueRoot } from "../pki/profile.ts";
import type { Home } from "./home.ts";

const RENEW_BEFORE_MS = 30 * 86_400_000;

/**
 * Key and certificate of the listeners for the owner's own programs: localhost, 127.0.0.1 and ::1, by a CA of this home that
 * certifies nothing else. `anchors/local-ca.pem` is what the programs are told to trust. Never the person's own key.
 */
export function localTls(home: Home, now: Date): LocalTls {
  const caKeyFile = join(home.keys, "local-ca.key");
  const caFile = join(home.anchors, "local-ca.pem");
  const keyFile = join(home.keys, "local.key");
  const file = join(home.keys, "local.pem");
  const anew = !existsSync(caFile) || !existsSync(caKeyFile);
  if (anew) {
    const key = newKey(caKeyFile);
    const der = issueRoot({ domain: "localhost", privateKey: key, now, serial: randomBytes(16) });
    writeDurably(caFile, derToPem(der, "CERTIFICATE"), 0o644);
  }
  if (anew || !existsSync(file) || !existsSync(keyFile) || endsSoon(file, now)) {
    const [ca] = pemToDer(readFileSync(caFile, "utf8"), "CERTIFICATE");
    const issuer = {
      certificate: parseCertificate(ca ?? new Uint8Array()),
      privateKey: createPrivateKey(readFileSync(caKeyFile, "utf8")),
    };
    const spki = createPublicKey(newKey(keyFile)).export({ type: "spki", format: "der" });
    const der = issueLocalServer({ issuer, spki, now, serial: randomBytes(16) });
    writeDurably(file, derToPem(der, "CERTIFICATE"), 0o644);
  }
  return { certificatePem: readFileSync(file, "utf8"), keyPem: readFileSync(keyFile, "utf8") };
}

function newKey(file: string): KeyObject {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  writeDurably(file, privateKey.export({ type: "pkcs8", format: "pem" }) as string);
  return privateKey;
}

function endsSoon(file: string, now: Date): boolean {
  const [der] = pemToDer(readFileSync(file, "utf8"), "CERTIFICATE");
  return der === undefined || parseCertificate(der).validity.notAfter.getTime() - now.getTime() < RENEW_BEFORE_MS;
}
