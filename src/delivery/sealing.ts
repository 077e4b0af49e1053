import type { Identity } from "../pki/identity.ts";
import { type TrustAnchor, validatePath } from "../pki/path.ts";
import { FailureBudget } from "../smime/failure.ts";
import { Keyring, type OwnKey } from "../smime/keyring.ts";
import { open } from "../smime/open.ts";
import type { Capabilities, Profile } from "../smime/profile.ts";
import { seal } from "../smime/seal.ts";
import { sealFile } from "../smime/seal-file.ts";
import type { Signer } from "../smime/signed-write.ts";
import { Threads } from "../smime/threads.ts";
import type { Opener, SealedFor, Sealer } from "./seals.ts";

/** The owner's setting: by what the recipient is known to read, or always by block chaining, or always with a tag. */
export type ContentEncryption = "auto" | "cbc" | "gcm";

/** What people's programs said of themselves in what they signed. */
export interface KnownCapabilities {
  capabilitiesOf(person: Identity): Capabilities | undefined;
  /** The newest word counts. */
  rememberCapabilities(person: Identity, capabilities: Capabilities, signedAt: Date): void;
}

/** Seals by S/MIME: mail as multipart/signed, which the recipient's programs can verify again, all else opaque. */
export function smimeSealer(o: {
  signer: () => Signer;
  clock: () => Date;
  contentEncryption?: ContentEncryption;
  known?: Pick<KnownCapabilities, "capabilitiesOf">;
  /** Seal large files. */
  threads?: Threads;
}): Sealer {
  const { contentEncryption = "auto", threads = new Threads() } = o;
  const how = ({ to, recipient, opens }: SealedFor) => {
    const capabilities = contentEncryption === "auto" ? o.known?.capabilitiesOf(to) : undefined;
    const isNode = contentEncryption === "gcm" || (contentEncryption === "auto" && opens.includes("gcm"));
    const profile: Profile = isNode ? "peer" : "foreign";
    return {
      ...{ signer: o.signer(), now: o.clock(), recipients: [recipient], profile },
      ...(capabilities === undefined ? {} : { capabilities }),
    };
  };
  return {
    stream: (entity, whom, signal) =>
      seal(entity, { ...how(whom), shape: whom.kind === "mail" ? "detached" : "opaque" }, signal),
    file: async (source, head, target, whom, signal) =>
      (await sealFile(source, target, { ...how(whom), before: head, mime: true, threads }, signal)).toString("hex"),
  };
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
  known?: Pick<KnownCapabilities, "rememberCapabilities">;
}): Opener {
  const budget = new FailureBudget(); // of a key and in memory; the inbox has the person's, which outlives a restart
  return async (sealed, { kind, expectedSigner, peer, directory, maxBytes }, signal) => {
    const opened = await open(
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
    const { capabilities, signedAt } = opened;
    if (capabilities !== undefined && signedAt !== undefined) {
      try {
        o.known?.rememberCapabilities(expectedSigner, capabilities, signedAt);
      } catch {
        // The disk is full: they come again with the next mail.
      }
    }
    return opened;
  };
}
