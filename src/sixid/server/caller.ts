import type { ServiceCaller } from "../../peertls-core/service.ts";
import type { Fingerprint } from "../../pki/certificate.ts";
import { type Identity, identityDomain } from "../../pki/identity.ts";
import type { Accounts } from "./accounts.ts";

/** Who asks. `sca`: by certificate in the handshake; `upa`: by a token that a password gave. */
export type Caller =
  | {
      kind: "anonymous";
      /** The address that he comes from. */
      from?: string;
    }
  | { kind: "person"; identity: Identity; by: "sca"; fingerprint: Fingerprint }
  | { kind: "person"; identity: Identity; by: "upa" }
  | { kind: "domain"; domain: string };

/** A client anchor of the directory is named after the one domain that it may vouch for. */
export function callerOfCertificate(service: ServiceCaller): Caller {
  const { certificate, anchor } = service;
  if (certificate === undefined || anchor === undefined) return { kind: "anonymous" };
  const person = certificate.identities.find((one) => identityDomain(one.identity) === anchor);
  if (person !== undefined)
    return { kind: "person", identity: person.identity, by: "sca", fingerprint: certificate.fingerprint };
  const server = certificate.certificate.subjectAltNames.some(
    (name) => name.type === "dNSName" && name.text.toLowerCase() === anchor,
  );
  return server ? { kind: "domain", domain: anchor } : { kind: "anonymous" };
}

/** `Authorization: Bearer TOKEN` of a session; a certificate goes before it. */
export async function callerOfToken(
  authorization: string | undefined,
  accounts: Accounts,
  identityOf: (uuid: string) => Promise<Identity | undefined>,
): Promise<Caller> {
  const token = /^Bearer ([A-Za-z0-9_-]{43})$/.exec(authorization ?? "")?.[1];
  const uuid = token === undefined ? undefined : await accounts.session(token);
  const identity = uuid === undefined ? undefined : await identityOf(uuid);
  return identity === undefined ? { kind: "anonymous" } : { kind: "person", identity, by: "upa" };
}
