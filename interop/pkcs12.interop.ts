import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Actor, Stage } from "../src/cli/demo-stage.ts";
import { LAUNCHER } from "../src/cli/self.ts";
import { KeyFiles } from "../src/node/keys.ts";
import { fingerprintOf } from "../src/pki/certificate.ts";
import { readPkcs12 } from "../src/smime/pkcs12-read.ts";
import { type Ran, run } from "./pair.ts";

/** A file that `sixtalk` wrote, and the passphrase that it told. */
interface Written {
  path: string;
  passphrase: string;
}

let stage: Stage;
let folder: string;
let alice: Actor;
let whole: Written;
let legacy: Written;
let backup: Written;

beforeAll(async () => {
  stage = await Stage.build();
  const [domain] = (await stage.domains(["alpha.test"])) as [Actor];
  alice = await stage.person(domain, "alice", "Alice Example");
  folder = join(stage.folder, "p12");
  mkdirSync(folder);
  whole = await written("whole.p12", "export-p12");
  legacy = await written("legacy.p12", "export-p12", "--legacy");
  backup = await written("backup.p12", "backup");
});

afterAll(() => stage.strike());

async function written(name: string, command: string, ...options: string[]): Promise<Written> {
  const path = join(folder, name);
  const ran = await run(process.execPath, [LAUNCHER, "--home", alice.home.directory, command, path, ...options]);
  const [passphrase] = /(?:[0-9A-Z]{4}-){5}[0-9A-Z]{4}/.exec(ran.out) ?? [];
  if (passphrase === undefined) throw new Error(`${ran.out}${ran.err}`);
  return { path, passphrase };
}

const all = ({ out, err }: Ran) => `${out}${err}`;
const own = () => new KeyFiles(alice.home).load();

describe("NSS (pk12util)", () => {
  let databases = 0;

  /** An empty key database. */
  async function database(): Promise<string> {
    databases += 1;
    const kept = join(folder, `nss-${databases}`);
    mkdirSync(kept);
    expect(await run("certutil", ["-N", "-d", `sql:${kept}`, "--empty-password"])).toMatchObject({ code: 0 });
    return `sql:${kept}`;
  }

  const pk12util = (where: string, passphrase: string, ...args: string[]) =>
    run("pk12util", [...args, "-d", where, "-K", "", "-W", passphrase]);
  const keysIn = async (where: string) =>
    [...all(await run("certutil", ["-K", "-d", where])).matchAll(/^<[ \d]+> (\w+)/gm)]
      .map(([, kind]) => kind)
      .toSorted();

  test.each<[string, () => Written, string[]]>([
    ["export, with both keys", () => whole, ["ec", "rsa"]],
    ["export in the old form", () => legacy, ["rsa"]],
    ["backup, whose secret bag it passes over", () => backup, ["ec", "rsa"]],
  ])("imports our %s", async (_, of, kinds) => {
    const where = await database();
    const imported = await pk12util(where, of().passphrase, "-i", of().path);
    expect(all(imported)).toContain("PKCS12 IMPORT SUCCESSFUL");
    expect(await keysIn(where)).toEqual(kinds);
    expect(all(await run("certutil", ["-L", "-d", where]))).toMatch(/alice@alpha\.test +u,u,u/);
  });

  test("refuses ours with another passphrase", async () => {
    const refused = await pk12util(await database(), "0000-0000-0000-0000-0000-0000", "-i", whole.path);
    expect(all(refused)).toContain("SEC_ERROR_BAD_PASSWORD");
  });

  const sha1 = "PKCS #12 V2 PBE With SHA-1 And";
  test.each<[string, string, string[]]>([
    ["by itself", "correct horse battery", []],
    ["under a passphrase that is not ASCII", "Zoë 日本 Schlüssel", []],
    ["with AES-128 and AES-192", "correct horse battery", ["-c", "AES-128-CBC", "-C", "AES-192-CBC"]],
    [
      "in 3DES and RC2-40",
      "correct horse battery",
      ["-c", `${sha1} 3KEY Triple DES-CBC`, "-C", `${sha1} 40 Bit RC2 CBC`],
    ],
    ["in RC2-128", "correct horse battery", ["-c", `${sha1} 128 Bit RC2 CBC`, "-C", `${sha1} 128 Bit RC2 CBC`]],
    ["with a MAC by SHA-1", "correct horse battery", ["-M", "SHA-1"]],
    ["with a MAC by SHA-512", "correct horse battery", ["-M", "SHA-512"]],
  ])("writes what we read: %s", async (_, passphrase, options) => {
    const where = await database();
    await pk12util(where, whole.passphrase, "-i", whole.path);
    const file = join(folder, "nss.p12");
    const exported = await pk12util(where, passphrase, "-o", file, "-n", "alice@alpha.test", ...options);
    expect(all(exported)).toContain("PKCS12 EXPORT SUCCESSFUL");
    const { keys } = await readPkcs12(readFileSync(file), passphrase);
    const expected = [own().auth, own().encryption[0]].map((one) => one?.certificate.fingerprint);
    expect(keys.map(({ privateKey }) => fingerprintOf(privateKey)).toSorted()).toEqual(expected.toSorted());
    for (const { certificates } of keys) expect(certificates).toHaveLength(1);
  });
});

describe("GnuPG (gpgsm)", () => {
  /** What it says when it imports that, of its secret keys then, and the file to which it exports what it has. */
  async function imported({ path, passphrase }: Written) {
    const kept = join(folder, `gpg-${basename(path)}`);
    mkdirSync(kept, { mode: 0o700 });
    writeFileSync(join(kept, "gpg-agent.conf"), "allow-loopback-pinentry\nno-allow-mark-trusted\n");
    const exported = join(kept, "exported.p12");
    const gpgsm = (...args: string[]) => {
      const quietly = ["--homedir", kept, "--batch", "--disable-dirmngr", "--disable-crl-checks"];
      return run(
        "gpgsm",
        [...quietly, "--pinentry-mode", "loopback", "--passphrase-fd", "0", ...args],
        `${passphrase}\n`,
      );
    };
    try {
      const said = all(await gpgsm("--import", path));
      const secret = all(await gpgsm("--list-secret-keys"));
      await gpgsm("--output", exported, "--export-secret-key-p12", "alice@alpha.test");
      return { said, secret, exported };
    } finally {
      await run("gpgconf", ["--homedir", kept, "--kill", "all"]);
    }
  }

  test("imports the key of our old form, and what it exports we read", async () => {
    // Of each hundred such files gpgsm 2.2 cannot read one or two, whoever wrote them: it depends on the salts.
    let file = legacy;
    let tried = await imported(file);
    for (let n = 0; n < 4 && tried.said.includes("trying charset 'BIG5'"); n += 1) {
      file = await written(`legacy-${n}.p12`, "export-p12", "--legacy");
      tried = await imported(file);
    }
    const { said, secret, exported } = tried;
    expect(said).toContain("secret keys imported: 1");
    expect(secret).toContain("3072 bit RSA");
    expect(secret).toContain("alice@alpha.test");
    const { keys } = await readPkcs12(readFileSync(exported), file.passphrase);
    expect(keys.map(({ certificates }) => certificates.map(({ sha256 }) => sha256))).toEqual([
      [own().encryption[0]?.certificate.sha256],
    ]);
  });

  test("cannot read PBES2 as we write it, and says so", async () => {
    const { said, secret } = await imported(whole);
    expect(said).toContain('data error at "shrouded_key_bag.pkcs5PBES2-params"');
    expect(secret).not.toContain("alice@alpha.test");
  });
});

describe("OpenSSL", () => {
  const shown = ({ path, passphrase }: Written, ...more: string[]) =>
    run("openssl", ["pkcs12", "-in", path, "-nodes", "-passin", `pass:${passphrase}`, ...more]);

  test.each<[string, () => Written, number, number, string[]]>([
    ["export", () => whole, 2, 4, []],
    ["export in the old form", () => legacy, 1, 3, ["-legacy"]],
    ["backup", () => backup, 2, 4, []],
  ])("reads our %s", async (_, of, keys, certificates, options) => {
    const { out, code, err } = await shown(of(), ...options);
    expect(code, err).toBe(0);
    expect(out.match(/BEGIN PRIVATE KEY/g)).toHaveLength(keys);
    expect(out.match(/BEGIN CERTIFICATE/g)).toHaveLength(certificates);
  });

  test.each([[[]], [["-legacy"]], [["-macalg", "sha512", "-iter", "100000"]]])(
    "writes what we read (%j)",
    async (options) => {
      const pem = join(folder, "all.pem");
      writeFileSync(pem, (await shown(whole)).out);
      const file = join(folder, "openssl.p12");
      const input = ["-in", pem, "-passout", "pass:correct horse battery", "-out", file];
      expect(await run("openssl", ["pkcs12", "-export", ...input, ...options])).toMatchObject({ code: 0 });
      const { keys, certificates } = await readPkcs12(readFileSync(file), "correct horse battery");
      expect(keys).toHaveLength(1); // it takes the first
      expect(keys[0]?.certificates).toHaveLength(1);
      expect(certificates).toHaveLength(3);
    },
  );
});
