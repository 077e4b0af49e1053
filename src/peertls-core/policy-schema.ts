import { z } from "zod";
import { parseFingerprint } from "../pki/certificate.ts";
import { parseIdentity } from "../pki/identity.ts";

const protocols = z.array(z.enum(["sip", "smtp", "ftps"])).min(1);

/** Each one of these names whom an entry is about; exactly one is given. */
const selector = z
  .strictObject({
    identity: z
      .string()
      .refine((text) => parses(parseIdentity, text), { message: "not user@domain" })
      .optional(),
    fingerprint: z
      .string()
      .refine((text) => parses(parseFingerprint, text), { message: "not a SHA-256 fingerprint, 64 hex digits" })
      .optional(),
    issuer: z.string().optional(),
    organisation: z.string().optional(),
    domain: z.string().optional(),
  })
  .partial();

function oneOf(...names: (keyof z.infer<typeof selector>)[]) {
  return selector
    .extend({ protocols: protocols.optional() })
    .refine(
      (entry) =>
        Object.keys(entry).filter((key) => key !== "protocols").length === 1 &&
        names.some((name) => entry[name] !== undefined),
      { message: `exactly one of ${names.join(", ")} is needed` },
    );
}

const anchor = z.strictObject({
  name: z.string().min(1).describe("how rules and logs call this anchor"),
  file: z.string().describe("PEM file with a CA certificate, or one end-entity certificate, which is then pinned"),
  domains: z
    .array(z.string().min(1))
    .min(1)
    .describe("whose identities it may vouch for; .x = below x; `any` must be said"),
  organisations: z.array(z.string()).default([]).describe("organisation names it may vouch for"),
  identitiesFrom: z
    .array(z.enum(["rfc822Name", "smtpUtf8", "emailAddress", "uid", "sipUri"]))
    .min(1)
    .default(["rfc822Name", "smtpUtf8", "emailAddress", "uid", "sipUri"]),
  revocation: z
    .strictObject({
      mode: z
        .enum(["default", "hard", "soft"])
        .default("default")
        .describe("hard: only who is found good comes in; soft: a list that is too old keeps nobody out"),
      graceHours: z.number().min(0).max(720).default(24).describe("how long a list serves past its nextUpdate"),
      lists: z
        .array(z.url({ protocol: /^https?$/ }))
        .max(16)
        .default([])
        .describe("URLs of revocation lists for certificates that name none; they may be in a private network"),
    })
    .default({ mode: "default", graceHours: 24, lists: [] }),
});

/** The `trust:` part of sixtalk.yaml. */
export const trustSchema = z.strictObject({
  anchors: z.array(anchor).default([]),
  block: z.array(oneOf("identity", "fingerprint", "issuer", "domain")).default([]),
  allow: z.array(oneOf("identity", "fingerprint")).default([]),
  rules: z.array(oneOf("issuer", "organisation", "domain")).default([]),
  otherwise: z.enum(["deny", "contacts"]).default("contacts"),
  revocation: z
    .strictObject({
      privateTargets: z
        .boolean()
        .default(false)
        .describe("whether revocation lists may be fetched from private networks and this machine"),
    })
    .default({ privateTargets: false }),
  requests: z
    .strictObject({
      box: z.boolean().default(true).describe("whether strangers who ask in the own directory are heard"),
      port: z.boolean().default(true).describe("whether strangers may ask on the peer port"),
    })
    .default({ box: true, port: true }),
});

export type TrustConfig = z.infer<typeof trustSchema>;
export type TrustEntry = TrustConfig["block"][number];

function parses(parse: (text: string) => unknown, text: string): boolean {
  try {
    parse(text);
    return true;
  } catch {
    return false;
  }
}
