import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { asSuiteError } from "../../src/pki/suite-error.ts";
import { readPkcs12 } from "../../src/smime/pkcs12-read.ts";
import { nearlyDer } from "../support/der-mutation.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { authenticated, authSafeOf, opensslPkcs12 } from "../support/pkcs12.ts";
import { makeTestDomain } from "../support/pki.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());

const { auth } = makeTestDomain({ domain: "example.test" }).person({ identity: "alice@example.test" });
const passphrase = "fourteen chars";
const options = [["-legacy"], ["-certpbe", "NONE", "-keypbe", "NONE"], []];
const files: Buffer[] = [];
for (const more of options) files.push(await opensslPkcs12(folder.path, auth, passphrase, [...more, "-iter", "1"]));

const named = async (file: Uint8Array) => {
  const code = await readPkcs12(file, passphrase).then(
    () => "read",
    (error: unknown) => asSuiteError(error).code,
  );
  expect(["read", "syntax", "unsupported", "auth-failed"]).toContain(code);
};

test("whatever a file is, reading it ends with its contents or a failure that has a name", async () => {
  await fc.assert(fc.asyncProperty(nearlyDer(files), named), { numRuns: 300 });
}, 120_000);

test("also where its MAC holds", async () => {
  const inside = nearlyDer(files.map(authSafeOf)).map((bytes) => authenticated(bytes, passphrase));
  await fc.assert(fc.asyncProperty(inside, named), { numRuns: 600 });
}, 120_000);
