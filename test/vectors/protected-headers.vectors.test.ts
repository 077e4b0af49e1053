import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseCertificate, peerCertificate } from "../../src/pki/certificate.ts";
import { validatePath } from "../../src/pki/path.ts";
import { pemToDer } from "../../src/pki/pem.ts";
import { asSuiteError } from "../../src/pki/suite-error.ts";
import { parseHead, splitEntity } from "../../src/smime/entity.ts";
import { fieldProtection, isLegacyDisplay, protectedHeader } from "../../src/smime/header-protection.ts";
import { Keyring, type OwnKey } from "../../src/smime/keyring.ts";
import { type Layer, type Read, read } from "../../src/smime/read.ts";
import { openssl } from "../support/openssl.ts";
import { sharedFolder } from "../support/shared.ts";
import { failureOf, flipped, Pieces } from "../support/smime.ts";

// Mail with header protection as it was before RFC 9788 (../shared/vectors/README.md): 3DES-CBC and RSA v1.5, as old mail has
// it. The files' line ends are LF, those of what is inside CRLF.

const folder = sharedFolder("vectors/protected-headers");
const directory = mkdtempSync(join(tmpdir(), "sixtalk-headers-"));
afterAll(() => rmSync(directory, { recursive: true }));

const file = (name: string) => readFileSync(join(folder ?? "", name));
/** Signed parts are CRLF: the form that the signature is over. */
const crlf = (bytes: Buffer) => Buffer.from(bytes.toString("latin1").replaceAll("\n", "\r\n"), "latin1");
const lf = (bytes: Buffer) => Buffer.from(bytes.toString("latin1").replaceAll("\r\n", "\n"), "latin1");

describe.skipIf(folder === undefined)("mail with the predecessor of RFC 9788's header protection", () => {
  let bob: OwnKey;
  beforeAll(async () => {
    bob = await bobsKey();
  });

  const reading = (bytes: Buffer, size?: number) =>
    read(new Pieces(bytes, size), { keys: new Keyring([bob]), candidates: [], directory, maxBytes: 1_000_000 });

  const mails: [string, Read["protection"], string, string | undefined, string][] = [
    ["smime-multipart-signed.eml", "signed", "signed", undefined, "The FooCorp contract"],
    ["smime-onepart-signed.eml", "signed", "signed", "smime-onepart-signed.inner", "The FooCorp contract"],
    [
      "smime-enc+legacy-disp.eml",
      "encrypted",
      "encrypted",
      "smime-enc+legacy-disp.inner",
      "BarCorp contract signed, let's go!",
    ],
    [
      "smime-sign+enc.eml",
      "sealed",
      "encrypted signed",
      "smime-sign+enc.inner.inner",
      "BarCorp contract signed, let's go!",
    ],
    ["smime-sign+enc+legacy-disp.eml", "sealed", "encrypted signed", undefined, "BarCorp contract signed, let's go!"],
  ];

  test.each(mails)("%s", async (name, protection, layers, inner, subject) => {
    const multipart = name.includes("multipart"); // no encoding keeps its CRLF
    const bytes = multipart ? crlf(file(name)) : file(name);
    for (const size of [undefined, 1]) {
      await using found = await reading(bytes, size);
      expect([found.protection, found.layers.map(({ kind }) => kind).join(" ")]).toEqual([protection, layers]);
      const content = contentOf(found);
      if (inner !== undefined) expect(lf(content).toString("latin1")).toBe(file(inner).toString("latin1"));
      signedByAlice(found.layers);

      const header = protectedHeader((await splitEntity(new Pieces(content))).head);
      expect([header.protection, header.outer]).toEqual(["v1", []]);
      const shown = header.fields.find((field) => field.name === "Subject");
      expect(shown?.value).toBe(subject);
      if (shown === undefined) return;
      // It never says what was hidden: no field is shown as if it had been.
      const state = fieldProtection(header, shown, {
        encrypted: layers.includes("encrypted"),
        signed: layers.includes("signed"),
      });
      expect(state).toBe(layers.includes("signed") ? "signed-only" : "unprotected");
    }
  });

  test.each(mails)(
    "%s, cut at any line or 16th octet, or with a bit of its head or of any 8th octet flipped: the same content, or nobody's",
    async (name) => {
      const whole = name.includes("multipart") ? crlf(file(name)) : file(name);
      const content = contentOf(await reading(whole));
      const head = /\r?\n\r?\n/.exec(whole.toString("latin1"))?.index ?? 0;
      const octets = Array.from(whole.keys());
      const cuts = octets.filter((at) => at % 16 === 0 || whole[at] === 0x0a).map((at) => whole.subarray(0, at));
      const flips = octets.filter((at) => at <= head || at % 8 === 0).map((at) => flipped(whole, at, at % 7));
      for (const damaged of [...cuts, ...flips]) {
        const found = await reading(damaged).catch((error: unknown) => asSuiteError(error).code);
        if (typeof found === "string") {
          expect(["seal-malformed", "seal-unsupported", "seal-not-for-us", "seal-unreadable"]).toContain(found);
          continue;
        }
        if (!contentOf(found).equals(content)) expect(["encrypted", "none"]).toContain(found.protection);
        await found[Symbol.asyncDispose]();
      }
      expect(readdirSync(directory).filter((left) => left.endsWith(".part"))).toEqual([]);
    },
  );

  test("the inner file of the sealed mail is what is signed in it: read by itself it is signed, and the same", async () => {
    await using found = await reading(file("smime-sign+enc.inner"));
    expect(found.protection).toBe("signed");
    expect(lf(contentOf(found)).equals(file("smime-sign+enc.inner.inner"))).toBe(true);
  });

  test("the Subject outside a sealed mail is not the one inside, which counts", () => {
    const outer = parseHead(headOf(file("smime-sign+enc.eml")));
    expect(outer.fields.find((field) => field.name === "Subject")?.value).toBe("...");
  });

  test.each(["smime-enc+legacy-disp.eml", "smime-sign+enc+legacy-disp.eml"])(
    "%s: the first part repeats the Subject, the second is the text",
    async (name) => {
      await using found = await reading(file(name));
      const [, first = "", second = ""] = lf(contentOf(found)).toString("latin1").split("--6ae\n");
      expect([first, second].map((part) => isLegacyDisplay(parseHead(headOf(Buffer.from(part)))))).toEqual([
        true,
        false,
      ]);
    },
  );

  test("for a key that is not Bob's: an error that says nothing", async () => {
    const other = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
    const keys = new Keyring([{ certificate: bob.certificate, privateKey: other }]);
    const options = { keys, candidates: [], directory, maxBytes: 1_000_000 };
    const failure = await failureOf(read(new Pieces(file("smime-sign+enc.eml")), options));
    expect(failure.code).toBe("seal-unreadable");
    expect(readdirSync(directory)).toEqual(["bob.p12"]);
  });

  test("a letter changed in the signed text: no signature holds any more", async () => {
    const bytes = crlf(file("smime-multipart-signed.eml"));
    await using found = await reading(flipped(bytes, bytes.indexOf("cancel this contract")));
    expect([found.protection, found.layers]).toMatchObject(["none", [{ signatures: [], signers: 1 }]]);
  });

  test("every file is used", () => {
    const used = [
      "bob.p12",
      "sample-ca.pem",
      "smime-sign+enc.inner",
      ...mails.flatMap(([name, , , inner]) => [name, inner]),
    ];
    expect(readdirSync(folder ?? "").toSorted()).toEqual(used.filter((name) => name !== undefined).toSorted());
  });

  /** Each signed layer: by Alice, whose path ends at the sample CA. */
  function signedByAlice(layers: readonly Layer[]): void {
    const anchor = parseCertificate(pemToDer(file("sample-ca.pem").toString("latin1"))[0] ?? new Uint8Array());
    for (const layer of layers) {
      if (layer.kind !== "signed") continue;
      expect([layer.signers, layer.signatures.length]).toEqual([1, 1]);
      for (const { certificate } of layer.signatures) {
        const path = validatePath({
          leaf: certificate,
          candidates: layer.certificates,
          anchors: [{ name: "sample", certificate: anchor }],
          time: new Date("2026-11-23T09:00:00Z"),
          purpose: "sign",
        });
        expect(path.ok).toBe(true);
        expect(peerCertificate(certificate).identities.map(({ identity }) => identity)).toEqual([
          "alice@smime.example",
        ]);
      }
    }
  }

  /** The file is a PKCS#12 of the old kind in lines as of PEM. */
  async function bobsKey(): Promise<OwnKey> {
    const path = join(directory, "bob.p12");
    writeFileSync(path, pemToDer(file("bob.p12").toString("latin1"))[0] ?? new Uint8Array());
    const shown = (...args: string[]) =>
      openssl(["pkcs12", "-legacy", "-in", path, "-passin", "pass:bob", "-nodes", ...args]);
    const { stdout: key } = await shown("-nocerts");
    const { stdout: certificates } = await shown("-nokeys", "-clcerts");
    const certificate = parseCertificate(pemToDer(certificates)[0] ?? new Uint8Array());
    return { certificate, privateKey: createPrivateKey(key.slice(key.indexOf("-----BEGIN"))) };
  }
});

function contentOf(found: Read): Buffer {
  if (found.content === undefined || !("bytes" in found.content)) throw new Error("not in memory");
  return found.content.bytes;
}

function headOf(message: Buffer): Buffer {
  return message.subarray(0, message.indexOf("\n\n") + 1);
}
