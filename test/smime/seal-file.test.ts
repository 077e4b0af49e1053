import { createDecipheriv, createHash, randomBytes } from "node:crypto";
import {
  createReadStream,
  existsSync,
  linkSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { open as openFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { segmentBytes } from "../../src/smime/file-layout.ts";
import { joinedTag, StretchCipher } from "../../src/smime/ghash.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import { read } from "../../src/smime/read.ts";
import { encryptFile, type SealFileOptions, sealFile } from "../../src/smime/seal-file.ts";
import { Threads } from "../../src/smime/threads.ts";
import { openssl, pemFiles } from "../support/openssl.ts";
import { entityTo, failureOf, pseudoRandom, sealWorld } from "../support/smime.ts";

const world = sealWorld({ encryptionKey: "rsa" });
const { alice, bob, domain } = world;
const threads = new Threads({ count: 2 });
afterAll(async () => {
  await threads[Symbol.asyncDispose]();
  world[Symbol.dispose]();
});

const path = (name: string) => join(world.directory, name);
const head = entityTo(bob.identity, "");

const options = (changes: Partial<SealFileOptions> = {}): SealFileOptions => ({
  signer: alice.auth,
  now: domain.now,
  recipients: [peerCertificate(bob.encryption.certificate)],
  profile: "peer",
  before: head,
  mime: true,
  threads,
  ...changes,
});

type Work = (...of: Parameters<typeof sealFile>) => Promise<unknown>;

/** @returns the path of what was made of `content`, which lies in the middle of a file */
async function made(
  work: Work,
  content: Uint8Array,
  changes: Partial<SealFileOptions> = {},
  signal?: AbortSignal,
): Promise<string> {
  writeFileSync(path("source"), Buffer.concat([Buffer.from("before"), content, Buffer.from("behind")]));
  rmSync(path("sealed"), { force: true });
  await using file = await openFile(path("source"), "r");
  await using target = await openFile(path("sealed"), "wx");
  signed = await work({ file, offset: 6, size: content.length }, target, options(changes), signal);
  return path("sealed");
}

/** What the last one said of what it signed. */
let signed: unknown;

const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** Around one, two and sixteen segments, around 4 MiB, where threads begin, and 1 MiB, where indefinite lengths do. */
const first = 4_194_304;
const sizes = [
  0,
  1,
  65_536,
  1_048_575,
  1_048_577,
  first - 1,
  first,
  first + 1,
  first + 15,
  first + 16,
  5_000_003,
  9_000_000,
];

describe("what is sealed from a file", () => {
  test.each(sizes)("of %i octets is opened as it was", async (size) => {
    const content = randomBytes(size);
    const sealed = await made(sealFile, content);
    await using opened = await world.open(createReadStream(sealed));
    expect([signed, opened.digest]).toEqual([
      createHash("sha256").update(head).update(content).digest(),
      (signed as Buffer).toString("hex"),
    ]);
    await opened.moveTo(path("opened"));
    expect(digest(readFileSync(path("opened")))).toBe(digest(content));
    rmSync(path("opened"));
  });

  test("every remainder of a segment comes out whole: seen at 64 lengths in a row, and at 40 anywhere", async () => {
    const next = pseudoRandom(7, 3 * segmentBytes);
    const lengths = [...Array.from({ length: 64 }, (_, n) => n), ...Array.from({ length: 40 }, next)];
    const content = randomBytes(first + 3 * segmentBytes);
    for (const more of lengths) {
      const part = content.subarray(0, first + more);
      const sealed = await made(sealFile, part, { before: Buffer.alloc(more % 50, "x") });
      await using found = await read(createReadStream(sealed), {
        keys: new Keyring([bob.encryption]),
        candidates: [],
        directory: world.directory,
        maxBytes: 2 ** 30,
      });
      expect(found.protection).toBe("sealed");
      const text =
        found.content !== undefined && "path" in found.content ? readFileSync(found.content.path) : Buffer.alloc(0);
      expect(digest(text)).toBe(digest(Buffer.concat([Buffer.alloc(more % 50, "x"), part])));
    }
  });

  test("openssl opens it and verifies who signed", async () => {
    const content = randomBytes(6_000_001);
    const sealed = await made(sealFile, content, { before: new Uint8Array(), mime: false });
    const key = pemFiles(world.directory, "bob", bob.encryption);
    const recipient = ["-recip", key.certificate, "-inkey", key.key];
    const inside = path("inside");
    const decrypt = ["cms", "-decrypt", "-binary", "-inform", "DER", "-in", sealed, ...recipient, "-out", inside];
    expect(await openssl(decrypt)).toMatchObject({ code: 0 });
    writeFileSync(path("ca.pem"), derToPem(domain.anchor.certificate.der, "CERTIFICATE"));
    const verify = ["cms", "-verify", "-binary", "-inform", "DER", "-in", inside, "-CAfile", path("ca.pem")];
    const outcome = await openssl([...verify, "-purpose", "any", "-out", path("content")]);
    expect(outcome).toMatchObject({ code: 0 });
    expect(digest(readFileSync(path("content")))).toBe(digest(content));
  });

  test.each(["foreign", "peer"] as const)("for %s: encrypted as it is, it is read as it was", async (profile) => {
    for (const size of [first - 1, first, first + segmentBytes - 1, first + segmentBytes]) {
      const content = randomBytes(size);
      const sealed = await made(encryptFile, content, { profile });
      const keys = new Keyring([bob.encryption]);
      const found = read(createReadStream(sealed), {
        keys,
        candidates: [],
        directory: world.directory,
        maxBytes: 2 ** 30,
      });
      await using opened = await found;
      expect(opened.protection).toBe("encrypted");
      await opened.moveTo(path("plain"));
      expect(digest(readFileSync(path("plain")))).toBe(digest(content));
      rmSync(path("plain"));
    }
  });

  test("a changed octet anywhere is an error", async () => {
    const content = randomBytes(first + 1_000_000);
    const bytes = readFileSync(await made(sealFile, content));
    const next = pseudoRandom(3, bytes.length - 1);
    for (let n = 0; n < 30; n += 1) {
      const at = next();
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 1;
      await failureOf(
        world.open(
          (async function* () {
            yield changed;
          })(),
        ),
      );
    }
    expect(world.strayFiles().filter((name) => name.endsWith(".part"))).toEqual([]);
  });

  test("progress rises to the size of the file", async () => {
    for (const size of [1_000_000, 9_000_000]) {
      const told: number[] = [];
      await made(sealFile, randomBytes(size), { progress: (bytes) => told.push(bytes) });
      expect(told).toEqual(told.toSorted((a, b) => a - b));
      expect([told.length > 2, told.at(-1)]).toEqual([true, size]);
    }
  });
});

describe("what goes wrong", () => {
  const large = Buffer.alloc(40_000_000, "large");

  test("a signal ends it soon, at once or in the middle; the threads then do the next", async () => {
    const already = await failureOf(made(sealFile, large, {}, AbortSignal.abort()));
    expect(already.code).toBe("cancelled");
    const stop = new AbortController();
    const told: number[] = [];
    const progress = (bytes: number) => {
      told.push(bytes);
      stop.abort();
    };
    expect((await failureOf(made(sealFile, large, { progress }, stop.signal))).code).toBe("cancelled");
    expect(told.at(-1)).toBeLessThan(large.length);
    await made(sealFile, large);
  });

  test("a file that ends too early, or is written to meanwhile, is told as changed", async () => {
    const progress = () => truncateSync(path("source"), 1_000_000);
    expect((await failureOf(made(sealFile, large, { progress }))).code).toBe("source-changed");
    let told = false;
    const write = () => {
      if (!told) writeFileSync(path("source"), "other", { flag: "r+" });
      told = true;
    };
    expect((await failureOf(made(sealFile, large, { progress: write }))).code).toBe("source-changed");
    expect((await failureOf(made(sealFile, large.subarray(0, 2_000_000), { progress }))).code).toBe("source-changed");
  });

  test("a file that was written to is told as changed also where it is read once, as for block chaining", async () => {
    const progress = () => writeFileSync(path("source"), "other", { flag: "r+" });
    for (const work of [sealFile, encryptFile] as const) {
      const failure = failureOf(made(work, large.subarray(0, 6_000_000), { progress, profile: "foreign" }));
      expect((await failure).code).toBe("source-changed");
    }
  });

  test("a file that gets another name, or loses its own, is sealed all the same", async () => {
    const progress = () => {
      rmSync(path("another"), { force: true });
      linkSync(path("source"), path("another"));
      rmSync(path("source"));
      renameSync(path("another"), path("source"));
    };
    await made(sealFile, large, { progress });
  });

  test("a disk that is full is told as that", async () => {
    if (!existsSync("/dev/full")) throw new Error("needs /dev/full");
    for (const size of [1_000_000, large.length]) {
      writeFileSync(path("source"), large.subarray(0, size));
      await using file = await openFile(path("source"), "r");
      await using target = await openFile("/dev/full", "w");
      const failure = await failureOf(sealFile({ file, offset: 0, size }, target, options()));
      expect(failure).toMatchObject({ code: "store-failed", temporary: true });
    }
  });

  test("threads that are ended fail what they were at, and nothing waits for ever", async () => {
    const own = new Threads({ count: 1 });
    const failing = failureOf(made(sealFile, large, { threads: own, progress: () => void own[Symbol.asyncDispose]() }));
    expect((await failing).code).toBe("store-failed");
    expect((await failureOf(made(sealFile, large, { threads: own }))).code).toBe("store-failed");
  });

  test("a thread that had nothing to do is gone, and comes again with work", async () => {
    const own = new Threads({ count: 2, idleMs: 1 });
    for (let n = 0; n < 3; n += 1) {
      await made(sealFile, large.subarray(0, first), { threads: own });
      while (own.running > 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await own[Symbol.asyncDispose]();
  });

  test.each([
    ["sealed", sealFile, 68_718_640_000],
    ["only encrypted", encryptFile, 68_719_476_704],
  ] as const)(
    "a file that is larger than GCM allows with one key, %s, is refused before it is read",
    async (_, work, size) => {
      writeFileSync(path("source"), "");
      truncateSync(path("source"), size);
      rmSync(path("sealed"), { force: true });
      await using file = await openFile(path("source"), "r");
      await using target = await openFile(path("sealed"), "wx");
      const stop = new AbortController();
      const progress = () => stop.abort();
      const failure = failureOf(work({ file, offset: 0, size }, target, options({ progress }), stop.signal));
      expect((await failure).code).toBe("limit-exceeded");
    },
  );

  test("a recipient whose key cannot be sealed to is refused before anything is written", async () => {
    const recipients = [peerCertificate(alice.auth.certificate)];
    for (const work of [sealFile, encryptFile] as const)
      expect((await failureOf(made(work, large, { recipients }))).code).toBe("recipient-unusable");
    expect(statSync(path("sealed")).size).toBe(0);
  });
});

test("stretches that were encrypted each by itself are one GCM ciphertext with one tag", () => {
  for (const [keyBytes, lengths] of [
    [16, [16]],
    [24, [32, 16, 5]],
    [32, [4_096, 4_096, 64, 4_096, 1]],
    [32, [0]],
    [32, [48, 0]],
  ] as const) {
    const [key, nonce] = [randomBytes(keyBytes), randomBytes(12)];
    const plain = randomBytes(lengths.reduce((sum: number, length) => sum + length, 0));
    let at = 0;
    const pieces = lengths.map((length) => {
      const cipher = new StretchCipher(key, nonce, at / 16);
      const ciphertext = cipher.update(plain.subarray(at, at + length));
      at += length;
      return { ciphertext, bytes: length, tag: cipher.tag() };
    });
    const whole = createDecipheriv(`aes-${(8 * keyBytes) as 256}-gcm`, key, nonce);
    whole.setAuthTag(joinedTag(key, nonce, pieces));
    const opened = Buffer.concat([
      whole.update(Buffer.concat(pieces.map(({ ciphertext }) => ciphertext))),
      whole.final(),
    ]);
    expect(opened.equals(plain)).toBe(true);
  }
  expect(() =>
    joinedTag(
      randomBytes(32),
      randomBytes(12),
      [1, 16].map((bytes) => ({ bytes, tag: randomBytes(16) })),
    ),
  ).toThrow();
});
