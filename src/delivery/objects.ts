import { Readable } from "node:stream";
import type { Identity } from "../pki/identity.ts";
import { SuiteError } from "../pki/suite-error.ts";
import type { PeerRecord } from "../sixid/directory.ts";
import { type EntityHead, headerField, serializeHead, splitEntity } from "../smime/entity.ts";
import { fileFacts } from "../smime/file-name.ts";
import {
  MANIFEST_TYPE,
  manifestBytes,
  objectName,
  PART_BYTES,
  PARTS_ABOVE,
  splitInParts,
  transferField,
} from "../smime/transfer.ts";
import type { ItemRow } from "./item-calls.ts";
import type { SealedCopies, SealedCopy } from "./sealed-copies.ts";
import { sealFile, spool } from "./sealed-file.ts";
import type { SealedFor, Sealer } from "./seals.ts";
import type { Sending } from "./sending-calls.ts";
import type { StoreInside } from "./store.ts";

/** Which files go in parts; tests have smaller ones. */
export interface PartSizes {
  /** Files with more bytes than this, which are at least `bytes`. */
  above: number;
  bytes: number;
}

export const PART_SIZES: PartSizes = { above: PARTS_ABOVE, bytes: PART_BYTES };

export interface ObjectOptions {
  inside: StoreInside;
  seal: Sealer;
  copies: SealedCopies;
  parts: PartSizes;
}

/** One object as it goes on the wire. */
export interface WireObject {
  name: string;
  copy: SealedCopy;
  digest?: string;
  /** Where its bytes stand in what is told of the progress: after `before`, at most `share` of them, of `total`. */
  before: number;
  share: number;
  total: number;
  /** Seals it anew: the copy that was kept may have been damaged. */
  remade(): Promise<WireObject>;
  /** The peer has it, durably. */
  acknowledged(): Promise<void>;
  /** The peer did not take it. */
  refused(error: SuiteError): Promise<void>;
}

/**
 * What is to be handed over for one row, each sealed when its turn has come to the certificate that the peer's record names
 * now. Of a large file: the parts that the peer has not acknowledged, in whatever attempt, and last the manifest.
 */
export async function* objectsOf(
  o: ObjectOptions,
  row: number,
  item: ItemRow,
  record: PeerRecord,
  signal: AbortSignal,
): AsyncGenerator<WireObject, void, undefined> {
  const { content, health, space } = o.inside;
  if (item.seal === "none") {
    const transfer = item.content.digest.slice(0, 32);
    const open = (offset?: number) => content.open(item.content, offset);
    const unsealed = () => Promise.resolve({ transfer, size: item.content.size, open });
    yield whole(await unsealed(), unsealed);
    return;
  }
  const how = sealedTo(item, record);
  const certificate = how.recipient.sha256;
  const path = item.kind === "file" ? content.pathOf(item.content) : undefined;
  if (path !== undefined && item.content.size > o.parts.above) {
    const { head, headBytes, body } = await splitEntity(content.open(item.content));
    await body.return(undefined);
    const size = item.content.size - headBytes.length;
    if (size > o.parts.above) {
      yield* inParts(o, { row, path, head, start: headBytes.length, size }, how, signal);
      return;
    }
  }
  const make = () =>
    o.copies.copyOf({ row, certificate }, async (target) => {
      if (path === undefined) return spool(o.seal.stream(content.open(item.content), how, signal), target, health);
      const all = { path, start: 0, end: item.content.size, head: new Uint8Array() };
      await sealFile({ ...all, target }, { seal: o.seal, how, health, space }, signal);
      return undefined;
    });
  yield whole(await make(), async () => {
    await o.copies.discard(row);
    return make();
  });
}

function sealedTo(item: ItemRow, record: PeerRecord): SealedFor {
  const [recipient] = record.encryption;
  if (recipient === undefined) {
    throw new SuiteError("recipient-unusable", "the peer's record has no certificate to seal to", {
      fault: "peer",
      temporary: true,
    });
  }
  const { identity: to, capabilities } = record;
  return { kind: item.kind, from: item.sender as Identity, to, recipient, opens: capabilities.cms };
}

function whole(copy: SealedCopy, remake: () => Promise<SealedCopy>): WireObject {
  const nothing = () => Promise.resolve();
  return {
    name: objectName(copy.transfer, "whole"),
    copy,
    before: 0,
    share: copy.size,
    total: copy.size,
    remade: async () => whole(await remake(), remake),
    acknowledged: nothing,
    refused: nothing,
  };
}

interface LargeFile {
  row: number;
  path: string;
  head: EntityHead;
  /** Where the file begins behind its head, and its bytes. */
  start: number;
  size: number;
}

async function* inParts(
  o: ObjectOptions,
  file: LargeFile,
  how: SealedFor,
  signal: AbortSignal,
): AsyncGenerator<WireObject, void, undefined> {
  const { database, health, space, cut } = o.inside;
  const { row, path, head, start, size: total } = file;
  const certificate = how.recipient.sha256;
  const sending = await begun(o, row, certificate);
  const { transfer, partBytes } = sending;
  const ranges = splitInParts(total, partBytes);
  const digests = new Map([...sending.parts].map(([part, { digest }]) => [part, digest]));
  for (const { part, offset, size } of ranges) {
    if (sending.parts.get(part)?.acknowledged === true) {
      await o.copies.discard(row, part); // if we died before that
      continue;
    }
    signal.throwIfAborted();
    const place = { transfer, part, of: ranges.length, offset, total };
    const partHead = serializeHead({ fields: [...head.fields, transferField(place)] });
    const stretch = { path, start: start + offset, end: start + offset + size, head: partHead };
    const make = () =>
      o.copies.copyOf({ row, certificate, of: { transfer, object: part } }, async (target) => {
        const digest = await sealFile({ ...stretch, target }, { seal: o.seal, how, health, space }, signal);
        await database.call("partSealed", { row, part, digest });
        digests.set(part, digest);
        return undefined;
      });
    const object = (copy: SealedCopy): WireObject => ({
      name: objectName(transfer, part),
      copy,
      digest: digestOf(digests, part),
      before: offset,
      share: size,
      total,
      async remade() {
        await o.copies.discard(row, part);
        return object(await make());
      },
      async acknowledged() {
        await database.call("partAcknowledged", { row, part });
        cut("outbox.part-acknowledged");
        await o.copies.discard(row, part);
      },
      refused: () => Promise.resolve(),
    });
    const copy = await make();
    // Also if it is sealed anew: the same part, with the same digest, may have been opened there.
    yield object(sending.parts.has(part) ? { ...copy, again: true } : copy);
  }
  const { name, mediaType, modified } = fileFacts(head);
  const manifest = manifestBytes({
    ...{ transfer, name, mediaType, size: total, partSize: partBytes },
    ...(modified === undefined ? {} : { modified }),
    parts: ranges.map(({ part, size }) => ({ size, digest: digestOf(digests, part) })),
  });
  const make = () =>
    o.copies.copyOf({ row, certificate, of: { transfer, object: "manifest" } }, (target) => {
      const entity = Readable.from([serializeHead(manifestHead(head)), manifest], { objectMode: false });
      return spool(o.seal.stream(entity, how, signal), target, health);
    });
  const object = (copy: SealedCopy): WireObject => ({
    name: objectName(transfer, "manifest"),
    copy,
    before: total,
    share: 0,
    total,
    async remade() {
      await o.copies.discard(row, "manifest");
      return object(await make());
    },
    acknowledged: () => Promise.resolve(),
    async refused(error) {
      // It misses parts that it had: its store was restored, or they waited there for too long.
      if (error.code === "conflict") await database.call("partsForgotten", row);
    },
  });
  yield object(await make());
}

/** The transfer that is under way, if it is for this certificate; else a new one. */
async function begun(o: ObjectOptions, row: number, certificate: string): Promise<Sending> {
  const { database, random } = o.inside;
  const earlier = await database.call("sending", row);
  if (earlier?.certificate === certificate) return earlier;
  await o.copies.discard(row);
  const fresh = { certificate, transfer: random(16).toString("hex"), partBytes: o.parts.bytes };
  await database.call("beginSending", { row, ...fresh });
  return { ...fresh, parts: new Map() };
}

function digestOf(digests: ReadonlyMap<number, string>, part: number): string {
  const digest = digests.get(part);
  if (digest === undefined) throw new SuiteError("internal", "a part has no digest", { fault: "local" });
  return digest;
}

/** Who, to whom and when as in the parts; the file itself is described inside. */
function manifestHead({ fields }: EntityHead): EntityHead {
  const kept = fields.filter(({ name }) => !/^content-(?:type|disposition)$/i.test(name));
  return { fields: [...kept, headerField("Content-Type", MANIFEST_TYPE)] };
}
