import { createPublicKey, generateKeyPairSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { sign, signatureAlgorithmFor } from "../../src/pki/algorithm.ts";
import { fingerprintOf, identitiesIn } from "../../src/pki/certificate.ts";
import { makeCsr, parseCsr, requestedAltNames } from "../../src/pki/csr.ts";
import * as der from "../../src/pki/der.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { encodeName, showName } from "../../src/pki/name.ts";
import { pemToDer } from "../../src/pki/pem.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { openssl, temporaryFolder } from "../support/openssl.ts";
import { makeEcKey, makeEd25519Key, rsaKeyOf, spkiOf } from "../support/pki.ts";

const keys = { "P-256": makeEcKey(), "RSA-3072": rsaKeyOf("csr"), Ed25519: makeEd25519Key() };

test.each(Object.entries(keys))("a request with a %s key comes back as its key and name", (_, privateKey) => {
  const csr = parseCsr(makeCsr({ privateKey, commonName: "Zoë" }));
  expect(csr.publicKey.equals(createPublicKey(privateKey))).toBe(true);
  expect(Buffer.compare(csr.spki, spkiOf(privateKey))).toBe(0);
  expect(csr.fingerprint).toBe(fingerprintOf(privateKey));
  expect(showName(csr.subject)).toBe("CN=Zoë");
});

test.each(Object.entries(keys))("openssl accepts a request with a %s key", async (_, privateKey) => {
  using folder = temporaryFolder();
  const file = join(folder.path, "a.csr");
  writeFileSync(file, makeCsr({ privateKey, commonName: "Zoë" }));
  const { output, code } = await openssl(["req", "-inform", "DER", "-in", file, "-verify", "-noout"]);
  expect([code, output]).toEqual([0, expect.stringContaining("verify OK")]);
});

test("a request that openssl made, with attributes, is read", async () => {
  using folder = temporaryFolder();
  const key = join(folder.path, "a.key");
  writeFileSync(key, keys["P-256"].export({ type: "pkcs8", format: "pem" }));
  const extension = ["-addext", "subjectAltName=email:a@x.test"];
  const { output } = await openssl(["req", "-new", "-key", key, "-subj", "/O=X/CN=A", ...extension]);
  const csr = parseCsr(pemToDer(output, "CERTIFICATE REQUEST")[0] ?? new Uint8Array());
  expect(showName(csr.subject)).toBe("CN=A,O=X");
});

const whole = makeCsr({ privateKey: keys["P-256"], commonName: "A" });

/** A request for `claimed`'s key, signed by another. */
function forged(claimed: Uint8Array, signer = keys["P-256"], version = 0): Buffer {
  const info = der.sequence(der.integer(version), encodeName([]), claimed, der.implicitConstructed(0));
  return der.sequence(info, signatureAlgorithmFor(signer).der, der.bitString(sign(signer, info)));
}

test.each<[string, string, Uint8Array]>([
  ["nothing", "truncated", new Uint8Array()],
  ["a byte behind", "trailing bytes", Buffer.concat([whole, Buffer.of(0)])],
  ["17 KiB", "too long", Buffer.concat([whole, Buffer.alloc(17 * 1024)])],
  ["a signature by another key", "proof of possession", forged(spkiOf(makeEcKey()))],
  ["another version", "version", forged(spkiOf(keys["P-256"]), keys["P-256"], 1)],
  ["RSA-1024", "weak key", forged(spkiOf(generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey))],
  ["an X25519 key", "weak key", forged(spkiOf(generateKeyPairSync("x25519").privateKey))],
])("%s is refused: %s", (_, what, bytes) => {
  expect(() => parseCsr(bytes)).toThrow(expect.objectContaining({ code: "syntax", fault: "peer", details: { what } }));
});

test("the row of forgeries fails by what it says, not by its frame", () => {
  expect(() => parseCsr(forged(spkiOf(keys["P-256"])))).not.toThrow();
});

test("with any octet changed a request is refused", () => {
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const bytes = Buffer.from(whole);
      bytes.writeUInt8(bytes.readUInt8(at) ^ mask, at);
      expect(() => parseCsr(bytes)).toThrow(SuiteError);
    }),
    { numRuns: 1000 },
  );
});

test.each(["alice@alpha.test", "älice@alpha.test"])(
  "a request that names %s is read so, by openssl too",
  async (text) => {
    const identity = parseIdentity(text);
    using folder = temporaryFolder();
    const file = join(folder.path, "a.csr");
    writeFileSync(file, makeCsr({ privateKey: keys["P-256"], commonName: "Alice", identity }));
    const csr = parseCsr(readFileSync(file));
    const names = requestedAltNames(csr);
    const found = identitiesIn({ subject: csr.subject, subjectAltNames: names });
    expect(found.map((one) => one.identity)).toEqual([identity]);
    expect(names).toHaveLength(2);
    const shown = await openssl(["req", "-inform", "DER", "-in", file, "-noout", "-text"]);
    expect(shown.output).toContain("Subject Alternative Name");
  },
);
