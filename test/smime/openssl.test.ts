import { randomBytes } from "node:crypto";
import { createReadStream, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { decodeBase64, encodeBase64 } from "../../src/smime/base64.ts";
import { parseHead, serializeHead, splitEntity } from "../../src/smime/entity.ts";
import { protectHeader } from "../../src/smime/header-protection.ts";
import type { Capabilities, Profile } from "../../src/smime/profile.ts";
import { openssl, pemFiles } from "../support/openssl.ts";
import { bytesOf, entityTo, Pieces, sealWorld } from "../support/smime.ts";

// The openssl program judges what we write, and what it writes we have to read.

const ec = sealWorld({ encryptionKey: "ec" });
const rsa = sealWorld({ encryptionKey: "rsa" });
afterAll(() => {
  ec[Symbol.dispose]();
  rsa[Symbol.dispose]();
});

const worlds = [
  ["an EC key", ec],
  ["an RSA key", rsa],
] as const;

describe.each(worlds)("sealed to %s", (_, world) => {
  const folder = world.directory;
  const path = (name: string) => join(folder, name);
  const bob = pemFiles(folder, "bob", world.bob.encryption);
  const alice = pemFiles(folder, "alice", world.alice.auth);
  writeFileSync(path("root.pem"), derToPem(world.domain.root.certificate.der, "CERTIFICATE"));
  const mustRun = async (...args: string[]) => {
    const { code, output } = await openssl(args);
    expect({ code, output }).toMatchObject({ code: 0 });
  };
  const decrypt = () =>
    mustRun(
      ..."cms -decrypt -binary -inform DER -in".split(" "),
      path("f.p7m"),
      "-recip",
      bob.certificate,
      "-inkey",
      bob.key,
      "-out",
      path("f.out"),
    );

  describe.each([
    ["an EC", world.alice.auth],
    ["an RSA", world.domain.bad("rsa", "alice@example.test")],
  ] as const)("signed with %s key", (_, signer) => {
    test.each([0, 100, 65_537, 1_048_577, 3_000_000])(
      "openssl decrypts and verifies our file of %d bytes",
      async (size) => {
        const entity = entityTo(world.bob.identity, randomBytes(size));
        writeFileSync(path("f.p7m"), await bytesOf(world.seal(new Pieces(entity), { signer })));
        await decrypt();
        const inner = readFileSync(path("f.out"));
        writeFileSync(path("f.p7s"), inner.subarray(inner.indexOf("\r\n\r\n") + 4));
        await mustRun(
          ..."cms -verify -binary -inform DER -in".split(" "),
          path("f.p7s"),
          "-CAfile",
          path("root.pem"),
          "-out",
          path("f.out"),
        );
        expect(readFileSync(path("f.out")).equals(entity)).toBe(true);
      },
    );

    test.each([1, 70_000, 1_500_000])(
      "openssl decrypts and verifies our multipart/signed of %d bytes",
      async (size) => {
        const entity = entityTo(world.bob.identity, Buffer.alloc(size, "a line of text\r\n"), "text/plain");
        writeFileSync(path("f.p7m"), await bytesOf(world.seal(new Pieces(entity), { signer, shape: "detached" })));
        await decrypt();
        await mustRun("cms", "-verify", "-in", path("f.out"), "-CAfile", path("root.pem"), "-out", path("f.verified"));
        expect(readFileSync(path("f.verified")).equals(entity)).toBe(true);
      },
    );
  });

  test("openssl reads our mail as a mail program would", async () => {
    const written =
      "From: alice@example.test\r\nTo: bob@example.test\r\nSubject: Secret plans\r\nContent-Type: text/plain\r\n";
    const { payload, outer } = protectHeader(parseHead(Buffer.from(written)));
    const entity = Buffer.concat([serializeHead(payload), Buffer.from("Hello Bob\r\n")]);
    const mail = [
      serializeHead(outer),
      await bytesOf(encodeBase64(world.seal(new Pieces(entity), { shape: "detached" }))),
    ];
    writeFileSync(path("our.eml"), Buffer.concat(mail));
    expect(Buffer.concat(mail).includes("Secret")).toBe(false);
    await mustRun(
      "cms",
      "-decrypt",
      "-in",
      path("our.eml"),
      "-recip",
      bob.certificate,
      "-inkey",
      bob.key,
      "-out",
      path("m.out"),
    );
    await mustRun("cms", "-verify", "-in", path("m.out"), "-CAfile", path("root.pem"), "-out", path("m.verified"));
    expect(readFileSync(path("m.verified"), "latin1")).toMatch(
      /Subject: Secret plans\r\n[\s\S]*hp="cipher"\r\n\r\nHello Bob\r\n$/,
    );
  });

  const oaep = ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"];
  const keyOptions =
    world === rsa
      ? [
          [],
          oaep,
          ["-keyopt", "rsa_padding_mode:oaep"],
          ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha512", "-keyopt", "rsa_oaep_label:0102"],
          [...oaep, "-keyopt", "rsa_mgf1_md:sha1", "-keyopt", "rsa_oaep_label:0102"],
          ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha1", "-keyopt", "rsa_mgf1_md:sha512"],
        ]
      : ["sha256", "sha1", "sha384", "sha512"].map((digest) => ["-keyopt", `ecdh_kdf_md:${digest}`]);
  const rows = keyOptions.flatMap((options) =>
    ["-aes-256-gcm", "-aes-128-gcm", "-aes-256-cbc", "-aes-192-cbc", "-aes-128-cbc"].map(
      (cipher) => [cipher, options] as const,
    ),
  );

  test.each(rows)("we open what openssl signed and encrypted with %s %j", async (cipher, options) => {
    const entity = entityTo(world.bob.identity, "made by openssl\r\n", "text/plain");
    writeFileSync(path("m"), entity);
    const sign = [
      "cms",
      "-sign",
      "-in",
      path("m"),
      "-signer",
      alice.certificate,
      "-inkey",
      alice.key,
      "-certfile",
      alice.chain,
    ];
    await mustRun(...sign, "-out", path("m.signed"));
    const encrypt = ["cms", "-encrypt", cipher, "-in", path("m.signed"), "-outform", "DER", "-out", path("m.p7m")];
    await mustRun(...encrypt, "-recip", bob.certificate, ...options);
    await using opened = await world.open(createReadStream(path("m.p7m")));
    expect(opened.content).toEqual({ bytes: Buffer.from("made by openssl\r\n") });
    expect(opened.signer.sha256).toBe(world.alice.auth.certificate.sha256);
    expect(opened.signedAt).toBeInstanceOf(Date);
    expect(`-${opened.cipher}`).toBe(cipher);
  });

  test.each([
    ["opaque in base64", ["-nodetach"], true],
    ["opaque and streamed", ["-nodetach", "-stream"], true],
    ["detached, signer by key identifier", ["-keyid"], true],
    ["detached, with SHA-512", ["-md", "sha512"], true],
    ["without MIME", ["-nodetach", "-binary", "-outform", "DER"], false],
  ] as const)("we open openssl's large streamed envelope around %s", async (_, options, mime) => {
    const lines = Buffer.alloc(1_600_000, "a line of text\r\n");
    writeFileSync(path("m"), entityTo(world.bob.identity, lines, "text/plain"));
    const signer = ["-signer", alice.certificate, "-inkey", alice.key, "-certfile", alice.chain];
    await mustRun("cms", "-sign", "-in", path("m"), ...signer, ...options, "-out", path("m.signed"));
    const encrypt = [
      "cms",
      "-encrypt",
      "-stream",
      "-aes-256-gcm",
      "-in",
      path("m.signed"),
      "-outform",
      "DER",
      "-out",
      path("m.p7m"),
    ];
    await mustRun(
      ...encrypt,
      ...(mime ? [] : ["-binary"]),
      "-recip",
      bob.certificate,
      ...(world === rsa ? oaep : ["-keyopt", "ecdh_kdf_md:sha256"]),
    );
    await using opened = await world.open(createReadStream(path("m.p7m")));
    if (!("path" in opened.content)) throw new Error("not a file");
    expect(readFileSync(opened.content.path).equals(lines)).toBe(true);
  });

  test("we open a mail that openssl wrote", async () => {
    writeFileSync(path("m"), entityTo(world.bob.identity, "by mail\r\n", "text/plain"));
    const signer = ["-signer", alice.certificate, "-inkey", alice.key, "-certfile", alice.chain];
    await mustRun("cms", "-sign", "-in", path("m"), ...signer, "-out", path("m.signed"));
    const encrypt = [
      "cms",
      "-encrypt",
      "-aes-256-gcm",
      "-in",
      path("m.signed"),
      "-out",
      path("m.eml"),
      "-subject",
      "s",
    ];
    await mustRun(...encrypt, "-recip", bob.certificate, ...(world === rsa ? oaep : []));
    const { body } = await splitEntity(createReadStream(path("m.eml")));
    await using opened = await world.open(decodeBase64(body), { keep: "entity" });
    expect(opened.content).toMatchObject({ bytes: expect.any(Buffer) });
    expect(opened.head.fields[0]?.raw).toBe("From: alice@example.test");
  });

  test("openssl's 3DES is refused by name, an unsigned envelope as unreadable", async () => {
    writeFileSync(path("m"), entityTo(world.bob.identity, "x"));
    const encrypt = (cipher: string) =>
      mustRun(
        ...["cms", "-encrypt", cipher, "-binary", "-in", path("m"), "-outform", "DER", "-out", path("m.p7m")],
        ...["-recip", bob.certificate],
      );
    await encrypt("-des3");
    await expect(world.open(createReadStream(path("m.p7m")))).rejects.toMatchObject({ code: "seal-unsupported" });
    for (const cipher of ["-aes-256-cbc", "-aes-256-gcm"]) {
      await encrypt(cipher);
      await expect(world.open(createReadStream(path("m.p7m")))).rejects.toMatchObject({ code: "seal-unreadable" });
    }
  });

  const profiles: [Profile, Capabilities | undefined, RegExp][] = [
    ["sip", undefined, /authEnvelopedData.*aes-128-gcm/s],
    ["foreign", undefined, /d\.envelopedData.*aes-256-cbc/s],
    ["foreign", { gcm: true, oaep: false }, /authEnvelopedData.*aes-256-gcm/s],
    ["foreign", { gcm: false, oaep: true }, /d\.envelopedData.*aes-256-cbc/s],
  ];
  test.each(profiles)(
    "openssl decrypts what is for a %s recipient %j, and so do we",
    async (profile, known, expected) => {
      for (const size of [0, 15, 16, 17, 1_048_576, 1_048_577, 2_000_000]) {
        const entity = entityTo(world.bob.identity, randomBytes(size));
        const capabilities = known === undefined ? {} : { capabilities: known };
        const sealed = await bytesOf(world.seal(new Pieces(entity), { profile, ...capabilities }));
        writeFileSync(path("f.p7m"), sealed);
        await decrypt();
        expect(readFileSync(path("f.out")).length).toBeGreaterThan(entity.length);
        await using opened = await world.open(new Pieces(sealed), { keep: "body" });
        expect("bytes" in opened.content ? opened.content.bytes.length : opened.content.size).toBe(size);
      }
      const { output } = await openssl(["cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in", path("f.p7m")]);
      expect(output).toMatch(expected);
      const transport = profile === "sip" || known?.oaep === true ? "rsaesOaep" : "rsaEncryption";
      expect(output).toContain(world === rsa ? transport : "dhSinglePass-stdDH-sha256kdf-scheme");
    },
  );
});

test("several recipients: openssl decrypts with each one's key", async () => {
  const folder = ec.directory;
  const recipients = [ec.bob, rsa.bob].map((person) => peerCertificate(person.encryption.certificate));
  writeFileSync(
    join(folder, "two.p7m"),
    await bytesOf(ec.seal(new Pieces(entityTo("bob@example.test", "x")), { recipients })),
  );
  for (const [name, world] of [
    ["ec", ec],
    ["rsa", rsa],
  ] as const) {
    const bob = pemFiles(folder, `bob-${name}`, world.bob.encryption);
    const { code } = await openssl([
      "cms",
      "-decrypt",
      "-inform",
      "DER",
      "-in",
      join(folder, "two.p7m"),
      "-recip",
      bob.certificate,
      "-inkey",
      bob.key,
      "-out",
      join(folder, "two.out"),
    ]);
    expect(code).toBe(0);
  }
});
