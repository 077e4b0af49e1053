import { createPublicKey, sign as cryptoSign, generateKeyPairSync, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  type AlgorithmIdentifier,
  readAlgorithm,
  sign,
  signatureAlgorithmFor,
  signatureScheme,
  standardAlgorithms,
  verifySignature,
} from "../../src/pki/algorithm.ts";
import * as der from "../../src/pki/der.ts";
import { digestAlgorithm, mgf1, signatureAlgorithm } from "../../src/pki/oid.ts";
import { sharedFolder } from "../support/shared.ts";

const identifier = (...parts: Uint8Array[]): AlgorithmIdentifier => readAlgorithm(der.readDer(der.sequence(...parts)));
const digest = (oid: string): Buffer => der.sequence(der.oid(oid), der.nullValue());
const pss = (hash: string, mask = hash, salt = 32): AlgorithmIdentifier =>
  identifier(
    der.oid(signatureAlgorithm.rsassaPss),
    der.sequence(
      der.explicit(0, digest(hash)),
      der.explicit(1, der.sequence(der.oid(mgf1), digest(mask))),
      der.explicit(2, der.integer(salt)),
    ),
  );

interface VectorFile {
  testGroups: { publicKeyDer?: string; publicKeyPem: string; tests: Vector[] }[];
}
interface Vector {
  tcId: number;
  comment: string;
  msg: string;
  sig: string;
  result: "valid" | "invalid" | "acceptable";
}

const vectors = sharedFolder("vectors/wycheproof");

describe.skipIf(vectors === undefined)("wycheproof: what is invalid does not verify, what is valid does", () => {
  test.each<[string, AlgorithmIdentifier, number]>([
    ["ecdsa_secp256r1_sha256_test.json", identifier(der.oid(signatureAlgorithm.ecdsaWithSha256)), 484],
    ["ecdsa_secp384r1_sha384_test.json", identifier(der.oid(signatureAlgorithm.ecdsaWithSha384)), 504],
    [
      "rsa_signature_2048_sha256_test.json",
      identifier(der.oid(signatureAlgorithm.sha256WithRsa), der.nullValue()),
      259,
    ],
    ["rsa_pss_2048_sha256_mgf1_32_test.json", pss(digestAlgorithm.sha256), 108],
  ])("%s", (file, algorithm, count) => {
    const set = JSON.parse(readFileSync(join(vectors ?? "", file), "utf8")) as VectorFile;
    let seen = 0;
    for (const group of set.testGroups) {
      const key = createPublicKey(group.publicKeyPem);
      for (const vector of group.tests) {
        const valid = verifySignature(algorithm, key, Buffer.from(vector.msg, "hex"), Buffer.from(vector.sig, "hex"));
        // "acceptable" (a missing NULL inside the PKCS#1 padding) may go either way.
        if (vector.result !== "acceptable") {
          expect(valid, `${file} ${vector.tcId}: ${vector.comment}`).toBe(vector.result === "valid");
        }
        seen++;
      }
    }
    expect(seen).toBe(count);
  });
});

const ec = (namedCurve: string): KeyObject => generateKeyPairSync("ec", { namedCurve }).privateKey;
const rsa2048 = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
const ed25519 = generateKeyPairSync("ed25519").privateKey;

test.each<[string, KeyObject]>([
  ["P-256", ec("P-256")],
  ["P-384", ec("P-384")],
  ["P-521", ec("P-521")],
  ["RSA-2048", rsa2048],
  ["Ed25519", ed25519],
  ["Ed448", generateKeyPairSync("ed448").privateKey],
])("what a %s key signs verifies, and not over other data or by another algorithm", (_, privateKey) => {
  const data = Buffer.from("some data");
  const algorithm = readAlgorithm(der.readDer(signatureAlgorithmFor(privateKey).der));
  const signature = sign(privateKey, data);
  const key = createPublicKey(privateKey);
  expect(verifySignature(algorithm, key, data, signature)).toBe(true);
  expect(verifySignature(algorithm, key, Buffer.from("other data"), signature)).toBe(false);
  const other =
    privateKey.asymmetricKeyType === "ec" ? signatureAlgorithm.sha256WithRsa : signatureAlgorithm.ecdsaWithSha256;
  expect(verifySignature(identifier(der.oid(other)), key, data, signature)).toBe(false);
});

test.each<[string, () => KeyObject]>([
  ["RSA-1024", () => generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey],
  ["secp256k1", () => ec("secp256k1")],
  ["X25519", () => generateKeyPairSync("x25519").privateKey],
])("a %s key neither signs nor verifies", (_, make) => {
  const key = make();
  expect(() => signatureAlgorithmFor(key)).toThrow(expect.objectContaining({ code: "unsupported" }));
  const algorithm = identifier(der.oid(signatureAlgorithm.sha256WithRsa), der.nullValue());
  expect(verifySignature(algorithm, createPublicKey(key), Buffer.alloc(1), Buffer.alloc(128))).toBe(false);
});

test("a true signature by an RSA-1024 key does not verify, unless the policy lets it", () => {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
  const data = Buffer.from("data");
  const signature = cryptoSign("sha256", data, privateKey);
  const algorithm = identifier(der.oid(signatureAlgorithm.sha256WithRsa), der.nullValue());
  expect(verifySignature(algorithm, publicKey, data, signature)).toBe(false);
  expect(verifySignature(algorithm, publicKey, data, signature, { ...standardAlgorithms, minRsaBits: 1024 })).toBe(
    true,
  );
});

describe("the allow-list", () => {
  const { sha256WithRsa, ecdsaWithSha256, sha1WithRsa, rsassaPss } = signatureAlgorithm;
  test.each<[string, AlgorithmIdentifier, boolean]>([
    ["RSA with NULL", identifier(der.oid(sha256WithRsa), der.nullValue()), true],
    ["RSA without parameters (RFC 4055 §5)", identifier(der.oid(sha256WithRsa)), true],
    ["RSA with a SEQUENCE", identifier(der.oid(sha256WithRsa), der.sequence()), false],
    ["ECDSA without parameters", identifier(der.oid(ecdsaWithSha256)), true],
    ["ECDSA with NULL (RFC 5758 §3.2)", identifier(der.oid(ecdsaWithSha256), der.nullValue()), false],
    ["SHA-1", identifier(der.oid(sha1WithRsa), der.nullValue()), false],
    ["MD5", identifier(der.oid("1.2.840.113549.1.1.4"), der.nullValue()), false],
    ["ECDSA with SHA-1", identifier(der.oid("1.2.840.10045.4.1")), false],
    ["PSS with SHA-384", pss(digestAlgorithm.sha384), true],
    ["PSS with its SHA-1 defaults", identifier(der.oid(rsassaPss), der.sequence()), false],
    ["PSS without parameters", identifier(der.oid(rsassaPss)), false],
    ["PSS with another digest in MGF1", pss(digestAlgorithm.sha256, digestAlgorithm.sha1), false],
    ["PSS with a negative salt", pss(digestAlgorithm.sha256, digestAlgorithm.sha256, -1), false],
  ])("%s: %s", (_, algorithm, allowed) => {
    expect(signatureScheme(algorithm) !== undefined).toBe(allowed);
  });
});
