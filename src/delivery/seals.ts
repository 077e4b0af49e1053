import type { PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { Opened } from "../smime/open.ts";
import type { Kind } from "./envelope.ts";

/** Signs an entity with the owner's key and seals it to one certificate: CMS, DER. `sealing.ts` has the real one. */
export type Sealer = (
  entity: AsyncIterable<Uint8Array>,
  o: {
    kind: Kind;
    from: Identity;
    to: Identity;
    recipient: PeerCertificate;
    /** What the recipient's record says that his node opens. */
    opens: readonly string[];
    /** Told the messageDigest, hex, of what is signed opaque (a file), when all of it has been read. */
    onSigned?: (digest: string) => void;
  },
  signal: AbortSignal,
) => AsyncIterable<Uint8Array>;

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
