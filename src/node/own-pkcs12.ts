import { type Certificate, type Fingerprint, fingerprintOf } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { Pkcs12Key } from "../smime/pkcs12-read.ts";
import { writePkcs12 } from "../smime/pkcs12-write.ts";
import type { OwnKey, OwnKeys } from "./keys.ts";

/** The owner's keys as a PKCS#12 file has them: what his mail is sealed to now, what he signs with, and what was in use before. */
export function pkcs12KeysOf(identity: Identity, { auth, encryption }: OwnKeys): Pkcs12Key[] {
  const [current, ...former] = encryption;
  const keys = new Map<Fingerprint, { privateKey: OwnKey["privateKey"]; certificates: Certificate[] }>();
  // A renewed certificate is for the same key, as a rule: the key is there once, with all of them.
  for (const { privateKey, certificate } of [...(current === undefined ? [] : [current]), auth, ...former]) {
    const key = keys.get(fingerprintOf(privateKey)) ?? { privateKey, certificates: [] };
    keys.set(fingerprintOf(privateKey), { ...key, certificates: [...key.certificates, certificate] });
  }
  return [...keys.values()].map((key) => ({ ...key, friendlyName: identity }));
}

/** Issuers of all of them, and the domain's roots: programs want the chain whole. */
export function chainOf({ auth, encryption }: OwnKeys, roots: readonly Certificate[]): Certificate[] {
  const all = [...encryption, auth].flatMap(({ chain }) => chain);
  return [...new Map([...all, ...roots].map((one) => [one.sha256, one])).values()];
}

/**
 * The keys for the owner's mail program.
 * @param legacy in the form that old programs read: the current key alone
 * @throws SuiteError as `writePkcs12`
 */
export async function exportPkcs12(
  o: {
    identity: Identity;
    keys: OwnKeys;
    roots: readonly Certificate[];
    passphrase: string;
    legacy: boolean;
    random: (length: number) => Buffer;
  },
  signal?: AbortSignal,
): Promise<Buffer> {
  const { identity, keys, passphrase, random } = o;
  const [current] = keys.encryption;
  if (current === undefined) throw new SuiteError("not-found", "this home has no key for mail", { fault: "local" });
  const alone = { privateKey: current.privateKey, certificates: [current.certificate], friendlyName: identity };
  return writePkcs12(
    {
      keys: o.legacy ? [alone] : pkcs12KeysOf(identity, keys),
      chain: chainOf(keys, o.roots),
      passphrase,
      protection: o.legacy ? "legacy" : "modern",
      random,
    },
    signal,
  );
}
