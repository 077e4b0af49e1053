import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ocspStatus, parseOcspResponse } from "../../src/pki/ocsp.ts";
import { makeOcspRequest } from "../../src/pki/ocsp-request.ts";
import type { TrustAnchor } from "../../src/pki/path.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { startEnrolment } from "../support/enrolment.ts";
import { openssl } from "../support/openssl.ts";

type Enrolment = Awaited<ReturnType<typeof startEnrolment>>;

function http(o: Enrolment, path: string, body?: Buffer, method = body === undefined ? "GET" : "POST") {
  const { host, port } = o.status.address;
  return new Promise<{ status: number; headers: Record<string, unknown>; body: Buffer }>((resolve, reject) => {
    const outgoing = request({ host, port, path, method, agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (chunk: Buffer) => parts.push(chunk));
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts) }),
      );
    });
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}

function files(o: Enrolment, name: string, der: Uint8Array): string {
  const file = join(o.it.folder, `${name}.pem`);
  writeFileSync(file, derToPem(der, name === "crl" ? "X509 CRL" : "CERTIFICATE"));
  return file;
}

test("openssl ocsp, crl and verify agree with the CA, before and after a revocation", async () => {
  await using o = await startEnrolment();
  const me = await o.enrolled();
  const root = files(o, "root", o.keys.root.der);
  const ca = files(o, "ca", o.keys.issuing.certificate.der);
  const leaf = files(o, "leaf", me.credentials.certificate.der);
  const chain = join(o.it.folder, "chain.pem");
  writeFileSync(
    chain,
    derToPem(o.keys.issuing.certificate.der, "CERTIFICATE") + derToPem(o.keys.root.der, "CERTIFICATE"),
  );
  const url = `http://127.0.0.1:${o.status.address.port}/ocsp`;
  const told = async (...more: string[]) =>
    (await openssl(["ocsp", "-issuer", ca, "-cert", leaf, "-url", url, "-CAfile", root, ...more])).output;
  const list = async () => {
    const { body } = await http(o, "/ca.crl");
    const crl = files(o, "crl", body);
    const shown = await openssl(["crl", "-in", crl, "-CAfile", chain, "-noout", "-text"]);
    const verified = await openssl([
      "verify",
      "-x509_strict",
      "-crl_check",
      "-CAfile",
      root,
      "-untrusted",
      ca,
      "-CRLfile",
      crl,
      leaf,
    ]);
    return { shown: shown.output, verified: verified.output };
  };
  for (const nonce of [[], ["-no_nonce"]])
    expect(await told(...nonce)).toMatch(/Response verify OK[\s\S]*leaf.pem: good/);
  const before = await list();
  expect(before.shown).toContain("verify OK");
  expect(before.shown).toContain("No Revoked Certificates");
  expect(before.verified).toContain("leaf.pem: OK");
  o.registration.revokeAs(me.serial, "keyCompromise", "operator");
  for (const nonce of [[], ["-no_nonce"]])
    expect(await told(...nonce)).toMatch(/Response verify OK[\s\S]*leaf.pem: revoked[\s\S]*Reason: keyCompromise/);
  const after = await list();
  expect(after.shown).toContain("verify OK");
  expect(after.shown).toContain(`Serial Number: ${me.serial.toUpperCase()}`);
  expect(after.shown).toContain("Key Compromise");
  expect(after.verified).toContain("certificate revoked");
});

test("OCSP by GET, cached for an hour without a nonce, made anew with one, and never kept over a revocation", async () => {
  await using o = await startEnrolment();
  const me = await o.enrolled();
  const { certificate } = me.credentials;
  const issuer = o.keys.issuing.certificate;
  const plain = makeOcspRequest({ certificate, issuer });
  const path = `/ocsp/${encodeURIComponent(plain.toString("base64"))}`;
  const first = await http(o, path);
  expect([first.status, first.headers["content-type"]]).toEqual([200, "application/ocsp-response"]);
  expect(first.headers["cache-control"]).toContain("max-age=3600");
  o.it.now = new Date(o.it.now.getTime() + 60_000);
  expect((await http(o, `/ocsp/${plain.toString("base64")}`)).body).toEqual(first.body);
  const nonce = randomBytes(32);
  const asked = makeOcspRequest({ certificate, issuer, nonce });
  const second = await http(o, "/ocsp", asked);
  expect(second.headers["cache-control"]).toBe("no-store");
  const question = { certificate, issuer, anchor: o.anchors[0] as TrustAnchor, time: o.it.now, graceMs: 0, nonce };
  expect(ocspStatus(parseOcspResponse(second.body), question).status).toBe("good");
  o.ca.revoke(me.serial);
  expect((await http(o, path)).body).not.toEqual(first.body);
});

test("what it does not know is unknown, another CA's is not its business, nonsense is malformed", async () => {
  await using o = await startEnrolment();
  await using other = await startEnrolment();
  const me = await o.enrolled();
  const theirs = await other.enrolled();
  const ask = async (der: Buffer) => parseOcspResponse((await http(o, "/ocsp", der)).body);
  const issuer = o.keys.issuing.certificate;
  const forged = makeOcspRequest({ certificate: theirs.credentials.certificate, issuer });
  expect((await ask(forged)).basic?.answers[0]?.status.status).toBe("unknown");
  const foreign = makeOcspRequest({
    certificate: theirs.credentials.certificate,
    issuer: other.keys.issuing.certificate,
  });
  expect((await ask(foreign)).status).toBe("unauthorized");
  for (const bytes of [Buffer.alloc(0), Buffer.from("nonsense"), Buffer.alloc(16_000, 0x30)])
    expect((await ask(bytes)).status).toBe("malformedRequest");
  expect((await http(o, "/ocsp", Buffer.alloc(16_385))).status).toBe(413);
  expect((await http(o, "/ocsp/%ff")).status).toBe(200);
  expect((await http(o, "/nothing")).status).toBe(404);
  expect((await http(o, "/ocsp", undefined, "DELETE")).status).toBe(405);
  expect(me.serial).toBeDefined();
});

test("readiness tells when nothing can be issued", async () => {
  await using o = await startEnrolment();
  expect((await http(o, "/readyz")).status).toBe(200);
  o.it.now = new Date(o.keys.issuing.certificate.validity.notAfter.getTime() + 1);
  const told = await http(o, "/readyz");
  expect([told.status, told.body.toString()]).toEqual([503, "the issuing CA is not valid now\n"]);
  expect((await http(o, "/healthz")).status).toBe(200);
});
