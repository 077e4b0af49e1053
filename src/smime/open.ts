import { type Certificate, type Fingerprint, type PeerCertificate, peerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import type { PathResult } from "../pki/path.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { addressesOf } from "./address.ts";
import { contentType } from "./algorithms.ts";
import { BerReader } from "./ber-read.ts";
import { ByteReader } from "./byte-reader.ts";
import type { EntityHead } from "./entity.ts";
import { decryptContent, type EnvelopeHead, enterContentInfo, isEnveloped, readEnvelopeHead } from "./envelope-read.ts";
import { type FailureBudget, malformed, unreadable, unsupported } from "./failure.ts";
import type { Keyring } from "./keyring.ts";
import { type PartContent, PartFile } from "./part-file.ts";
import type { Capabilities } from "./profile.ts";
import { keyOperation } from "./recipient-read.ts";
import { SealedInput, untilAborted } from "./sealed-input.ts";
import { readSignedEntity, type SignedEntity } from "./signed-entity.ts";
import { type VerifiedSignature, verifySignatures } from "./signed-verify.ts";

/** Judges a signer's certificate: pki's `validatePath` with the anchors of whoever opens. */
export type PathValidator = (request: {
  readonly leaf: Certificate;
  readonly candidates: readonly Certificate[];
  readonly time: Date;
  readonly purpose: "sign";
}) => PathResult;

export interface OpenOptions {
  readonly keys: Keyring;
  readonly validate: PathValidator;
  readonly clock: () => Date;
  /** Who must have signed. */
  readonly expectedSigner: Identity;
  /** Certificates known from elsewhere: signers and issuers that the seal may leave out. */
  readonly candidates: readonly PeerCertificate[];
  /** Our own identities, one of which the signed head must name. */
  readonly addressees: readonly Identity[];
  /** Whose failures are counted. */
  readonly peer: Fingerprint;
  /** `entity`: the decrypted entity untouched (mail); `body`: what was signed, without its head (files, messages). */
  readonly keep: "entity" | "body";
  /** Where content above 64 KiB waits to be verified. */
  readonly directory: string;
  readonly maxBytes: number;
  readonly budget: FailureBudget;
}

/** A seal that was opened, verified and found to be for us. Disposing it removes what was not moved. */
export interface Opened extends AsyncDisposable {
  readonly signer: PeerCertificate;
  readonly signedAt?: Date;
  /** What the signer's program reads, by its own word. */
  readonly capabilities?: Capabilities;
  /** Head of what was signed. `messageIdOf`, `protectedHeader`, `fileFacts` read it. */
  readonly head: EntityHead;
  /** The signed messageDigest, hex. */
  readonly digest: string;
  /** As `aes-256-gcm`. */
  readonly cipher: string;
  readonly content: PartContent;
  /** SHA-256 of `content`, 64 hex digits. */
  readonly contentSha256: string;
  /** Gives the content a name, durably. SuiteError "conflict" if the name is taken, "store-failed". */
  moveTo(path: string): Promise<void>;
}

/** A signer's clock may be this much ahead of ours. */
const maxAheadMs = 600_000;

/**
 * Opens a seal: binary CMS in, of at most `maxBytes`. In this order: what anybody can see is checked and its faults are
 * named ("seal-malformed", "seal-unsupported", "seal-not-for-us", "not-sealed"); the peer's budget ("seal-rate-limited");
 * one private-key operation; then decrypting, parsing and writing, the authentication tag and the signature, all of whose
 * faults are one, "seal-unreadable", told when the source has been read to its end; the signer's path ("seal-untrusted"),
 * who the signer is ("seal-wrong-signer"), to whom it is addressed ("seal-not-addressed"); these three are "seal-unreadable",
 * too, if the cipher has no tag. "seal-too-large", "store-failed", and what the source itself throws, at any time.
 */
export async function open(source: AsyncIterable<Uint8Array>, o: OpenOptions, signal?: AbortSignal): Promise<Opened> {
  const input = new SealedInput(source, o.maxBytes, signal);
  try {
    const { ber, head, contentKey } = await readPublicPart(input, o);
    o.budget.check(o.peer, o.clock());
    return await openWith(contentKey(), { ber, head, input }, o, signal);
  } catch (thrown) {
    throw input.failure === undefined ? thrown : input.failure.thrown;
  } finally {
    await input.close();
  }
}

interface Envelope {
  readonly ber: BerReader;
  readonly head: EnvelopeHead;
  readonly input: SealedInput;
}

async function readPublicPart(input: SealedInput, o: OpenOptions) {
  const ber = new BerReader(new ByteReader(input));
  try {
    const type = await enterContentInfo(ber);
    if (type === contentType.signedData) throw notSealed();
    if (!isEnveloped(type)) throw unsupported("content type");
    let found: ReturnType<typeof matchRecipient>;
    const head = await readEnvelopeHead(ber, type, (recipient) => {
      found ??= matchRecipient(recipient, o.keys);
    });
    if (head.cipher.legacy) throw unsupported("content encryption");
    if (found === undefined) throw notForUs();
    const { info, key, own } = found;
    return { ber, head, contentKey: keyOperation(info, key, own, head.cipher.keyBytes) };
  } catch (thrown) {
    if (thrown instanceof SuiteError && thrown.code !== "syntax") throw thrown;
    throw malformed("envelope", thrown);
  }
}

/** The key of ours that the recipient names, if any. */
export function matchRecipient(info: Parameters<typeof keyOperation>[0], keys: Keyring) {
  for (const key of info.recipients) {
    const own = keys.find(key.id);
    if (own !== undefined) return { info, key, own };
  }
  return undefined;
}

/** From here on a fault must not show what it was. */
async function openWith(
  contentKey: Buffer,
  envelope: Envelope,
  o: OpenOptions,
  signal: AbortSignal | undefined,
): Promise<Opened> {
  const part = new PartFile(o.directory, { hashed: true });
  try {
    const { entity, content } = await decryptToEnd(contentKey, envelope, part, o);
    const kept = () => new ByteReader(untilAborted(part.again(), signal)).rest();
    const signatures = await verifySignatures(
      entity.signed,
      o.candidates.map(({ certificate }) => certificate),
      // Only of what nobody has changed: the time that it takes would tell of octets that were, what they decrypt to.
      envelope.head.tagBytes > 0 ? entity.again(kept) : undefined,
    );
    const { signature, signer } = judgeSigner(signatures, entity, o);
    if (!addressesOf(entity.head, "To", "Cc", "Bcc").some((identity) => o.addressees.includes(identity))) {
      throw refused("seal-not-addressed", "what was signed is not addressed to us");
    }
    return {
      signer,
      ...(signature.signingTime === undefined ? {} : { signedAt: signature.signingTime }),
      ...(signature.capabilities === undefined ? {} : { capabilities: signature.capabilities }),
      head: entity.head,
      digest: Buffer.from(signature.messageDigest).toString("hex"),
      cipher: envelope.head.cipher.name,
      content,
      contentSha256: part.sha256,
      moveTo: (path) => part.moveTo(path),
      [Symbol.asyncDispose]: () => part[Symbol.asyncDispose](),
    };
  } catch (thrown) {
    const counts = countsAsFailure(thrown);
    if (counts) o.budget.count(o.peer, o.clock());
    await part[Symbol.asyncDispose]().catch(() => undefined); // the first failure is the one to tell
    // Without a tag anybody can change what stands beside the signed content, certificates say, and see what comes of it.
    throw counts && envelope.head.tagBytes === 0 ? unreadable(thrown) : thrown;
  }
}

/** Decrypts and writes; returns only if the envelope is authentic. A fault is told when the source has ended. */
async function decryptToEnd(
  contentKey: Buffer,
  { ber, head, input }: Envelope,
  part: PartFile,
  { keep, budget, peer, clock }: OpenOptions,
) {
  const plaintext = decryptContent(ber, head, contentKey);
  try {
    const entity = await readSignedEntity(plaintext, { what: keep, write: (piece) => part.write(piece) });
    // Whatever the reader needed: nothing counts before the generator has come to its end, and so has checked the tag.
    if (!(await plaintext.next()).done) throw malformed("trailing bytes");
    return { entity, content: await part.finish() };
  } catch (thrown) {
    if (input.failure !== undefined || (thrown instanceof SuiteError && thrown.code === "store-failed")) throw thrown;
    await discard(plaintext);
    await input.drain().catch((cut: unknown) => {
      budget.count(peer, clock()); // nobody asks for free, and hangs up before he is told
      throw cut;
    });
    throw unreadable(thrown);
  }
}

/** Decrypts to the end for nothing, so that the time tells nothing either. */
async function discard(plaintext: AsyncGenerator<Buffer>): Promise<void> {
  try {
    while (!(await plaintext.next()).done);
  } catch {
    // the fault that counts is known already
  }
}

/** Of several signers the expected one counts, else the first: path, then name. */
function judgeSigner(signatures: readonly VerifiedSignature[], entity: SignedEntity, o: OpenOptions) {
  const signers = signatures.map((signature) => ({ signature, signer: peerCertificate(signature.certificate) }));
  const isExpected = ({ signer }: { signer: PeerCertificate }) =>
    signer.identities.some(({ identity }) => identity === o.expectedSigner);
  const judged = signers.find(isExpected) ?? signers[0];
  if (judged === undefined) throw unreadable(malformed("no signature that holds"));
  const { signature } = judged;
  const time = o.clock();
  const path = o.validate({
    leaf: signature.certificate,
    candidates: [...entity.signed.certificates, ...o.candidates.map(({ certificate }) => certificate)],
    time,
    purpose: "sign",
  });
  if (!path.ok) throw refused("seal-untrusted", "the signer's certificate is not trusted", { reason: path.reason });
  if (!signedInTime(signature, time)) {
    throw refused("seal-untrusted", "signed outside the certificate's validity", { reason: "signing-time" });
  }
  if (!isExpected(judged)) throw refused("seal-wrong-signer", "signed by another than the peer");
  return judged;
}

function signedInTime({ certificate, signingTime }: VerifiedSignature, now: Date): boolean {
  if (signingTime === undefined) return true;
  const { notBefore, notAfter } = certificate.validity;
  return signingTime >= notBefore && signingTime <= notAfter && signingTime.getTime() <= now.getTime() + maxAheadMs;
}

/** Each could have been an attempt to learn about a key. */
function countsAsFailure(thrown: unknown): boolean {
  return (
    thrown instanceof SuiteError &&
    ["seal-unreadable", "seal-untrusted", "seal-wrong-signer", "seal-not-addressed"].includes(thrown.code)
  );
}

function refused(
  code: "seal-untrusted" | "seal-wrong-signer" | "seal-not-addressed",
  message: string,
  details: Readonly<Record<string, string>> = {},
): SuiteError {
  return new SuiteError(code, message, { fault: "peer", details });
}

export function notForUs(): SuiteError {
  return new SuiteError("seal-not-for-us", "no key of ours opens the seal", { fault: "peer" });
}

function notSealed(): SuiteError {
  return new SuiteError("not-sealed", "signed, but not encrypted", { fault: "peer" });
}
