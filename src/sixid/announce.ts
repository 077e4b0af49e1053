import type { Certificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { DeviceAddress } from "./directory.ts";
import { aliasDigest, type PersonAlias } from "./lookup-key.ts";
import { ADDRESSES_LIFE_SECONDS, type AddressesBody, type IdentityBody, type PresenceBody } from "./records.ts";
import { type RecordSigner, sign } from "./signed.ts";

export interface OwnIdentity {
  identity: Identity;
  uuid: string;
  name: string;
  devices: readonly { certificate: Certificate; label: string }[];
  /** Newest first. */
  encryption: readonly Certificate[];
  chain: readonly Certificate[];
  /** What he wants to be found by, too. */
  aliases?: readonly PersonAlias[];
}

/** Signs the durable part of the own record; `previous` is the one it follows. Lives as long as the signer's certificate. */
export function makeIdentity(
  own: OwnIdentity,
  previous: { seq: number; hash: string } | undefined,
  signer: RecordSigner,
  now: Date,
): Promise<string> {
  const base64 = (certificate: Certificate) => Buffer.from(certificate.der).toString("base64");
  const body: IdentityBody = {
    aliasDigests: (own.aliases ?? []).map(aliasDigest).sort(),
    capabilities: { cms: ["gcm"] },
    chain: own.chain.map(base64),
    devices: own.devices.map(({ certificate, label }) => ({
      cert: base64(certificate),
      id: certificate.fingerprint,
      label,
    })),
    encryption: own.encryption.map(base64),
    expires: Math.floor(signer.certificate.validity.notAfter.getTime() / 1000),
    fallback: [],
    id: own.uuid,
    identity: own.identity,
    issued: Math.floor(now.getTime() / 1000),
    name: own.name,
    prev: previous?.hash ?? "",
    seq: (previous?.seq ?? 0) + 1,
    signer: signer.certificate.fingerprint,
    v: 1,
  };
  return sign("sixid-identity", body, signer, "x5c");
}

/** Signs where this device is. `seq` has to rise: the caller takes max(last + 1, now in milliseconds). */
export function makeAddresses(
  uuid: string,
  addresses: readonly DeviceAddress[],
  seq: number,
  signer: RecordSigner,
  now: Date,
): Promise<string> {
  const issued = Math.floor(now.getTime() / 1000);
  const body: AddressesBody = {
    addresses: addresses.map(({ host, port, kind, priority }) => ({
      alpn: ["sip/2", "smtp", "ftp"],
      host,
      kind,
      port,
      priority,
    })),
    device: signer.certificate.fingerprint,
    expires: issued + ADDRESSES_LIFE_SECONDS,
    id: uuid,
    issued,
    seq,
    v: 1,
  };
  return sign("sixid-addresses", body, signer, "kid");
}

/** Signs how this device's owner is; `seq` as for addresses, but of its own. */
export function makePresence(
  uuid: string,
  { state, note }: Pick<PresenceBody, "state" | "note">,
  seq: number,
  signer: RecordSigner,
  now: Date,
): Promise<string> {
  const issued = Math.floor(now.getTime() / 1000);
  const body: PresenceBody = {
    device: signer.certificate.fingerprint,
    expires: issued + ADDRESSES_LIFE_SECONDS,
    id: uuid,
    issued,
    ...(note === undefined ? {} : { note }),
    seq,
    state,
    v: 1,
  };
  return sign("sixid-presence", body, signer, "kid");
}
