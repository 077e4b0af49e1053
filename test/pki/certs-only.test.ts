import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readCertsOnly, writeCertsOnly } from "../../src/pki/certs-only.ts";
import * as der from "../../src/pki/der.ts";
import { contentType } from "../../src/pki/oid.ts";
import { derToPem, pemToDer } from "../../src/pki/pem.ts";
import { openssl, temporaryFolder } from "../support/openssl.ts";
import { makeTestDomain } from "../support/pki.ts";

const home = makeTestDomain({ domain: "example.test" });
const leaf = home.person({ identity: "alice@example.test" }).auth.certificate;
const certificates = [leaf, home.issuing.certificate, home.root.certificate];
const hashes = (of: readonly { sha256: string }[]) => of.map((one) => one.sha256).toSorted();

test("openssl pkcs7 prints the certificates that we write", async () => {
  using folder = temporaryFolder();
  const file = join(folder.path, "a.p7");
  writeFileSync(file, writeCertsOnly(certificates));
  const { output, code } = await openssl(["pkcs7", "-inform", "DER", "-in", file, "-print_certs"]);
  expect(code).toBe(0);
  const printed = pemToDer(output, "CERTIFICATE").map((bytes) => Buffer.from(bytes).toString("hex"));
  expect(printed.toSorted()).toEqual(certificates.map((one) => Buffer.from(one.der).toString("hex")).toSorted());
});

test.each([[["-nocrl"]], [[]]])("we read what openssl crl2pkcs7 %o writes", async (options) => {
  using folder = temporaryFolder();
  const file = (name: string) => join(folder.path, name);
  writeFileSync(file("certs.pem"), certificates.map((one) => derToPem(one.der, "CERTIFICATE")).join(""));
  const crl = options.length > 0 ? options : ["-in", file("ca.crl")];
  if (options.length === 0) {
    const { issueRevocationList } = await import("../../src/pki/crl-issue.ts");
    const [thisUpdate, nextUpdate] = [home.now, new Date(home.now.getTime() + 1000)];
    const list = issueRevocationList({ issuer: home.issuing, entries: [], number: 1, thisUpdate, nextUpdate });
    writeFileSync(file("ca.crl"), derToPem(list, "X509 CRL"));
  }
  await openssl(["crl2pkcs7", ...crl, "-certfile", file("certs.pem"), "-outform", "DER", "-out", file("a.p7")]);
  expect(hashes(readCertsOnly(readFileSync(file("a.p7"))))).toEqual(hashes(certificates));
});

test("what is written does not depend on the order of the certificates: it is a SET", () => {
  expect(writeCertsOnly(certificates.toReversed())).toEqual(writeCertsOnly(certificates));
});

test("what is written is read again, none and one and three", () => {
  for (const some of [[], [leaf], certificates])
    expect(hashes(readCertsOnly(writeCertsOnly(some)))).toEqual(hashes(some));
});

describe("what is no certs-only message", () => {
  const message = (
    o: { type?: string; certificates?: readonly Uint8Array[]; signers?: Uint8Array; content?: Uint8Array } = {},
  ) =>
    der.sequence(
      der.oid(o.type ?? contentType.signedData),
      der.explicit(
        0,
        der.sequence(
          der.integer(1),
          der.set(),
          der.sequence(der.oid(contentType.data), o.content ?? Buffer.alloc(0)),
          der.implicitConstructed(0, ...(o.certificates ?? [leaf.der])),
          o.signers ?? der.set(),
        ),
      ),
    );

  test("the frame of the cases below is one", () => {
    expect(readCertsOnly(message())).toHaveLength(1);
    expect(readCertsOnly(message({ content: Buffer.alloc(1_000_000) }))).toHaveLength(1);
    expect(readCertsOnly(message({ certificates: Array.from({ length: 64 }, () => leaf.der) }))).toHaveLength(64);
  });

  test.each<[string, Uint8Array]>([
    ["another content type", message({ type: contentType.data })],
    ["somebody signed it", message({ signers: der.set(der.sequence()) })],
    ["a certificate that is none", message({ certificates: [der.sequence()] })],
    ["an attribute certificate", message({ certificates: [der.implicitConstructed(2)] })],
    ["65 certificates", message({ certificates: Array.from({ length: 65 }, () => leaf.der) })],
    ["a byte behind it", Buffer.concat([message(), Buffer.of(0)])],
    ["longer than 1 MiB", message({ content: Buffer.alloc(1 << 20) })],
    ["nothing", Buffer.alloc(0)],
  ])("%s", (_, bytes) => {
    expect(() => readCertsOnly(bytes)).toThrow(
      expect.objectContaining({ code: "certificate-malformed", fault: "peer", temporary: false }),
    );
  });

  test("every truncation", () => {
    const whole = message();
    for (let n = 0; n < whole.length; n += 1) {
      expect(() => readCertsOnly(whole.subarray(0, n))).toThrow(
        expect.objectContaining({ code: "certificate-malformed" }),
      );
    }
  });
});
