import { createPrivateKey } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { type Certificate, parseCertificate } from "../../src/pki/certificate.ts";
import { pemToDer } from "../../src/pki/pem.ts";
import { Keyring } from "../../src/smime/keyring.ts";
import { type Read, type ReadOptions, read } from "../../src/smime/read.ts";
import { sharedFolder } from "../support/shared.ts";
import { failureOf, Pieces } from "../support/smime.ts";

// CMS objects that others made (../shared/vectors/README.md says of each what it proves).

const examples = sharedFolder("vectors/examples-cms");
const opensslCms = sharedFolder("vectors/openssl-cms");
const directory = mkdtempSync(join(tmpdir(), "sixtalk-vectors-"));
afterAll(() => rmSync(directory, { recursive: true }));
afterEach(() => expect(readdirSync(directory)).toEqual([]));

if (examples === undefined || opensslCms === undefined) test.skip("no vectors", () => undefined);
else vectors(examples, opensslCms);

function vectors(examples: string, opensslCms: string): void {
  const PLAIN = "This is some sample content.";

  const certificate = (name: string) =>
    parseCertificate(Buffer.from(pemToDer(readFileSync(join(examples, "certs-and-keys", name), "latin1"))[0] ?? []));
  const key = (name: string, crt: string) => ({
    certificate: certificate(crt),
    privateKey: createPrivateKey(readFileSync(join(examples, "certs-and-keys", name))),
  });
  const alice = certificate("lamps-alice.crt");
  const carlos = certificate("lamps-carlos.crt");
  const bob = key("lamps-bob.decrypt.p8.pem", "lamps-bob.encrypt.crt");
  const dana = key("lamps-dana.decrypt.p8.pem", "lamps-dana.encrypt.crt");

  type How = Partial<Omit<ReadOptions, "keys" | "detached">> & { keys?: Keyring; detached?: string };

  function readBytes(bytes: Uint8Array, { detached, ...how }: How = {}, size?: number): Promise<Read> {
    const content = detached === undefined ? {} : { detached: () => new Pieces(Buffer.from(detached)) };
    const options = { keys: new Keyring([bob]), candidates: [], directory, maxBytes: 1_000_000, ...how, ...content };
    return read(new Pieces(bytes, size), options);
  }

  /** What came of it, in words. */
  async function told(bytes: Uint8Array, how: How = {}, size?: number) {
    await using found = await readBytes(bytes, how, size);
    const content =
      found.content !== undefined && "bytes" in found.content ? found.content.bytes.toString() : undefined;
    const signers = found.layers.flatMap((layer) =>
      layer.kind === "signed" ? layer.signatures.map(({ certificate: { sha256 } }) => sha256) : [],
    );
    return {
      protection: found.protection,
      content,
      signers: signers.toSorted(),
      layers: found.layers.map(({ kind }) => kind),
    };
  }

  const sealedFor = (keys: typeof bob) => ({ keys: new Keyring([keys]) });
  const of = (...signers: Certificate[]) => signers.map(({ sha256 }) => sha256).toSorted();
  const encrypted = { protection: "encrypted", content: PLAIN, signers: [], layers: ["encrypted"] };
  const signed = (...signers: Certificate[]) => ({
    protection: signers.length === 0 ? "none" : "signed",
    content: PLAIN,
    signers: of(...signers),
    layers: ["signed"],
  });

  const cases: [string, How, object][] = [
    ["encryptedForBobRSAOaep", {}, encrypted],
    ["encryptedForBobAndDana", {}, encrypted],
    ["encryptedForBobAndDana", sealedFor(dana), encrypted],
    ["authEnvelopedForDanaX25519HKDF", sealedFor(dana), encrypted],
    ["authEnvelopedForBobChaCha20Poly1305", {}, encrypted],
    ["signedByAliceRSA", {}, signed(alice)],
    ["signedByAliceRSAPSS", {}, signed(alice)],
    ["signedByCarlosEd25519", {}, signed(carlos)],
    ["signedByCarlosDetached", { detached: PLAIN }, { ...signed(carlos), content: undefined }],
    ["signedByCarlosDetached", { detached: `${PLAIN}.` }, { ...signed(), content: undefined }],
    ["signedByAliceAndCarlosNoCerts", { candidates: [alice, carlos] }, signed(alice, carlos)],
    ["signedByAliceAndCarlosNoCerts", { candidates: [carlos] }, signed(carlos)],
    ["signedByAliceAndCarlosNoCerts", {}, signed()],
  ];

  describe("examples of CMS objects", () => {
    test.each(cases)("%s, %#", async (name, how, expected) => {
      const bytes = readFileSync(join(examples, "binary-files", `${name}.p7m`));
      const pem = readFileSync(join(examples, "pem-encoded", `${name}.pem`));
      for (const [form, size] of [
        [bytes, undefined],
        [bytes, 1],
        [bytes, 7],
        [pem, undefined],
        [pem, 1],
      ] as const) {
        expect(await told(form, how, size)).toEqual(expected);
      }
    });

    test("encryptedKekri: not for us, and for whom without a key is either", async () => {
      const bytes = readFileSync(join(examples, "binary-files", "encryptedKekri.p7m"));
      expect((await failureOf(readBytes(bytes))).code).toBe("seal-not-for-us");
      const other = { keyId: Buffer.from("keyid"), secret: Buffer.alloc(32) };
      expect((await failureOf(readBytes(bytes, { keys: new Keyring([other]) }))).code).toBe("seal-unreadable");
    });

    test("signedByCarlosDetached without its content: named", async () => {
      const bytes = readFileSync(join(examples, "binary-files", "signedByCarlosDetached.p7m"));
      expect(await failureOf(readBytes(bytes))).toMatchObject({
        code: "seal-malformed",
        details: { what: "no content" },
      });
    });

    test("every one is used", () => {
      const used = new Set([...cases.map(([name]) => name), "encryptedKekri"]);
      expect(readdirSync(join(examples, "binary-files")).map((file) => file.replace(/\.p7m$/, ""))).toEqual(
        [...used].toSorted(),
      );
    });
  });

  describe("damaged examples", () => {
    const whole = cases.map(
      ([name, how]) => [name, how, readFileSync(join(examples, "binary-files", `${name}.p7m`))] as const,
    );

    test.each(whole)("%s, %#: cut anywhere, nothing comes of it", async (_name, how, bytes) => {
      for (let end = 0; end < bytes.length; end += 1) {
        const { code } = await failureOf(readBytes(bytes.subarray(0, end), how));
        expect(["seal-malformed", "seal-unsupported", "seal-not-for-us", "seal-unreadable"]).toContain(code);
      }
    });

    test.each(whole)(
      "%s, %#: a bit flipped in any octet is no other content that anybody stands for",
      async (name, how, bytes) => {
        const authenticated = name.startsWith("authEnveloped");
        for (let at = 0; at < bytes.length; at += 1) {
          const damaged = Buffer.from(bytes);
          damaged[at] = (damaged[at] ?? 0) ^ (1 << (at % 8));
          const outcome = await told(damaged, how).catch(() => undefined);
          if (outcome === undefined || outcome.content === PLAIN) continue;
          if (authenticated) expect.fail(`other content at ${at}`);
          // Without a tag anything may come out: then nobody has signed it.
          if (outcome.content !== undefined) expect(outcome.signers).toEqual([]);
          expect(["none", "encrypted"]).toContain(outcome.content === undefined ? "none" : outcome.protection);
        }
      },
    );
  });

  describe("authenticated attributes behind the ciphertext", () => {
    const secret = {
      keyId: Buffer.from("c0fee0", "hex"),
      secret: Buffer.from("000102030405060708090a0b0c0d0e0f", "hex"),
    };
    const how = { keys: new Keyring([secret]) };

    test("openssl's good one opens, octet by octet too", async () => {
      const bytes = readFileSync(join(opensslCms, "authenveloped_attrs.pem"));
      for (const size of [undefined, 1])
        expect(await told(bytes, how, size)).toMatchObject({ content: "Hello AuthEnvelopedData world\n" });
    });

    test("its bad one does not, and no octet of the good one can be changed", async () => {
      const bad = readFileSync(join(opensslCms, "bad_authenveloped_attrs.pem"));
      expect((await failureOf(readBytes(bad, how))).code).toBe("seal-unreadable");
      const [good = Buffer.alloc(0)] = pemToDer(readFileSync(join(opensslCms, "authenveloped_attrs.pem"), "latin1"));
      for (let at = 0; at < good.length; at += 1) {
        const damaged = Buffer.from(good);
        damaged[at] = (damaged[at] ?? 0) ^ (1 << (at % 8));
        const outcome = await told(damaged, how).catch(() => undefined);
        if (outcome !== undefined) expect(outcome.content).toBe("Hello AuthEnvelopedData world\n");
      }
    });
  });
}
