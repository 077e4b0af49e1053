import { createCipheriv, randomBytes } from "node:crypto";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { type Certificate, peerCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { aes256Gcm, contentType } from "../../src/smime/algorithms.ts";
import { envelopedData } from "../../src/smime/envelope-write.ts";
import { FailureBudget } from "../../src/smime/failure.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import { algorithmsOf } from "../../src/smime/profile.ts";
import { recipientInfo } from "../../src/smime/recipient-write.ts";
import { opaqueSignedData } from "../../src/smime/signed-write.ts";
import { makeTestDomain } from "../support/pki.ts";
import { bytesOf, entityTo, failureOf, flipped, Pieces, sealWorld } from "../support/smime.ts";

const world = sealWorld({ encryptionKey: "ec" });
const { alice, bob, mallory, domain } = world;
afterAll(() => world[Symbol.dispose]());
afterEach(() => expect(world.strayFiles()).toEqual([]));

const large = randomBytes(200_000); // goes through a .part file
const entity = entityTo(bob.identity, large);
const sealed = (changes: Parameters<typeof world.seal>[1] = {}) => bytesOf(world.seal(new Pieces(entity), changes));

describe("a seal that opens, but is not to be believed", () => {
  test("signed by another person of the same CA: seal-wrong-signer", async () => {
    const failure = await failureOf(world.open(new Pieces(await sealed({ signer: mallory.auth }))));
    expect(failure.code).toBe("seal-wrong-signer");
  });

  test.each([
    ["untrusted", "issuer-unknown"],
    ["expired", "expired"],
    ["not-yet-valid", "not-yet-valid"],
    ["code-signing-only", "purpose"],
  ] as const)("signed with a certificate that is %s: seal-untrusted", async (kind, reason) => {
    const signer = domain.bad(kind, "alice@example.test");
    const failure = await failureOf(world.open(new Pieces(await sealed({ signer }))));
    expect(failure).toMatchObject({ code: "seal-untrusted", details: { reason } });
  });

  test("the path is judged before the name: an untrusted stranger is untrusted", async () => {
    const signer = domain.bad("untrusted", "mallory@example.test");
    const failure = await failureOf(world.open(new Pieces(await sealed({ signer }))));
    expect(failure.code).toBe("seal-untrusted");
  });

  test("signed before the certificate was valid, or more than 10 minutes ahead of our clock: seal-untrusted", async () => {
    for (const minutes of [-10, 11]) {
      const now = new Date(domain.now.getTime() + minutes * 60_000);
      const failure = await failureOf(world.open(new Pieces(await signedAt(now))));
      expect(failure).toMatchObject({ code: "seal-untrusted", details: { reason: "signing-time" } });
    }
  });

  test("9 minutes ahead of our clock passes", async () => {
    const now = new Date(domain.now.getTime() + 9 * 60_000);
    await using opened = await world.open(new Pieces(await sealed({ now })));
    expect(opened.signedAt).toEqual(new Date(Math.floor(now.getTime() / 1000) * 1000));
  });

  test("the signed head names others, or nobody: seal-not-addressed", async () => {
    for (const to of ["mallory@example.test", "", "not an address", '"bob@example.test" <eve@example.test>']) {
      const bytes = await bytesOf(world.seal(new Pieces(entityTo(to, large))));
      expect((await failureOf(world.open(new Pieces(bytes)))).code).toBe("seal-not-addressed");
    }
  });

  test("named in Cc or Bcc, among others and in other letters, is addressed", async () => {
    for (const field of [
      "Cc: Eve <eve@x.test>, Bob <BOB@Example.Test>",
      "Bcc: bob@example.test",
      "To: team: eve@x.test, bob@example.test;",
    ]) {
      const bytes = await bytesOf(world.seal(new Pieces(Buffer.from(`${field}\r\n\r\nbody`))));
      await using opened = await world.open(new Pieces(bytes));
      expect(opened.content).toEqual({ bytes: Buffer.from("body") });
    }
  });
});

describe("faults that anybody can see are named, and need no key", () => {
  class Untouched extends FailureBudget {
    override check(): void {
      throw new Error("came as far as the key");
    }
  }
  const early = async (bytes: Uint8Array, changes = {}) =>
    (await failureOf(world.open(new Pieces(bytes), { budget: new Untouched(), ...changes }))).code;

  test("sealed to somebody else: seal-not-for-us", async () => {
    const recipients = [peerCertificate(mallory.encryption.certificate)];
    expect(await early(await sealed({ recipients }))).toBe("seal-not-for-us");
  });

  test("only signed: not-sealed", async () => {
    expect(await early(await bytesOf(opaqueSignedData(new Pieces(entity), alice.auth, domain.now)))).toBe("not-sealed");
  });

  test("no CMS, nothing at all, or cut in its head: seal-malformed", async () => {
    const bytes = await sealed();
    for (const bad of [
      Buffer.from("MIME-Version: 1.0\r\n\r\n"),
      Buffer.alloc(0),
      randomBytes(5000),
      bytes.subarray(0, 100),
    ]) {
      expect(await early(bad)).toBe("seal-malformed");
    }
  });

  test("an unknown cipher, a nonce of 16 octets: seal-unsupported; a tag of 8 octets: seal-malformed", async () => {
    const nonce = der.octetString(randomBytes(12));
    expect(await early(envelopeWith("1.2.3.4", der.sequence(nonce, der.integer(16))))).toBe("seal-unsupported");
    expect(
      await early(envelopeWith(aes256Gcm.oid, der.sequence(der.octetString(randomBytes(16)), der.integer(16)))),
    ).toBe("seal-unsupported");
    expect(await early(envelopeWith(aes256Gcm.oid, der.sequence(nonce, der.integer(8))))).toBe("seal-malformed");
  });

  test("2001 recipients, a recipient of 70 KiB: seal-malformed", async () => {
    const other = infoFor(mallory.encryption.certificate);
    const envelope = (...infos: Buffer[]) =>
      Buffer.concat([
        Buffer.from("3080", "hex"),
        der.oid(contentType.authEnvelopedData),
        Buffer.from("a0803080", "hex"),
        der.integer(0),
        der.encode(0x31, ...infos),
      ]);
    expect(await early(envelope(...Array<Buffer>(2001).fill(other)))).toBe("seal-malformed");
    expect(await early(envelope(der.implicitConstructed(4, Buffer.alloc(70_000))))).toBe("seal-malformed");
  });
});

describe("after the key step every fault is the same one", () => {
  const unreadable = async (bytes: Buffer, changes = {}) => {
    const source = new Pieces(bytes, 4096);
    const failure = await failureOf(world.open(source, changes));
    expect(source.consumed).toBe(bytes.length);
    return { code: failure.code, message: failure.message, details: failure.details, fault: failure.fault };
  };
  const enveloped = (plain: Buffer) =>
    bytesOf(envelopedData(new Pieces(plain), [peerCertificate(bob.encryption.certificate)], algorithmsOf("peer")));

  test("wrong key, tag, inner syntax, unsigned, wrong digest, bad signature: all equal, the source read to its end", async () => {
    const good = await sealed();
    const wrongKey = new Keyring([
      { certificate: bob.encryption.certificate, privateKey: mallory.encryption.privateKey },
    ]);
    const wrongTag = flipped(good, good.length - 1);
    const inner = await bytesOf(opaqueSignedData(new Pieces(entity), alice.auth, domain.now));
    const wrongContent = flipped(inner, 1000);
    const wrongSignature = flipped(inner, inner.length - 1);
    const faults = [
      await unreadable(good, { keys: wrongKey }),
      await unreadable(wrongTag),
      await unreadable(good.subarray(0, -1)),
      await unreadable(Buffer.concat([good, Buffer.of(0)])),
      await unreadable(await enveloped(entity)), // not signed
      await unreadable(await enveloped(randomBytes(100_000))),
      await unreadable(await enveloped(Buffer.alloc(0))),
      await unreadable(await enveloped(wrongContent)),
      await unreadable(await enveloped(wrongSignature)),
      await unreadable(await enveloped(inner.subarray(0, -10))),
      await unreadable(await enveloped(Buffer.concat([inner, Buffer.of(0)]))),
      await unreadable(
        await enveloped(
          Buffer.concat([
            Buffer.from("Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n"),
            entity,
            Buffer.from("\r\n--b--\r\n"),
          ]),
        ),
      ),
      await unreadable(await enveloped(await sealed())), // an envelope where the signature should be
    ];
    expect(new Set(faults.map((fault) => JSON.stringify(fault))).size).toBe(1);
    expect(faults[0]?.code).toBe("seal-unreadable");
    await using opened = await world.open(new Pieces(await enveloped(inner)));
    expect(opened.content).toMatchObject({ size: large.length }); // the same way round, unharmed, it opens
  });

  test("a content key of another length than the cipher's is no other fault", async () => {
    const nonce = randomBytes(12);
    const key = randomBytes(32);
    const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: 16 });
    const ciphertext = Buffer.concat([cipher.update(entity), cipher.final()]);
    const parameters = der.sequence(der.octetString(nonce), der.integer(16));
    const bytes = envelopeWith(aes256Gcm.oid, parameters, {
      key: randomBytes(16),
      ciphertext,
      tag: cipher.getAuthTag(),
    });
    expect((await unreadable(bytes)).code).toBe("seal-unreadable");
  });
});

describe("limits and what is not the seal's fault", () => {
  test("one byte over maxBytes is seal-too-large, whether the seal is good or not", async () => {
    const good = await sealed();
    const bad = flipped(good, good.length - 1);
    for (const bytes of [good, bad]) {
      const failure = await failureOf(world.open(new Pieces(bytes, 1000), { maxBytes: bytes.length - 1 }));
      expect(failure.code).toBe("seal-too-large");
    }
    await using opened = await world.open(new Pieces(good), { maxBytes: good.length });
    expect(opened.cipher).toBe("aes-256-gcm");
  });

  test("after 20 failures in a day a peer's seals are refused, temporarily, and only that peer's", async () => {
    const budget = new FailureBudget();
    let now = domain.now;
    const good = await sealed();
    const bad = flipped(good, good.length - 1);
    const attempt = (bytes: Buffer, changes = {}) =>
      world.open(new Pieces(bytes), { budget, clock: () => now, ...changes });
    for (let i = 0; i < 20; i++) expect((await failureOf(attempt(bad))).code).toBe("seal-unreadable");
    expect(await failureOf(attempt(await sealed()))).toMatchObject({ code: "seal-rate-limited", temporary: true });
    await using other = await attempt(await sealed(), { peer: mallory.auth.certificate.fingerprint });
    expect(other.signer.fingerprint).toBe(alice.auth.certificate.fingerprint);
    now = new Date(now.getTime() + 86_400_001);
    await using next = await attempt(await sealed());
    expect(next.signer.fingerprint).toBe(alice.auth.certificate.fingerprint);
  });

  test("a seal that cannot be opened is a failure also if its source breaks off before it is told; one that could be is none", async () => {
    const lost = new SuiteError("unreachable", "the peer went away", { fault: "peer", temporary: true });
    const cut = async function* (bytes: Buffer) {
      yield bytes.subarray(0, bytes.length - 100);
      throw lost;
    };
    const to = [peerCertificate(bob.encryption.certificate)];
    const unsigned = await bytesOf(envelopedData(new Pieces(randomBytes(100_000)), to, algorithmsOf("peer")));
    for (const [bytes, code] of [
      [unsigned, "seal-rate-limited"],
      [await sealed(), undefined],
    ] as const) {
      const budget = new FailureBudget();
      for (let i = 0; i < 20; i++) expect(await failureOf(world.open(cut(bytes), { budget }))).toBe(lost);
      const next = world.open(new Pieces(await sealed()), { budget });
      if (code === undefined) await (await next)[Symbol.asyncDispose]();
      else expect((await failureOf(next)).code).toBe(code);
    }
  });

  test("a source that fails is told as it failed, before the key and after", async () => {
    const bytes = await sealed();
    const lost = new SuiteError("unreachable", "the peer went away", { fault: "peer", temporary: true });
    for (const until of [50, 100_000]) {
      const budget = new FailureBudget(0);
      const source = (async function* () {
        yield bytes.subarray(0, until);
        throw lost;
      })();
      expect(await failureOf(world.open(source, until < 1000 ? { budget } : {}))).toBe(lost);
    }
  });

  test("an aborted signal ends the wait for bytes and leaves no file", async () => {
    const bytes = await sealed();
    const controller = new AbortController();
    const stuck = (async function* () {
      yield bytes.subarray(0, 150_000);
      setImmediate(() => controller.abort());
      await new Promise(() => undefined);
    })();
    expect((await failureOf(world.open(stuck, {}, controller.signal))).code).toBe("cancelled");
  });

  test("a directory that cannot be written to is store-failed, temporarily", async () => {
    const failure = await failureOf(
      world.open(new Pieces(await sealed()), { directory: `${world.directory}/missing` }),
    );
    expect(failure).toMatchObject({ code: "store-failed", temporary: true, fault: "local" });
  });

  test("a recipient that cannot be sealed to is told before a byte is written", async () => {
    const expired = makeTestDomain({ domain: "example.test", now: new Date(domain.now.getTime() - 900 * 86_400_000) });
    const old = expired.person({ identity: "bob@example.test", encryptionKey: "ec" }).encryption.certificate;
    for (const certificate of [bob.auth.certificate, old]) {
      const bytes = bytesOf(world.seal(new Pieces(entity), { recipients: [peerCertificate(certificate)] }));
      expect((await failureOf(bytes)).code).toBe("recipient-unusable");
    }
  });
});

function infoFor(certificate: Certificate, key: Buffer = randomBytes(32)): Buffer {
  return recipientInfo(certificate, key, algorithmsOf("peer"));
}

/** An envelope for Bob, put together by hand. */
function envelopeWith(
  cipher: string,
  parameters: Buffer,
  { key = randomBytes(32), ciphertext = large, tag = randomBytes(16) } = {},
): Buffer {
  const algorithm = der.sequence(der.oid(cipher), parameters);
  const encrypted = der.sequence(der.oid(contentType.data), algorithm, der.implicitPrimitive(0, ciphertext));
  const infos = der.set(infoFor(bob.encryption.certificate, key));
  const body = der.sequence(der.integer(0), infos, encrypted, der.octetString(tag));
  return der.sequence(der.oid(contentType.authEnvelopedData), der.explicit(0, body));
}

/** Signed at another time than it was sealed. */
async function signedAt(now: Date): Promise<Buffer> {
  const inner = opaqueSignedData(new Pieces(entity), alice.auth, now);
  return bytesOf(envelopedData(inner, [peerCertificate(bob.encryption.certificate)], algorithmsOf("peer")));
}
