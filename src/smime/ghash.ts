import { createCipheriv } from "node:crypto";

const BLOCK = 16;
/** x^128 + x^7 + x^2 + x + 1, bits in GCM's order (NIST SP 800-38D §6.3). */
const R = 0xe1n << 120n;

/**
 * What additional authenticated data changes in a GCM tag: the tag without them, XOR this, is the tag with them. GHASH is
 * linear, so that data which come behind the ciphertext (CMS authAttrs, RFC 5083 §2.1) can be accounted for at the end.
 * @param key of AES
 * @param ciphertextBytes how long the ciphertext was
 */
export function tagDifference(key: Uint8Array, ciphertextBytes: number, additional: Uint8Array): Buffer {
  const cipher = createCipheriv(`aes-${8 * key.length}-ecb`, key, null).setAutoPadding(false);
  const h = toNumber(Buffer.concat([cipher.update(Buffer.alloc(BLOCK)), cipher.final()]));
  let hashed = 0n;
  for (let at = 0; at < additional.length; at += BLOCK) {
    const block = Buffer.alloc(BLOCK);
    block.set(additional.subarray(at, at + BLOCK));
    hashed = times(hashed ^ toNumber(block), h);
  }
  const behind = BigInt(Math.ceil(ciphertextBytes / BLOCK)) + 1n; // the ciphertext and the lengths
  const lengths = BigInt(8 * additional.length) << 64n;
  const difference = times(hashed, power(h, behind)) ^ times(lengths, h);
  return Buffer.from(difference.toString(16).padStart(2 * BLOCK, "0"), "hex");
}

function toNumber(block: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(block).toString("hex")}`);
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n << 127n; // the polynomial 1
  for (let square = base, left = exponent; left > 0n; left >>= 1n, square = times(square, square)) {
    if (left & 1n) result = times(result, square);
  }
  return result;
}

/** Multiplication in GF(2^128) (NIST SP 800-38D §6.3, algorithm 1). */
function times(x: bigint, y: bigint): bigint {
  let product = 0n;
  let shifted = y;
  for (let bit = 127n; bit >= 0n; bit -= 1n) {
    if ((x >> bit) & 1n) product ^= shifted;
    shifted = shifted & 1n ? (shifted >> 1n) ^ R : shifted >> 1n;
  }
  return product;
}
