import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import type { PeerAddress } from "../peertls-core/connection.ts";
import type { Credentials } from "../peertls-core/credentials.ts";
import type { Expected } from "../peertls-core/door.ts";
import { makePeerTls } from "../peertls-core/peertls.ts";
import type { PolicyAnchor } from "../peertls-core/policy.ts";
import { Trust } from "../peertls-core/trust.ts";
import { parseCertificate } from "../pki/certificate.ts";
import { type Identity, identityDomain } from "../pki/identity.ts";
import { silentLog } from "../pki/log.ts";
import { issueAuth, issueRoot } from "../pki/profile.ts";
import { SuiteError } from "../pki/suite-error.ts";

/**
 * Knocks at a peer port with a certificate that names `claimed` but comes from a CA made up on the spot.
 * @returns the TLS alert by which the peer refused; undefined if it let the impostor in
 */
export async function knockAs(
  claimed: Identity,
  o: { expected: Expected; at: PeerAddress; anchor: PolicyAnchor },
): Promise<number | undefined> {
  const peerTls = await makePeerTls({
    credentials: madeUp(claimed),
    trust: new Trust({
      anchors: [o.anchor],
      block: [],
      allow: [],
      rules: [],
      otherwise: "contacts",
      contacts: [o.expected.identity],
      requestsOnPort: false,
    }),
    clock: () => new Date(),
    random: randomBytes,
    log: silentLog,
    onDenied: () => undefined,
  });
  try {
    const route = { kind: "direct" as const, address: o.at };
    const connection = await peerTls.dial(o.expected, "sip", [route], AbortSignal.timeout(10_000));
    await connection.confirmed;
    return undefined;
  } catch (error) {
    if (error instanceof SuiteError && error.code === "refused-by-peer") return Number(error.details["alert"]);
    throw error;
  } finally {
    await peerTls.close();
  }
}

function madeUp(claimed: Identity): Credentials {
  const now = new Date();
  const rootKey = newKey();
  const domain = identityDomain(claimed);
  const root = parseCertificate(issueRoot({ domain, privateKey: rootKey, now, serial: randomBytes(16) }));
  const privateKey = newKey();
  const spki = createPublicKey(privateKey).export({ type: "spki", format: "der" });
  const issuer = { certificate: root, privateKey: rootKey };
  const der = issueAuth({ issuer, spki, identity: claimed, name: claimed, now, serial: randomBytes(16) });
  return { privateKey, certificate: parseCertificate(der), chain: [root] };
}

function newKey(): KeyObject {
  return generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
}
