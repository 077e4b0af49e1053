import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { sign, signatureAlgorithmFor } from "../../src/pki/algorithm.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { opaqueSignedData } from "../../src/smime/signed-write.ts";
import { openssl } from "../support/openssl.ts";
import { bytesOf, entityTo, Pieces, sealWorld } from "../support/smime.ts";

const world = sealWorld({ encryptionKey: "ec" });
const { alice, bob, domain } = world;
const rsa = domain.bad("rsa", "alice@example.test");
const path = (name: string) => join(world.directory, name);
afterAll(() => world[Symbol.dispose]());

/** RSASSA-PSS with SHA-256, MGF1 with SHA-256, 32 octets of salt and the trailer by default (RFC 4055 §3.1), as the CA/Browser Forum prints it. */
const pss =
  "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120";

test("RSA-PSS is written with these parameters, octet for octet, by RSA keys alone and only if it is asked for", () => {
  expect(signatureAlgorithmFor(rsa.privateKey, "pss").der.toString("hex")).toBe(pss);
  for (const told of [undefined, "pkcs1"] as const)
    expect(signatureAlgorithmFor(rsa.privateKey, told).der.toString("hex")).toBe("300d06092a864886f70d01010b0500");
  const { privateKey: ec } = alice.auth;
  expect(signatureAlgorithmFor(ec, "pss")).toEqual(signatureAlgorithmFor(ec));
  // A salt makes two of the same differ.
  const data = Buffer.from("data");
  expect(sign(rsa.privateKey, data, "pss").equals(sign(rsa.privateKey, data, "pss"))).toBe(false);
  expect(sign(rsa.privateKey, data).equals(sign(rsa.privateKey, data))).toBe(true);
});

test.each([
  ["pkcs1", "sha256WithRSAEncryption"],
  ["pss", "rsassaPss"],
] as const)("openssl verifies %s, of content small and large, and not of other content", async (rsaSignature, name) => {
  writeFileSync(path("root.pem"), derToPem(domain.root.certificate.der, "CERTIFICATE"));
  const verify = () => {
    const io = ["-inform", "DER", "-in", path("signed"), "-out", path("content")];
    return openssl(["cms", "-verify", "-binary", ...io, "-CAfile", path("root.pem")]);
  };
  for (const size of [100, 2_000_000]) {
    const content = randomBytes(size);
    const bytes = await bytesOf(opaqueSignedData(new Pieces(content, 60_000), { ...rsa, rsaSignature }, domain.now));
    writeFileSync(path("signed"), bytes);
    expect(await verify()).toMatchObject({ code: 0 });
    expect(readFileSync(path("content")).equals(content)).toBe(true);
    const shown = await openssl(["asn1parse", "-inform", "DER", "-in", path("signed")]);
    expect(shown.output).toContain(`:${name}\n`);
    const at = bytes.indexOf(content.subarray(0, 32));
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    writeFileSync(path("signed"), bytes);
    expect((await verify()).output).toContain("CMS_verify:content verify error");
  }
});

test("what is sealed with it is opened, mail and file", async () => {
  const entity = entityTo(bob.identity, "text");
  for (const shape of ["detached", "opaque"] as const) {
    const signer = { ...rsa, rsaSignature: "pss" } as const;
    const sealed = await bytesOf(world.seal(new Pieces(entity), { signer, shape }));
    await using opened = await world.open(new Pieces(sealed));
    expect(opened.signer.sha256).toBe(rsa.certificate.sha256);
  }
});
