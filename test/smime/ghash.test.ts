import { createCipheriv, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { tagDifference } from "../../src/smime/ghash.ts";

function seal(keyBytes: number, plain: Buffer, nonce: Buffer, key: Buffer, additional?: Buffer): [string, Buffer] {
  const cipher = createCipheriv(`aes-${8 * keyBytes}-gcm` as "aes-256-gcm", key, nonce);
  if (additional !== undefined) cipher.setAAD(additional);
  return [Buffer.concat([cipher.update(plain), cipher.final()]).toString("hex"), cipher.getAuthTag()];
}

test("a tag with additional data is the one without, XOR the difference: any lengths, any key", () => {
  const lengths = [0, 1, 15, 16, 17, 31, 32, 33, 1_000, 65_537];
  for (const keyBytes of [16, 24, 32]) {
    for (const size of lengths) {
      for (const additional of lengths.slice(0, 9).map((count) => randomBytes(count))) {
        const [key, nonce, plain] = [randomBytes(keyBytes), randomBytes(12), randomBytes(size)];
        const [ciphertext, without] = seal(keyBytes, plain, nonce, key);
        const [again, tag] = seal(keyBytes, plain, nonce, key, additional);
        expect(again).toBe(ciphertext);
        const difference = tagDifference(key, size, additional);
        expect(Buffer.from(without.map((octet, at) => octet ^ (difference[at] ?? 0)))).toEqual(tag);
      }
    }
  }
});

test("64 KiB of additional data take hardly longer than 16 octets: a stranger may send them, and all wait meanwhile", () => {
  const key = randomBytes(32);
  const took = (bytes: number) => {
    const additional = randomBytes(bytes);
    const times = Array.from({ length: 5 }, () => {
      const began = performance.now();
      tagDifference(key, 1_000_000, additional);
      return performance.now() - began;
    });
    return Math.min(...times);
  };
  expect(took(65_536)).toBeLessThan(20 * took(16)); // block by block it was a hundred times
});
