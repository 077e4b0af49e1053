import type { PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { EntityHead } from "../smime/entity.ts";
import type { Kind } from "./envelope.ts";

/** Signs an entity with the owner's key and seals it to one certificate: CMS, DER. `sealing.ts` has the real one. */
export type Sealer = (
  entity: AsyncIterable<Uint8Array>,
  o: { kind: Kind; from: Identity; recipient: PeerCertificate },
  signal: AbortSignal,
) => AsyncIterable<Uint8Array>;

/** Opens what a Sealer made. Fails with a seal-* code; resolves only when tag, signature, signer and addressee hold. */
export type Opener = (
  sealed: AsyncIterable<Uint8Array>,
  o: {
    kind: Kind;
    /** Who has to have signed. */
    expectedSigner: Identity;
    /** Certificates that may verify the signature, besides those in the seal. */
    candidates: readonly PeerCertificate[];
    /** Where the opener writes what is larger than it keeps in memory. */
    directory: string;
    maxBytes: number;
  },
  signal: AbortSignal,
) => Promise<OpenedSeal>;

/** What a seal held, verified. Disposing removes the file of `content`, unless it was moved away. */
export interface OpenedSeal extends AsyncDisposable {
  signer: PeerCertificate;
  signedAt?: Date;
  /** The signed message digest, hex. */
  digest: string;
  cipher: string;
  /** The signed head. */
  head: EntityHead;
  /** A file's name as its sender gave it, made safe. */
  fileName?: string;
  /** Mail: the decrypted entity, untouched. Files and messages: the signed body. */
  content: { bytes: Uint8Array } | { path: string; size: number };
}
