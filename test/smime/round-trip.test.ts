import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { messageIdOf } from "../../src/smime/entity.ts";
import { fileFacts, fileHead } from "../../src/smime/file-name.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import type { Opened } from "../../src/smime/open.ts";
import { peek } from "../../src/smime/peek.ts";
import { makeTestDomain } from "../support/pki.ts";
import { bytesOf, entityTo, Pieces, pseudoRandom, sealWorld } from "../support/smime.ts";

const ec = sealWorld({ encryptionKey: "ec" });
const rsa = sealWorld({ encryptionKey: "rsa" });
afterAll(() => {
  ec[Symbol.dispose]();
  rsa[Symbol.dispose]();
});

const contentOf = async ({ content }: Opened): Promise<Buffer> =>
  "bytes" in content ? content.bytes : readFile(content.path);

const sizes = [0, 1, 15, 16, 17, 65_535, 65_536, 65_537, 1_048_575, 1_048_576, 1_048_577, 1_500_000];

describe.each([
  ["an EC key", ec],
  ["an RSA key", rsa],
] as const)("sealed to %s", (_, world) => {
  test.each(sizes)("a file of %d bytes comes back whole and with the facts of its head", async (size) => {
    const body = randomBytes(size);
    const head = fileHead({
      from: world.alice.identity,
      to: [world.bob.identity],
      date: world.domain.now,
      messageId: "f1@example.test",
      name: "Übersicht – 2026.mkv",
      mediaType: "video/x-matroska",
      size,
    });
    await using opened = await world.open(new Pieces(await bytesOf(world.seal(new Pieces(body, 10_000), { head }))));
    expect((await contentOf(opened)).equals(body)).toBe(true);
    expect(fileFacts(opened.head)).toEqual({ name: "Übersicht – 2026.mkv", mediaType: "video/x-matroska", size });
    expect(messageIdOf(opened.head)).toBe("f1@example.test");
    expect(opened.signer.sha256).toBe(world.alice.auth.certificate.sha256);
    expect(opened.cipher).toBe("aes-256-gcm");
    expect("bytes" in opened.content).toBe(size <= 65_536);
  });

  test.each(sizes)("a mail of %d bytes comes back as a multipart/signed entity", async (size) => {
    const body = Buffer.alloc(size, "0123456789abcdef\r\n");
    const entity = entityTo(world.bob.identity, body, "text/plain");
    const sealed = await bytesOf(world.seal(new Pieces(entity, 10_000), { shape: "detached" }));
    await using opened = await world.open(new Pieces(sealed), { keep: "entity" });
    const kept = await contentOf(opened);
    expect(kept.toString("latin1", 0, 100)).toMatch(/^Content-Type: multipart\/signed; protocol="application\/pkcs7-s/);
    expect(kept.includes(entity)).toBe(true);
    expect(kept.toString("latin1")).toMatch(/\r\n--sixtalk-[0-9a-f]+--\r\n$/);
  });
});

test("the body of a multipart/signed entity can be kept alone", async () => {
  const sealed = await bytesOf(ec.seal(new Pieces(entityTo(ec.bob.identity, "body\r\n")), { shape: "detached" }));
  await using opened = await ec.open(new Pieces(sealed));
  expect((await contentOf(opened)).toString()).toBe("body\r\n");
});

test("a mail with bare LF and CR is signed in canonical lines; a file's octets are left alone", async () => {
  const entity = Buffer.from("To: bob@example.test\n\none\ntwo\rthree\r\n");
  const kept = async (shape: "detached" | "opaque") => {
    await using opened = await ec.open(ec.seal(new Pieces(entity, 3), { shape }));
    return (await contentOf(opened)).toString();
  };
  expect(await kept("detached")).toBe("one\r\ntwo\r\nthree\r\n");
  expect(await kept("opaque")).toBe("one\ntwo\rthree\r\n");
});

test("the opaque entity is kept as decrypted where the entity is asked for", async () => {
  const sealed = await bytesOf(ec.seal(new Pieces(entityTo(ec.bob.identity, "body"))));
  await using opened = await ec.open(new Pieces(sealed), { keep: "entity" });
  expect((await contentOf(opened)).toString("latin1")).toMatch(/^Content-Type: application\/pkcs7-mime; smime-type=s/);
});

test.each(["opaque", "detached"] as const)(
  "%s: bytes one by one and in random pieces seal and open the same",
  async (shape) => {
    const entity = entityTo(ec.bob.identity, Buffer.alloc(70_000, "a line of text\r\n"));
    for (const size of [1, pseudoRandom(1, 3), pseudoRandom(2, 300), pseudoRandom(3, 100_000)]) {
      const sealed = await bytesOf(ec.seal(new Pieces(entity, size), { shape }));
      await using opened = await ec.open(new Pieces(sealed, size));
      expect((await contentOf(opened)).equals(entity.subarray(entity.indexOf("\r\n\r\n") + 4))).toBe(true);
    }
  },
);

test("above 1 MiB, random pieces open the same, too", async () => {
  const entity = entityTo(ec.bob.identity, randomBytes(1_300_000));
  const sealed = await bytesOf(ec.seal(new Pieces(entity, pseudoRandom(4, 50_000))));
  for (const size of [pseudoRandom(5, 7), pseudoRandom(6, 400_000)]) {
    await using opened = await ec.open(new Pieces(sealed, size));
    expect((await contentOf(opened)).equals(entity.subarray(entity.indexOf("\r\n\r\n") + 4))).toBe(true);
  }
});

test("up to 1 MiB the seal is DER of definite lengths, above of indefinite ones around pieces", async () => {
  const small = await bytesOf(ec.seal(new Pieces(randomBytes(1_040_000))));
  expect(small.readUInt32BE(0) >>> 8).toBe(0x3083_0f);
  expect(small.readUIntBE(2, 3)).toBe(small.length - 5);
  const large = await bytesOf(ec.seal(new Pieces(randomBytes(1_600_000))));
  expect(large.readUInt16BE(0)).toBe(0x3080);
  expect(large.subarray(-6)).toEqual(Buffer.alloc(6));
  expect(large.indexOf(Buffer.from("a0800483", "hex"))).toBeGreaterThan(0);
});

test("every one of several recipients opens it, with RSA or EC", async () => {
  const mixed = [ec.bob, rsa.bob, ec.mallory];
  const recipients = mixed.map((person) => peerCertificate(person.encryption.certificate));
  const sealed = await bytesOf(ec.seal(new Pieces(entityTo(ec.bob.identity, "for all")), { recipients }));
  for (const person of mixed) {
    await using opened = await ec.open(new Pieces(sealed), { keys: new Keyring([person.encryption]) });
    expect((await contentOf(opened)).toString()).toBe("for all");
  }
});

test("a key from before a renewal still opens what was sealed to it", async () => {
  const sealed = await bytesOf(ec.seal(new Pieces(entityTo(ec.bob.identity, "late"))));
  const renewed = ec.domain.person({ identity: "bob@example.test", encryptionKey: "ec" }).encryption;
  await using opened = await ec.open(new Pieces(sealed), { keys: new Keyring([renewed, ec.bob.encryption]) });
  expect((await contentOf(opened)).toString()).toBe("late");
});

test("an RSA signer and an Ed25519 signer are verified, too", async () => {
  for (const kind of ["rsa", "ed25519"] as const) {
    const signer = ec.domain.bad(kind, "alice@example.test");
    const sealed = await bytesOf(ec.seal(new Pieces(entityTo(ec.bob.identity, kind)), { signer }));
    await using opened = await ec.open(new Pieces(sealed));
    expect(opened.signer.certificate.keyType).toBe(kind);
    expect(opened.digest).toHaveLength(kind === "rsa" ? 64 : 128);
  }
});

test("a signer's chain that the seal leaves out is found among the candidates", async () => {
  const signer = { ...ec.alice.auth, chain: [] };
  const sealed = await bytesOf(ec.seal(new Pieces(entityTo(ec.bob.identity, "x")), { signer }));
  await expect(ec.open(new Pieces(sealed))).rejects.toMatchObject({ code: "seal-untrusted" });
  await using opened = await ec.open(new Pieces(sealed), {
    candidates: [peerCertificate(ec.domain.issuing.certificate)],
  });
  expect(opened.signer.identities[0]?.identity).toBe("alice@example.test");
});

test("two seals of the same thing share their signed digest and nothing else that is encrypted", async () => {
  const once = () => bytesOf(ec.seal(new Pieces(entityTo(ec.bob.identity, "same"))));
  const [first, second] = [await once(), await once()];
  await using one = await ec.open(new Pieces(first));
  await using two = await ec.open(new Pieces(second));
  expect(one.digest).toBe(two.digest);
  expect(first.subarray(-64).equals(second.subarray(-64))).toBe(false);
});

test("moving gives the content its name and leaves no .part behind, small or large", async () => {
  for (const size of [10, 200_000]) {
    const body = randomBytes(size);
    const sealed = await bytesOf(ec.seal(new Pieces(entityTo(ec.bob.identity, body))));
    const target = join(ec.directory, `named-${size}`);
    {
      await using opened = await ec.open(new Pieces(sealed));
      await opened.moveTo(target);
    }
    expect((await readFile(target)).equals(body)).toBe(true);
  }
  expect(ec.strayFiles().filter((name) => name.endsWith(".part"))).toEqual([]);
});

test("peek names the cipher and for whom it is, without a key", async () => {
  const other = makeTestDomain({ domain: "other.test" }).person({ identity: "eve@other.test", encryptionKey: "ec" });
  const recipients = [ec.bob, other, rsa.bob].map((person) => peerCertificate(person.encryption.certificate));
  const peeked = await peek(ec.seal(new Pieces(entityTo("bob@example.test", "x")), { recipients }));
  if (peeked.type !== "auth-enveloped") throw new Error("not an envelope");
  expect(peeked.cipher).toBe("aes-256-gcm");
  expect(peeked.recipients.map(({ kind }) => kind).toSorted()).toEqual(["agreement", "agreement", "transport"]);
});
