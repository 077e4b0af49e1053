import { type CipherGCM, type Cipheriv, createCipheriv } from "node:crypto";

const BLOCK = 16;
const NONCE = 12;
/** x^128 + x^7 + x^2 + x + 1, bits in GCM's order (NIST SP 800-38D §6.3). */
const R = 0xe1n << 120n;

/**
 * What additional authenticated data changes in a GCM tag: the tag without them, XOR this, is the tag with them. GHASH is
 * linear, so that data which come behind the ciphertext (CMS authAttrs, RFC 5083 §2.1) can be accounted for at the end.
 * @param key of AES
 * @param ciphertextBytes how long the ciphertext was
 */
export function tagDifference(key: Uint8Array, ciphertextBytes: number, additional: Uint8Array): Buffer {
  const h = encryptedBlock(key, Buffer.alloc(BLOCK));
  const nonce = Buffer.alloc(NONCE); // any
  const cipher = createCipheriv(`aes-${(8 * key.length) as 256}-gcm`, key, nonce);
  cipher.setAAD(additional);
  cipher.final();
  const hashed = hashOf({ bytes: additional.length, tag: cipher.getAuthTag() }, h, maskOf(key, nonce));
  const lengths = BigInt(8 * additional.length) << 64n;
  return toBlock(times(hashed, power(h, BigInt(Math.ceil(ciphertextBytes / BLOCK)))) ^ times(lengths, h));
}

/** A stretch of ciphertext: how long it is, and the GCM tag of nothing with it as additional data, by the same key and nonce. */
export interface Stretch {
  readonly bytes: number;
  readonly tag: Uint8Array;
}

/** Encrypts a stretch of a GCM plaintext, of which `firstBlock` blocks stand before it. */
export class StretchCipher {
  readonly #cipher: Cipheriv;
  readonly #hasher: CipherGCM;

  constructor(key: Uint8Array, nonce: Uint8Array, firstBlock: number) {
    const name = `aes-${(8 * key.length) as 256}` as const;
    const counter = Buffer.alloc(BLOCK);
    counter.set(nonce);
    counter.writeUInt32BE(2 + firstBlock, nonce.length); // 1 is the tag's: NIST SP 800-38D §7.1
    this.#cipher = createCipheriv(`${name}-ctr`, key, counter);
    this.#hasher = createCipheriv(`${name}-gcm`, key, nonce);
  }

  /** Whole blocks, but for the last piece. */
  update(plain: Uint8Array): Buffer {
    const ciphertext = this.#cipher.update(plain);
    this.#hasher.setAAD(ciphertext);
    return ciphertext;
  }

  /** For `joinedTag`, and nobody else. */
  tag(): Buffer {
    this.#hasher.final();
    return this.#hasher.getAuthTag();
  }
}

/**
 * The GCM tag of a ciphertext from those of its stretches, which can so be hashed each by itself, in any order. Each but
 * the last has whole blocks. Those tags are of no use to anybody but must not get about: together they give away the hash key.
 * @param nonce of 12 bytes
 */
export function joinedTag(key: Uint8Array, nonce: Uint8Array, stretches: readonly Stretch[]): Buffer {
  const h = encryptedBlock(key, Buffer.alloc(BLOCK));
  const mask = maskOf(key, nonce);
  const powers = new Map<number, bigint>(); // most stretches are alike
  let hashed = 0n;
  let total = 0;
  for (const stretch of stretches) {
    if (total % BLOCK !== 0) throw new Error("a stretch that is not the last has whole blocks");
    const blocks = Math.ceil(stretch.bytes / BLOCK);
    const behind = powers.get(blocks) ?? power(h, BigInt(blocks));
    powers.set(blocks, behind);
    hashed = times(hashed, behind) ^ hashOf(stretch, h, mask);
    total += stretch.bytes;
  }
  return toBlock(hashed ^ times(BigInt(8 * total), h) ^ mask);
}

/** What GHASH makes of the stretch: the tag without its mask and without its lengths, which stand where those of additional data do. */
function hashOf({ bytes, tag }: Stretch, h: bigint, mask: bigint): bigint {
  return toNumber(tag) ^ mask ^ times(BigInt(8 * bytes) << 64n, h);
}

/** What a tag is masked with: the block before those that encrypt. */
function maskOf(key: Uint8Array, nonce: Uint8Array): bigint {
  return encryptedBlock(key, Buffer.concat([nonce, Buffer.of(0, 0, 0, 1)]));
}

function encryptedBlock(key: Uint8Array, block: Uint8Array): bigint {
  const cipher = createCipheriv(`aes-${8 * key.length}-ecb`, key, null).setAutoPadding(false);
  return toNumber(Buffer.concat([cipher.update(block), cipher.final()]));
}

function toBlock(value: bigint): Buffer {
  return Buffer.from(value.toString(16).padStart(2 * BLOCK, "0"), "hex");
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
