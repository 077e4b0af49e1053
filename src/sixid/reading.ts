import { peerCertificate } from "../pki/certificate.ts";
import { type Identity, identityDomain, parseIdentity } from "../pki/identity.ts";
import type { TrustAnchor } from "../pki/path.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerDevice, PeerRecord } from "./directory.ts";
import { aliasDigest, type LookupKey, type PersonAlias } from "./lookup-key.ts";
import { type Continuity, checkAddresses, checkContinuity, checkPresence, type Pin } from "./pins.ts";
import { type IdentityBody, MAX_IDENTITY_BYTES, type RecordReply } from "./records.ts";
import { type RecordSigner, readSigned, rejected } from "./signed.ts";
import {
  addressesOf,
  type VerifiedAddresses,
  type VerifiedIdentity,
  type VerifiedPresence,
  verifyAddresses,
  verifyIdentity,
  verifyPresence,
} from "./verify.ts";

/** A directory's answer whose objects are verified, each for itself; still to be held against what was told before. */
export interface ReadRecord {
  verified: VerifiedIdentity;
  devices: {
    device: PeerDevice;
    addresses: VerifiedAddresses | undefined;
    presence: VerifiedPresence | undefined;
    seen: number | undefined;
  }[];
  aliases: readonly PersonAlias[];
}

/** @throws SuiteError record-rejected */
export async function readRecord(
  identity: Identity,
  reply: RecordReply,
  o: { anchors: readonly TrustAnchor[]; now: Date },
): Promise<ReadRecord> {
  const { now } = o;
  const verified = await verifyIdentity(reply.identity, identity, o);
  const devices: ReadRecord["devices"] = [];
  for (const device of verified.devices) {
    const told = reply.devices[device.fingerprint];
    const { addresses, presence } = told ?? {};
    devices.push({
      device,
      addresses: addresses === undefined ? undefined : await unlessExpired(verifyAddresses(addresses, verified, now)),
      presence: presence === undefined ? undefined : await unlessExpired(verifyPresence(presence, verified, now)),
      seen: told?.seen,
    });
  }
  const aliases = (reply.aliases ?? []).map(([salt, kind, value]) => ({ salt, kind, value }));
  // Who owns them says so himself: the server cannot give somebody's mail to another.
  for (const alias of aliases) if (!verified.body.aliasDigests.includes(aliasDigest(alias))) throw rejected("alias");
  return { verified, devices, aliases };
}

/** @throws SuiteError record-rollback, record-fork, record-rejected */
export function continuityOf(pin: Pin | undefined, { verified, devices }: ReadRecord, proven: boolean): Continuity {
  const continuity = checkContinuity(pin, verified, proven);
  for (const { addresses, presence } of devices) {
    if (addresses !== undefined) checkAddresses(pin, verified.identity, addresses);
    if (presence !== undefined) checkPresence(pin, verified.identity, presence);
  }
  return continuity;
}

export function recordOf(
  { verified, devices, aliases }: ReadRecord,
  as: Pick<PeerRecord, "stale" | "trust">,
): PeerRecord {
  return {
    identity: verified.identity,
    uuid: verified.body.id,
    name: verified.body.name,
    aliases: aliases.map(({ kind, value }) => ({ kind, value })),
    devices: devices.map(({ device, addresses, presence, seen }) => ({
      ...device,
      addresses: addressesOf(addresses),
      ...(presence === undefined ? {} : { presence: presenceOf(presence) }),
      ...(seen === undefined ? {} : { seen: new Date(seen * 1000) }),
    })),
    encryption: verified.encryption,
    chain: verified.chain,
    capabilities: verified.body.capabilities,
    seq: verified.body.seq,
    ...as,
  };
}

/**
 * Whose record an answer to another key than an identity is, by its own words. The own server's word counts for its own
 * people, and another domain's for its own.
 * @throws SuiteError record-rejected
 */
export function claimed(reply: RecordReply, key: LookupKey, signer: RecordSigner): Identity {
  const { identity } = readSigned(reply.identity, "sixid-identity", MAX_IDENTITY_BYTES).body as { identity?: unknown };
  let whose: Identity;
  try {
    whose = parseIdentity(String(identity));
  } catch (cause) {
    throw rejected("identity", cause);
  }
  const own = peerCertificate(signer.certificate).identities.map((one) => identityDomain(one.identity));
  const asked = key.kind === "identity" || key.kind === "email" ? [identityDomain(key.value as Identity)] : [];
  if (![...own, ...asked].includes(identityDomain(whose))) throw rejected("domain asked for");
  return whose;
}

/** @throws SuiteError record-rejected unless the record is what the key asks for */
export function answers({ verified, aliases }: ReadRecord, key: LookupKey): void {
  const { body, identity } = verified as { body: IdentityBody; identity: Identity };
  const named = aliases.some(({ kind, value }) => kind === key.kind && value === key.value);
  const right =
    key.kind === "uuid"
      ? body.id === key.value
      : key.kind === "fingerprint"
        ? verified.devices.some(({ fingerprint }) => fingerprint === key.value)
        : named || (key.kind === "identity" && identity === key.value);
  if (!right) throw rejected(key.kind === "uuid" || key.kind === "fingerprint" ? key.kind : "alias");
}

function presenceOf({ body: { state, note } }: VerifiedPresence): NonNullable<PeerDevice["presence"]> {
  return { state, ...(note === undefined ? {} : { note }) };
}

/** What has expired is none; anything else that is wrong with it is the directory's lie. */
async function unlessExpired<T>(verifying: Promise<T>): Promise<T | undefined> {
  try {
    return await verifying;
  } catch (error) {
    if (error instanceof SuiteError && error.details["step"] === "expired") return undefined;
    throw error;
  }
}
