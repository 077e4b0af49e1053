import type { Identity } from "../pki/identity.ts";
import { REQUEST_LIFE_SECONDS, type RequestBody } from "./records.ts";
import { type RecordSigner, sign } from "./signed.ts";

/** Makes the signed object by which somebody asks to be admitted. `text`: at most 500 characters, shown to the asked. */
export function makeRequest(o: {
  from: Identity;
  name: string;
  to: Identity;
  text: string;
  signer: RecordSigner;
  now: Date;
}): Promise<string> {
  const issued = Math.floor(o.now.getTime() / 1000);
  const body: RequestBody = {
    expires: issued + REQUEST_LIFE_SECONDS,
    from: o.from,
    issued,
    name: o.name.slice(0, 128),
    signer: o.signer.certificate.fingerprint,
    text: o.text.slice(0, 500),
    to: o.to,
    v: 1,
  };
  return sign("sixid-request", body, o.signer, "x5c");
}
