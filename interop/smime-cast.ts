import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { peerCertificate } from "../src/pki/certificate.ts";
import { derToPem } from "../src/pki/pem.ts";
import { Keyring } from "../src/smime/keyring.ts";
import { read } from "../src/smime/read.ts";
import { seal } from "../src/smime/seal.ts";
import { detachedSignedData, opaqueSignedData } from "../src/smime/signed-write.ts";
import { makeTestDomain, type TestCredentials } from "../test/support/pki.ts";
import { bytesOf, Pieces } from "../test/support/smime.ts";
import { type Ran, run } from "./pair.ts";

export type Key = "rsa" | "ec";
export type Cipher = "cbc" | "gcm";

/** One certificate with its key, as files of every kind that programs take. */
export interface Role {
  readonly address: string;
  readonly credentials: TestCredentials;
  readonly pem: string;
  readonly key: string;
  /** Certificate and key in one. */
  readonly pair: string;
  /** PKCS#12 of the old kind, with the chain; the passphrase is `pw`. */
  readonly p12: string;
  /** Writes the PKCS#12 anew, with other salts. */
  again(): Promise<void>;
}

/** A PKI by our profiles: Alice signs, Bob is sealed to, each with a key of either kind. */
export interface Cast {
  readonly folder: string;
  readonly root: string;
  readonly issuing: string;
  /** Both. */
  readonly chain: string;
  readonly signer: Readonly<Record<Key, Role>>;
  readonly recipient: Readonly<Record<Key, Role>>;
  path(name: string): string;
}

export async function makeCast(folder: string): Promise<Cast> {
  const domain = makeTestDomain({ domain: "alpha.test" });
  const path = (name: string) => join(folder, name);
  const pem = (...all: { der: Uint8Array }[]) => all.map(({ der }) => derToPem(der, "CERTIFICATE")).join("");
  const [root, issuing] = [domain.root.certificate, domain.issuing.certificate];
  writeFileSync(path("root.pem"), pem(root));
  writeFileSync(path("issuing.pem"), pem(issuing));
  writeFileSync(path("chain.pem"), pem(issuing, root));
  const role = async (name: string, credentials: TestCredentials): Promise<Role> => {
    const files = { pem: `${name}.pem`, key: `${name}.key`, pair: `${name}.pair.pem`, p12: `${name}.p12` };
    const key = credentials.privateKey.export({ type: "pkcs8", format: "pem" }).toString();
    writeFileSync(path(files.pem), pem(credentials.certificate));
    writeFileSync(path(files.key), key, { mode: 0o600 });
    writeFileSync(path(files.pair), key + pem(credentials.certificate), { mode: 0o600 });
    const take = ["-in", path(files.pem), "-inkey", path(files.key), "-certfile", path("chain.pem"), "-name", name];
    const again = async () => {
      const out = ["-out", path(files.p12), "-passout", "pass:pw"];
      expect(await run("openssl", ["pkcs12", "-export", "-legacy", ...take, ...out])).toMatchObject({ code: 0 });
    };
    await again();
    const address = `${name}@alpha.test`;
    return {
      address,
      credentials,
      pem: path(files.pem),
      key: path(files.key),
      pair: path(files.pair),
      p12: path(files.p12),
      again,
    };
  };
  const person = (name: string, encryptionKey: Key) => domain.person({ identity: `${name}@alpha.test`, encryptionKey });
  return {
    folder,
    path,
    ...{ root: path("root.pem"), issuing: path("issuing.pem"), chain: path("chain.pem") },
    signer: {
      rsa: await role("alice-rsa", domain.bad("rsa", "alice-rsa@alpha.test")),
      ec: await role("alice-ec", person("alice-ec", "ec").auth),
    },
    recipient: {
      rsa: await role("bob-rsa", person("bob-rsa", "rsa").encryption),
      ec: await role("bob-ec", person("bob-ec", "ec").encryption),
    },
  };
}

/** What is signed and sealed: canonical, so that no program has a reason to change an octet. */
export const text = Buffer.from("Content-Type: text/plain\r\n\r\nNow is the time\r\nfor all good men.\r\n");

/** What a program did with one of its verbs: what it wrote, and all that it said. */
export interface Did {
  readonly code: number | null;
  readonly said: string;
  readonly bytes: Buffer;
}

/** Signed by us: as a CMS object, and as multipart/signed. */
export interface Signed {
  readonly opaque: Buffer;
  readonly clear: Buffer;
}

/** A foreign program. */
export interface Program {
  sign(by: Role): Promise<Did>;
  /** `bytes`: the content that it gives back. */
  verify(signed: Signed, by: Role): Promise<Did>;
  encrypt(to: Role, cipher: Cipher): Promise<Did>;
  decrypt(sealed: Buffer, to: Role): Promise<Did>;
}

/** `true` where it can, what it says where it cannot; undefined where it lets nobody ask for that. */
type Cell = true | RegExp | undefined;

export type Cells = Readonly<
  Record<"sign" | "verify", Readonly<Record<Key, Cell>>> &
    Record<"encrypt", Readonly<Record<`${Key} ${Cipher}`, Cell>>> &
    Record<"decrypt", Readonly<Record<`${Key} ${Cipher}`, Cell | Readonly<Record<"detached" | "opaque", Cell>>>>>
>;

/** Runs a program of the host and takes what it wrote into `file`. */
export async function wrote(
  file: string,
  program: string,
  args: readonly string[],
  input?: string | Buffer,
): Promise<Did> {
  return did(file, await run(program, args, input));
}

export function did(file: string, { code, out, err }: Ran): Did {
  let bytes: Buffer = Buffer.alloc(0);
  try {
    bytes = readFileSync(file);
  } catch {
    // it wrote nothing
  }
  return { code, said: `${out}${err}`, bytes };
}

/** One test for each cell: theirs is read by us, ours by them, octet for octet; or they say why not. */
export function matrix(
  cast: () => Cast,
  program: Program,
  cells: Cells,
  changes: { theirText?: (got: Buffer) => Buffer } = {},
) {
  const theirText = changes.theirText ?? ((got: Buffer) => got);
  const keys: Key[] = ["rsa", "ec"];
  const ciphers = ["cbc", "gcm"] as const;

  const reading = async (bytes: Uint8Array) => {
    const { recipient, signer, folder } = cast();
    await using found = await read(new Pieces(bytes), {
      keys: new Keyring(keys.map((key) => recipient[key].credentials)),
      candidates: keys.map((key) => signer[key].credentials.certificate),
      directory: folder,
      maxBytes: 10_000_000,
    });
    const names = found.layers.flatMap((layer) =>
      layer.kind === "signed" ? layer.signatures.map(({ certificate }) => certificate.sha256) : [],
    );
    const content = found.content !== undefined && "bytes" in found.content ? found.content.bytes : Buffer.alloc(0);
    const ciphers = found.layers.flatMap((layer) => (layer.kind === "encrypted" ? [layer.cipher] : []));
    return { protection: found.protection, content, names, ciphers };
  };

  const held = (name: string, cell: Cell, make: () => Promise<Did>, works: (done: Did) => Promise<void>) => {
    if (cell === undefined) return;
    test(cell === true ? name : `cannot: ${name}`, async () => {
      const done = await make();
      if (cell === true) return works(done);
      expect(done.said).toMatch(cell);
      expect(done.code).not.toBe(0);
    });
  };

  for (const key of keys) {
    const signer = () => cast().signer[key];
    const sha256 = () => signer().credentials.certificate.sha256;
    held(
      `signs with ${key}, and we verify`,
      cells.sign[key],
      () => program.sign(signer()),
      async (done) => {
        const { protection, content, names } = await reading(done.bytes);
        expect([protection, theirText(content).toString(), names]).toEqual(["signed", text.toString(), [sha256()]]);
      },
    );

    let signed: Signed;
    held(
      `verifies what we signed with ${key}, and nothing else`,
      cells.verify[key],
      async () => {
        signed = await signedBy(signer().credentials);
        return program.verify(signed, signer());
      },
      async (done) => {
        expect([done.bytes.toString(), done.code], done.said).toEqual([text.toString(), 0]);
        for (const one of [signed.opaque, signed.clear]) one.write("T", one.indexOf("the time"));
        expect((await program.verify(signed, signer())).code).not.toBe(0);
      },
    );

    for (const cipher of ciphers) {
      const recipient = () => cast().recipient[key];
      held(
        `encrypts to ${key} by ${cipher}, and we decrypt`,
        cells.encrypt[`${key} ${cipher}`],
        () => program.encrypt(recipient(), cipher),
        async (done) => {
          const got = await reading(done.bytes);
          expect([got.protection, theirText(got.content).toString()]).toEqual(["encrypted", text.toString()]);
          expect(got.ciphers).toEqual([expect.stringMatching(new RegExp(`^aes-(128|256)-${cipher}$`))]);
        },
      );

      for (const shape of ["detached", "opaque"] as const) {
        const given = cells.decrypt[`${key} ${cipher}`];
        const by = () => cast().signer.rsa.credentials;
        held(
          `decrypts our ${shape} seal to ${key} by ${cipher}`,
          typeof given === "object" && "detached" in given ? given[shape] : given,
          async () => {
            const profile = cipher === "cbc" ? "foreign" : "peer";
            const recipients = [peerCertificate(recipient().credentials.certificate)];
            const options = { signer: by(), now: new Date(), recipients, profile, shape } as const;
            return program.decrypt(await bytesOf(seal(new Pieces(text), options)), recipient());
          },
          async (done) => {
            // What came out is whole: the signature inside holds over it.
            const { protection, content, names } = await reading(done.bytes);
            expect([protection, content.toString(), names], done.said).toEqual([
              "signed",
              text.toString(),
              [by().certificate.sha256],
            ]);
          },
        );
      }
    }
  }
}

async function signedBy(signer: TestCredentials): Promise<Signed> {
  const now = new Date();
  const hash = createHash("sha256").update(text).digest();
  const signature = detachedSignedData(hash, signer, now).toString("base64").replace(/.{76}/g, "$&\r\n");
  const clear = [
    'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=b',
    "",
    "--b",
    `${text}`,
    "--b",
    "Content-Type: application/pkcs7-signature; name=smime.p7s",
    "Content-Transfer-Encoding: base64",
    "",
    signature,
    "--b--",
    "",
  ].join("\r\n");
  return { opaque: await bytesOf(opaqueSignedData(new Pieces(text), signer, now)), clear: Buffer.from(clear) };
}
