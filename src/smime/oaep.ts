import { constants, hash, type KeyObject, privateDecrypt, timingSafeEqual } from "node:crypto";
import type { Digest } from "../pki/algorithm.ts";
import type { OaepParameters } from "./algorithms.ts";

/**
 * RSAES-OAEP-DECRYPT (RFC 8017 §7.1.2). Node has one hash for the label and for MGF1; where a message names two, the
 * decoding is done here, in time that does not depend on what was decrypted. Throws if the padding is wrong.
 */
export function decryptOaep(privateKey: KeyObject, encrypted: Uint8Array, parameters: OaepParameters): Buffer {
  const { digest, maskDigest, label } = parameters;
  if (digest === maskDigest) {
    const padding = constants.RSA_PKCS1_OAEP_PADDING;
    const labelled = label.length > 0 ? { oaepLabel: label } : {};
    return privateDecrypt({ key: privateKey, padding, oaepHash: digest, ...labelled }, encrypted);
  }
  const encoded = privateDecrypt({ key: privateKey, padding: constants.RSA_NO_PADDING }, encrypted);
  return decodeOaep(encoded, parameters);
}

/** EME-OAEP decoding, step 3. */
export function decodeOaep(encoded: Uint8Array, { digest, maskDigest, label }: OaepParameters): Buffer {
  const labelHash = hash(digest, label, "buffer");
  const size = labelHash.length;
  if (encoded.length < 2 * size + 2) throw new Error("OAEP: too short");
  const maskedSeed = encoded.subarray(1, 1 + size);
  const maskedBlock = encoded.subarray(1 + size);
  const seed = xor(maskedSeed, mgf1(maskedBlock, size, maskDigest));
  const block = xor(maskedBlock, mgf1(seed, maskedBlock.length, maskDigest));
  let bad = Number(encoded[0] !== 0) | Number(!timingSafeEqual(block.subarray(0, size), labelHash));
  // The first octet that is not 0 has to be 1; every octet is looked at.
  let start = 0;
  let found = 0;
  for (let at = size; at < block.length; at += 1) {
    const octet = block[at] ?? 0;
    const isZero = Number(octet === 0);
    const isOne = Number(octet === 1);
    bad |= (1 - found) & (1 - isZero) & (1 - isOne);
    start += (1 - found) * isOne * (at + 1);
    found |= 1 - isZero;
  }
  if (bad | (1 - found)) throw new Error("OAEP: wrong padding");
  return Buffer.from(block.subarray(start));
}

function mgf1(seed: Uint8Array, length: number, digest: Digest): Buffer {
  const blocks: Buffer[] = [];
  for (let counter = 0, size = 0; size < length; counter += 1) {
    const count = Buffer.alloc(4);
    count.writeUInt32BE(counter);
    const block = hash(digest, Buffer.concat([seed, count]), "buffer");
    blocks.push(block);
    size += block.length;
  }
  return Buffer.concat(blocks).subarray(0, length);
}

function xor(a: Uint8Array, b: Uint8Array): Buffer {
  const result = Buffer.from(a);
  for (let at = 0; at < result.length; at += 1) result[at] = (result[at] ?? 0) ^ (b[at] ?? 0);
  return result;
}
