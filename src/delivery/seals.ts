import type { FileHandle } from "node:fs/promises";
import type { PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { Opened } from "../smime/open.ts";
import type { FileRange } from "../smime/seal-file.ts";
import type { Kind } from "./envelope.ts";

/** For whom, and what kind of thing. */
export interface SealedFor {
  kind: Kind;
  from: Identity;
  to: Identity;
  recipient: PeerCertificate;
  /** What the recipient's record says that his node opens. */
  opens: readonly string[];
}

/** Signs with the owner's key and seals to one certificate: CMS, DER or BER. `sealing.ts` has the real one. */
export interface Sealer {
  /** An entity, as it comes. */
  stream(entity: AsyncIterable<Uint8Array>, o: SealedFor, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /**
   * `head` and a stretch of a file, into a file that is empty, not synchronised.
   * @returns the messageDigest that was signed, hex
   */
  file(source: FileRange, head: Uint8Array, target: FileHandle, o: SealedFor, signal: AbortSignal): Promise<string>;
}

/** Opens what a Sealer made. Fails with a seal-* code; resolves only when tag, signature, signer and addressee hold. */
export type Opener = (
  sealed: AsyncIterable<Uint8Array>,
  o: {
    kind: Kind;
    /** Who has to have signed. */
    expectedSigner: Identity;
    /** Who brought it, by the certificate that the gate admitted. */
    peer: PeerCertificate;
    /** Where the opener writes what is larger than it keeps in memory. */
    directory: string;
    maxBytes: number;
  },
  signal: AbortSignal,
) => Promise<Opened>;
