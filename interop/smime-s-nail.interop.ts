import { rmSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe } from "vitest";
import { temporaryFolder } from "../test/support/openssl.ts";
import { run } from "./pair.ts";
import { type Cast, type Did, did, makeCast, matrix, type Program, text } from "./smime-cast.ts";

// A mail program: it writes whole mail, in LF, with a head of its own, and reads a mailbox file.

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());
let cast: Cast;
beforeAll(async () => {
  cast = await makeCast(folder.path);
});

const crlf = (bytes: Buffer) => Buffer.from(bytes.toString("latin1").replace(/\r?\n/g, "\r\n"), "latin1");
const lf = (bytes: Buffer) => Buffer.from(bytes.toString("latin1").replaceAll("\r\n", "\n"), "latin1");
const body = (entity: Buffer) => entity.subarray(entity.indexOf("\r\n\r\n") + 4);
const head = text.subarray(0, text.indexOf("\r\n\r\n") + 4);

const set = (...variables: string[]) => variables.flatMap((variable) => ["-S", variable]);
/** No files of the host's owner, and what others read too. */
const base = ["-:/", "-N", ...set("v15-compat=y", "quiet", "smime-ca-no-defaults")];

/** Mail as it was handed to the next hop. */
async function sent(from: string, to: string, variables: string[]): Promise<Did> {
  const file = cast.path("s-nail.sent");
  rmSync(file, { force: true });
  const options = [...base, ...set(`mta=test://${file}`, `from=${from}`, "mime-encoding=8b", ...variables)];
  const done = did(file, await run("s-nail", [...options, "-s", "subject", to], lf(body(text))));
  return { ...done, bytes: withoutEnvelope(done.bytes) };
}

function withoutEnvelope(mail: Buffer): Buffer {
  return crlf(Buffer.from(mail.toString("latin1").replace(/^From .*\n/, ""), "latin1"));
}

/** A mailbox of one mail that contains the entity. */
function mailbox(entity: Buffer, by: string, to: string): string {
  const file = cast.path("s-nail.mbox");
  const envelope = `From ${by} Mon Nov 23 09:00:00 2026\nFrom: ${by}\nTo: ${to}\nSubject: subject\nMIME-Version: 1.0\n`;
  writeFileSync(file, Buffer.concat([Buffer.from(envelope), lf(entity), Buffer.from("\n")]));
  return file;
}

function sealedEntity(sealed: Buffer): Buffer {
  const type = "application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m";
  const lines = sealed.toString("base64").replace(/.{76}/g, "$&\r\n");
  return Buffer.from(`Content-Type: ${type}\r\nContent-Transfer-Encoding: base64\r\n\r\n${lines}\r\n`);
}

const sNail: Program = {
  sign: (by) =>
    sent(by.address, "bob@alpha.test", [
      "smime-sign",
      `smime-sign-cert=${by.pair}`,
      `smime-sign-include-certs=${cast.issuing}`,
      "smime-sign-digest=SHA256",
    ]),

  async verify({ clear }, by) {
    const file = mailbox(clear, by.address, "bob@alpha.test");
    const done = await run(
      "s-nail",
      [...base, "-R", ...set(`smime-ca-file=${cast.root}`), "-f", file],
      "verify 1\nexit\n",
    );
    const said = `${done.out}${done.err}`;
    // It gives nothing back, and ends well whatever it found.
    const holds = /Message 1 was verified successfully/.test(said);
    return { said, code: holds ? 0 : 1, bytes: holds ? text : Buffer.alloc(0) };
  },

  encrypt: (to, cipher) =>
    sent("alice-rsa@alpha.test", to.address, [
      "smime-force-encryption",
      `smime-encrypt-${to.address}=${to.pem}`,
      `smime-cipher=${cipher === "cbc" ? "AES256" : "AES-256-GCM"}`,
    ]),

  async decrypt(sealed, to) {
    const file = mailbox(sealedEntity(sealed), "alice-rsa@alpha.test", to.address);
    const out = cast.path("s-nail.decrypted");
    rmSync(out, { force: true });
    const pair = set(`smime-sign-cert-${to.address}=${to.pair}`, `smime-sign-cert=${to.pair}`);
    const done = did(out, await run("s-nail", [...base, "-R", ...pair, "-f", file], `decrypt 1 ${out}\nexit\n`));
    // Where it cannot it says so, copies the mail as it was, and ends well.
    return { ...done, code: done.said.includes("Error") ? 1 : 0, bytes: withoutEnvelope(done.bytes) };
  },
};

describe("s-nail", () => {
  matrix(
    () => cast,
    sNail,
    {
      sign: { rsa: true, ec: true },
      verify: { rsa: true, ec: true },
      encrypt: {
        "rsa cbc": true,
        "rsa gcm": /Error creating the PKCS#7 encryption object: .*cipher parameter error/,
        "ec cbc": /Error creating the PKCS#7 encryption object: .*encryption not supported for this key type/,
        "ec gcm": /Error creating the PKCS#7 encryption object: .*encryption not supported for this key type/,
      },
      decrypt: {
        // It takes an opaque signature inside for a second envelope.
        "rsa cbc": { detached: true, opaque: /Error reading PKCS#7 object: .*decode error/ },
        "rsa gcm": /Error decrypting PKCS#7 object: .*wrong content type/,
        "ec cbc": /Error reading PKCS#7 object: .*wrong tag/,
        "ec gcm": /Error decrypting PKCS#7 object: .*wrong content type/,
      },
    },
    { theirText: (got) => Buffer.concat([head, got.subarray("\r\n".length)]) }, // its part has no head of its own,
  );
});
