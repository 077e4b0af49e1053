import { type Certificate, type PeerCertificate, parseCertificate, peerCertificate } from "../pki/certificate.ts";
import { type Identity, parseIdentity } from "../pki/identity.ts";
import { type TrustAnchor, validatePath } from "../pki/path.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerDevice } from "./directory.ts";
import {
  ADDRESSES_LIFE_SECONDS,
  type AddressesBody,
  addressesBody,
  CLOCK_SKEW_SECONDS,
  type IdentityBody,
  identityBody,
  MAX_ADDRESSES_BYTES,
  MAX_IDENTITY_BYTES,
  MAX_PRESENCE_BYTES,
  MAX_REQUEST_BYTES,
  type PresenceBody,
  presenceBody,
  REQUEST_LIFE_SECONDS,
  type RequestBody,
  requestBody,
} from "./records.ts";
import { checkSignature, leafOf, readSigned, rejected, type Unverified } from "./signed.ts";

export interface VerifiedIdentity {
  jws: string;
  hash: string;
  body: IdentityBody;
  identity: Identity;
  /** Devices whose certificate is good; a bad one is dropped, not the record. Without addresses. */
  devices: readonly PeerDevice[];
  /** Newest first, those that can seal now. */
  encryption: readonly PeerCertificate[];
  chain: readonly Certificate[];
}

export interface VerifyOptions {
  /** Anchors accepted for the identity's domain, and for no other. */
  anchors: readonly TrustAnchor[];
  now: Date;
}

/**
 * Verifies the durable part of a record; every step fails closed.
 * @param asked whose record was asked for
 * @throws SuiteError record-rejected with the failed `step`
 */
export async function verifyIdentity(jws: string, asked: Identity, o: VerifyOptions): Promise<VerifiedIdentity> {
  const signed = readSigned(jws, "sixid-identity", MAX_IDENTITY_BYTES);
  const leaf = leafOf(signed);
  await checkSignature(signed, leaf);
  const body = shape<IdentityBody>(identityBody, signed);
  const chain = body.chain.map((one) => certificate(one, "chain"));
  if (body.signer !== leaf.fingerprint) throw rejected("signer");
  if (!body.devices.some((device) => device.id === leaf.fingerprint)) throw rejected("signer listed");
  if (!names(leaf, [...signed.x5c.slice(1), ...chain], asked, "sign", o)) throw rejected("signer path");
  if (body.identity !== asked) throw rejected("identity asked for", undefined, { asked });
  lifetime(body, o.now);

  const devices: PeerDevice[] = [];
  for (const device of body.devices) {
    const parsed = tolerant(device.cert);
    if (parsed === undefined || parsed.fingerprint !== device.id || !names(parsed, chain, asked, "peer", o)) continue;
    devices.push({
      fingerprint: parsed.fingerprint,
      label: device.label,
      certificate: peerCertificate(parsed),
      addresses: [],
    });
  }
  const encryption = body.encryption
    .map(tolerant)
    .filter((one): one is Certificate => one !== undefined && names(one, chain, asked, "seal", o))
    .map(peerCertificate);
  return { jws, hash: signed.hash, body, identity: asked, devices, encryption, chain };
}

export interface VerifiedAddresses {
  jws: string;
  body: AddressesBody;
}

export interface VerifiedPresence {
  jws: string;
  body: PresenceBody;
}

/** Verifies where a device is: signed by the very key of that device, which the record lists. @throws SuiteError record-rejected */
export async function verifyAddresses(jws: string, record: VerifiedIdentity, now: Date): Promise<VerifiedAddresses> {
  const signed = readSigned(jws, "sixid-addresses", MAX_ADDRESSES_BYTES);
  return { jws, body: await ofDevice<AddressesBody>(signed, addressesBody, record, now) };
}

/** Verifies how a device's owner is, as `verifyAddresses`. */
export async function verifyPresence(jws: string, record: VerifiedIdentity, now: Date): Promise<VerifiedPresence> {
  const signed = readSigned(jws, "sixid-presence", MAX_PRESENCE_BYTES);
  return { jws, body: await ofDevice<PresenceBody>(signed, presenceBody, record, now) };
}

async function ofDevice<T extends AddressesBody | PresenceBody>(
  signed: Unverified,
  schema: Parameters<typeof shape>[0],
  record: VerifiedIdentity,
  now: Date,
): Promise<T> {
  const device = record.devices.find((one) => one.fingerprint === signed.kid);
  if (device === undefined) throw rejected("device listed");
  await checkSignature(signed, device.certificate.certificate);
  const body = shape<T>(schema, signed);
  if (body.device !== device.fingerprint) throw rejected("device");
  if (body.id !== record.body.id) throw rejected("uuid");
  if (body.expires - body.issued > ADDRESSES_LIFE_SECONDS) throw rejected("lifetime");
  lifetime(body, now);
  return body;
}

export interface VerifiedRequest {
  jws: string;
  body: RequestBody;
  from: Identity;
  certificate: PeerCertificate;
  /** What the asker sent along, for another judge of the path. */
  chain: readonly Certificate[];
  /** SHA-256 of the payload. */
  hash: string;
}

/** Who asks whom by the request's own words, of which nothing is verified yet. @throws SuiteError record-rejected */
export function requestClaims(jws: string): { from: Identity; to: Identity } {
  const { from, to } = shape<RequestBody>(requestBody, readSigned(jws, "sixid-request", MAX_REQUEST_BYTES));
  return { from: person(from), to: person(to) };
}

/** Verifies a request to be admitted. Whoever takes it from a connection also checks that the signer is at its other end. @throws SuiteError record-rejected */
export async function verifyRequest(jws: string, to: Identity, o: VerifyOptions): Promise<VerifiedRequest> {
  const signed = readSigned(jws, "sixid-request", MAX_REQUEST_BYTES);
  const leaf = leafOf(signed);
  await checkSignature(signed, leaf);
  const body = shape<RequestBody>(requestBody, signed);
  const from = person(body.from);
  if (body.signer !== leaf.fingerprint) throw rejected("signer");
  if (!names(leaf, signed.x5c.slice(1), from, "sign", o)) throw rejected("signer path");
  if (body.to !== to) throw rejected("addressee");
  if (body.expires - body.issued > REQUEST_LIFE_SECONDS) throw rejected("lifetime");
  lifetime(body, o.now);
  return { jws, body, from, certificate: peerCertificate(leaf), chain: signed.x5c.slice(1), hash: signed.hash };
}

/** Whether a certificate is good for a purpose, by an anchor of the person's domain, and names the person. */
function names(
  leaf: Certificate,
  candidates: readonly Certificate[],
  who: Identity,
  purpose: "sign" | "peer" | "seal",
  o: VerifyOptions,
): boolean {
  const path = validatePath({ leaf, candidates, anchors: o.anchors, time: o.now, purpose });
  return path.ok && peerCertificate(leaf).identities.some((one) => one.identity === who);
}

function shape<T>(
  schema: { safeParse(value: unknown): { success: boolean; data?: unknown; error?: unknown } },
  signed: Unverified,
): T {
  const result = schema.safeParse(signed.body);
  if (!result.success) throw rejected("schema", result.error);
  return result.data as T;
}

function lifetime(body: { issued: number; expires: number }, now: Date): void {
  const seconds = now.getTime() / 1000;
  if (body.issued > seconds + CLOCK_SKEW_SECONDS) throw rejected("issued in the future");
  if (body.expires <= seconds) throw rejected("expired");
}

function person(text: string): Identity {
  try {
    return parseIdentity(text);
  } catch (cause) {
    throw rejected("identity", cause);
  }
}

function certificate(base64: string, step: string): Certificate {
  const parsed = tolerant(base64);
  if (parsed === undefined) throw rejected(step);
  return parsed;
}

function tolerant(base64: string): Certificate | undefined {
  try {
    return parseCertificate(Buffer.from(base64, "base64"));
  } catch (error) {
    if (error instanceof SuiteError) return undefined;
    throw error;
  }
}

/** Addresses as a device's signed object tells them, for the dial. */
export function addressesOf(verified: VerifiedAddresses | undefined): PeerDevice["addresses"] {
  return (verified?.body.addresses ?? [])
    .map(({ host, port, kind, priority }) => ({ host, port, kind, priority }))
    .sort((a, b) => a.priority - b.priority);
}
