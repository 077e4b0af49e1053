import { createHash } from "node:crypto";
import type { Approach } from "../../src/peertls-core/verdict.ts";
import type { Fingerprint, PeerCertificate } from "../../src/pki/certificate.ts";
import type { PathFailure } from "../../src/pki/path.ts";

/** Who comes, in the words of a table. Absent: Alice of alpha.test, by anchor `alpha`, for messages. */
export interface Who {
  identities?: readonly string[];
  source?: PeerCertificate["identities"][number]["source"];
  organisation?: string;
  anchor?: string;
  failure?: PathFailure;
  protocol?: Approach["protocol"];
  expected?: { identity: string; fingerprints: readonly Fingerprint[] };
}

export function fp(name: string): Fingerprint {
  return createHash("sha256").update(name).digest("hex") as Fingerprint;
}

/** An approach as the gate would make it; the certificates are names with keys, for the policy looks at nothing else. */
export function approach(who: Who): Approach {
  const { identities = ["alice@alpha.test"], source = "rfc822Name", anchor = "alpha", protocol = "sip" } = who;
  const key = (name: string) => ({ fingerprint: fp(name) });
  const certificate = {
    certificate: key("leaf"),
    fingerprint: fp("leaf"),
    identities: identities.map((identity) => ({ identity, source })),
    ...(who.organisation === undefined ? {} : { organisation: who.organisation }),
  };
  const path =
    who.failure === undefined
      ? { ok: true, path: [key("leaf"), key("ca")], anchor: { name: anchor, certificate: key(anchor) } }
      : { ok: false, reason: who.failure, at: 0 };
  return {
    direction: who.expected === undefined ? "in" : "out",
    protocol,
    certificate,
    path,
    revocation: { status: "unchecked" },
    address: { host: "::1", port: 1 },
    time: new Date(0),
    resumed: false,
    ...(who.expected === undefined ? {} : { expected: who.expected }),
  } as unknown as Approach;
}
