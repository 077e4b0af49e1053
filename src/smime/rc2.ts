// RC2 (RFC 2268), decryption only: old PKCS#12 files have their certificates under it, and node:crypto does not have it.

const blockBytes = 8;
/** Rotations of the four words of a block (§3.1). */
const rotations = [1, 2, 3, 5] as const;
/** Rounds of mixing; a round of mashing lies between (§3.5). */
const mixings = [5, 6, 5] as const;

/**
 * The plaintext of whole blocks in CBC mode, its padding (RFC 5652 §6.3) taken off; undefined if the length or the padding is
 * wrong. Not in constant time: only what a MAC vouched for is given to it.
 * @param key 1 to 128 octets @param effectiveBits the effective key length, 1 to 1024
 */
export function rc2CbcDecrypt(
  key: Uint8Array,
  effectiveBits: number,
  iv: Uint8Array,
  ciphertext: Uint8Array,
): Buffer | undefined {
  if (iv.length !== blockBytes || ciphertext.length === 0 || ciphertext.length % blockBytes !== 0) return undefined;
  const words = expandKey(key, effectiveBits);
  const plain = Buffer.alloc(ciphertext.length);
  let previous = iv;
  for (let at = 0; at < ciphertext.length; at += blockBytes) {
    const block = ciphertext.subarray(at, at + blockBytes);
    const opened = rc2DecryptBlock(words, block);
    for (let i = 0; i < blockBytes; i++) plain[at + i] = (opened[i] ?? 0) ^ (previous[i] ?? 0);
    previous = block;
  }
  const padding = plain.at(-1) ?? 0;
  if (padding < 1 || padding > blockBytes) return undefined;
  const end = plain.length - padding;
  return plain.subarray(end).every((octet) => octet === padding) ? plain.subarray(0, end) : undefined;
}

/** The 64 words of an expanded key (§2). */
export function expandKey(key: Uint8Array, effectiveBits: number): Uint16Array {
  const length = key.length;
  const buffer = new Uint8Array(128);
  buffer.set(key);
  for (let i = length; i < 128; i++) buffer[i] = pi((buffer[i - 1] ?? 0) + (buffer[i - length] ?? 0));
  const effectiveBytes = (effectiveBits + 7) >> 3;
  const mask = 0xff >> (8 * effectiveBytes - effectiveBits);
  const first = 128 - effectiveBytes;
  buffer[first] = pi((buffer[first] ?? 0) & mask);
  for (let i = first - 1; i >= 0; i--) buffer[i] = pi((buffer[i + 1] ?? 0) ^ (buffer[i + effectiveBytes] ?? 0));
  return Uint16Array.from({ length: 64 }, (_, i) => (buffer[2 * i] ?? 0) | ((buffer[2 * i + 1] ?? 0) << 8));
}

/** One block of 8 octets (§4.5). */
export function rc2DecryptBlock(words: Uint16Array, block: Uint8Array): Buffer {
  const state = Uint16Array.from({ length: 4 }, (_, i) => (block[2 * i] ?? 0) | ((block[2 * i + 1] ?? 0) << 8));
  const word = (i: number) => state[i & 3] ?? 0;
  let next = 63;
  for (const [turn, rounds] of mixings.entries()) {
    for (let round = 0; round < rounds; round++) {
      for (let i = 3; i >= 0; i--) {
        const by = rotations[i as 0 | 1 | 2 | 3];
        const turned = (word(i) >>> by) | (word(i) << (16 - by));
        state[i] = turned - (words[next--] ?? 0) - (word(i + 3) & word(i + 2)) - (~word(i + 3) & word(i + 1));
      }
    }
    if (turn === mixings.length - 1) break;
    for (let i = 3; i >= 0; i--) state[i] = word(i) - (words[word(i + 3) & 63] ?? 0);
  }
  const out = Buffer.alloc(blockBytes);
  for (const [i, value] of state.entries()) out.writeUInt16LE(value, 2 * i);
  return out;
}

/** PITABLE (§2): a permutation from the digits of pi. */
function pi(index: number): number {
  return piTable[index & 0xff] ?? 0;
}

const piTable = Buffer.from(
  "d978f9c419ddb5ed28e9fd794aa0d89dc67e37832b76538e624c6488448bfba2179a59f587b34f1361456d8d09817d32bd8f40eb86b77b0bf09521225c6b4e82" +
    "54d66593ce60b21c7356c014a78cf1dc1275ca1f3bbee4d1423dd430a33cb6266fbf0eda4669075727f21d9bbc944303f811c7f690ef3ee706c3d52fc8661ed7" +
    "08e8eade8052eef784aa72ac354d6a2a961ad2715a1549744b9fd05e0418a4ecc2e0416e0f51cbcc2491af50a1f47039997c3a8523b8b47afc02365b25559731" +
    "2d5dfa98e38a92ae05df2910676cbac9d300e6cfe19ea82c6316013f58e289a90d38341bab33ffb0bb480c5fb9b1cd2ec5f3db47e5a59c770aa62068fe7fc1ad",
  "hex",
);
