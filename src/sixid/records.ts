import { z } from "zod";

/** Bodies of the signed objects (sixid.md §2.3). Times are Unix seconds, certificates base64 DER, `fp` 64 hex digits. */

const seconds = z.number().int().min(0).max(253_402_300_799); // the end of the year 9999: what a Date can hold
const fingerprint = z.string().regex(/^[0-9a-f]{64}$/);
const der = z
  .string()
  .regex(/^[A-Za-z0-9+/]+={0,2}$/)
  .max(45_000);
const uuid = z.string().regex(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);
const identity = z.string().min(3).max(254);
const host = z.string().min(2).max(45);
const port = z.number().int().min(1).max(65_535);
export const MAX_DEVICES = 16;
/** CA certificates in an identity object. */
export const MAX_AUTHORITIES = 8;
const MAX_ALIASES = 32;
const aliasTold = z.tuple([z.string().regex(/^[A-Za-z0-9_-]{22}$/), z.enum(["email", "phone"]), z.string().max(254)]);
/** Requests that wait for one person. */
export const MAX_BOXED = 100;
/** Keys in one question. */
export const MAX_KEYS = 100;
/** Objects in one piece of a chain: those that are kept, and hashes. */
export const MAX_CHAIN = 16;
export const MAX_CONTACTS = 1_000;
/** People in one watch. */
export const MAX_WATCHED = 500;

/** Typ `sixid-identity`: the durable part, signed by a listed device. At most 64 KiB. */
export const identityBody = z.strictObject({
  aliasDigests: z.array(fingerprint).max(MAX_ALIASES),
  capabilities: z.strictObject({ cms: z.array(z.enum(["gcm", "cbc"])).max(4) }),
  chain: z.array(der).max(MAX_AUTHORITIES),
  devices: z
    .array(z.strictObject({ cert: der, id: fingerprint, label: z.string().max(64) }))
    .min(1)
    .max(MAX_DEVICES),
  encryption: z.array(der).max(8),
  expires: seconds,
  fallback: z.array(z.strictObject({ host, kind: z.enum(["relay", "store"]), port })).max(16),
  id: uuid,
  identity,
  issued: seconds,
  name: z.string().max(128),
  /** Hash of the predecessor; empty for the first. */
  prev: z.union([fingerprint, z.literal("")]),
  seq: z.number().int().min(1),
  signer: fingerprint,
  v: z.literal(1),
});
export type IdentityBody = z.infer<typeof identityBody>;

/** Typ `sixid-addresses`: where one device is now, signed by that device. At most 4 KiB, lives at most 2 h. */
export const addressesBody = z.strictObject({
  addresses: z
    .array(
      z.strictObject({
        alpn: z.array(z.string().max(32)).max(8),
        host,
        kind: z.literal("direct"),
        port,
        priority: z.number().int().min(0).max(65_535),
      }),
    )
    .max(16),
  device: fingerprint,
  expires: seconds,
  id: uuid,
  issued: seconds,
  seq: z.number().int().min(1),
  v: z.literal(1),
});
export type AddressesBody = z.infer<typeof addressesBody>;

/** Typ `sixid-presence`: how its owner is, signed by that device. At most 1 KiB, lives at most 2 h. */
export const presenceBody = z.strictObject({
  device: fingerprint,
  expires: seconds,
  id: uuid,
  issued: seconds,
  note: z.string().max(140).optional(),
  seq: z.number().int().min(1),
  state: z.enum(["online", "away", "busy", "offline"]),
  v: z.literal(1),
});
export type PresenceBody = z.infer<typeof presenceBody>;

/** Typ `sixid-request`: somebody asks somebody to be admitted. At most 8 KiB. */
export const requestBody = z.strictObject({
  expires: seconds,
  from: identity,
  issued: seconds,
  name: z.string().max(128),
  signer: fingerprint,
  text: z.string().max(500),
  to: identity,
  v: z.literal(1),
});
export type RequestBody = z.infer<typeof requestBody>;

/** Typ `sixid-domain`: what a domain says of itself, signed by its server's key. At most 64 KiB, lives at most 7 days. */
export const domainBody = z.strictObject({
  /** Roots, to which the paths of the domain's people lead. */
  anchors: z.array(der).min(1).max(8),
  /** CAs below them. */
  cas: z.array(der).max(8),
  crl: z.array(z.string().max(2_048)).max(8),
  domain: z.string().max(253),
  expires: seconds,
  federation: z.enum(["open", "listed", "closed"]),
  issued: seconds,
  ocsp: z.array(z.string().max(2_048)).max(8),
  signer: fingerprint,
  v: z.literal(1),
});
export type DomainBody = z.infer<typeof domainBody>;

/** What the directory answers to a look-up: signed strings, put together. It is kept with the pin, so it is bounded. */
export const recordReply = z.object({
  identity: z.string().max(100_000),
  devices: z
    .record(
      fingerprint,
      z.object({
        addresses: z.string().max(8_192).optional(),
        presence: z.string().max(2_048).optional(),
        seen: seconds.optional(),
      }),
    )
    .refine((devices) => Object.keys(devices).length <= MAX_DEVICES, { message: "too many devices" }),
  /** Those that the caller is told: salt, kind, value. */
  aliases: z.array(aliasTold).max(MAX_ALIASES).optional(),
  maxAge: z.number().int().min(0).max(86_400),
  /** Whether others who prove who they are are told the same. */
  visibleTo: z.enum(["authenticated", "caller"]).optional(),
});
export type RecordReply = z.infer<typeof recordReply>;

/** A domain that a directory knows, with its anchors. `at`: where its server is, if that was configured. */
export const knownDomainReply = z.object({
  domain: z.string().max(253),
  anchors: z.array(der).max(16),
  at: z.object({ host, port }).optional(),
});
export type KnownDomainReply = z.infer<typeof knownDomainReply>;

/** Of a problem document: devices that the refused identity object lists although they were revoked. */
export const refusedDevices = z.object({ revoked: z.array(fingerprint).max(MAX_DEVICES) });

export const domainsReply = z.object({ domains: z.array(knownDomainReply).max(10_000) });
export type DomainsReply = z.infer<typeof domainsReply>;

/** What a watcher knows: of each person the sequence of his identity object (0: nothing), of his devices' addresses and presence. */
export const watchBody = z.strictObject({
  know: z
    .record(
      identity,
      z.strictObject({
        identity: z.number().int().min(0),
        devices: z.record(fingerprint, z.number().int().min(0)),
        presence: z.record(fingerprint, z.number().int().min(0)).optional(),
      }),
    )
    .refine((know) => Object.keys(know).length <= MAX_WATCHED, { message: "too many" }),
});
export type WatchBody = z.infer<typeof watchBody>;

/** An event of the watch: a look-up's answer, and whose. */
export const watchedReply = recordReply.extend({ of: identity });
export type WatchedReply = z.infer<typeof watchedReply>;

/** Several look-ups at once; what there is nothing of has no record. `code`: why it could not be looked up now. */
export const recordsReply = z.object({
  records: z
    .array(z.object({ key: z.string().max(300), record: recordReply.optional(), code: z.string().max(64).optional() }))
    .max(MAX_KEYS),
});
export type RecordsReply = z.infer<typeof recordsReply>;

/** A person's objects in order, from the one asked for on; of those long past the hashes alone. */
export const chainReply = z.object({
  chain: z
    .array(z.object({ seq: z.number().int().min(1), hash: fingerprint, jws: z.string().max(100_000).optional() }))
    .max(MAX_CHAIN),
});
export type ChainReply = z.infer<typeof chainReply>;

export const aliasesBody = z.strictObject({ aliases: z.array(aliasTold).max(MAX_ALIASES) });
export type AliasesBody = z.infer<typeof aliasesBody>;

export const visibilityBody = z.strictObject({
  certificates: z.enum(["public", "authenticated"]),
  addresses: z.enum(["public", "authenticated", "contacts"]),
  presence: z.enum(["authenticated", "contacts"]),
});

export const contactsBody = z.strictObject({ contacts: z.array(identity).max(MAX_CONTACTS) });

/** Identity objects of the caller's that wait for somebody's consent. */
export const rootsReply = z.object({
  roots: z.array(z.object({ id: fingerprint, signer: fingerprint, jws: z.string().max(2 * 65_536), until: seconds })),
});
export type RootsReply = z.infer<typeof rootsReply>;

/** What a domain says of itself, as its server signed it. */
export const domainReply = z.object({ domain: z.string().max(2 * 65_536) });
export type DomainReply = z.infer<typeof domainReply>;

/** What lies in somebody's request box, as its askers signed it; the oldest first. */
export const boxReply = z.object({
  requests: z.array(z.object({ id: fingerprint, jws: z.string().max(2 * 8_192) })).max(MAX_BOXED),
});
export type BoxReply = z.infer<typeof boxReply>;

export const MAX_IDENTITY_BYTES = 65_536;
export const MAX_ADDRESSES_BYTES = 4_096;
export const MAX_PRESENCE_BYTES = 1_024;
export const MAX_REQUEST_BYTES = 8_192;
export const MAX_DOMAIN_BYTES = 65_536;
export const DOMAIN_LIFE_SECONDS = 7 * 86_400;
export const REQUEST_LIFE_SECONDS = 30 * 86_400;
/** Of addresses and presence. */
export const ADDRESSES_LIFE_SECONDS = 7_200;
/** How far ahead of ours a signer's clock may be. */
export const CLOCK_SKEW_SECONDS = 300;
