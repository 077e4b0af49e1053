import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { opaqueSignedData } from "../src/smime/signed-write.ts";
import { temporaryFolder } from "../test/support/openssl.ts";
import { bytesOf, Pieces } from "../test/support/smime.ts";
import { type Cast, makeCast, matrix, type Program, text, wrote } from "./smime-cast.ts";

// `openssl cms` in all its options: test/smime/openssl.test.ts.

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());
let cast: Cast;
beforeAll(async () => {
  cast = await makeCast(folder.path);
});

/** `cms`, or `smime`, which knows PKCS #7 only. */
function openssl(command: "cms" | "smime"): Program {
  const der = ["-binary", "-outform", "DER"];
  const io = (name: string, bytes: Buffer) => {
    const [from, to] = [cast.path(`${command}-${name}.in`), cast.path(`${command}-${name}.out`)];
    writeFileSync(from, bytes);
    writeFileSync(to, "");
    return { to, args: ["-in", from, "-out", to] };
  };
  return {
    sign(by) {
      const { to, args } = io("sign", text);
      const who = ["-signer", by.pem, "-inkey", by.key, "-certfile", cast.issuing];
      return wrote(to, "openssl", [command, "-sign", "-nodetach", ...der, ...args, ...who]);
    },
    verify({ opaque }) {
      const { to, args } = io("verify", opaque);
      return wrote(to, "openssl", [command, "-verify", "-binary", "-inform", "DER", ...args, "-CAfile", cast.root]);
    },
    encrypt(recipient, cipher) {
      const { to, args } = io("encrypt", text);
      return wrote(to, "openssl", [command, "-encrypt", `-aes-256-${cipher}`, ...der, ...args, recipient.pem]);
    },
    decrypt(sealed, recipient) {
      const { to, args } = io("decrypt", sealed);
      const who = ["-recip", recipient.pem, "-inkey", recipient.key];
      return wrote(to, "openssl", [command, "-decrypt", "-binary", "-inform", "DER", ...args, ...who]);
    },
  };
}

const all = { "rsa cbc": true, "rsa gcm": true, "ec cbc": true, "ec gcm": true } as const;

describe("openssl cms", () => {
  matrix(() => cast, openssl("cms"), {
    sign: { rsa: true, ec: true },
    verify: { rsa: true, ec: true },
    encrypt: all,
    decrypt: all,
  });
});

test.each(["pkcs1", "pss"] as const)(
  "openssl cms verifies what we signed with rsa by %s, and nothing else",
  async (rsaSignature) => {
    const by = { ...cast.signer.rsa.credentials, rsaSignature };
    for (const content of [text, Buffer.alloc(2_000_000, text)]) {
      const opaque = await bytesOf(opaqueSignedData(new Pieces(content), by, new Date()));
      const verify = () => openssl("cms").verify({ opaque, clear: opaque }, cast.signer.rsa);
      const done = await verify();
      expect([done.bytes.equals(content), done.code], done.said).toEqual([true, 0]);
      opaque.write("T", opaque.indexOf("the time"));
      expect((await verify()).code).not.toBe(0);
    }
  },
);

describe("openssl smime", () => {
  matrix(() => cast, openssl("smime"), {
    sign: { rsa: true, ec: true },
    verify: { rsa: true, ec: true },
    encrypt: {
      "rsa cbc": true,
      "rsa gcm": /cipher parameter error/,
      "ec cbc": /encryption not supported for this key type/,
      "ec gcm": /encryption not supported for this key type/,
    },
    decrypt: {
      "rsa cbc": true,
      "rsa gcm": /PKCS7_decrypt:wrong content type/,
      "ec cbc": /wrong tag.*Type=PKCS7_RECIP_INFO/s,
      "ec gcm": /PKCS7_decrypt:wrong content type/,
    },
  });
});
