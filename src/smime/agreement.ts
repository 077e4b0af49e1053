import { createCipheriv, createDecipheriv, hash } from "node:crypto";
import type { Digest } from "../pki/algorithm.ts";
import * as der from "../pki/der.ts";
import type { KeyWrap } from "./algorithms.ts";

/**
 * The key-encryption key of an agreement with the X9.63 derivation (RFC 5753 §7.2, SEC 1 §3.6.1).
 * `wrapIdentifier` is the DER of the key wrap's AlgorithmIdentifier, octet for octet as it stands in the message.
 */
export function deriveKek(o: {
  secret: Uint8Array;
  digest: Digest;
  wrap: KeyWrap;
  wrapIdentifier: Uint8Array;
  ukm?: Uint8Array | undefined;
}): Buffer {
  const bits = Buffer.alloc(4);
  bits.writeUInt32BE(8 * o.wrap.keyBytes); // suppPubInfo: the length in bits
  const sharedInfo = der.sequence(
    o.wrapIdentifier,
    ...(o.ukm === undefined ? [] : [der.explicit(0, der.octetString(o.ukm))]),
    der.explicit(2, der.octetString(bits)),
  );
  const blocks: Buffer[] = [];
  for (let counter = 1, size = 0; size < o.wrap.keyBytes; counter++) {
    const count = Buffer.alloc(4);
    count.writeUInt32BE(counter);
    const block = hash(o.digest, Buffer.concat([o.secret, count, sharedInfo]), "buffer");
    blocks.push(block);
    size += block.length;
  }
  return Buffer.concat(blocks).subarray(0, o.wrap.keyBytes);
}

const initialValue = Buffer.alloc(8, 0xa6); // RFC 3394 §2.2.3.1

export function wrapKey(wrap: KeyWrap, kek: Uint8Array, key: Uint8Array): Buffer {
  const cipher = createCipheriv(wrap.name, kek, initialValue);
  return Buffer.concat([cipher.update(key), cipher.final()]);
}

/** Throws if the key does not unwrap. */
export function unwrapKey(wrap: KeyWrap, kek: Uint8Array, wrapped: Uint8Array): Buffer {
  const decipher = createDecipheriv(wrap.name, kek, initialValue);
  return Buffer.concat([decipher.update(wrapped), decipher.final()]);
}
