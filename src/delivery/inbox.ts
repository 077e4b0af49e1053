import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Fingerprint, PeerCertificate } from "../pki/certificate.ts";
import type { Identity } from "../pki/identity.ts";
import { asSuiteError, SuiteError } from "../pki/suite-error.ts";
import { contentTypeOf, type EntityHead, fieldOf, messageIdOf } from "../smime/entity.ts";
import { malformed } from "../smime/failure.ts";
import { fileFacts } from "../smime/file-name.ts";
import type { Opened } from "../smime/open.ts";
import { MANIFEST_TYPE, MAX_MANIFEST_BYTES, parseManifest, placeOf } from "../smime/transfer.ts";
import type { ContentWriter } from "./content.ts";
import type { ItemId, Kind } from "./envelope.ts";
import type { FreeSpace } from "./free-space.ts";
import { type ArrivedItem, type PeerQuota, type PeerUsage, quotaExceeded } from "./inbox-calls.ts";
import type { WrittenContent } from "./item-calls.ts";
import { PeerQuotas, quotaOf } from "./peer-quotas.ts";
import type { Opener } from "./seals.ts";
import type { Store } from "./store.ts";

/** A thing that a peer hands in. */
export interface Arrival {
  kind: Kind;
  /** As the gate found it; whatever the thing itself says about its sender has to agree. */
  peer: { identity: Identity; fingerprint: Fingerprint; certificate: PeerCertificate };
  /** Which of the identities hosted here it is for. */
  to?: readonly Identity[];
}

/** What a seal held, for whoever decides how it is shown. */
export interface OpenedFacts {
  signer: PeerCertificate;
  signedAt?: Date;
  digest: string;
  cipher: string;
  /** The signed head. */
  head: EntityHead;
  /** Of a file: its name, safe to use. */
  fileName?: string;
  size: number;
  /** The content itself, if it is small (64 KiB). */
  bytes?: Uint8Array;
}

export interface SealedArrival extends Arrival {
  /** CMS, DER. */
  source: AsyncIterable<Uint8Array>;
  /** Most sealed bytes, and most opened bytes. */
  maxBytes: number;
  /** Without angle brackets; else the signed head's Message-ID, else the digest. */
  messageId?: string;
  /** Names the sealed object, so that its sender can ask whether it was opened. */
  object?: string;
  /** A file that has the bytes of `source`, whole once that has ended: it may be taken over. */
  file?: string;
  /** What stood before the sealed bytes and how they came, so that the original can be shown as it came. */
  original?: { head: string; encoding: "base64" | "binary" };
  /** Header lines, each with its CRLF, put before the opened entity (mail). May refuse the thing by throwing. */
  present?(facts: OpenedFacts): string;
  /** What lists show; else the signed Subject or the file's name. */
  title?(facts: OpenedFacts): string;
}

export interface PlainArrival extends Arrival {
  messageId: string;
  bytes: Buffer;
  title: string;
}

export interface Stored {
  /** Nothing of a part of a file, which is kept until its manifest comes. */
  id: ItemId | undefined;
  /** It was stored before; `id` is the first one's. The peer gets the same yes. */
  duplicate: boolean;
  /** The signed message digest; of an unsealed thing the SHA-256 of its bytes. Hex. */
  digest: string;
}

/** Takes what peers bring. Whatever resolves is durable: only then may the peer be told yes. */
export interface Inbox {
  /** @throws SuiteError a seal-* code; quota-exceeded, seal-rate-limited, store-failed (temporary); what `source` throws */
  receiveSealed(arrival: SealedArrival, signal: AbortSignal): Promise<Stored>;
  /** @throws SuiteError quota-exceeded, store-failed (temporary) */
  receivePlain(arrival: PlainArrival, signal: AbortSignal): Promise<Stored>;
}

export interface InboxOptions {
  store: Store;
  open: Opener;
  quota?: Partial<PeerQuota>;
}

/** Seals of a peer a day that a private key was used on in vain; then its things are refused unread (delivery.md §4). */
const UNREADABLE_A_DAY = 20;

/** Failures that are known only after a private key was used. */
const AFTER_KEY: readonly string[] = ["seal-unreadable", "seal-wrong-signer", "seal-untrusted", "seal-not-addressed"];

export function makeInbox(o: InboxOptions): Inbox {
  const { database, content, transfers, space, time, random, health, cut, log } = o.store.inside;
  const now = () => time.now().getTime();
  const quotas = new PeerQuotas({ database, now, ...(o.quota === undefined ? {} : { quota: o.quota }) });
  const { quota } = quotas;
  /** Seals of each peer that are being opened: the budget counts them too, once one failed. */
  const opening = new Map<Identity, number>();

  /** What the peer may still bring today. */
  const admit = async (arrival: Arrival, bytes: number): Promise<PeerUsage & { left: number }> => {
    health.check();
    await space.check(bytes);
    return quotas.left(arrival.peer.identity, arrival.kind).catch(async (error: unknown) => {
      throw await told(asSuiteError(error), arrival);
    });
  };

  /** Notes what the owner should hear of a refusal, and gives it back to be thrown. */
  const told = async (error: SuiteError, { kind, peer }: Arrival): Promise<SuiteError> => {
    const { identity, fingerprint } = peer;
    if (error.code === "quota-exceeded" || isRefusedSeal(error))
      log.warn({ peer: identity, fingerprint, kind, code: error.code }, "what a peer brought was refused");
    const noting =
      error.code === "quota-exceeded"
        ? database.call("noteQuotaReached", { at: now(), peer: identity, what: quotaOf(error) })
        : isRefusedSeal(error)
          ? database.call("noteSealRefused", {
              at: now(),
              peer: identity,
              fingerprint,
              kind,
              code: error.code,
              unreadable: AFTER_KEY.includes(error.code),
            })
          : undefined;
    await noting?.catch((failure: unknown) =>
      log.error({ error: asSuiteError(failure) }, "a refusal could not be noted"),
    );
    return error;
  };

  const storeArrived = async (
    item: Omit<ArrivedItem, "entropy" | "at" | "quota">,
  ): Promise<{ id: ItemId; duplicate: boolean }> => {
    const stored = await database.call("storeArrived", { ...item, entropy: random(16), at: now(), quota });
    cut("inbox.committed");
    if (stored.duplicate && item.original !== undefined) await content.discard(item.original); // each sealing has its own bytes
    return stored;
  };

  /** Opens, verifies, stores. The original is kept while it streams: nothing is read twice. */
  const takeSealed = async (
    arrival: SealedArrival,
    writer: ContentWriter,
    left: number,
    signal: AbortSignal,
  ): Promise<Stored> => {
    const { peer, kind } = arrival;
    using coming = quotas.coming(peer.identity, kind, writer);
    const tee = teed(arrival, writer, () => left - coming.bytes, space);
    let opened: Opened | undefined;
    try {
      opened = await o.open(
        { [Symbol.asyncIterator]: () => ({ next: () => tee.next() }) }, // no return(): who stops early does not end the tee
        {
          kind,
          expectedSigner: peer.identity,
          peer: peer.certificate,
          directory: content.temporary,
          maxBytes: arrival.maxBytes,
        },
        signal,
      );
      for await (const _ of tee); // the original is whole, also if the opener saw the end before its source did
      if (!opened.signer.identities.some(({ identity }) => identity === peer.identity)) {
        throw new SuiteError("seal-wrong-signer", "the seal was signed by somebody else", { fault: "peer" });
      }
      cut("inbox.opened");
      const facts = factsOf(opened, kind);
      const head = arrival.present?.(facts) ?? "";
      const messageId = arrival.messageId ?? messageIdOf(opened.head) ?? opened.digest;
      const key = seenKey(peer.identity, messageId, opened.digest);
      const earlier = await database.call("seen", key);
      if (earlier !== undefined) {
        await writer.abort();
        return { id: earlier, duplicate: true, digest: opened.digest };
      }
      const inParts = kind === "file" ? await takeInParts(arrival, opened, { key, messageId }, writer) : undefined;
      if (inParts !== undefined) return inParts;
      const stored = await storeOpened(arrival, opened, { key, messageId, facts, head }, writer);
      return { ...stored, digest: opened.digest };
    } catch (error) {
      await writer.abort();
      throw error;
    } finally {
      await tee.return(undefined);
      await opened?.[Symbol.asyncDispose]();
    }
  };

  /** What came is put in place as it came and opened, then into the database. */
  const storeOpened = (
    arrival: SealedArrival,
    opened: Opened,
    o: { key: Uint8Array; messageId: string; facts: OpenedFacts; head: string },
    writer: ContentWriter,
  ): Promise<{ id: ItemId; duplicate: boolean }> => {
    const { peer, kind, to, title } = arrival;
    const { key, messageId, facts, head } = o;
    const room = { peer: peer.identity, kind, bytes: writer.size + facts.size };
    return quotas.keptFor(room, async () => {
      const { head: before, encoding } = arrival.original ?? { head: "", encoding: "binary" };
      const original = { ...(await writer.finish()), head: before, encoding };
      const body = await kept(opened);
      cut("inbox.content-synced");
      return storeArrived({
        ...{ key, kind, messageId, original, head, content: body, fileName: facts.fileName },
        title: title?.(facts) ?? facts.fileName ?? fieldOf(opened.head, "Subject")?.value ?? "",
        ...{ sender: peer.identity, recipients: to ?? [], peerFingerprint: peer.fingerprint, seal: sealOf(opened) },
      });
    });
  };

  /** A part of a large file, or the manifest that comes behind the last one; nothing if the file came whole. */
  const takeInParts = async (
    arrival: SealedArrival,
    opened: Opened,
    { key, messageId }: { key: Uint8Array; messageId: string },
    writer: ContentWriter,
  ): Promise<Stored | undefined> => {
    const { kind, peer, to, maxBytes } = arrival;
    const { digest } = opened;
    const place = placeOf(opened.head);
    if (place !== undefined) {
      cut("inbox.part-opened");
      await writer.abort(); // the parts' seals are not kept; the manifest's is, and names what each of them signed
      await transfers.takePart({ peer: peer.identity, place, opened, quota, maxBytes });
      cut("inbox.part-recorded");
      return { id: undefined, duplicate: false, digest };
    }
    if (contentTypeOf(opened.head).value !== MANIFEST_TYPE) return undefined;
    const manifest = parseManifest(await manifestOf(opened));
    const { name } = manifest;
    const storeFile = async (id: number, body: WrittenContent) => {
      const original = { ...(await writer.finish()), head: "", encoding: "binary" as const };
      cut("inbox.content-synced");
      const item: ArrivedItem = {
        ...{ key, kind, messageId, original, quota, title: name, fileName: name, content: body, head: "" },
        ...{ entropy: random(16), at: now(), sender: peer.identity, recipients: to ?? [] },
        ...{ peerFingerprint: peer.fingerprint, seal: sealOf(opened) },
      };
      // Under another certificate of ours the same file has another manifest.
      const fileKey = seenKey(peer.identity, messageId, `file ${body.digest}`);
      const committed = await database.call("finishTransfer", { id, item, fileKey });
      cut("inbox.manifest-committed");
      if (committed.duplicate) await content.discard(original);
      return committed;
    };
    // Its bytes were counted when it was begun.
    const stored = await quotas.keptFor({ peer: peer.identity, kind, bytes: 0 }, () =>
      transfers.takeManifest({ peer: peer.identity, manifest, opened }, storeFile),
    );
    await writer.abort(); // of one that was stored before
    return { ...stored, digest };
  };

  const kept = async (opened: Opened): Promise<WrittenContent> => {
    if ("path" in opened.content) {
      const { size } = opened.content;
      return content.adopt({ digest: opened.contentSha256, size }, (path) => opened.moveTo(path));
    }
    const writer = content.writer();
    await writer.write(opened.content.bytes);
    return writer.finish();
  };

  const takeAdmitted = async (arrival: SealedArrival, left: number, signal: AbortSignal): Promise<Stored> => {
    const writer = content.writer(arrival.file);
    const stored = await takeSealed(arrival, writer, left, signal);
    const { object: name, peer } = arrival;
    const { digest } = stored;
    // What is asked again for lack of this line is sent again, and dropped.
    if (name !== undefined) {
      await database.call("noteOpened", { peer: peer.identity, name, size: writer.size, digest, at: now() });
      cut("inbox.object-noted");
    }
    return stored;
  };

  return {
    async receiveSealed(arrival, signal) {
      const { identity } = arrival.peer;
      // Counted before the account is read: who fails in between stands in one of both.
      const others = opening.get(identity) ?? 0;
      opening.set(identity, others + 1);
      try {
        const { unreadable, left } = await admit(arrival, 0);
        // Those under way could all fail: with a first failure each of them counts as one, or many at once would buy more.
        if (unreadable + (unreadable > 0 ? others : 0) >= UNREADABLE_A_DAY) throw rateLimited();
        return await takeAdmitted(arrival, left, signal).catch(async (error: unknown) => {
          throw await told(asSuiteError(error), arrival);
        });
      } finally {
        const rest = (opening.get(identity) ?? 1) - 1;
        if (rest > 0) opening.set(identity, rest);
        else opening.delete(identity);
      }
    },
    async receivePlain(arrival, signal) {
      const { peer, kind, bytes, messageId, title } = arrival;
      await admit(arrival, bytes.length);
      signal.throwIfAborted();
      const writer = content.writer();
      await writer.write(bytes);
      const body = await writer.finish();
      cut("inbox.content-synced");
      try {
        const stored = await storeArrived({
          key: seenKey(peer.identity, messageId, body.digest),
          kind,
          sender: peer.identity,
          recipients: arrival.to ?? [],
          messageId,
          title,
          fileName: undefined,
          content: body,
          head: "",
          original: undefined,
          peerFingerprint: peer.fingerprint,
          seal: undefined,
        });
        return { ...stored, digest: body.digest };
      } catch (error) {
        throw await told(asSuiteError(error), arrival);
      }
    },
  };
}

/** Passes the sealed bytes on to the opener and keeps them on the way. */
async function* teed(
  arrival: SealedArrival,
  writer: ContentWriter,
  left: () => number,
  space: FreeSpace,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const chunk of arrival.source) {
    if (writer.size + chunk.length > arrival.maxBytes) {
      throw new SuiteError("seal-too-large", "the sealed thing is too large", {
        fault: "peer",
        details: { maxBytes: arrival.maxBytes },
      });
    }
    if (chunk.length > left())
      throw quotaExceeded(arrival.peer.identity, arrival.kind === "file" ? "file-bytes" : "bytes");
    await space.check(chunk.length); // nobody says before how much there will be
    await writer.write(chunk);
    yield chunk;
  }
}

/** SHA-256(signer ‖ 0 ‖ messageId ‖ 0 ‖ digest): what makes two arrivals the same thing. */
function seenKey(signer: Identity, messageId: string, digest: string): Uint8Array {
  return createHash("sha256").update(`${signer}\0${messageId}\0${digest}`).digest();
}

function sealOf({ signer, signedAt, digest, cipher }: Opened): ArrivedItem["seal"] {
  return { signer: signer.fingerprint, signedAt: signedAt?.getTime(), digest, cipher };
}

async function manifestOf({ content }: Opened): Promise<Buffer> {
  if ("bytes" in content) return content.bytes;
  if (content.size > MAX_MANIFEST_BYTES) throw malformed("manifest too long");
  return readFile(content.path);
}

function factsOf(opened: Opened, kind: Kind): OpenedFacts {
  const { signer, signedAt, digest, cipher, head, content } = opened;
  return {
    signer,
    digest,
    cipher,
    head,
    ...(signedAt === undefined ? {} : { signedAt }),
    ...(kind === "file" ? { fileName: fileFacts(head).name } : {}),
    ...("bytes" in content ? { size: content.bytes.length, bytes: content.bytes } : { size: content.size }),
  };
}

function rateLimited(): SuiteError {
  return new SuiteError("seal-rate-limited", "too many unreadable seals from this peer today", {
    fault: "peer",
    temporary: true,
  });
}

function isRefusedSeal(error: SuiteError): boolean {
  return error.fault === "peer" && error.code.startsWith("seal-") && error.code !== "seal-rate-limited";
}
