import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe } from "vitest";
import { temporaryFolder } from "../test/support/openssl.ts";
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
