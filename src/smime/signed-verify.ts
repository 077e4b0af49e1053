import {
  type AlgorithmIdentifier,
  type SignatureVerifier,
  signatureVerifier,
  verifySignature,
} from "../pki/algorithm.ts";
import type { Certificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import { contentType, jointSignatureAlgorithm, type SignatureDigest } from "./algorithms.ts";
import { meantCertificate, readSignedAttributes } from "./attributes.ts";
import { names } from "./keyring.ts";
import type { Capabilities } from "./profile.ts";
import { type ContentDigests, ContentHasher, type SignedData, type SignerInfo } from "./signed-read.ts";

/** Certificates of one name that are tried for a signer. */
const maxTries = 4;
/** Of all signers, those that are tried over content that is read again for them: each of them hashes all of it. */
const maxTriesOverLarge = 4;

/** A signature that holds. Who the certificate is, and whether it is to be believed, is not judged. */
export interface VerifiedSignature {
  readonly certificate: Certificate;
  readonly messageDigest: Uint8Array;
  readonly signingTime?: Date;
  readonly capabilities?: Capabilities;
}

/** Gives the signed content once more, the same octets; what goes wrong with that is thrown. */
export type ContentAgain = (consume: (content: AsyncIterable<Buffer>) => Promise<void>) => Promise<void>;

/**
 * The signatures that hold over the content.
 * @param candidates certificates known from elsewhere
 * @param again for signatures without signed attributes over more than 1 MiB, which are known for such when the content has passed;
 *   without it they do not hold
 */
export async function verifySignatures(
  signed: SignedData,
  candidates: readonly Certificate[],
  again?: ContentAgain,
): Promise<VerifiedSignature[]> {
  const known = [...signed.certificates, ...candidates];
  const claims = signed.signers.flatMap((signer) => claimOf(signer, signed.content, known) ?? []);
  const overLarge = again === undefined ? [] : await thoseOverLarge(claims, signed.content, again);
  return claims.flatMap((claim) => {
    const { over } = claim;
    const certificate =
      over === undefined
        ? overLarge.find((one) => one.claim === claim)?.certificate
        : claim.tried.find((one) => signatureHolds(claim, one, over));
    return certificate === undefined ? [] : [verified(claim, certificate)];
  });
}

/** What a SignerInfo says, as far as it fits the content. */
interface Claim {
  readonly signer: SignerInfo;
  readonly digest: SignatureDigest;
  readonly messageDigest: Buffer;
  readonly algorithm: AlgorithmIdentifier;
  /** What the signature is over; undefined: the content, which is too large to be kept. */
  readonly over: Uint8Array | undefined;
  /** Certificates that it may be by. */
  readonly tried: readonly Certificate[];
}

function claimOf(signer: SignerInfo, content: ContentDigests, known: readonly Certificate[]): Claim | undefined {
  const { attributes, digest } = signer;
  const messageDigest = digest === undefined ? undefined : content.digests.get(digest);
  if (digest === undefined || messageDigest === undefined) return undefined;
  if (attributes !== undefined) {
    if (attributes.contentType !== contentType.data) return undefined;
    if (Buffer.compare(attributes.messageDigest, messageDigest) !== 0) return undefined;
  } else if (areSignedAttributes(content)) return undefined;
  const algorithm = jointSignatureAlgorithm(signer.algorithm, digest);
  if (algorithm === undefined) return undefined;
  const tried = known
    .filter((candidate) => names(signer.id, candidate))
    .filter((candidate) => attributes === undefined || meantCertificate(attributes, candidate))
    .slice(0, maxTries);
  return { signer, digest, messageDigest, algorithm, over: signer.signed ?? content.small, tried };
}

function verified({ signer, messageDigest }: Claim, certificate: Certificate): VerifiedSignature {
  const { signingTime, capabilities } = signer.attributes ?? {};
  return {
    certificate,
    messageDigest,
    ...(signingTime === undefined ? {} : { signingTime }),
    ...(capabilities === undefined ? {} : { capabilities }),
  };
}

/**
 * Whoever has somebody's signature over signed attributes could show those as content that is signed without any: their
 * octets are the same.
 */
function areSignedAttributes({ small, begin, size }: ContentDigests): boolean {
  if (begin[0] !== der.tag.set) return false;
  if (small === undefined) return beginsLikeAttributes(begin, size);
  try {
    readSignedAttributes(der.readDer(small).content);
    return true;
  } catch {
    return false;
  }
}

/** SET as long as all of the content, and in it SEQUENCE, OBJECT IDENTIFIER. Nobody is known who signs so large a one. */
function beginsLikeAttributes(begin: Buffer, size: number): boolean {
  const lengthOctets = (begin[1] ?? 0) - 0x80;
  if (lengthOctets < 1 || lengthOctets > 6) return false;
  const head = 2 + lengthOctets;
  if (head + begin.readUIntBE(2, lengthOctets) !== size || begin[head] !== der.tag.sequence) return false;
  const length = begin[head + 1] ?? 0;
  return begin[head + 2 + (length > 0x80 ? length - 0x80 : 0)] === der.tag.oid;
}

interface Try {
  readonly claim: Claim;
  readonly certificate: Certificate;
  readonly verifier: SignatureVerifier;
}

/** Reads the content once more for all of them. */
async function thoseOverLarge(claims: readonly Claim[], first: ContentDigests, again: ContentAgain): Promise<Try[]> {
  const tries = claims
    .filter(({ over }) => over === undefined)
    .flatMap((claim) =>
      claim.tried.flatMap((certificate) => {
        const verifier = verifierFor(claim, certificate);
        return verifier === undefined ? [] : [{ claim, certificate, verifier }];
      }),
    )
    .slice(0, maxTriesOverLarge);
  if (tries.length === 0) return [];
  const hasher = new ContentHasher([...new Set(tries.map(({ claim }) => claim.digest))]);
  await again(async (content) => {
    for await (const piece of hasher.through(content)) for (const { verifier } of tries) verifier.update(piece);
  });
  const { digests } = hasher.digests();
  const same = [...digests].every(([digest, value]) => first.digests.get(digest)?.equals(value) === true);
  return same ? tries.filter(({ claim, verifier }) => verifier.verify(claim.signer.signature)) : [];
}

function verifierFor({ algorithm }: Claim, certificate: Certificate): SignatureVerifier | undefined {
  try {
    return signatureVerifier(algorithm, certificate.publicKey);
  } catch {
    return undefined; // a key that cannot be loaded
  }
}

function signatureHolds({ algorithm, signer }: Claim, certificate: Certificate, over: Uint8Array): boolean {
  try {
    return verifySignature(algorithm, certificate.publicKey, over, signer.signature);
  } catch {
    return false; // a key that cannot be loaded
  }
}
