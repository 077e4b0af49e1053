import { describe, expect, test } from "vitest";
import { peerCertificate } from "../../src/pki/certificate.ts";
import { readCertsOnly } from "../../src/pki/certs-only.ts";
import { makeCsr } from "../../src/pki/csr.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { startEnrolment } from "../support/enrolment.ts";
import { makeEcKey, makeTestDomain, rsaKeyOf } from "../support/pki.ts";

const csr = (key = makeEcKey(), identity?: string) =>
  makeCsr({
    privateKey: key,
    commonName: "x",
    ...(identity === undefined ? {} : { identity: parseIdentity(identity) }),
  });
const certificatesOf = (answer: { status: number; headers: Readonly<Record<string, string>>; body: Buffer }) => {
  expect({ status: answer.status, body: answer.status === 200 ? "" : answer.body.toString() }).toEqual({
    status: 200,
    body: "",
  });
  expect(answer.headers["content-type"]).toContain("application/pkcs7-mime");
  const text = answer.body.toString("latin1");
  expect(text).toMatch(/^[A-Za-z0-9+/]+=*$/); // one line
  expect(Number(answer.headers["content-length"])).toBe(text.length);
  return readCertsOnly(Buffer.from(text, "base64"));
};
const identitiesOf = (certificate: Parameters<typeof peerCertificate>[0] | undefined) =>
  certificate && [...new Set(peerCertificate(certificate).identities.map((one) => one.identity))];

test("anybody gets the CA certificates and learns what a request should be like", async () => {
  await using o = await startEnrolment();
  for (const path of ["cacerts", "auth/cacerts", "encryption/cacerts"]) {
    const found = certificatesOf(await o.est(path)).map(({ sha256 }) => sha256);
    expect(found.toSorted()).toEqual([o.keys.root.sha256, o.keys.issuing.certificate.sha256].toSorted());
  }
  const attributes = await o.est("encryption/csrattrs");
  expect(attributes.headers["content-type"]).toBe("application/csrattrs");
  expect(Buffer.from(attributes.body.toString(), "base64").includes(Buffer.from("2a864886f70d010101", "hex"))).toBe(
    true,
  );
  expect((await o.est("other/cacerts")).status).toBe(404);
});

test("an invitation gives one device its certificate, a password another, and neither somebody else's name", async () => {
  await using o = await startEnrolment();
  const { identity, code, password } = await o.withPassword();
  const request = csr(makeEcKey(), "mallory@alpha.test");
  const [first] = certificatesOf(await o.est("simpleenroll", { basic: `${identity}:${code}`, csr: request }));
  expect(identitiesOf(first)).toEqual([identity]);
  // The answer was lost: the same again gives the same; another key nothing.
  const [again] = certificatesOf(await o.est("auth/simpleenroll", { basic: `${identity}:${code}`, csr: request }));
  expect(again?.sha256).toBe(first?.sha256);
  expect((await o.est("simpleenroll", { basic: `${identity}:${code}`, csr: csr() })).status).toBe(401);
  const [second] = certificatesOf(await o.est("simpleenroll", { basic: `${identity}:${password}`, csr: csr() }));
  expect(identitiesOf(second)).toEqual([identity]);
  const user = identity.slice(0, identity.indexOf("@"));
  const wrapped = csr(rsaKeyOf("est"))
    .toString("base64")
    .replace(/(.{64})/g, "$1\r\n");
  const [sealing] = certificatesOf(
    await o.est("encryption/simpleenroll", { basic: `${user}:${password}`, csr: wrapped }),
  );
  expect(sealing && peerCertificate(sealing).uses).toMatchObject({ seal: true, peer: false });
  expect((await o.est("encryption/simpleenroll", { basic: `${identity}:${code}`, csr: csr() })).status).toBe(403);
});

test("a password that looks like an invitation opens, too", async () => {
  await using o = await startEnrolment();
  const { identity, password } = await o.withPassword("ABCDEFGHJKMNPQRS");
  certificatesOf(await o.est("simpleenroll", { basic: `${identity}:${password}`, csr: csr() }));
});

describe("re-enrolment", () => {
  test("by certificate, for its own key or a new one; what is renewed is the certificate's person's", async () => {
    await using o = await startEnrolment();
    const { credentials, identity } = await o.enrolled();
    const key = credentials.privateKey;
    const [same] = certificatesOf(await o.est("simplereenroll", { credentials, csr: csr(key, "mallory@alpha.test") }));
    expect(same?.fingerprint).toBe(credentials.certificate.fingerprint);
    expect(same?.sha256).not.toBe(credentials.certificate.sha256);
    expect(identitiesOf(same)).toEqual([identity]);
    const [other] = certificatesOf(await o.est("auth/simplereenroll", { credentials, csr: csr() }));
    expect(identitiesOf(other)).toEqual([identity]);
    const sealing = rsaKeyOf("est");
    certificatesOf(await o.est("encryption/simpleenroll", { credentials, csr: csr(sealing) }));
    o.it.now = new Date(o.it.now.getTime() + 86_400_000);
    // Without a label the key tells what it is for.
    const [renewed] = certificatesOf(await o.est("simplereenroll", { credentials, csr: csr(sealing) }));
    expect(renewed && peerCertificate(renewed).uses.seal).toBe(true);
  });

  test("not by password, not without anything, not by another domain's certificate, not by a revoked or expired one", async () => {
    await using o = await startEnrolment();
    const { identity, password } = await o.withPassword();
    expect((await o.est("simplereenroll", { basic: `${identity}:${password}`, csr: csr() })).status).toBe(401);
    const answer = await o.est("simplereenroll", { csr: csr() });
    expect([answer.status, answer.headers["www-authenticate"]]).toEqual([
      401,
      'Basic realm="enrolment", charset="UTF-8"',
    ]);
    const stranger = makeTestDomain({ domain: "alpha.test" }).person({ identity });
    expect((await o.est("simplereenroll", { credentials: stranger.auth, csr: csr() })).status).toBe(401);
    const revoked = await o.enrolled();
    o.ca.revoke(revoked.serial);
    expect((await o.est("simplereenroll", { credentials: revoked.credentials, csr: csr() })).status).toBe(401);
    const late = await o.enrolled();
    o.it.now = new Date(late.credentials.certificate.validity.notAfter.getTime() + 1_000);
    await expect(o.est("simplereenroll", { credentials: late.credentials, csr: csr() })).rejects.toMatchObject({
      fault: "service",
    });
  });
});

test("wrong passwords: the account's back-off is told, and is the same for IRP and EST", async () => {
  await using o = await startEnrolment();
  const { identity, password } = await o.withPassword();
  const wrong = () => o.est("simpleenroll", { basic: `${identity}:not the password`, csr: csr() });
  for (let n = 0; n < 5; n += 1) expect((await wrong()).status).toBe(401);
  const waiting = await o.est("simpleenroll", { basic: `${identity}:${password}`, csr: csr() });
  expect([waiting.status, waiting.headers["retry-after"]]).toEqual([401, "1"]);
  const session = await o.connect();
  await expect(session.authenticate(identity, { password })).rejects.toMatchObject({
    ...{ code: "auth-failed", details: { code: "auth-failed", retrySeconds: 1 } },
  });
  const unknown = await o.est("simpleenroll", { basic: "nobody@alpha.test:x", csr: csr() });
  expect(unknown.body).toEqual((await o.est("simpleenroll", { basic: "nobody@beta.test:x", csr: csr() })).body);
  o.it.now = new Date(o.it.now.getTime() + 1_000);
  certificatesOf(await o.est("simpleenroll", { basic: `${identity}:${password}`, csr: csr() }));
});

test.each<[string, string | Buffer, number, string?]>([
  ["no base64", "not base64!", 400],
  ["no request", Buffer.from("nonsense"), 400],
  ["a weak key", csr(rsaKeyOf("est")), 400],
  ["nothing", "", 400],
  ["another type", csr(), 415, "text/html"],
  ["32 KiB and more", "A".repeat(33_000), 413],
  ["10 MB", "A".repeat(10_000_000), 413],
])("%s for a request is refused, and the invitation stays good", async (_name, body, status, type) => {
  await using o = await startEnrolment();
  const { identity, code } = await o.invited();
  const ask = { basic: `${identity}:${code}`, csr: body, ...(type === undefined ? {} : { type }) };
  // A server that does not read on may end the connection before the answer is read.
  const answer = await o.est("simpleenroll", ask).catch(() => ({ status }));
  expect(answer.status).toBe(status);
  certificatesOf(await o.est("simpleenroll", { basic: `${identity}:${code}`, csr: csr() }));
});

test("keys are made where they are used, and full CMC is not offered", async () => {
  await using o = await startEnrolment();
  expect((await o.est("serverkeygen", { csr: csr() })).status).toBe(403);
  expect((await o.est("fullcmc", { method: "POST" })).status).toBe(501);
});

test("while a person decides the answer is 202 and when to ask again; the same request then gets its certificate", async () => {
  await using o = await startEnrolment({ approval: "always" });
  const { identity, code } = await o.invited();
  const ask = { basic: `${identity}:${code}`, csr: csr() };
  const waiting = await o.est("simpleenroll", ask);
  expect([waiting.status, waiting.headers["retry-after"]]).toEqual([202, "1"]);
  const [first] = o.approvals.waiting();
  o.approvals.decide(first?.ref ?? "", "approved", "operator", o.clock());
  const [certificate] = certificatesOf(await o.est("simpleenroll", ask));
  expect(identitiesOf(certificate)).toEqual([identity]);
  const refused = { ...ask, csr: csr() };
  expect((await o.est("simpleenroll", refused)).status).toBe(202);
  o.approvals.decide(o.approvals.waiting()[0]?.ref ?? "", "refused", "operator", o.clock());
  expect((await o.est("simpleenroll", refused)).status).toBe(403);
});

test("a registrar asks for whom its requests name, in its own domain; nobody else does", async () => {
  const registrar = parseIdentity("ra@alpha.test");
  await using o = await startEnrolment({ registrars: [registrar] });
  const { credentials } = await o.enrolled("ra");
  const [made] = certificatesOf(
    await o.est("simpleenroll", { credentials, csr: csr(makeEcKey(), "alice@alpha.test") }),
  );
  expect(identitiesOf(made)).toEqual(["alice@alpha.test"]);
  expect((await o.est("simpleenroll", { credentials, csr: csr(makeEcKey(), "alice@beta.test") })).status).toBe(403);
  const person = await o.enrolled();
  const [own] = certificatesOf(
    await o.est("simpleenroll", { credentials: person.credentials, csr: csr(makeEcKey(), "alice@alpha.test") }),
  );
  expect(identitiesOf(own)).toEqual([person.identity]);
});
