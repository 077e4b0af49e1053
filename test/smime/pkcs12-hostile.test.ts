import { afterAll, describe, expect, test } from "vitest";
import * as der from "../../src/pki/der.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { readPkcs12 } from "../../src/smime/pkcs12-read.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { authenticated, authSafeOf, dataInfo, opensslPkcs12 } from "../support/pkcs12.ts";
import { makeTestDomain } from "../support/pki.ts";
import { flipped } from "../support/smime.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());

const { auth } = makeTestDomain({ domain: "example.test" }).person({ identity: "alice@example.test" });
const passphrase = "fourteen chars";
const made = (...options: string[]) => opensslPkcs12(folder.path, auth, passphrase, ["-iter", "1", ...options]);
const encrypted = await made("-certpbe", "AES-128-CBC", "-keypbe", "AES-128-CBC");
const legacy = await made("-legacy");
const open = await made("-certpbe", "NONE", "-keypbe", "NONE");

/** Its code, or what it read; anything but a SuiteError with a code of its own is the test's failure. */
async function outcome(file: Uint8Array): Promise<string> {
  try {
    return `${(await readPkcs12(file, passphrase)).keys.length} keys`;
  } catch (error) {
    if (!(error instanceof SuiteError)) throw error;
    if (!["syntax", "unsupported", "auth-failed"].includes(error.code)) throw error;
    return error.code;
  }
}

async function tally(files: Iterable<Uint8Array>): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const file of files) {
    const what = await outcome(file);
    found.set(what, (found.get(what) ?? 0) + 1);
  }
  return found;
}

describe.each([
  ["PBES2", encrypted],
  ["PBES1", legacy],
  ["open", open],
])("a file with its keys in %s", (_, file) => {
  test("cut off anywhere is not a file", async () => {
    const cuts = Array.from({ length: file.length }, (_, length) => file.subarray(0, length));
    expect([...(await tally(cuts)).keys()]).toEqual(["syntax"]);
  });

  test("with a bit changed anywhere has nothing in it, or what it had", async () => {
    const found = await tally(Array.from({ length: file.length }, (_, at) => flipped(file, at, at % 8)));
    expect(found.get("auth-failed")).toBeGreaterThan(file.length * 0.9);
    expect(found.get("1 keys") ?? 0).toBeLessThan(3); // parameters absent, or something that nobody looks at
  });

  test("behind a MAC that holds, changed or cut off in any octet, fails in a way that has a name", async () => {
    const inside = Buffer.from(authSafeOf(file));
    const changed = Array.from({ length: inside.length }, (_, at) =>
      authenticated(flipped(inside, at, at % 8), passphrase),
    );
    const cut = Array.from({ length: inside.length }, (_, at) => authenticated(inside.subarray(0, at), passphrase));
    const found = await tally([...changed, ...cut]);
    expect(found.get("auth-failed")).toBeUndefined();
    expect(found.get("syntax")).toBeGreaterThan(inside.length);
  });
});

test("with a byte behind it, or none before, it is no file", async () => {
  expect(await outcome(Buffer.concat([open, Buffer.of(0)]))).toBe("syntax");
  expect(await outcome(Buffer.alloc(0))).toBe("syntax");
});

describe("in BER, as NSS and old Windows write it", () => {
  const header = (...octets: number[]) => Buffer.from(octets);
  const pieces = (content: Uint8Array) => {
    const parts: Buffer[] = [];
    for (let at = 0; at < content.length; at += 100) parts.push(der.octetString(content.subarray(at, at + 100)));
    return parts;
  };
  const end = (count: number) => Buffer.alloc(2 * count);
  const macOf = (file: Uint8Array) => {
    const pfx = new der.DerCursor(der.readDer(file));
    pfx.next();
    pfx.next();
    return pfx.next().bytes;
  };
  const dataOid = der.oid("1.2.840.113549.1.7.1");

  /** Indefinite lengths, octets in pieces; `authSafe` may be other octets than `file` has. */
  const inPieces = (file: Uint8Array) =>
    Buffer.concat([
      header(0x30, 0x80, 0x02, 0x01, 0x03, 0x30, 0x80),
      ...[dataOid, header(0xa0, 0x80, 0x24, 0x80), ...pieces(authSafeOf(file)), end(3)],
      ...[macOf(file), end(1)],
    ]);

  test.each([
    ["PBES2", encrypted],
    ["PBES1", legacy],
    ["open", open],
  ])("%s", async (_, file) => {
    expect(await outcome(inPieces(file))).toBe("1 keys");
    const whole = inPieces(file);
    const cuts = Array.from({ length: 60 }, (_, i) => whole.subarray(0, Math.floor((i * whole.length) / 60)));
    expect([...(await tally(cuts)).keys()]).toEqual(["syntax"]);
  });

  test("the encrypted contents in pieces, too", async () => {
    const safes = new der.DerCursor(der.readDer(authSafeOf(legacy)));
    const written: Buffer[] = [];
    while (!safes.done) {
      const info = safes.next();
      const fields = new der.DerCursor(info);
      if (der.readOid(fields.next()) === "1.2.840.113549.1.7.1") {
        const content = der.readDer(fields.next().content).content;
        written.push(
          Buffer.concat([header(0x30, 0x80), dataOid, header(0xa0, 0x80, 0x24, 0x80), ...pieces(content), end(3)]),
        );
        continue;
      }
      const data = new der.DerCursor(der.readDer(fields.next().content));
      const version = data.next().bytes;
      const inner = new der.DerCursor(data.next());
      const [type, algorithm, content] = [inner.next().bytes, inner.next().bytes, inner.next().content];
      written.push(
        Buffer.concat([
          ...[header(0x30, 0x80), der.oid("1.2.840.113549.1.7.6"), header(0xa0, 0x80, 0x30, 0x80), version],
          ...[header(0x30, 0x80), type, algorithm, header(0xa0, 0x80), ...pieces(content), end(5)],
        ]),
      );
    }
    const authSafe = Buffer.concat([header(0x30, 0x80), ...written, end(1)]);
    expect(await outcome(authenticated(authSafe, passphrase))).toBe("1 keys");
  });
});

test("an empty passphrase is two zero octets, or none at all", async () => {
  const authSafe = der.sequence();
  for (const bmp of [Buffer.alloc(2), Buffer.alloc(0)])
    expect((await readPkcs12(authenticated(authSafe, "", bmp), "")).keys).toEqual([]);
  await expect(readPkcs12(authenticated(authSafe, "", Buffer.of(0, 1)), "")).rejects.toMatchObject({
    code: "auth-failed",
  });
});

test("what is there instead of an OCTET STRING is not taken for one in pieces", async () => {
  const sequence = der.sequence(der.octetString(der.sequence()));
  const info = der.sequence(der.oid("1.2.840.113549.1.7.1"), der.explicit(0, sequence));
  expect(await outcome(authenticated(der.sequence(info), passphrase))).toBe("syntax");
  const right = der.sequence(der.oid("1.2.840.113549.1.7.1"), der.explicit(0, der.encode(0x24, sequence.subarray(2))));
  expect(await outcome(authenticated(der.sequence(right), passphrase))).toBe("0 keys");
});

describe("limits", () => {
  const contents = (...bags: Buffer[]) => authenticated(der.sequence(dataInfo(der.sequence(...bags))), passphrase);
  const crlBag = der.sequence(der.oid("1.2.840.113549.1.12.10.1.4"), der.explicit(0, der.sequence()));
  const nest = (inner: Buffer): Buffer =>
    der.sequence(der.oid("1.2.840.113549.1.12.10.1.6"), der.explicit(0, der.sequence(inner)));

  test("200 bags are read, 201 are not", async () => {
    expect(await outcome(contents(...Array.from({ length: 200 }, () => crlBag)))).toBe("0 keys");
    expect(await outcome(contents(...Array.from({ length: 201 }, () => crlBag)))).toBe("syntax");
  });

  test("contents nested four deep are read, five are not", async () => {
    expect(await outcome(contents(nest(nest(nest(crlBag)))))).toBe("0 keys");
    expect(await outcome(contents(nest(nest(nest(nest(crlBag))))))).toBe("syntax");
  });

  test("a file of more than 4 MiB is not looked at, unless more is allowed", async () => {
    const large = contents(der.sequence(der.oid("2.25.1"), der.explicit(0, der.octetString(Buffer.alloc(4_194_304)))));
    await expect(readPkcs12(large, passphrase)).rejects.toMatchObject({
      code: "syntax",
      details: { what: "too long" },
    });
    expect((await readPkcs12(large, passphrase, 5_000_000)).keys).toEqual([]);
  });

  test("a MAC of 2^31 rounds is refused at once", async () => {
    const info = der.sequence(der.sequence(der.oid("2.16.840.1.101.3.4.2.1")), der.octetString(Buffer.alloc(32)));
    const mac = (iterations: bigint) => der.sequence(info, der.octetString(Buffer.alloc(8)), der.integer(iterations));
    const file = (iterations: bigint) => der.sequence(der.integer(3), dataInfo(der.sequence()), mac(iterations));
    const began = performance.now();
    expect(await outcome(file(2n ** 31n))).toBe("unsupported");
    expect(await outcome(file(10_000_001n))).toBe("unsupported");
    expect(await outcome(file(0n))).toBe("syntax");
    expect(await outcome(file(1n))).toBe("auth-failed");
    expect(performance.now() - began).toBeLessThan(1000);
  });
});
