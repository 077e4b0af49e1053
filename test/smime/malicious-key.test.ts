import { constants, generateKeyPairSync, publicEncrypt, randomBytes } from "node:crypto";
import { afterAll, describe, expect, test } from "vitest";
import { peerCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { envelopedData } from "../../src/smime/envelope-write.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import { algorithmsOf, type Capabilities } from "../../src/smime/profile.ts";
import { read } from "../../src/smime/read.ts";
import { opaqueSignedData } from "../../src/smime/signed-write.ts";
import type { TestPerson } from "../support/pki.ts";
import { bytesOf, entityTo, failureOf, flipped, Pieces, sealWorld } from "../support/smime.ts";

const rsa = sealWorld({ encryptionKey: "rsa" });
afterAll(() => rsa[Symbol.dispose]());

describe("RSA v1.5: nobody learns what was wrong (Bleichenbacher)", () => {
  const long = entityTo(rsa.bob.identity, Buffer.alloc(150_000, "a line of text\r\n")); // goes through a .part file
  const sealed = (capabilities: Capabilities) =>
    bytesOf(rsa.seal(new Pieces(long), { profile: "foreign", capabilities }));

  test.each([
    ["aes-256-cbc", { gcm: false, oaep: false }],
    ["aes-256-gcm", { gcm: true, oaep: false }],
  ] as const)(
    "%s: key, padding, lengths, tag, content, signature: the same failure, the source read to its end",
    async (cipher, capabilities) => {
      const good = await sealed(capabilities);
      {
        await using opened = await rsa.open(new Pieces(good));
        expect(opened.cipher).toBe(cipher);
      }
      const recipient = peerCertificate(rsa.bob.encryption.certificate);
      const again = (plain: Uint8Array) =>
        bytesOf(envelopedData(new Pieces(plain), [recipient], algorithmsOf("foreign", capabilities)));
      const inner = await bytesOf(opaqueSignedData(new Pieces(long), rsa.alice.auth, rsa.domain.now));
      const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 3072 });
      const otherKey = new Keyring([{ certificate: rsa.bob.encryption.certificate, privateKey }]);
      const encrypted = (content: Uint8Array) => transported(rsa.bob, content);
      const bad: [string, Buffer, Keyring?][] = [
        ["another private key", good, otherKey],
        ["no padding", withKey(good, Buffer.concat([Buffer.of(0), randomBytes(383)]))],
        ["not below the modulus", withKey(good, Buffer.alloc(384, 0xff))],
        ["nothing", withKey(good, Buffer.alloc(384))],
        ["a key of 16 octets", withKey(good, encrypted(randomBytes(16)))],
        ["a key of none", withKey(good, encrypted(Buffer.alloc(0)))],
        ["a key of 300 octets", withKey(good, encrypted(randomBytes(300)))],
        ["another key of the right length", withKey(good, encrypted(randomBytes(32)))],
        ["the last octet", flipped(good, good.length - 1)],
        ["an octet of the content", flipped(good, 100_000)],
        ["content that is not signed", await again(long)],
        ["a signature that does not hold", await again(flipped(inner, inner.length - 1))],
        ["content that was not signed", await again(flipped(inner, 5_000))],
        ["nothing inside", await again(Buffer.alloc(0))],
        ["cut off", good.subarray(0, -20)],
      ];
      for (const [what, bytes, keys] of bad) {
        const source = new Pieces(bytes, 4_096);
        const failure = await failureOf(rsa.open(source, keys === undefined ? {} : { keys }));
        const { code, message, details, fault, temporary } = failure;
        expect([what, code, message, details, fault, temporary, source.consumed]).toEqual([
          what,
          "seal-unreadable",
          "the seal cannot be opened",
          {},
          "peer",
          false,
          bytes.length,
        ]);
        expect(rsa.strayFiles()).toEqual([]);
        if (cipher === "aes-256-cbc" || what.includes("signed") || what.includes("hold") || what === "nothing inside")
          continue;
        const stored = new Pieces(bytes, 4_096);
        const options = { candidates: [], directory: rsa.directory, maxBytes: 10_000_000 };
        const told = await failureOf(read(stored, { ...options, keys: keys ?? new Keyring([rsa.bob.encryption]) }));
        expect([what, told.code, stored.consumed]).toEqual([what, "seal-unreadable", bytes.length]);
      }
    },
  );
});

function transported(to: TestPerson, key: Uint8Array): Buffer {
  return publicEncrypt({ key: to.encryption.certificate.publicKey, padding: constants.RSA_PKCS1_PADDING }, key);
}

/** The seal with another encrypted key of RSA-3072. */
function withKey(sealed: Buffer, encryptedKey: Buffer): Buffer {
  const header = Buffer.of(der.tag.octetString, 0x82, 0x01, 0x80);
  const at = sealed.indexOf(header) + header.length;
  return Buffer.concat([sealed.subarray(0, at), encryptedKey, sealed.subarray(at + 384)]);
}
