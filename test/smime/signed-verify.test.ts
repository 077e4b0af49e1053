import { constants, sign as cryptoSign, randomBytes } from "node:crypto";
import { createReadStream, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { sign, signatureAlgorithmFor } from "../../src/pki/algorithm.ts";
import { peerCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { digestAlgorithm } from "../../src/pki/oid.ts";

import { envelopedData } from "../../src/smime/envelope-write.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import type { OpenOptions } from "../../src/smime/open.ts";
import { algorithmsOf } from "../../src/smime/profile.ts";
import { type ReadOptions, read } from "../../src/smime/read.ts";
import { issuerAndSerial } from "../../src/smime/recipient-write.ts";
import { opaqueSignedData } from "../../src/smime/signed-write.ts";
import { openssl, pemFiles } from "../support/openssl.ts";
import type { TestCredentials } from "../support/pki.ts";
import { attribute, digestAttribute, signedDataOf } from "../support/signed-data.ts";
import { bytesOf, entityTo, failureOf, Pieces, sealWorld } from "../support/smime.ts";

const world = sealWorld({ encryptionKey: "rsa" });
const { alice, bob, domain } = world;
const path = (name: string) => join(world.directory, name);
afterEach(() => expect(world.strayFiles().filter((name) => name.endsWith(".part"))).toEqual([]));
afterAll(() => world[Symbol.dispose]());

const signers: [string, TestCredentials][] = [
  ["ECDSA", alice.auth],
  ["RSA v1.5", alice.encryption],
];
const large = randomBytes(3_000_001);

async function told(bytes: Uint8Array, changes: Partial<ReadOptions> = {}) {
  const options = { keys: new Keyring([bob.encryption]), candidates: [], directory: world.directory, ...changes };
  await using found = await read(new Pieces(bytes, 50_000), { maxBytes: 50_000_000, ...options });
  return { protection: found.protection, layers: found.layers };
}
const protection = async (bytes: Uint8Array, changes: Partial<ReadOptions> = {}) =>
  (await told(bytes, changes)).protection;

/** By `openssl cms -sign -noattr`. */
async function bare(content: Uint8Array, by: TestCredentials, ...more: string[]): Promise<Buffer> {
  const { certificate, key } = pemFiles(world.directory, "signer", by);
  writeFileSync(path("in"), content);
  const args = ["-sign", "-noattr", "-in", path("in"), "-out", path("out"), "-signer", certificate, "-inkey", key];
  expect(await openssl(["cms", ...args, ...more])).toEqual({ code: 0, output: "", stdout: "" });
  return readFileSync(path("out"));
}

const binary = ["-binary", "-outform", "DER"];

/** SignerInfo without signed attributes. */
const signerInfo = (
  by: TestCredentials,
  signature: Uint8Array,
  algorithm: Uint8Array = signatureAlgorithmFor(by.privateKey).der,
) =>
  der.sequence(
    der.integer(1),
    issuerAndSerial(by.certificate),
    der.sequence(der.oid(digestAlgorithm.sha256)),
    algorithm,
    der.octetString(signature),
  );

const changed = (bytes: Buffer, at: number) => {
  const copy = Buffer.from(bytes);
  copy.writeUInt8(copy.readUInt8(at) ^ 1, at);
  return copy;
};

describe("a signature without signed attributes over more than 1 MiB", () => {
  test.each(signers)("of openssl's holds, opaque, as a stream and detached: %s", async (_name, by) => {
    for (const how of [["-nodetach"], ["-nodetach", "-stream"]]) {
      const opaque = await bare(large, by, ...binary, ...how);
      expect(await told(opaque)).toMatchObject({
        protection: "signed",
        layers: [{ signers: 1, signatures: [{ certificate: { sha256: by.certificate.sha256 } }] }],
      });
      for (const at of [opaque.indexOf(large.subarray(0, 100)), opaque.indexOf(large.subarray(-100)) + 99])
        expect(await protection(changed(opaque, at))).toBe("none");
    }
    const detached = await bare(large, by, ...binary);
    expect(await protection(detached, { detached: () => new Pieces(large, 70_000) })).toBe("signed");
    const other = changed(large, large.length - 1);
    expect(await protection(detached, { detached: () => new Pieces(other, 70_000) })).toBe("none");
  });

  test("holds as RSA-PSS (which openssl cannot write so: it ends with an error)", async () => {
    // RSASSA-PSS with SHA-256, MGF1 with SHA-256 and 32 octets of salt
    const pss =
      "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120";
    const by = alice.encryption;
    const signature = cryptoSign("sha256", large, {
      key: by.privateKey,
      padding: constants.RSA_PKCS1_PSS_PADDING,
      saltLength: 32,
    });
    const signed = (content: Buffer) =>
      signedDataOf(content, [signerInfo(by, signature, Buffer.from(pss, "hex"))], [by.certificate.der]);
    expect(await protection(signed(large))).toBe("signed");
    expect(await protection(signed(changed(large, 2_000_000)))).toBe("none");
  });

  test("holds in a mail, also one that was kept with bare line feeds", async () => {
    const text = `Content-Type: text/plain\r\n\r\n${"A line of text.\r\n".repeat(100_000)}`;
    for (const shape of [[], ["-nodetach"]]) {
      const mail = await bare(Buffer.from(text), alice.auth, ...shape);
      expect(await protection(mail)).toBe("signed");
      const lf = Buffer.from(mail.toString("latin1").replaceAll("\r\n", "\n"), "latin1");
      expect(await protection(lf)).toBe("signed");
      if (shape.length > 0) continue;
      expect(await protection(Buffer.from(lf.toString("latin1").replace("A line", "B line"), "latin1"))).toBe("none");
    }
  });

  test("does not hold around other layers: what they hold is not kept as it was signed", async () => {
    const inner = await bytesOf(opaqueSignedData(new Pieces(large), alice.auth, domain.now));
    expect(await told(await bare(inner, alice.auth, ...binary, "-nodetach"))).toMatchObject({
      layers: [{ signatures: [] }, { signatures: [{}] }],
    });
    const small = await bytesOf(opaqueSignedData(new Pieces(large.subarray(0, 1_000)), alice.auth, domain.now));
    expect(await told(await bare(small, alice.auth, ...binary, "-nodetach"))).toMatchObject({
      layers: [{ signatures: [{}] }, { signatures: [{}] }],
    });
  });

  test("of Ed25519's does not hold, with at most 1 MiB it does", async () => {
    const carol = domain.bad("ed25519");
    for (const [size, signatures] of [
      [1_048_576, [{}]],
      [1_048_577, []],
    ] as const) {
      const content = Buffer.alloc(size, "a");
      const info = signerInfo(carol, sign(carol.privateKey, content));
      const bytes = signedDataOf(content, [info], [carol.certificate.der]);
      expect(await told(bytes)).toMatchObject({ layers: [{ signatures }] });
    }
  });

  test("is looked for among four certificates, those of all signers together", async () => {
    const wrong = signerInfo(alice.auth, randomBytes(70));
    const right = signerInfo(alice.auth, sign(alice.auth.privateKey, large));
    const behind = async (count: number) =>
      protection(signedDataOf(large, [...Array<Buffer>(count).fill(wrong), right], [alice.auth.certificate.der]));
    expect(await behind(3)).toBe("signed");
    expect(await behind(4)).toBe("none");
  });

  test("is not believed over what begins like signed attributes", async () => {
    const more = attribute("1.2.3", der.octetString(randomBytes(1_200_000)));
    const type = attribute("1.2.840.113549.1.9.3", der.oid("1.2.840.113549.1.7.1"));
    const attributes = der.encode(0x31, Buffer.concat([type, digestAttribute(large), more]));
    const firstLarge = der.encode(0x31, Buffer.concat([more, type, digestAttribute(large)]));
    const signed = (content: Buffer) =>
      signedDataOf(
        content,
        [signerInfo(alice.auth, sign(alice.auth.privateKey, content))],
        [alice.auth.certificate.der],
      );
    expect(await protection(signed(attributes))).toBe("none");
    expect(await protection(signed(firstLarge))).toBe("none");
    expect(await protection(signed(Buffer.concat([attributes, Buffer.of(0)])))).toBe("signed");
    expect(await protection(signed(Buffer.concat([Buffer.from("1"), large])))).toBe("signed");
  });

  test("of content that is another when it is read again does not hold; one that has gone is told", async () => {
    const detached = await bare(large, alice.auth, ...binary);
    const twice = (first: Uint8Array, second: Uint8Array) => {
      const contents = [first, second];
      return { detached: () => new Pieces(contents.shift() ?? new Uint8Array()) };
    };
    expect(await protection(detached, twice(changed(large, 5), large))).toBe("none");
    expect(await protection(detached, twice(large, changed(large, 5)))).toBe("none");
    let asked = 0;
    const gone = () => (asked++ === 0 ? new Pieces(large) : createReadStream(path("nowhere")));
    const options = { keys: new Keyring([]), candidates: [], directory: world.directory, maxBytes: 10_000 };
    await expect(read(new Pieces(detached), { ...options, detached: gone })).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("ends when it is cancelled while the content is read again", async () => {
    const detached = await bare(large, alice.auth, ...binary);
    const stop = new AbortController();
    let asked = 0;
    const content = () => {
      if (++asked === 2) stop.abort();
      return new Pieces(large, 10_000);
    };
    const options = { keys: new Keyring([]), candidates: [], directory: world.directory, maxBytes: 10_000 };
    const failure = await failureOf(read(new Pieces(detached), { ...options, detached: content }, stop.signal));
    expect([failure.code, asked]).toEqual(["cancelled", 2]);
  });
});

describe("opened for its addressee, a signature without signed attributes over more than 1 MiB", () => {
  const entity = entityTo(bob.identity, large.toString("base64").replace(/.{76}/g, "$&\r\n"), "text/plain");
  const sealedTo = (bytes: Uint8Array, profile: "peer" | "foreign") =>
    bytesOf(envelopedData(new Pieces(bytes), [peerCertificate(bob.encryption.certificate)], algorithmsOf(profile)));
  const opens = async (bytes: Uint8Array, changes: Partial<OpenOptions>) => {
    await using found = await world.open(new Pieces(bytes, 100_000), changes);
    return { signer: found.signer.identities[0]?.identity, signedAt: found.signedAt };
  };
  const mime = (signed: Buffer) =>
    Buffer.concat([
      Buffer.from("Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: binary\r\n\r\n"),
      signed,
    ]);

  test.each([
    ["multipart/signed", async () => bare(entity, alice.auth, "-certfile", chain())],
    ["application/pkcs7-mime", async () => bare(entity, alice.auth, "-certfile", chain(), "-nodetach")],
    ["in binary", async () => mime(await bare(entity, alice.auth, "-certfile", chain(), ...binary, "-nodetach"))],
    ["without MIME", async () => bare(entity, alice.auth, "-certfile", chain(), ...binary, "-nodetach")],
  ] as const)("holds, however it is kept: %s", async (_name, make) => {
    const made = await make();
    const signed = made[0] === 0x30 ? made : made.subarray(made.indexOf("Content-Type:"));
    const sealed = await sealedTo(signed, "peer");
    for (const keep of ["entity", "body"] as const)
      expect(await opens(sealed, { keep })).toEqual({ signer: alice.identity, signedAt: undefined });
    const at = signed.indexOf("b", Math.floor(signed.length / 2)); // a bit makes a "c" of it: in base64, too, other content and no error
    const other = await sealedTo(changed(signed, at), "peer");
    for (const keep of ["entity", "body"] as const)
      expect((await failureOf(world.open(new Pieces(other), { keep }))).code).toBe("seal-unreadable");
    // Without a tag, time would tell whether something that was changed reads as this.
    const untagged = await sealedTo(signed, "foreign");
    expect((await failureOf(world.open(new Pieces(untagged)))).code).toBe("seal-unreadable");
  });

  const chain = () => pemFiles(world.directory, "chain", alice.auth).chain;
});
