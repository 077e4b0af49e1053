import { hostname } from "node:os";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { OwnIdentity } from "../sixid/announce.ts";
import { type IdentityBody, MAX_AUTHORITIES } from "../sixid/records.ts";
import type { OwnKeys } from "./keys.ts";

const MAX_ENCRYPTION = 4;

/** What this device is called in the own record. */
export function deviceLabel(): string {
  return hostname().slice(0, 64);
}

/** The own record as the key files have it: of the encryption certificates those that are still good, newest first. */
export function ownRecord(identity: Identity, name: string, label: string, keys: OwnKeys, now: Date): OwnIdentity {
  const encryption = keys.encryption.map((one) => one.certificate).filter((one) => one.validity.notAfter > now);
  return {
    identity,
    uuid: keys.uuid,
    name,
    devices: [{ certificate: keys.auth.certificate, label }],
    encryption: encryption.slice(0, MAX_ENCRYPTION),
    chain: keys.auth.chain,
  };
}

/**
 * The own record beside the same person's other devices: what stands of them in the current object is carried over as it is, and
 * the CA certificates behind them, too. A signer whom the current object does not list carries nobody over: what it says replaces
 * all, and the directory asks for consent.
 * @param signer fingerprint of the device that signs
 * @param without devices that are to be left out
 */
export function besideOthers(
  own: OwnIdentity,
  { signer, without = [] }: { signer: string; without?: readonly string[] },
  current: IdentityBody,
): OwnIdentity {
  if (!current.devices.some(({ id }) => id === signer)) return own;
  const left = new Map(own.devices.map((device) => [device.certificate.fingerprint as string, device]));
  const devices = current.devices.flatMap(({ id, cert, label }) => {
    const ours = left.get(id);
    left.delete(id);
    if (ours !== undefined) return [ours];
    return without.includes(id) ? [] : [{ certificate: parse(cert), label }];
  });
  const known = new Set(own.chain.map(({ sha256 }) => sha256));
  const behind = current.chain.map(parse).filter(({ sha256 }) => !known.has(sha256));
  const alone = devices.every((device) => own.devices.includes(device));
  return {
    ...own,
    devices: [...devices, ...left.values()],
    chain: [...own.chain, ...(alone ? [] : behind)].slice(0, MAX_AUTHORITIES),
  };
}

function parse(base64: string): Certificate {
  return parseCertificate(Buffer.from(base64, "base64"));
}
