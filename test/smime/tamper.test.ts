import { randomBytes } from "node:crypto";
import { afterAll, describe, expect, test } from "vitest";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { asSuiteError, SuiteError } from "../../src/pki/suite-error.ts";
import { envelopedData } from "../../src/smime/envelope-write.ts";
import { FailureBudget } from "../../src/smime/failure.ts";
import { algorithmsOf } from "../../src/smime/profile.ts";
import { bytesOf, entityTo, flipped, Pieces, pseudoRandom, type SealWorld, sealWorld } from "../support/smime.ts";

// Whatever happens to the bytes: an error or the same signed content; never other content, a final name or a .part; and
// once a key was used, one and the same error, with the source read to its end.

const ec = sealWorld({ encryptionKey: "ec" });
const rsa = sealWorld({ encryptionKey: "rsa" });
afterAll(() => {
  ec[Symbol.dispose]();
  rsa[Symbol.dispose]();
});

class Watched extends FailureBudget {
  reached = false;
  override check(...given: Parameters<FailureBudget["check"]>): void {
    this.reached = true;
    super.check(...given);
  }
}

const namedBeforeTheKey = ["seal-malformed", "seal-not-for-us", "seal-unsupported"];

/** Opens `bytes` and holds the contract; gives the outcome. */
async function tampered(world: SealWorld, bytes: Buffer, digest: string): Promise<string> {
  const budget = new Watched();
  const source = new Pieces(bytes, 8192);
  let outcome: string;
  try {
    await using opened = await world.open(source, { budget });
    expect(opened.digest).toBe(digest);
    outcome = "same content";
  } catch (thrown) {
    outcome = asSuiteError(thrown).code;
    if (budget.reached) expect(outcome).toBe("seal-unreadable");
    else expect(namedBeforeTheKey).toContain(outcome);
  }
  if (budget.reached) expect(source.consumed).toBe(bytes.length);
  expect(world.strayFiles()).toEqual([]);
  return outcome;
}

async function sealedAndDigest(world: SealWorld, size: number, shape: "opaque" | "detached") {
  const body = shape === "opaque" ? randomBytes(size) : Buffer.alloc(size, "a line of text\r\n");
  const bytes = await bytesOf(world.seal(new Pieces(entityTo(world.bob.identity, body)), { shape }));
  await using opened = await world.open(new Pieces(bytes));
  return { bytes, digest: opened.digest };
}

describe.each(["opaque", "detached"] as const)("%s, to an EC key", (shape) => {
  test("one bit flipped in each octet of a small seal", async () => {
    const { bytes, digest } = await sealedAndDigest(ec, 10, shape);
    const outcomes = new Map<string, number>();
    for (let i = 0; i < bytes.length; i++) {
      const outcome = await tampered(ec, flipped(bytes, i, i % 8), digest);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    expect(outcomes.get("seal-unreadable")).toBeGreaterThan(bytes.length * 0.7);
    expect(outcomes.get("same content") ?? 0).toBeLessThan(8); // version numbers, which nothing depends on
  });

  test("cut at each octet", async () => {
    const { bytes, digest } = await sealedAndDigest(ec, 10, shape);
    for (let i = 0; i < bytes.length; i++)
      expect(await tampered(ec, bytes.subarray(0, i), digest)).not.toBe("same content");
  });

  test.each([100_000, 1_200_000])(
    "bits flipped and cuts at random in a seal of %d bytes, which needs a file",
    async (size) => {
      const { bytes, digest } = await sealedAndDigest(ec, size, shape);
      const place = pseudoRandom(size, bytes.length);
      for (let i = 0; i < 60; i++) {
        await tampered(ec, flipped(bytes, place() - 1, i % 8), digest);
        expect(await tampered(ec, bytes.subarray(0, place() - 1), digest)).not.toBe("same content");
      }
    },
  );
});

test("each length and each end in the chunked form, damaged", async () => {
  const { bytes, digest } = await sealedAndDigest(ec, 1_200_000, "opaque");
  const start = bytes.indexOf(Buffer.from("a0800483040000", "hex"));
  const places = [
    ...range(0, start + 7),
    ...range(start + 7 + 262_144, start + 7 + 262_149),
    ...range(bytes.length - 30, bytes.length),
  ];
  for (const i of places) await tampered(ec, flipped(bytes, i, i % 8), digest);
});

test("to an RSA key: bits flipped in the head, the encrypted key and the rest", async () => {
  const { bytes, digest } = await sealedAndDigest(rsa, 10, "opaque");
  for (let i = 0; i < bytes.length; i += i < 250 ? 1 : 7) await tampered(rsa, flipped(bytes, i, i % 8), digest);
});

describe.each(["opaque", "detached"] as const)("%s, signature against content", (shape) => {
  test("one bit flipped in each octet inside the envelope, sealed anew", async () => {
    const { bob, seal, open } = ec;
    const recipient = [peerCertificate(bob.encryption.certificate)];
    const entity = entityTo(bob.identity, "what Alice signed\r\n");
    await using whole = await open(seal(new Pieces(entity), { shape }), { keep: "entity" });
    if (!("bytes" in whole.content)) throw new Error("not in memory");
    const inner = whole.content.bytes;
    for (let i = 0; i < inner.length; i++) {
      const again = envelopedData(new Pieces(flipped(inner, i, i % 8)), recipient, algorithmsOf("peer"));
      try {
        await using opened = await open(again);
        expect(opened.content).toEqual({ bytes: Buffer.from("what Alice signed\r\n") });
        expect(opened.head.fields.map(({ raw }) => raw)).toEqual(whole.head.fields.map(({ raw }) => raw));
      } catch (thrown) {
        if (!(thrown instanceof SuiteError)) throw thrown;
        expect(["seal-unreadable", "seal-untrusted"]).toContain(thrown.code); // untrusted: the chain lost its issuer
      }
    }
  });
});

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}
