import { type Certificate, fingerprintOf } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import type { Oid } from "../pki/oid.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { contentType } from "./algorithms.ts";
import { checkOwnPassphrase, isGenerated, passphraseOctets } from "./passphrase.ts";
import { Effort, type Encrypted, encryptPbes2, encryptTripleDes, type RandomOctets } from "./pbe.ts";
import { p12Type } from "./pkcs12-bags.ts";
import { macByPbmac1, macByPkcs12 } from "./pkcs12-mac.ts";
import { type Pkcs12Key, readPkcs12 } from "./pkcs12-read.ts";

export interface Pkcs12Options {
  /** The current one first, then the former ones; each with its certificates, newest first. */
  readonly keys: readonly Pkcs12Key[];
  readonly chain: readonly Certificate[];
  /** What else to keep secret; each value is one DER value. */
  readonly secrets?: readonly { readonly type: Oid; readonly value: Uint8Array }[];
  readonly passphrase: string;
  /**
   * `modern`: PBES2 with AES-256, HMAC-SHA-256. `pbmac1`: the same with the MAC of RFC 9579, which few programs know. `legacy`: 3DES and
   * HMAC-SHA-1; one key alone, and a generated passphrase, since others could be found out.
   */
  readonly protection: "modern" | "pbmac1" | "legacy";
  readonly random: RandomOctets;
}

/**
 * A PKCS#12 file (RFC 7292), read back before it is returned.
 * @throws SuiteError syntax if the passphrase is too weak, forbidden if `legacy` was asked for what it is too weak for, cancelled
 */
export async function writePkcs12(o: Pkcs12Options, signal?: AbortSignal): Promise<Buffer> {
  const { keys, chain, secrets = [], protection } = o;
  if (!isGenerated(o.passphrase)) checkOwnPassphrase(o.passphrase);
  if (protection === "legacy" && (keys.length > 1 || secrets.length > 0 || !isGenerated(o.passphrase)))
    throw new SuiteError("forbidden", "the old format is for one key and a generated passphrase", { fault: "local" });
  const passphrase = passphraseOctets(o.passphrase);
  const encrypt = (plain: Uint8Array) =>
    (protection === "legacy" ? encryptTripleDes : encryptPbes2)(plain, passphrase, o.random, signal);

  const keyBags: Buffer[] = [];
  for (const key of keys) keyBags.push(await keyBag(key, encrypt));
  const hidden = [
    ...keys.flatMap((key) => key.certificates.map((one) => certificateBag(one, attributesOf(key)))),
    ...chain.map((one) => certificateBag(one, [])),
    ...secrets.map(({ type, value }) =>
      bag(p12Type.secretBag, der.sequence(der.oid(type), der.explicit(0, value)), []),
    ),
  ];
  // Keys before certificates or after, readers do not mind; some take the first key for the only one.
  const authSafe = der.sequence(
    dataInfo(der.sequence(...keyBags)),
    encryptedInfo(await encrypt(der.sequence(...hidden))),
  );
  const mac =
    protection === "pbmac1"
      ? await macByPbmac1(authSafe, passphrase, o.random, new Effort(), signal)
      : await macByPkcs12(protection === "legacy" ? "sha1" : "sha256", authSafe, passphrase, o.random, signal);
  const file = der.sequence(der.integer(3), dataInfo(authSafe), mac);
  await readBack(file, o, signal);
  return file;
}

async function readBack(
  file: Buffer,
  { keys, chain, secrets = [], passphrase }: Pkcs12Options,
  signal: AbortSignal | undefined,
): Promise<void> {
  const read = await readPkcs12(file, passphrase, file.length, signal);
  const digests = (certificates: readonly Certificate[]) => certificates.map(({ sha256 }) => sha256).join();
  const same =
    read.keys.length === keys.length &&
    keys.every(({ privateKey, certificates }, i) => {
      const other = read.keys[i];
      // Not by `equals`: of keys of two kinds it leaves an error behind in OpenSSL that the next operation throws.
      const kept = other !== undefined && fingerprintOf(other.privateKey) === fingerprintOf(privateKey);
      return kept && digests(other.certificates) === digests(certificates);
    }) &&
    digests(read.certificates) === digests(chain) &&
    read.secrets.length === secrets.length &&
    secrets.every(({ value }, i) => Buffer.compare(value, read.secrets[i]?.value ?? new Uint8Array()) === 0);
  if (!same) throw new SuiteError("internal", "the key file does not read back as it was written", { fault: "local" });
}

async function keyBag(key: Pkcs12Key, encrypt: (plain: Uint8Array) => Promise<Encrypted>): Promise<Buffer> {
  const pkcs8 = key.privateKey.export({ type: "pkcs8", format: "der" });
  const { algorithm, ciphertext } = await encrypt(pkcs8);
  return bag(p12Type.shroudedKeyBag, der.sequence(algorithm, der.octetString(ciphertext)), attributesOf(key));
}

function certificateBag(certificate: Certificate, attributes: readonly Buffer[]): Buffer {
  const value = der.sequence(der.oid(p12Type.x509Certificate), der.explicit(0, der.octetString(certificate.der)));
  return bag(p12Type.certBag, value, attributes);
}

function bag(type: Oid, value: Uint8Array, attributes: readonly Buffer[]): Buffer {
  const set = attributes.length === 0 ? [] : [der.set(...attributes)];
  return der.sequence(der.oid(type), der.explicit(0, value), ...set);
}

/** friendlyName and localKeyID: by the latter, readers find a key's certificates. */
function attributesOf({ privateKey, friendlyName }: Pkcs12Key): Buffer[] {
  const attribute = (type: Oid, value: Uint8Array) => der.sequence(der.oid(type), der.set(value));
  const id = Buffer.from(fingerprintOf(privateKey), "hex");
  const name =
    friendlyName === undefined
      ? []
      : [attribute(p12Type.friendlyName, der.encode(der.tag.bmpString, Buffer.from(friendlyName, "utf16le").swap16()))];
  return [...name, attribute(p12Type.localKeyId, der.octetString(id))];
}

function dataInfo(content: Uint8Array): Buffer {
  return der.sequence(der.oid(contentType.data), der.explicit(0, der.octetString(content)));
}

/** EncryptedData (RFC 5652 §8). */
function encryptedInfo({ algorithm, ciphertext }: Encrypted): Buffer {
  const info = der.sequence(der.oid(contentType.data), algorithm, der.implicitPrimitive(0, ciphertext));
  const data = der.sequence(der.integer(0), info);
  return der.sequence(der.oid(p12Type.encryptedData), der.explicit(0, data));
}
