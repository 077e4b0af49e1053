import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { restoreBackup } from "../../src/node/backup.ts";
import { homeAt } from "../../src/node/home.ts";
import * as der from "../../src/pki/der.ts";
import { authenticated, dataInfo } from "../support/pkcs12.ts";
import { temporaryFolder } from "../support/tmp.ts";

const passphrase = "fourteen chars";
const HOME_FILES = "2.25.325316233627124017154061145225069888751";

/** A file with no key, and this as its secret. */
function holding(value: Uint8Array): Buffer {
  const bag = der.sequence(der.oid(HOME_FILES), der.explicit(0, value));
  const bags = der.sequence(der.sequence(der.oid("1.2.840.113549.1.12.10.1.5"), der.explicit(0, bag)));
  return authenticated(der.sequence(dataInfo(bags)), passphrase);
}

const packed = (content: unknown) => holding(der.octetString(gzipSync(JSON.stringify(content))));
const text = Buffer.from("x").toString("base64");
const files = (names: readonly string[]) =>
  packed({ format: 1, files: Object.fromEntries(names.map((n) => [n, text])) });

test.each([
  ["no compressed octets", holding(der.octetString(Buffer.from("x"))), "syntax"],
  ["no OCTET STRING", holding(der.sequence()), "syntax"],
  ["the form of a later version", packed({ format: 2, files: {} }), "syntax"],
  ["a file above the home", files(["../stolen"]), "syntax"],
  ["a file below a folder of it", files(["anchors/../../stolen"]), "syntax"],
  ["an absolute name", files(["/stolen"]), "syntax"],
  ["a hidden file", files(["anchors/.stolen"]), "syntax"],
  ["a private key beside its bag", files(["keys/auth.key"]), "syntax"],
  ["no configuration", files([]), "config-invalid"],
  ["a configuration that is none", files(["sixtalk.yaml"]), "config-invalid"],
  ["a certificate file that is none", files(["keys/auth.pem"]), "syntax"],
])("a backup with %s is not restored, and leaves nothing behind", async (_, file, code) => {
  await using folder = await temporaryFolder();
  const home = homeAt(join(folder.path, "home"), {});
  await expect(restoreBackup({ home, file, passphrases: [passphrase] })).rejects.toMatchObject({ code });
  expect(readdirSync(folder.path)).toEqual([]);
});

test("passphrases are tried in turn, the file's own faults are told at once", async () => {
  await using folder = await temporaryFolder();
  const home = homeAt(join(folder.path, "home"), {});
  const restore = (file: Uint8Array, ...passphrases: string[]) => restoreBackup({ home, file, passphrases });
  await expect(restore(files([]), "wrong", passphrase)).rejects.toMatchObject({ code: "config-invalid" });
  await expect(restore(files([]), "wrong", "wrong too")).rejects.toMatchObject({ code: "auth-failed" });
  await expect(restore(Buffer.from("x"), "wrong", passphrase)).rejects.toMatchObject({ code: "syntax" });
});

test("a home with anything in it is refused before the file is looked at, and kept", async () => {
  await using folder = await temporaryFolder();
  writeFileSync(join(folder.path, "note"), "mine");
  const home = homeAt(folder.path, {});
  await expect(restoreBackup({ home, file: Buffer.alloc(0), passphrases: [""] })).rejects.toMatchObject({
    code: "conflict",
  });
  expect(readdirSync(folder.path)).toEqual(["note"]);
});

test("a home that cannot be made is told as such", async () => {
  await using folder = await temporaryFolder();
  writeFileSync(join(folder.path, "note"), "mine");
  const home = homeAt(join(folder.path, "note/home"), {});
  await expect(restoreBackup({ home, file: files([]), passphrases: [passphrase] })).rejects.toMatchObject({
    code: "store-failed",
    fault: "local",
  });
  expect(readdirSync(folder.path)).toEqual(["note"]);
});
