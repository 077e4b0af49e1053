import { expect, test } from "vitest";
import { expandKey, rc2CbcDecrypt, rc2DecryptBlock } from "../../src/smime/rc2.ts";

const octets = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");
const long = "88bca90e 90875a7f 0f79c384 627bafb2";

// RFC 2268 §5.
test.each([
  ["00000000 00000000", 63, "00000000 00000000", "ebb773f9 93278eff"],
  ["ffffffff ffffffff", 64, "ffffffff ffffffff", "278b27e4 2e2f0d49"],
  ["30000000 00000000", 64, "10000000 00000001", "30649edf 9be7d2c2"],
  ["88", 64, "00000000 00000000", "61a8a244 adacccf0"],
  ["88bca90e 90875a", 64, "00000000 00000000", "6ccf4308 974c267f"],
  [long, 64, "00000000 00000000", "1a807d27 2bbe5db1"],
  [long, 128, "00000000 00000000", "2269552a b0f85ca6"],
  [`${long} 16f80a6f 85920584 c42fceb0 be255daf 1e`, 129, "00000000 00000000", "5b78d3a4 3dfff1f1"],
])("the vector of RFC 2268 with key %s, %i bits", (key, bits, plain, cipher) => {
  expect(rc2DecryptBlock(expandKey(octets(key), bits), octets(cipher))).toEqual(octets(plain));
});

// openssl enc -provider legacy -rc2-cbc -K 000102030405060708090a0b0c0d0e0f -iv 1011121314151617
const key = octets("000102030405060708090a0b0c0d0e0f");
const iv = octets("1011121314151617");
const chained = octets("3bc7dcfcdcb5fec7d9e6ffd340506bb37a7894dd23f1999cceaf612be50e211d");

test("blocks are chained, and the padding is taken off", () => {
  expect(rc2CbcDecrypt(key, 128, iv, chained)?.toString()).toBe("in blocks, one after the other");
});

test.each([
  ["no block", Buffer.alloc(0)],
  ["half a block", chained.subarray(0, 12)],
  ["a lost last block", chained.subarray(0, 24)],
])("%s has no plaintext", (_, ciphertext) => {
  expect(rc2CbcDecrypt(key, 128, iv, ciphertext)).toBeUndefined();
});
