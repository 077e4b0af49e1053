import type { Identity } from "../pki/identity.ts";
import { type TrustAnchor, validatePath } from "../pki/path.ts";
import { FailureBudget } from "../smime/failure.ts";
import { Keyring, type OwnKey } from "../smime/keyring.ts";
import { open } from "../smime/open.ts";
import { seal } from "../smime/seal.ts";
import type { Signer } from "../smime/signed-write.ts";
import type { Opener, Sealer } from "./seals.ts";

/** Seals by S/MIME: mail as multipart/signed, which the recipient's programs can verify again, all else opaque. */
export function smimeSealer(o: { signer: () => Signer; clock: () => Date }): Sealer {
  return (entity, { kind, recipient }, signal) =>
    seal(
      entity,
      {
        signer: o.signer(),
        now: o.clock(),
        recipients: [recipient],
        profile: "peer",
        shape: kind === "mail" ? "detached" : "opaque",
      },
      signal,
    );
}

/**
 * Opens S/MIME seals with every key that the owner ever had.
 * @param o.anchorsFor where the path of that person's certificate may end
 * @param o.addressees the owner's identities, one of which the signed head has to name
 */
export function smimeOpener(o: {
  keys: () => readonly OwnKey[];
  anchorsFor: (signer: Identity) => readonly TrustAnchor[];
  addressees: readonly Identity[];
  clock: () => Date;
}): Opener {
  const budget = new FailureBudget(); // of a key and in memory; the inbox has the person's, which outlives a restart
  return (sealed, { kind, expectedSigner, peer, directory, maxBytes }, signal) =>
    open(
      sealed,
      {
        keys: new Keyring(o.keys()),
        validate: (question) => validatePath({ ...question, anchors: o.anchorsFor(expectedSigner) }),
        clock: o.clock,
        expectedSigner,
        candidates: [peer],
        addressees: o.addressees,
        peer: peer.fingerprint,
        keep: kind === "mail" ? "entity" : "body",
        directory,
        maxBytes,
        budget,
      },
      signal,
    );
}
