import { deflateSync } from "node:zlib";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { peerCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { asSuiteError } from "../../src/pki/suite-error.ts";
import { aes256Gcm, contentType } from "../../src/smime/algorithms.ts";
import { envelopedData } from "../../src/smime/envelope-write.ts";
import { FailureBudget } from "../../src/smime/failure.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import { algorithmsOf, type Profile } from "../../src/smime/profile.ts";
import { type Read, type ReadOptions, read } from "../../src/smime/read.ts";
import { recipientInfo } from "../../src/smime/recipient-write.ts";
import { opaqueSignedData } from "../../src/smime/signed-write.ts";
import { bytesOf, entityTo, failureOf, flipped, Pieces, type SealWorld, sealWorld } from "../support/smime.ts";

// What a stranger may send to wear the reader down, or to have something accepted: bombs, lengths, cuts, flipped bits. That it
// ends early is shown by how much was taken, never by the clock. `malicious-signature.test.ts` has what plays with layers.

const worlds = { rsa: sealWorld({ encryptionKey: "rsa" }), ec: sealWorld({ encryptionKey: "ec" }) };
const { ec } = worlds;
afterAll(() => {
  for (const world of Object.values(worlds)) world[Symbol.dispose]();
});
afterEach(() => expect([worlds.rsa.strayFiles(), ec.strayFiles()]).toEqual([[], []]));

const readOptions = (changes: Partial<ReadOptions> = {}): ReadOptions => ({
  keys: new Keyring([ec.bob.encryption]),
  candidates: [],
  directory: ec.directory,
  maxBytes: 100_000_000,
  ...changes,
});

/** How `open` and `read` refuse the same bytes. */
async function refusals(make: () => AsyncIterable<Uint8Array>): Promise<[string, string]> {
  const [opened, found] = [await failureOf(ec.open(make())), await failureOf(read(make(), readOptions()))];
  return [opened.code, found.code];
}

/** Gives `head`, then `piece` again and again, and counts how often. */
class Bomb implements AsyncIterable<Buffer> {
  given = 0;
  readonly #head: Buffer;
  readonly #piece: (n: number) => Buffer;
  readonly #times: number;

  constructor(head: Buffer, piece: Buffer | ((n: number) => Buffer), times: number) {
    this.#head = head;
    this.#piece = typeof piece === "function" ? piece : () => piece;
    this.#times = times;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    yield Buffer.from(this.#head);
    for (; this.given < this.#times; this.given += 1) yield Buffer.from(this.#piece(this.given));
  }
}

const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");
const infoFor = (world: SealWorld) =>
  recipientInfo(world.bob.encryption.certificate, Buffer.alloc(32, 7), algorithmsOf("peer"));
const gcm = der.sequence(der.oid(aes256Gcm.oid), der.sequence(der.octetString(Buffer.alloc(12)), der.integer(16)));
const envelopeStart = Buffer.concat([hex("3080"), der.oid(contentType.authEnvelopedData), hex("a080 3080 020100")]);

describe("bombs", () => {
  test("100,000 recipients: refused at the 2,001st, the rest is never asked for", async () => {
    const mallory = recipientInfo(ec.mallory.encryption.certificate, Buffer.alloc(32), algorithmsOf("peer"));
    for (const attempt of [(source: Bomb) => ec.open(source), (source: Bomb) => read(source, readOptions())]) {
      const source = new Bomb(Buffer.concat([envelopeStart, hex("3180")]), mallory, 100_000);
      const failure = await failureOf(attempt(source));
      expect(failure).toMatchObject({ code: "seal-malformed", details: { what: "too many recipients" } });
      expect(source.given).toBeLessThanOrEqual(2_002);
    }
  });

  const own = infoFor(ec);
  const ciphertextStart = Buffer.concat([
    envelopeStart,
    der.set(own),
    hex("3080"),
    der.oid(contentType.data),
    gcm,
    hex("a080"),
  ]);
  const attributesStart = Buffer.concat([
    envelopeStart,
    der.set(own),
    der.sequence(der.oid(contentType.data), gcm, der.implicitPrimitive(0, Buffer.alloc(100))),
    der.octetString(Buffer.alloc(16)),
  ]);
  const definite = (levels: number) => {
    let value: Buffer = Buffer.alloc(0);
    for (let n = 0; n < levels && value.length < 60_000; n += 1) value = der.sequence(value);
    return value;
  };

  test.each<[string, Buffer, Buffer, string]>([
    ["in the originator's information", Buffer.concat([envelopeStart]), hex("a080"), "seal-malformed"],
    ["in a recipient", Buffer.concat([envelopeStart, hex("3180")]), hex("3080"), "seal-malformed"],
    ["in the ciphertext", ciphertextStart, hex("2480"), "seal-unreadable"],
    ["in the unauthenticated attributes", attributesStart, hex("a280"), "seal-unreadable"],
    ["from the first octet", Buffer.alloc(0), hex("3080"), "seal-malformed"],
  ])("100,000 values of indefinite length in each other, %s", async (_, head, piece, code) => {
    expect(await refusals(() => new Bomb(head, piece, 100_000))).toEqual([code, code]);
    const source = new Bomb(head, piece, 100_000);
    await failureOf(ec.open(source));
    if (code === "seal-malformed") expect(source.given).toBeLessThan(40); // after the key the source is read to its end
  });

  test("20,000 values of definite length in each other, in a recipient", async () => {
    const bytes = Buffer.concat([envelopeStart, hex("3180"), definite(20_000)]);
    const expected = { code: "seal-malformed", details: { what: "nested too deeply" } }; // not for want of stack
    expect(await failureOf(ec.open(new Pieces(bytes)))).toMatchObject(expected);
    expect(await failureOf(read(new Pieces(bytes), readOptions()))).toMatchObject(expected);
  });

  test("an octet string in 27 others, the 32nd level, opens; in 28 it does not", async () => {
    const sealed = await bytesOf(ec.seal(new Pieces(entityTo(ec.bob.identity, "deep"))));
    await using opened = await ec.open(new Pieces(nested(sealed, 27)));
    expect(opened.content).toEqual({ bytes: Buffer.from("deep") });
    expect((await failureOf(ec.open(new Pieces(nested(sealed, 28))))).code).toBe("seal-unreadable");
  });

  test("10,000 multipart/signed in each other: refused at the seventh, the rest is never asked for", async () => {
    const type = 'multipart/signed; protocol="application/pkcs7-signature"';
    const level = (n: number) => Buffer.from(`Content-Type: ${type}; boundary=b${n}b\r\n\r\n--b${n}b\r\n`);
    const source = new Bomb(Buffer.alloc(0), level, 10_000);
    const failure = await failureOf(read(source, readOptions()));
    expect(failure).toMatchObject({ code: "seal-malformed", details: { what: "too many layers" } });
    expect(source.given).toBeLessThan(1_000); // 64 KiB are read ahead
  });

  test("10,000 multipart/mixed in each other are not gone into: content like any other", async () => {
    const level = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n";
    const bytes = Buffer.from(level.repeat(10_000));
    expect((await failureOf(read(new Pieces(bytes), readOptions()))).code).toBe("seal-malformed");
    await using found = await read(new Pieces(await enveloped(ec, bytes)), readOptions());
    expect([found.protection, sizeOf(found)]).toEqual(["encrypted", bytes.length]);
  });

  // By ratio: read.test.ts, "a compression bomb".
  test("compressed no better than it may be, but to more than is allowed", async () => {
    const lines = Buffer.concat(Array.from({ length: 60_000 }, (_, n) => Buffer.from(`${n % 300} a line of text\r\n`)));
    const deflated = deflateSync(lines);
    expect(lines.length / deflated.length).toBeLessThan(100);
    const inner = der.sequence(der.oid(contentType.data), der.explicit(0, der.octetString(deflated)));
    const body = der.sequence(der.integer(0), der.sequence(der.oid("1.2.840.113549.1.9.16.3.8")), inner);
    const bytes = der.sequence(der.oid(contentType.compressedData), der.explicit(0, body));
    await using found = await read(new Pieces(bytes), readOptions({ maxBytes: lines.length }));
    expect(sizeOf(found)).toBe(lines.length);
    const maxBytes = lines.length - 1;
    const code = async (given: Buffer) => (await failureOf(read(new Pieces(given), readOptions({ maxBytes })))).code;
    expect([await code(bytes), await code(await enveloped(ec, bytes))]).toEqual(["seal-too-large", "seal-unreadable"]);
  });
});

describe("lengths that lie", () => {
  test("2^48 − 1, and one more than there is, at every value of a seal and of what is inside", async () => {
    const sealed = await bytesOf(ec.seal(new Pieces(entityTo(ec.bob.identity, "short"))));
    const signed = await bytesOf(
      opaqueSignedData(new Pieces(entityTo(ec.bob.identity, "x")), ec.alice.auth, ec.domain.now),
    );
    for (const lying of lies(sealed)) {
      expect(["seal-malformed", "seal-unsupported", "seal-unreadable"]).toContain(
        (await failureOf(ec.open(new Pieces(lying)))).code,
      );
    }
    for (const lying of lies(signed)) {
      const failure = await outcome(async () => read(new Pieces(lying), readOptions()));
      // A certificate that does not parse is passed over: then the signature is nobody's.
      expect(["seal-malformed", "seal-unsupported", "none"]).toContain(failure);
      expect((await failureOf(ec.open(new Pieces(await enveloped(ec, lying))))).code).toBe("seal-unreadable");
    }
  });
});

const seals: [Profile, "rsa" | "ec"][] = (["peer", "sip", "foreign"] as const).flatMap((profile) => [
  [profile, "rsa"],
  [profile, "ec"],
]);

describe.each(seals)("a seal by profile %s to an %s key", (profile, key) => {
  const world = worlds[key];
  const body = Buffer.from("what Alice signed\r\n");
  const whole = () => bytesOf(world.seal(new Pieces(entityTo(world.bob.identity, body)), { profile }));

  class Watched extends FailureBudget {
    reached = false;
    override check(...given: Parameters<FailureBudget["check"]>): void {
      this.reached = true;
      super.check(...given);
    }
  }

  /** The content that was accepted, or the code; once a key was used the code is one and the source read to its end. */
  async function outcomeOf(bytes: Buffer): Promise<string> {
    const [source, budget] = [new Pieces(bytes, 512), new Watched()];
    try {
      await using opened = await world.open(source, { budget });
      return "bytes" in opened.content ? opened.content.bytes.toString() : "a file";
    } catch (thrown) {
      const { code } = asSuiteError(thrown);
      if (budget.reached) expect([code, source.consumed]).toEqual(["seal-unreadable", bytes.length]);
      else expect(["seal-malformed", "seal-unsupported", "seal-not-for-us"]).toContain(code);
      return code;
    } finally {
      expect(world.strayFiles()).toEqual([]);
    }
  }

  test("cut before and behind every header of it: never accepted", async () => {
    const bytes = await whole();
    expect(await outcomeOf(bytes)).toBe(body.toString());
    for (const { at, contentAt, end } of elements(bytes)) {
      for (const cut of [at, contentAt, end].filter((place) => place < bytes.length))
        expect(await outcomeOf(bytes.subarray(0, cut))).not.toBe(body.toString());
    }
  });

  test("cut before and behind every header of the signature inside, sealed anew: never accepted", async () => {
    const inner = await bytesOf(
      opaqueSignedData(new Pieces(entityTo(world.bob.identity, body)), world.alice.auth, world.domain.now),
    );
    const places = new Set(elements(inner).flatMap(({ at, contentAt, end }) => [at, contentAt, end]));
    for (const cut of places) {
      const found = await outcomeOf(await enveloped(world, inner.subarray(0, cut), profile));
      expect(found).toBe(cut === inner.length ? body.toString() : "seal-unreadable");
    }
  });

  test("a bit flipped in every octet of what is no ciphertext, and in every 16th of that: the same content or none", async () => {
    const bytes = await whole();
    const opaque = elements(bytes).filter(
      ({ at, contentAt, end }) => (end - contentAt > 200 && (bytes[at] ?? 0) & 0x80) || isKey(bytes, contentAt, end),
    );
    const isOpaque = (place: number) => opaque.some(({ contentAt, end }) => place >= contentAt && place < end);
    let refused = 0;
    let tried = 0;
    for (let at = 0; at < bytes.length; at += 1) {
      if (isOpaque(at) && at % 16 !== 0) continue;
      tried += 1;
      const found = await outcomeOf(flipped(bytes, at, at % 8));
      if (found !== body.toString()) refused += 1;
      expect([body.toString(), "seal-malformed", "seal-unsupported", "seal-not-for-us", "seal-unreadable"]).toContain(
        found,
      );
    }
    expect(refused).toBeGreaterThan(tried * 0.9); // version numbers and a NULL are what nothing depends on
  });
});

/** A seal as above in indefinite lengths, its ciphertext in so many octet strings within each other. */
function nested(sealed: Buffer, levels: number): Buffer {
  const members = (bytes: Uint8Array) => {
    const cursor = new der.DerCursor(bytes);
    const found: der.DerElement[] = [];
    while (!cursor.done) found.push(cursor.next());
    return found;
  };
  const [, explicit] = members(der.readDer(sealed).content);
  const [, infos, encrypted, tag] = members(members(explicit?.content ?? sealed)[0]?.content ?? sealed);
  const [type, algorithm, ciphertext] = members(encrypted?.content ?? sealed);
  const none = Buffer.alloc(0);
  return Buffer.concat([
    envelopeStart,
    infos?.bytes ?? none,
    hex("3080"),
    type?.bytes ?? none,
    algorithm?.bytes ?? none,
    hex("a080"),
    hex("2480".repeat(levels)),
    der.octetString(ciphertext?.content ?? none),
    hex("0000".repeat(levels + 2)),
    tag?.bytes ?? none,
    hex("0000".repeat(3)),
  ]);
}

interface Place {
  readonly at: number;
  readonly contentAt: number;
  readonly end: number;
}

/** Every value of a DER object, those inside of others too. */
function elements(bytes: Buffer, start = 0, stop = bytes.length): Place[] {
  const found: Place[] = [];
  for (let at = start; at < stop; ) {
    const first = bytes.readUInt8(at + 1);
    const octets = first < 0x80 ? 0 : first & 0x7f;
    const contentAt = at + 2 + octets;
    const end = contentAt + (octets === 0 ? first : bytes.readUIntBE(at + 2, octets));
    found.push({ at, contentAt, end });
    if (bytes.readUInt8(at) & 0x20) found.push(...elements(bytes, contentAt, end));
    at = end;
  }
  return found;
}

/** An RSA-encrypted key: an OCTET STRING as long as the modulus. */
function isKey(bytes: Buffer, contentAt: number, end: number): boolean {
  return end - contentAt === 384 && bytes[contentAt - 4] === der.tag.octetString;
}

/** Each value in turn with a length of 2^48 − 1, and with one octet more than it has. */
function lies(bytes: Buffer): Buffer[] {
  return elements(bytes).flatMap(({ at, contentAt, end }) => {
    const put = (length: number) => {
      const header = Buffer.alloc(8);
      header[0] = bytes.readUInt8(at);
      header[1] = 0x86;
      header.writeUIntBE(length, 2, 6);
      return Buffer.concat([bytes.subarray(0, at), header, bytes.subarray(contentAt)]);
    };
    return [put(2 ** 48 - 1), put(end - contentAt + 1)];
  });
}

const enveloped = (world: SealWorld, plain: Uint8Array, profile: Profile = "peer") =>
  bytesOf(envelopedData(new Pieces(plain), [peerCertificate(world.bob.encryption.certificate)], algorithmsOf(profile)));

async function outcome(reading: () => Promise<Read>): Promise<string> {
  try {
    await using found = await reading();
    return found.protection;
  } catch (thrown) {
    return asSuiteError(thrown).code;
  }
}

function sizeOf({ content }: Read): number | undefined {
  return content === undefined ? undefined : "bytes" in content ? content.bytes.length : content.size;
}
