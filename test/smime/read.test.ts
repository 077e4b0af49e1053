import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync } from "node:zlib";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { peerCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { contentType } from "../../src/smime/algorithms.ts";
import { closed, opened } from "../../src/smime/ber-write.ts";
import { envelopedData } from "../../src/smime/envelope-write.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import { algorithmsOf, type Profile } from "../../src/smime/profile.ts";
import { type ReadOptions, read } from "../../src/smime/read.ts";
import { opaqueSignedData } from "../../src/smime/signed-write.ts";
import { openssl, pemFiles } from "../support/openssl.ts";
import { bytesOf, entityTo, failureOf, Pieces, sealWorld } from "../support/smime.ts";

const world = sealWorld({ encryptionKey: "rsa" });
const { alice, bob, domain } = world;
afterEach(() => expect(world.strayFiles().filter((name) => name.endsWith(".part"))).toEqual([]));
afterAll(() => world[Symbol.dispose]());

const options = (changes: Partial<ReadOptions> = {}): ReadOptions => ({
  keys: new Keyring([bob.encryption]),
  candidates: [],
  directory: world.directory,
  maxBytes: 50_000_000,
  ...changes,
});

async function told(bytes: Uint8Array, changes: Partial<ReadOptions> = {}, size?: number) {
  await using found = await read(new Pieces(bytes, size), options(changes));
  const { content } = found;
  return {
    protection: found.protection,
    layers: found.layers.map(({ kind }) => kind).join(" "),
    content: content === undefined ? undefined : "bytes" in content ? content.bytes : readFileSync(content.path),
  };
}

const text = Buffer.from("Content-Type: text/plain\r\n\r\nHello\r\n");
const sign = (bytes: Uint8Array) => bytesOf(opaqueSignedData(new Pieces(bytes), alice.auth, domain.now));
const encrypt = (bytes: Uint8Array, profile: Profile = "foreign") =>
  bytesOf(envelopedData(new Pieces(bytes), [peerCertificate(bob.encryption.certificate)], algorithmsOf(profile)));

function compressed(bytes: Uint8Array, o: { raw?: Buffer; chunks?: boolean } = {}): Buffer {
  const zlib = o.raw ?? deflateSync(bytes);
  const head = [der.integer(0), der.sequence(der.oid("1.2.840.113549.1.9.16.3.8"))];
  if (!o.chunks) {
    const inner = der.sequence(der.oid(contentType.data), der.explicit(0, der.octetString(zlib)));
    return der.sequence(der.oid(contentType.compressedData), der.explicit(0, der.sequence(...head, inner)));
  }
  return Buffer.concat([
    opened(0x30),
    der.oid(contentType.compressedData),
    opened(0xa0, 0x30),
    ...head,
    opened(0x30),
    der.oid(contentType.data),
    opened(0xa0, 0x24),
    ...[zlib.subarray(0, 5), zlib.subarray(5)].map((part) => der.octetString(part)),
    closed(6),
  ]);
}

const mime = (bytes: Buffer, type: string) =>
  Buffer.from(
    `Content-Type: application/pkcs7-mime; smime-type=${type}\r\nContent-Transfer-Encoding: base64\r\n\r\n${bytes
      .toString("base64")
      .replace(/.{76}/g, "$&\r\n")}\r\n`,
  );

describe("layer within layer", () => {
  const shapes: [string, () => Promise<Buffer>, string, string][] = [
    ["signed", () => sign(text), "signed", "signed"],
    ["encrypted by CBC", () => encrypt(text), "encrypted", "encrypted"],
    ["encrypted by GCM", () => encrypt(text, "peer"), "encrypted", "encrypted"],
    ["signed, then encrypted", async () => encrypt(await sign(text)), "sealed", "encrypted signed"],
    ["encrypted, then signed", async () => sign(await encrypt(text)), "encrypted", "signed encrypted"],
    ["compressed", async () => compressed(text), "none", "compressed"],
    ["compressed in chunks", async () => compressed(text, { chunks: true }), "none", "compressed"],
    ["signed, compressed", async () => compressed(await sign(text)), "signed", "compressed signed"],
    [
      "triple wrapped (RFC 2634), each in MIME",
      async () =>
        mime(await sign(mime(await encrypt(mime(await sign(text), "signed-data")), "enveloped-data")), "signed-data"),
      "sealed",
      "signed encrypted signed",
    ],
    [
      "called what it is not",
      async () => mime(await encrypt(mime(await sign(text), "compressed-data")), "signed-data"),
      "sealed",
      "encrypted signed",
    ],
    ["our own for a peer", () => bytesOf(world.seal(new Pieces(text))), "sealed", "encrypted signed"],
    [
      "our own mail",
      () => bytesOf(world.seal(new Pieces(text), { shape: "detached", profile: "foreign" })),
      "sealed",
      "encrypted signed",
    ],
  ];

  test.each(shapes)("%s", async (_name, make, protection, layers) => {
    const bytes = await make();
    for (const size of [undefined, 1, 7])
      expect(await told(bytes, {}, size)).toEqual({ protection, layers, content: text });
    if (bytes[0] === 0x30)
      expect(await told(Buffer.from(derToPem(bytes, "CMS")))).toEqual({ protection, layers, content: text });
  });

  test("content that looks like nothing of the kind stays as it is, however large", async () => {
    for (const content of [
      Buffer.alloc(0),
      Buffer.from("0"),
      randomBytes(70_000),
      Buffer.alloc(3_000_000, "0123\r\n\r\n"),
    ])
      expect(await told(await encrypt(content, "peer"))).toMatchObject({ protection: "encrypted", content });
  });

  test("in a mail, what was encrypted without a tag has to be an entity: a wrong key may give any octets", async () => {
    const mail = async (content: Uint8Array, profile: Profile = "foreign") =>
      mime(await encrypt(content, profile), "enveloped-data");
    for (const content of [
      randomBytes(70_000).fill(0x80, 0, 8),
      Buffer.from("Hello, Bob: no head\r\n"),
      Buffer.alloc(0),
    ]) {
      const thrown = await failureOf(read(new Pieces(await mail(content)), options()));
      expect(thrown.code).toBe("seal-unreadable");
      expect(await told(await mail(content, "peer"))).toMatchObject({ protection: "encrypted", content });
      expect(await told(await encrypt(content))).toMatchObject({ protection: "encrypted", content });
    }
    for (const content of [text, Buffer.from("\r\nno field\r\n"), await sign(text)])
      expect(await told(await mail(content), {}, 1)).toMatchObject({ layers: expect.stringContaining("encrypted") });
  });

  test("plain octets, and an entity that is not S/MIME, are neither signed nor encrypted", async () => {
    for (const bytes of [text, Buffer.alloc(0), randomBytes(100_000)])
      expect(await failureOf(read(new Pieces(bytes), options()))).toMatchObject({
        code: "seal-malformed",
        details: { what: "neither signed nor encrypted" },
      });
  });

  test("a signature that does not hold is not among those that do", async () => {
    const bytes = await sign(text);
    bytes[bytes.indexOf("Hello")] = 0x4a;
    await using found = await read(new Pieces(bytes), options());
    expect(found.protection).toBe("none");
    expect(found.layers).toMatchObject([{ kind: "signed", signatures: [], signers: 1 }]);
  });

  test("a large one is moved to its name, and to no name that is taken", async () => {
    const large = randomBytes(1_500_000);
    await using found = await read(new Pieces(await encrypt(await sign(large))), options());
    const path = join(world.directory, "large");
    await found.moveTo(path);
    expect(readFileSync(path).equals(large)).toBe(true);
    await using again = await read(new Pieces(await encrypt(large)), options());
    expect((await failureOf(again.moveTo(path))).code).toBe("conflict");
  });
});

test("a mail that was kept with bare line feeds is verified as it was signed, and changed text is not", async () => {
  const body = "Content-Type: text/plain\r\n\r\nHello\r\n\r\nBob\r\n";
  const folder = world.directory;
  const signer = pemFiles(folder, "signer", alice.auth);
  writeFileSync(join(folder, "text"), body);
  const sign = ["cms", "-sign", "-in", join(folder, "text"), "-signer", signer.certificate, "-inkey", signer.key];
  for (const more of [[], ["-noattr"]]) {
    expect(await openssl([...sign, ...more, "-out", join(folder, "mail")])).toMatchObject({ code: 0 });
    const lf = Buffer.from(readFileSync(join(folder, "mail"), "latin1").replaceAll("\r\n", "\n"), "latin1");
    for (const size of [undefined, 1, 7]) expect(await told(lf, {}, size)).toMatchObject({ protection: "signed" });
    const changed = Buffer.from(lf.toString("latin1").replace("Hello", "Hallo"), "latin1");
    expect(await told(changed)).toMatchObject({ protection: "none" });
    const longer = Buffer.from(lf.toString("latin1").replace("Hello\n", "Hello\n\n"), "latin1");
    expect(await told(longer)).toMatchObject({ protection: "none" });
  }
});

describe("what is refused", () => {
  const nested = async (layers: number, wrap: (bytes: Uint8Array) => Promise<Buffer>) => {
    let bytes = text;
    for (let n = 0; n < layers; n += 1) bytes = (await wrap(bytes)) as typeof text;
    return bytes;
  };
  const code = async (bytes: Uint8Array, changes: Partial<ReadOptions> = {}) =>
    (await failureOf(read(new Pieces(bytes), options(changes)))).code;

  test("seven layers, three envelopes, two compressions; one less of each is read", async () => {
    expect((await told(await nested(6, sign))).layers).toBe("signed signed signed signed signed signed");
    expect(await code(await nested(7, sign))).toBe("seal-malformed");
    expect((await told(await nested(2, encrypt))).layers).toBe("encrypted encrypted");
    expect(await code(await nested(3, encrypt))).toBe("seal-unreadable");
    expect(await code(compressed(compressed(text)))).toBe("seal-malformed");
  });

  test("a compression bomb, by ratio and by size; compressed data cut off, followed by more, or none at all", async () => {
    expect(await code(compressed(Buffer.alloc(40_000_000)))).toBe("seal-malformed");
    expect(await code(await encrypt(compressed(Buffer.alloc(40_000_000))))).toBe("seal-unreadable");
    const deflated = deflateSync(text);
    const raws = [deflated.subarray(0, -1), Buffer.concat([deflated, Buffer.of(0)]), Buffer.alloc(0), randomBytes(50)];
    for (const raw of raws)
      expect([raw.length, await code(compressed(text, { raw }))]).toEqual([raw.length, "seal-malformed"]);
  });

  test("more bytes than allowed, and nobody's key", async () => {
    expect(await code(await sign(text), { maxBytes: 100 })).toBe("seal-too-large");
    expect(await code(await encrypt(text), { keys: new Keyring([]) })).toBe("seal-not-for-us");
  });

  test("a recipient inside whose key is nobody's: after the first key nothing is named any more", async () => {
    const forCarol = await bytesOf(
      envelopedData(new Pieces(text), [peerCertificate(world.mallory.encryption.certificate)], algorithmsOf("peer")),
    );
    expect(await code(await encrypt(forCarol))).toBe("seal-unreadable");
  });
});

describe("openssl's", () => {
  const path = (name: string) => join(world.directory, name);
  const files = () => ({
    alice: pemFiles(world.directory, "alice", alice.auth),
    bob: pemFiles(world.directory, "bob", bob.encryption),
  });
  const run = async (...args: string[]) => expect(await openssl(["cms", ...args])).toMatchObject({ code: 0 });

  test("3DES, no signed attributes, a detached signature beside its content", async () => {
    const { alice: signer, bob: recipient } = files();
    writeFileSync(path("m"), text);
    const io = ["-binary", "-in", path("m"), "-outform", "DER", "-out", path("m.p7m")];
    await run("-encrypt", "-des3", ...io, recipient.certificate);
    expect(await told(readFileSync(path("m.p7m")))).toMatchObject({ protection: "encrypted", content: text });
    const by = ["-signer", signer.certificate, "-inkey", signer.key];
    await run("-sign", "-nodetach", "-noattr", ...io, ...by);
    expect(await told(readFileSync(path("m.p7m")))).toMatchObject({ protection: "signed", content: text });
    for (const more of [[], ["-noattr"]]) {
      await run("-sign", ...more, ...io, ...by);
      const detached = { detached: () => new Pieces(text, 5) };
      expect(await told(readFileSync(path("m.p7m")), detached)).toMatchObject({
        protection: "signed",
        content: undefined,
      });
      const other = { detached: () => new Pieces(entityTo("x@example.test", "other")) };
      expect(await told(readFileSync(path("m.p7m")), other)).toMatchObject({ protection: "none" });
    }
  });
});
