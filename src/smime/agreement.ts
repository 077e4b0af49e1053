import { createCipheriv, createDecipheriv, hash, hkdfSync } from "node:crypto";
import * as der from "../pki/der.ts";
import type { Derivation, KeyWrap } from "./algorithms.ts";

/**
 * The key-encryption key of an agreement, by X9.63 (RFC 5753 §7.2, SEC 1 §3.6.1) or HKDF (RFC 8418 §2.2).
 * `wrapIdentifier` is the DER of the key wrap's AlgorithmIdentifier, octet for octet as it stands in the message.
 */
export function deriveKek(o: {
  secret: Uint8Array;
  derivation: Derivation;
  wrap: KeyWrap;
  wrapIdentifier: Uint8Array;
  ukm?: Uint8Array | undefined;
}): Buffer {
  const { keyBytes } = o.wrap;
  const { digest } = o.derivation;
  const bits = Buffer.alloc(4);
  bits.writeUInt32BE(8 * keyBytes); // suppPubInfo: the length in bits
  const sharedInfo = der.sequence(
    o.wrapIdentifier,
    ...(o.ukm === undefined ? [] : [der.explicit(0, der.octetString(o.ukm))]),
    der.explicit(2, der.octetString(bits)),
  );
  if (o.derivation.function === "hkdf")
    return Buffer.from(hkdfSync(digest, o.secret, o.ukm ?? new Uint8Array(), sharedInfo, keyBytes));
  const blocks: Buffer[] = [];
  for (let counter = 1, size = 0; size < keyBytes; counter++) {
    const count = Buffer.alloc(4);
    count.writeUInt32BE(counter);
    const block = hash(digest, Buffer.concat([o.secret, count, sharedInfo]), "buffer");
    blocks.push(block);
    size += block.length;
  }
  return Buffer.concat(blocks).subarray(0, keyBytes);
}

const initialValue = Buffer.alloc(8, 0xa6); // RFC 3394 §2.2.3.1

export function wrapKey(wrap: KeyWrap, kek: Uint8Array, key: Uint8Array): Buffer {
  const cipher = createCipheriv(wrap.name, kek, initialValue);
  return Buffer.concat([cipher.update(key), cipher.final()]);
}

/** Throws if the key does not unwrap. */
export function unwrapKey(wrap: KeyWrap, kek: Uint8Array, wrapped: Uint8Array): Buffer {
  // RFC 3394 §2: two blocks at least. Of no octets at all Node would make a key of none.
  if (wrapped.length < 24) throw new Error("key wrap: too short");
  const decipher = createDecipheriv(wrap.name, kek, initialValue);
  return Buffer.concat([decipher.update(wrapped), decipher.final()]);
}
