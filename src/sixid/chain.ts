import { SuiteError } from "../pki/suite-error.ts";
import type { Pin } from "./pins.ts";
import { type ChainReply, type IdentityBody, identityBody, MAX_IDENTITY_BYTES } from "./records.ts";
import { checkSignature, leafOf, readSigned } from "./signed.ts";
import type { VerifiedIdentity } from "./verify.ts";

/** Objects that may have come since a record was last seen; of more than the directory keeps nothing can be shown. */
export const MAX_GAP = 32;

/**
 * Whether what came between a pin and the record that is told now leads from one to the other: each object signed by a
 * device that the one before listed. Then no key was replaced behind the owner's back, however many were.
 * @param between the objects after the pin's and before the record's
 */
export async function leadsTo(pin: Pin, record: VerifiedIdentity, between: ChainReply["chain"]): Promise<boolean> {
  let last = { seq: pin.seq, hash: pin.hash, devices: pin.devices as readonly string[] };
  try {
    for (const { jws } of between) {
      if (jws === undefined) return false;
      const signed = readSigned(jws, "sixid-identity", MAX_IDENTITY_BYTES);
      const leaf = leafOf(signed);
      await checkSignature(signed, leaf);
      const body = identityBody.parse(signed.body);
      if (body.signer !== leaf.fingerprint || body.id !== pin.uuid || !follows(body, last)) return false;
      last = { seq: body.seq, hash: signed.hash, devices: body.devices.map(({ id }) => id) };
    }
  } catch (error) {
    if (error instanceof SuiteError || (error as { name?: unknown }).name === "ZodError") return false;
    throw error;
  }
  return follows(record.body, last);
}

function follows(
  { seq, prev, signer }: IdentityBody,
  last: { seq: number; hash: string; devices: readonly string[] },
): boolean {
  return seq === last.seq + 1 && prev === last.hash && last.devices.includes(signer);
}
