import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readAlgorithm } from "../../src/pki/algorithm.ts";
import * as der from "../../src/pki/der.ts";
import { decryptPbe, derivePbkdf2, Effort, readPbkdf2 } from "../../src/smime/pbe.ts";
import { sharedFolder } from "../support/shared.ts";

interface Pbe {
  tcId: number;
  password: string;
  salt: string;
  iterationCount: number;
  iv: string;
  msg: string;
  ct: string;
  dkLen: number;
  dk: string;
  result: string;
}

const octets = (hex: string) => Buffer.from(hex, "hex");
const hmacSha256 = der.sequence(der.oid("1.2.840.113549.2.9"), der.nullValue());
const pbkdf2 = (salt: Uint8Array, iterations: number | bigint, ...more: Buffer[]) =>
  der.sequence(der.oid("1.2.840.113549.1.5.12"), der.sequence(der.octetString(salt), der.integer(iterations), ...more));
const pbes2 = (derivation: Buffer, cipher: Buffer) =>
  readAlgorithm(der.readDer(der.sequence(der.oid("1.2.840.113549.1.5.13"), der.sequence(derivation, cipher))));
const aes256 = (iv: Uint8Array) => der.sequence(der.oid("2.16.840.1.101.3.4.1.42"), der.octetString(iv));
const passphrase = { utf8: Buffer.from("x"), bmp: Buffer.from("\0x\0\0") };

const vectors = sharedFolder("vectors/wycheproof");
const casesOf = (file: string) => {
  const { testGroups } = JSON.parse(readFileSync(join(vectors ?? "", file), "utf8")) as {
    testGroups: { tests: Pbe[] }[];
  };
  return testGroups.flatMap(({ tests }) => tests);
};

describe.skipIf(vectors === undefined)("wycheproof", () => {
  test("PBES2 with HMAC-SHA-256 and AES-256: each plaintext comes out, and with another passphrase does not", async () => {
    const cases = casesOf("pbes2_hmacsha256_aes_256_test.json");
    expect(cases.length).toBe(84);
    for (const one of cases) {
      expect(one.result).toBe("valid");
      const algorithm = pbes2(pbkdf2(octets(one.salt), one.iterationCount, hmacSha256), aes256(octets(one.iv)));
      const password = octets(one.password);
      // A wrong key gives right padding once in 256 times: then the length tells.
      const plausible = (plain: Buffer) => plain.length === one.msg.length / 2;
      const open = (utf8: Buffer, bmp: Buffer) =>
        decryptPbe(algorithm, octets(one.ct), { utf8, bmp }, new Effort(), plausible);
      expect((await open(password, password))?.toString("hex"), `case ${one.tcId}`).toBe(one.msg);
      expect((await open(Buffer.from("wrong"), password))?.toString("hex"), `case ${one.tcId}`).toBe(one.msg);
      const other = Buffer.concat([password, Buffer.of(1)]);
      expect((await open(other, other))?.toString("hex"), `case ${one.tcId}`).not.toBe(one.msg);
    }
  });

  test("PBKDF2 with HMAC-SHA-256: each key comes out", async () => {
    const cases = casesOf("pbkdf2_hmacsha256_test.json");
    expect(cases.length).toBe(60);
    for (const one of cases) {
      const identifier = pbkdf2(octets(one.salt), one.iterationCount, der.integer(one.dkLen), hmacSha256);
      const derivation = readPbkdf2(readAlgorithm(der.readDer(identifier)));
      const key = await derivePbkdf2(derivation, octets(one.password), one.dkLen, new Effort());
      expect(key.toString("hex"), `case ${one.tcId}`).toBe(one.dk);
    }
  });
});

const salt = Buffer.alloc(8, 1);
const iv = Buffer.alloc(16, 2);

test.each([
  ["2^31 rounds", pbes2(pbkdf2(salt, 2n ** 31n, hmacSha256), aes256(iv)), "unsupported"],
  ["10 million rounds and one", pbes2(pbkdf2(salt, 10_000_001, hmacSha256), aes256(iv)), "unsupported"],
  ["no round", pbes2(pbkdf2(salt, 0, hmacSha256), aes256(iv)), "syntax"],
  ["less than no round", pbes2(pbkdf2(salt, -1, hmacSha256), aes256(iv)), "syntax"],
  ["a salt of 2 KiB", pbes2(pbkdf2(Buffer.alloc(2048), 1, hmacSha256), aes256(iv)), "syntax"],
  ["a key length that is not the cipher's", pbes2(pbkdf2(salt, 1, der.integer(16), hmacSha256), aes256(iv)), "syntax"],
  ["a short initialisation vector", pbes2(pbkdf2(salt, 1, hmacSha256), aes256(iv.subarray(1))), "syntax"],
  ["HMAC-MD5", pbes2(pbkdf2(salt, 1, der.sequence(der.oid("1.2.840.113549.2.6"))), aes256(iv)), "unsupported"],
  ["scrypt", pbes2(der.sequence(der.oid("1.3.6.1.4.1.11591.4.11"), der.sequence()), aes256(iv)), "unsupported"],
  [
    "AES-GCM",
    pbes2(pbkdf2(salt, 1), der.sequence(der.oid("2.16.840.1.101.3.4.1.46"), der.octetString(iv))),
    "unsupported",
  ],
  ["RC4", readAlgorithm(der.readDer(der.sequence(der.oid("1.2.840.113549.1.12.1.1"), der.nullValue()))), "unsupported"],
  ["PBES2 without parameters", readAlgorithm(der.readDer(der.sequence(der.oid("1.2.840.113549.1.5.13")))), "syntax"],
])("%s is refused before anything is derived", async (_, algorithm, code) => {
  const began = performance.now();
  await expect(decryptPbe(algorithm, Buffer.alloc(16), passphrase, new Effort(), () => true)).rejects.toMatchObject({
    code,
  });
  expect(performance.now() - began).toBeLessThan(1000);
});

test("ten derivations of ten million rounds are all that one file may ask for", () => {
  const effort = new Effort();
  for (let i = 0; i < 10; i++) expect(effort.take(10_000_000n)).toBe(10_000_000);
  expect(() => effort.take(1n)).toThrow(expect.objectContaining({ code: "unsupported" }) as Error);
});
