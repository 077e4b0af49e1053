import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { temporaryFolder } from "../test/support/openssl.ts";
import { run } from "./pair.ts";
import { type Cast, makeCast, matrix, type Program, text, wrote } from "./smime-cast.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());
let cast: Cast;
const kept = () => `sql:${cast.path("nss")}`;

beforeAll(async () => {
  cast = await makeCast(folder.path);
  mkdirSync(cast.path("nss"));
  const did = async (program: string, ...args: string[]) =>
    expect(await run(program, [...args, "-d", kept()])).toMatchObject({ code: 0 });
  await did("certutil", "-N", "--empty-password");
  await did("certutil", "-A", "-n", "root", "-t", "CT,CT,CT", "-i", cast.root);
  await did("certutil", "-A", "-n", "issuing", "-t", ",,", "-i", cast.issuing);
  for (const role of [cast.signer.rsa, cast.signer.ec, cast.recipient.rsa, cast.recipient.ec])
    await did("pk12util", "-i", role.p12, "-W", "pw");
});

function io(name: string, bytes: Buffer) {
  const [from, to] = [cast.path(`nss-${name}.in`), cast.path(`nss-${name}.out`)];
  writeFileSync(from, bytes);
  rmSync(to, { force: true });
  return { to, args: ["-d", kept(), "-i", from, "-o", to] };
}

const nick = (address: string) => address.split("@")[0] ?? "";

const cmsutil: Program = {
  sign(by) {
    const { to, args } = io("sign", text);
    return wrote(to, "cmsutil", ["-S", "-N", nick(by.address), "-G", "-H", "SHA256", ...args]);
  },
  verify({ opaque }) {
    const { to, args } = io("verify", opaque);
    return wrote(to, "cmsutil", ["-D", ...args]);
  },
  encrypt(recipient) {
    const { to, args } = io("encrypt", text);
    return wrote(to, "cmsutil", ["-E", "-r", recipient.address, ...args]);
  },
  decrypt(sealed) {
    const { to, args } = io("decrypt", sealed);
    return wrote(to, "cmsutil", ["-D", ...args]);
  },
};

describe("NSS (cmsutil)", () => {
  matrix(() => cast, cmsutil, {
    sign: { rsa: true, ec: true },
    verify: { rsa: true, ec: true },
    encrypt: {
      "rsa cbc": true,
      "rsa gcm": undefined, // it chooses by itself, and never GCM
      "ec cbc": /cannot create CMS recipientInfo object.*SEC_ERROR_INVALID_ALGORITHM/s,
      "ec gcm": undefined,
    },
    decrypt: {
      "rsa cbc": true,
      "rsa gcm": /SEC_ERROR_UNRECOGNIZED_OID/,
      "ec cbc": /SEC_ERROR_BAD_DER/,
      "ec gcm": /SEC_ERROR_UNRECOGNIZED_OID/,
    },
  });
});
