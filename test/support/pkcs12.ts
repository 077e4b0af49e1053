import { createHmac, type KeyObject } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fingerprintOf } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { passphraseOctets } from "../../src/smime/passphrase.ts";
import { derivePkcs12Here, pkcs12Purpose } from "../../src/smime/pkcs12-kdf.ts";
import { openssl, pemFiles } from "./openssl.ts";
import type { TestCredentials } from "./pki.ts";

/** What `openssl pkcs12 -export` makes of these, with one round of derivation unless told otherwise. */
export async function opensslPkcs12(
  folder: string,
  of: TestCredentials,
  passphrase: string,
  options: readonly string[] = ["-iter", "1"],
): Promise<Buffer> {
  const files = pemFiles(folder, "p12", of);
  const file = join(folder, "made.p12");
  const secret = join(folder, "passphrase");
  writeFileSync(secret, `${passphrase}\n`);
  const input = ["-in", files.certificate, "-inkey", files.key, "-certfile", files.chain, "-name", "Zoë's key"];
  const made = await openssl(["pkcs12", "-export", "-passout", `file:${secret}`, ...input, "-out", file, ...options]);
  if (made.code !== 0) throw new Error(made.output);
  return readFileSync(file);
}

/** A PFX around these octets, with an HMAC-SHA-256 of one round that holds. */
export function authenticated(
  authSafe: Uint8Array,
  passphrase: string,
  bmp: Uint8Array = passphraseOctets(passphrase).bmp,
): Buffer {
  const salt = Buffer.alloc(8, 7);
  const o = { digest: "sha256", purpose: pkcs12Purpose.mac, passphrase: bmp, salt, iterations: 1, length: 32 } as const;
  const mac = createHmac("sha256", derivePkcs12Here(o)).update(authSafe).digest();
  const info = der.sequence(der.sequence(der.oid("2.16.840.1.101.3.4.2.1")), der.octetString(mac));
  return der.sequence(der.integer(3), dataInfo(authSafe), der.sequence(info, der.octetString(salt)));
}

export function dataInfo(content: Uint8Array): Buffer {
  return der.sequence(der.oid("1.2.840.113549.1.7.1"), der.explicit(0, der.octetString(content)));
}

/** The AuthenticatedSafe of a file in DER. */
export function authSafeOf(file: Uint8Array): Uint8Array {
  const pfx = new der.DerCursor(der.readDer(file));
  pfx.next();
  const info = new der.DerCursor(pfx.next());
  info.next();
  return der.readDer(info.next().content).content;
}

export function sameKey(one: KeyObject | undefined, other: KeyObject): boolean {
  return one !== undefined && fingerprintOf(one) === fingerprintOf(other);
}

/** A PFX that asks for 10 million rounds of derivation in one place. */
export function endless(where: "mac" | "pbmac1" | "pbes1" | "pbes2", { bmp }: { bmp: Uint8Array }): Buffer {
  const iterations = der.integer(10_000_000);
  const salt = der.octetString(Buffer.alloc(8));
  const [aes, hmac] = [
    der.sequence(der.oid("2.16.840.1.101.3.4.1.42"), der.octetString(Buffer.alloc(16))),
    der.sequence(der.oid("1.2.840.113549.2.9"), der.nullValue()),
  ];
  const pbkdf2 = der.sequence(
    der.oid("1.2.840.113549.1.5.12"),
    der.sequence(salt, iterations, ...(where === "pbmac1" ? [der.integer(32)] : []), hmac),
  );
  if (where === "mac" || where === "pbmac1") {
    const sha512 = der.sequence(der.oid("2.16.840.1.101.3.4.2.3"));
    const algorithm =
      where === "mac" ? sha512 : der.sequence(der.oid("1.2.840.113549.1.5.14"), der.sequence(pbkdf2, hmac));
    const info = der.sequence(algorithm, der.octetString(Buffer.alloc(where === "mac" ? 64 : 32)));
    return der.sequence(der.integer(3), dataInfo(der.sequence()), der.sequence(info, salt, iterations));
  }
  const algorithm =
    where === "pbes2"
      ? der.sequence(der.oid("1.2.840.113549.1.5.13"), der.sequence(pbkdf2, aes))
      : der.sequence(der.oid("1.2.840.113549.1.12.1.3"), der.sequence(salt, iterations));
  const shrouded = der.sequence(algorithm, der.octetString(Buffer.alloc(16)));
  const bag = der.sequence(der.oid("1.2.840.113549.1.12.10.1.2"), der.explicit(0, shrouded));
  return authenticated(der.sequence(dataInfo(der.sequence(bag))), "", bmp);
}
