import { resolve } from "node:path";
import { z } from "zod";
import { isIdentity } from "../pki/identity.ts";

const host = z.string().min(2).describe("IP address, without brackets");
/** A secret is in a file of its own. */
export const secretFile = z.string().regex(/^file:./, { message: "a secret is a file, as file:/run/secrets/ca" });
const pemFile = z.string().min(1);

const externalCa = z.strictObject({
  url: z
    .string()
    .regex(/^https:\/\/[^/?#\s]+(\/[^?#\s]*)?$/, { message: "no address, as https://ca.example" })
    .describe("of the EST server; its name is what its certificate shows"),
  address: host.optional().describe("IP address of that server; absent: by DNS"),
  anchor: pemFile.describe("PEM file with that CA's root, relative to this file"),
  credentials: z
    .strictObject({ certificate: pemFile, key: pemFile })
    .optional()
    .describe("PEM files of this server's certificate at that CA, chain behind it, and its key"),
  login: secretFile.optional().describe("a file with user:password, where there is no certificate"),
  labels: z
    .strictObject({ auth: z.string().optional(), encryption: z.string().optional() })
    .optional()
    .describe("that CA's labels for certificates of devices and for those that are sealed to"),
});

/** The part of a domain's configuration that is about who issues, and how. */
export const caSchema = z.strictObject({
  passphrase: secretFile.optional().describe("of the issuing key; absent: beside the keys"),
  approval: z
    .enum(["none", "first", "always"])
    .default("none")
    .describe("which certificates a person approves: none, those of new devices, all"),
  registrars: z
    .array(z.string().refine(isIdentity, { message: "not user@domain" }))
    .optional()
    .describe("accounts whose certificate may ask for others by EST, named in the request: other servers"),
  est: externalCa.optional().describe("another CA issues instead of this one, by EST"),
});

export type CaConfig = z.infer<typeof caSchema>;

export function absoluteSecret(text: string, base: string): string {
  return `file:${resolve(base, text.slice("file:".length))}`;
}

/** File names in it made absolute. */
export function absoluteCa(ca: CaConfig, base: string): CaConfig {
  const secret = (text: string) => absoluteSecret(text, base);
  const { passphrase, est } = ca;
  return {
    ...ca,
    ...(passphrase === undefined ? {} : { passphrase: secret(passphrase) }),
    ...(est === undefined ? {} : { est: absoluteExternal(est, base, secret) }),
  };
}

function absoluteExternal(
  est: NonNullable<CaConfig["est"]>,
  base: string,
  secret: (text: string) => string,
): NonNullable<CaConfig["est"]> {
  const { credentials, login, anchor } = est;
  return {
    ...est,
    anchor: resolve(base, anchor),
    ...(credentials === undefined
      ? {}
      : { credentials: { certificate: resolve(base, credentials.certificate), key: resolve(base, credentials.key) } }),
    ...(login === undefined ? {} : { login: secret(login) }),
  };
}
