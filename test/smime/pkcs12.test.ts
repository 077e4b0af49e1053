import { createPrivateKey, randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseCertificate } from "../../src/pki/certificate.ts";
import * as der from "../../src/pki/der.ts";
import { pemToDer } from "../../src/pki/pem.ts";
import { generatePassphrase } from "../../src/smime/passphrase.ts";
import { readPkcs12 } from "../../src/smime/pkcs12-read.ts";
import { type Pkcs12Options, writePkcs12 } from "../../src/smime/pkcs12-write.ts";
import { openssl, temporaryFolder } from "../support/openssl.ts";
import { pbmac1Vector } from "../support/pbmac1.ts";
import { opensslPkcs12, sameKey } from "../support/pkcs12.ts";
import { makeTestDomain, type TestCredentials } from "../support/pki.ts";
import { sharedFolder } from "../support/shared.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());

const domain = makeTestDomain({ domain: "example.test" });
const alice = domain.person({ identity: "alice@example.test" });
const former = domain.person({ identity: "former@example.test", encryptionKey: "ec" }).encryption;
const of: Record<"rsa" | "ec" | "ed25519", TestCredentials> = {
  rsa: alice.encryption,
  ec: alice.auth,
  ed25519: domain.bad("ed25519"),
};
const kinds = ["rsa", "ec", "ed25519"] as const;
const sha256 = (certificates: readonly { sha256: string }[]) => certificates.map((one) => one.sha256);
const passphrase = "correct horse battery";

describe("what openssl writes is read", () => {
  const legacy = ["-legacy", "-iter", "1"];
  const pbe = (name: string) => ["-legacy", "-keypbe", name, "-certpbe", name, "-iter", "1"];
  test.each<[string, readonly string[]]>([
    ["as it does by itself", []],
    ["with 100,000 rounds", ["-iter", "100000"]],
    ["as older versions did (RC2-40, 3DES)", legacy],
    ["3DES alone", [...legacy, "-descert"]],
    ["RC2-128", pbe("PBE-SHA1-RC2-128")],
    ["RC2-40", pbe("PBE-SHA1-RC2-40")],
    ["AES-128", pbe("AES-128-CBC")],
    ["AES-192", pbe("AES-192-CBC")],
    ["3DES in PBES2", pbe("DES-EDE3-CBC")],
    ["nothing encrypted", ["-keypbe", "NONE", "-certpbe", "NONE"]],
    ...["sha1", "sha256", "sha384", "sha512"].map((mac): [string, string[]] => [`a MAC by ${mac}`, ["-macalg", mac]]),
  ])("%s", async (_, options) => {
    for (const kind of kinds) {
      const read = await readPkcs12(await opensslPkcs12(folder.path, of[kind], passphrase, options), passphrase);
      expect(read.keys).toHaveLength(1);
      expect(sameKey(read.keys[0]?.privateKey, of[kind].privateKey)).toBe(true);
      expect(read.keys[0]?.friendlyName).toBe("Zoë's key");
      expect(sha256(read.keys[0]?.certificates ?? [])).toEqual([of[kind].certificate.sha256]);
      expect(sha256(read.certificates)).toEqual(sha256(of[kind].chain));
    }
  });

  test.each(["", "x", "Passwörter 日本 😀 sind erlaubt"])("under the passphrase %j, and no other", async (own) => {
    for (const options of [[], ["-legacy"]]) {
      const file = await opensslPkcs12(folder.path, of.ec, own, options);
      expect((await readPkcs12(file, own)).keys).toHaveLength(1);
      await expect(readPkcs12(file, `${own} `)).rejects.toMatchObject({ code: "auth-failed", fault: "local" });
    }
  });

  test.each([
    ["no MAC", ["-nomac"]],
    ["a MAC by MD5", ["-macalg", "md5"]],
    ["RC4", ["-legacy", "-keypbe", "PBE-SHA1-RC4-128"]],
  ])("but %s is said to be unsupported", async (_, options) => {
    const file = await opensslPkcs12(folder.path, of.ec, passphrase, options);
    await expect(readPkcs12(file, passphrase)).rejects.toMatchObject({ code: "unsupported" });
  });
});

describe("what others wrote is read", () => {
  test("the file of RFC 9579 with PBMAC1", async () => {
    const { keys } = await readPkcs12(pbmac1Vector, "1234");
    expect(keys[0]?.certificates).toHaveLength(1);
    await expect(readPkcs12(pbmac1Vector, "12345")).rejects.toMatchObject({ code: "auth-failed" });
  });

  const headers = sharedFolder("vectors/protected-headers");
  test.skipIf(headers === undefined)("Bob's of the examples of S/MIME, with RC2-40", async () => {
    const [file = new Uint8Array()] = pemToDer(readFileSync(join(headers ?? "", "bob.p12"), "latin1"), "PKCS12");
    const { keys, certificates } = await readPkcs12(file, "bob");
    expect(keys.map(({ friendlyName, certificates: own }) => [friendlyName, own.length])).toEqual([["bob", 1]]);
    expect(certificates).toHaveLength(1);
  });
});

describe("what is written", () => {
  const generated = generatePassphrase(randomBytes);
  const secret = { type: "2.25.1", value: der.octetString(Buffer.from("a secret")) };
  const one = (credentials: TestCredentials, friendlyName: string) => ({
    privateKey: credentials.privateKey,
    certificates: [credentials.certificate],
    friendlyName,
  });
  const options = (changes: Partial<Pkcs12Options> = {}): Pkcs12Options => ({
    keys: [one(of.rsa, "current"), one(former, "former"), one(of.ed25519, "ünusual")],
    chain: of.rsa.chain,
    passphrase: generated,
    protection: "modern",
    random: randomBytes,
    ...changes,
  });
  const written = new Map<string, Buffer>();
  const legacyKeys = [one(of.rsa, "current")];
  beforeAll(async () => {
    written.set("modern", await writePkcs12(options()));
    written.set("legacy", await writePkcs12(options({ protection: "legacy", keys: legacyKeys })));
    written.set("pbmac1", await writePkcs12(options({ protection: "pbmac1", secrets: [secret] })));
  });

  /** What openssl says of the file, and the PEM that it finds in it. */
  async function shown(name: string, pass = generated, ...more: string[]) {
    const file = join(folder.path, `${name}.p12`);
    writeFileSync(file, written.get(name) as Buffer);
    return openssl(["pkcs12", "-in", file, "-info", "-nodes", "-passin", `pass:${pass}`, ...more]);
  }

  test("is read back, current key first, and each with its certificates", async () => {
    for (const name of ["modern", "pbmac1"]) {
      const read = await readPkcs12(written.get(name) as Buffer, generated);
      expect(read.keys.map(({ friendlyName }) => friendlyName)).toEqual(["current", "former", "ünusual"]);
      expect(sameKey(read.keys[1]?.privateKey, former.privateKey)).toBe(true);
      expect(sha256(read.keys[1]?.certificates ?? [])).toEqual([former.certificate.sha256]);
      expect(sha256(read.certificates)).toEqual(sha256(of.rsa.chain));
      expect(read.secrets.map(({ value }) => Buffer.from(value))).toEqual(name === "pbmac1" ? [secret.value] : []);
    }
  });

  test("is taken by openssl, which finds the keys, certificates, and 600,000 rounds of everything", async () => {
    const { output, stdout, code } = await shown("modern");
    expect(code, output).toBe(0);
    expect(output).toMatch(/MAC: sha256, Iteration 600000\n/);
    const parts = [...output.matchAll(/^(?:Shrouded Keybag|PKCS7 Encrypted data): (.*)$/gm)].map(([, how]) => how);
    const strong = "PBES2, PBKDF2, AES-256-CBC, Iteration 600000, PRF hmacWithSHA256";
    expect(parts).toEqual([strong, strong, strong, strong]);
    const keys = [...stdout.matchAll(/-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----/g)];
    const expected = [of.rsa, former, of.ed25519];
    expect(keys.map(([pem], i) => sameKey(createPrivateKey(pem), expected[i]?.privateKey ?? of.ec.privateKey))).toEqual(
      [true, true, true],
    );
    const certificates = pemToDer(stdout, "CERTIFICATE").map((bytes) => parseCertificate(bytes));
    expect(sha256(certificates)).toEqual(sha256([...expected.map(({ certificate }) => certificate), ...of.rsa.chain]));
    expect((await shown("modern", `${generated}x`)).output).toContain("invalid password");
  });

  test("in the old form is 3DES and SHA-1, taken by openssl as by programs of its time", async () => {
    const { output, code } = await shown("legacy", generated, "-legacy");
    expect(code, output).toBe(0);
    expect(output).toContain("MAC: sha1, Iteration 2048");
    expect(output.match(/pbeWithSHA1And3-KeyTripleDES-CBC/g)).toHaveLength(2);
    expect((await readPkcs12(written.get("legacy") as Buffer, generated)).keys).toHaveLength(1);
  });

  test("has random salts of its own for each key, the certificates and the MAC, and random vectors", async () => {
    for (const [protection, count] of [
      ["legacy", 3],
      ["modern", 2 * 2 + 1],
      ["pbmac1", 2 * 2 + 1],
    ] as const) {
      const given: Buffer[] = [];
      const random = (length: number) => {
        given.push(randomBytes(length));
        return given.at(-1) as Buffer;
      };
      const file = await writePkcs12(options({ protection, keys: legacyKeys, random }));
      expect(given).toHaveLength(count);
      // The vector of the encrypted key lies in the file, as all else does that is not encrypted.
      for (const octets of given) expect(file.includes(octets) || octets.length < 8, protection).toBe(true);
    }
  });

  test.each<[string, Partial<Pkcs12Options>, string]>([
    ["a short passphrase", { passphrase: "thirteen char" }, "syntax"],
    ["the old form with an own passphrase", { protection: "legacy", keys: legacyKeys, passphrase }, "forbidden"],
    ["the old form for several keys", { protection: "legacy" }, "forbidden"],
    ["the old form for secrets", { protection: "legacy", keys: legacyKeys, secrets: [secret] }, "forbidden"],
  ])("never is %s", async (_, changes, code) => {
    await expect(writePkcs12(options(changes))).rejects.toMatchObject({ code, fault: "local" });
  });

  test("does not leave unread what does not read back", async () => {
    const strangers = [{ ...one(of.rsa, "current"), certificates: [former.certificate] }];
    await expect(writePkcs12(options({ protection: "legacy", keys: strangers }))).rejects.toMatchObject({
      code: "internal",
    });
  });

  test("a key with two certificates keeps both, the newest first", async () => {
    const renewed = domain.person({ identity: "alice@example.test" }).encryption; // the same key, another serial number
    expect(sameKey(renewed.privateKey, of.rsa.privateKey)).toBe(true);
    const keys = [{ ...one(of.rsa, "current"), certificates: [renewed.certificate, of.rsa.certificate] }];
    const read = await readPkcs12(await writePkcs12(options({ protection: "legacy", keys })), generated);
    expect(sha256(read.keys[0]?.certificates ?? [])).toEqual(sha256([renewed.certificate, of.rsa.certificate]));
  });

  test("writing and reading leave the event loop free", async () => {
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    await writePkcs12(options({ keys: [one(of.ec, "alone")] }));
    delay.disable();
    expect(delay.max / 1e6).toBeLessThan(400); // the MAC alone would take 600 ms, twice
  });
});
