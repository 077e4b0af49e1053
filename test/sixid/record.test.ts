import { CompactSign } from "jose";
import { describe, expect, test } from "vitest";
import type { Identity } from "../../src/pki/identity.ts";
import { makeAddresses, makeIdentity } from "../../src/sixid/announce.ts";
import { type Canonical, canonicalJson } from "../../src/sixid/canonical.ts";
import type { IdentityBody } from "../../src/sixid/records.ts";
import { makeRequest } from "../../src/sixid/request.ts";
import { readSigned, sign } from "../../src/sixid/signed.ts";
import { verifyAddresses, verifyIdentity, verifyRequest } from "../../src/sixid/verify.ts";
import { ownOf, payloadOf } from "../support/directory.ts";
import { makeTestDomain, type TestCredentials } from "../support/pki.ts";

const now = new Date();
const alpha = makeTestDomain({ domain: "alpha.test", now });
const beta = makeTestDomain({ domain: "beta.test", now });
const alice = alpha.person({ identity: "alice@alpha.test", encryptionKey: "ec" });
const alicesOther = alpha.person({ identity: "alice@alpha.test", encryptionKey: "ec" });
const bob = alpha.person({ identity: "bob@alpha.test", encryptionKey: "ec" });
const mallory = beta.person({ identity: "alice@beta.test", encryptionKey: "ec" });
const uuid = "01975b3e-0000-7000-8000-000000000001";
const o = { anchors: [alpha.anchor], now };
const later = (seconds: number) => new Date(now.getTime() + seconds * 1000);

const good = await makeIdentity(ownOf(alice, uuid), undefined, alice.auth, now);
const body = JSON.parse(payloadOf(good)) as IdentityBody;
const signed = (change: object, by: TestCredentials = alice.auth) =>
  sign("sixid-identity", { ...body, ...change } as Canonical, by, "x5c");
const header = (change: object, payload = payloadOf(good), by = alice.auth) =>
  new CompactSign(Buffer.from(payload, "utf8"))
    .setProtectedHeader({
      alg: "ES256",
      typ: "sixid-identity",
      x5c: [by.certificate, ...by.chain].map((one) => Buffer.from(one.der).toString("base64")),
      ...change,
    } as { alg: string })
    .sign(by.privateKey);
const record = await verifyIdentity(good, alice.identity, o);
const rejection = (step: string) => ({ code: "record-rejected", details: expect.objectContaining({ step }) });

test("a good record verifies, with its devices, encryption certificates and hash", async () => {
  const verified = await verifyIdentity(good, alice.identity, o);
  expect(verified.devices.map((one) => one.fingerprint)).toEqual([alice.auth.certificate.fingerprint]);
  expect(verified.encryption.map((one) => one.sha256)).toEqual([alice.encryption.certificate.sha256]);
  expect(verified.body).toEqual(body);
});

test("no octet of a record can be changed without its being refused", async () => {
  for (let at = 0; at < good.length; at += 1) {
    const flipped = good[at] === "A" ? "B" : "A";
    const tampered = good.slice(0, at) + flipped + good.slice(at + 1);
    await expect(verifyIdentity(tampered, alice.identity, o), `octet ${at}`).rejects.toMatchObject({
      code: "record-rejected",
    });
  }
});

describe("a record is refused", () => {
  const [head = "", payload = "", signature = ""] = good.split(".");
  const changed = Buffer.from(payloadOf(good).replace('"name":"alice', '"name":"alica')).toString("base64url");
  test.each<[string, string, () => string | Promise<string>]>([
    ["whose payload was changed under an old signature", "signature", () => `${head}.${changed}.${signature}`],
    ["without signature", "three parts", () => `${head}.${payload}.`],
    ["of two parts", "three parts", () => `${head}.${payload}`],
    ["of four parts", "three parts", () => `${good}.x`],
    ["with padding", "three parts", () => `${good}=`],
    ["that is empty", "three parts", () => ""],
    [
      "whose last character has spare bits",
      "three parts",
      () => good.slice(0, -1) + (good.endsWith("A") ? "B" : good.endsWith("Q") ? "R" : good.endsWith("g") ? "h" : "x"),
    ],
    ["of 200 KiB", "size", () => "A".repeat(200_000)],
    [
      "with alg none",
      "algorithm",
      async () => {
        const none = Buffer.from(
          JSON.stringify({ ...JSON.parse(Buffer.from(head, "base64url").toString()), alg: "none" }),
        );
        return `${none.toString("base64url")}.${payload}.${signature}`;
      },
    ],
    [
      "with alg HS256",
      "algorithm",
      async () => {
        const hs = Buffer.from(
          JSON.stringify({ ...JSON.parse(Buffer.from(head, "base64url").toString()), alg: "HS256" }),
        );
        return `${hs.toString("base64url")}.${payload}.${signature}`;
      },
    ],
    [
      "whose alg is not the key's one",
      "algorithm",
      async () => {
        const other = Buffer.from(
          JSON.stringify({ ...JSON.parse(Buffer.from(head, "base64url").toString()), alg: "PS256" }),
        );
        return `${other.toString("base64url")}.${payload}.${signature}`;
      },
    ],
    ["of another type", "typ", () => header({ typ: "sixid-request" })],
    ["with a header that tells more", "header", () => header({ jku: "https://evil.test/" })],
    ["with a header that tells less", "header", () => header({ typ: undefined })],
    ["whose x5c is empty", "header", () => header({ x5c: [] })],
    ["whose x5c is no list", "header", () => header({ x5c: "AAAA" })],
    ["whose x5c is no certificate", "certificate", () => header({ x5c: ["AAAA"] })],
    [
      "whose certificate holds no point of the curve",
      "certificate",
      () => {
        const { der, spki } = alice.auth.certificate;
        const broken = Buffer.from(der);
        broken.fill(0xff, broken.indexOf(spki) + spki.length - 64, broken.indexOf(spki) + spki.length);
        return header({ x5c: [broken.toString("base64")] });
      },
    ],
    [
      "of ten certificates",
      "header",
      () =>
        header({ x5c: Array.from({ length: 10 }, () => Buffer.from(alice.auth.certificate.der).toString("base64")) }),
    ],
    ["whose payload is not canonical", "canonical", () => header({}, ` ${payloadOf(good)}`)],
    ["that names a member twice", "canonical", () => header({}, payloadOf(good).replace("{", '{"v":1,'))],
    [
      "with bytes that are no UTF-8",
      "canonical",
      async () =>
        new CompactSign(Buffer.concat([Buffer.from('{"name":"'), Buffer.of(0xff), Buffer.from('"}')]))
          .setProtectedHeader(JSON.parse(Buffer.from(head, "base64url").toString()))
          .sign(alice.auth.privateKey),
    ],
    ["with a member more", "schema", () => signed({ more: 1 })],
    [
      "with a member called __proto__",
      "schema",
      () => header({}, canonicalJson(JSON.parse(`{"__proto__":{"x":1},${payloadOf(good).slice(1)}`))),
    ],
    ["with a member less", "schema", () => signed({ name: undefined })],
    ["of version 2", "schema", () => signed({ v: 2 })],
    ["with sequence 0", "schema", () => signed({ seq: 0 })],
    ["with 17 devices", "schema", () => signed({ devices: Array.from({ length: 17 }, () => body.devices[0]) })],
    ["without devices", "schema", () => signed({ devices: [] })],
    ["whose signer is said to be another", "signer", () => signed({ signer: bob.auth.certificate.fingerprint })],
    [
      "whose signer it does not list",
      "signer listed",
      () => signed({ devices: [{ ...body.devices[0], id: bob.auth.certificate.fingerprint }] }),
    ],
    [
      "signed by another key that it lists: another person's",
      "signer path",
      () =>
        signed(
          {
            signer: bob.auth.certificate.fingerprint,
            devices: [
              ...body.devices,
              {
                cert: Buffer.from(bob.auth.certificate.der).toString("base64"),
                id: bob.auth.certificate.fingerprint,
                label: "",
              },
            ],
          },
          bob.auth,
        ),
    ],
    [
      "signed by somebody of another domain",
      "signer path",
      () => makeIdentity(ownOf(mallory, uuid), undefined, mallory.auth, now),
    ],
    [
      "signed with an expired certificate",
      "signer path",
      () => {
        const expired = alpha.bad("expired", "alice@alpha.test");
        return makeIdentity(
          { ...ownOf(alice, uuid), devices: [{ certificate: expired.certificate, label: "" }] },
          undefined,
          expired,
          now,
        );
      },
    ],
    [
      "signed by a root of the same name",
      "signer path",
      () => {
        const forged = alpha.bad("untrusted", "alice@alpha.test");
        return makeIdentity(
          { ...ownOf(alice, uuid), devices: [{ certificate: forged.certificate, label: "" }], chain: forged.chain },
          undefined,
          forged,
          now,
        );
      },
    ],
    ["of somebody else", "signer path", () => makeIdentity(ownOf(bob, uuid), undefined, bob.auth, now)],
    ["in which he calls himself somebody else", "identity asked for", () => signed({ identity: "bob@alpha.test" })],
    [
      "from six minutes ahead",
      "issued in the future",
      () => signed({ issued: Math.floor(now.getTime() / 1000) + 360 }),
    ],
    ["that has expired", "expired", () => signed({ expires: Math.floor(now.getTime() / 1000) - 1 })],
    ["whose chain is no certificate", "chain", () => signed({ chain: ["AAAA"] })],
  ])("%s", async (_name, step, jws) => {
    await expect(verifyIdentity(await jws(), alice.identity, o)).rejects.toMatchObject(rejection(step));
  });

  test("under anchors of another domain, and under none", async () => {
    for (const anchors of [[beta.anchor], []])
      await expect(verifyIdentity(good, alice.identity, { anchors, now })).rejects.toMatchObject(
        rejection("signer path"),
      );
  });
});

test("a clock five minutes behind the signer's still takes the record", async () => {
  await expect(verifyIdentity(good, alice.identity, { ...o, now: later(-290) })).resolves.toBeDefined();
});

describe("of a good record's parts, only", () => {
  const device = (one: TestCredentials, id: string = one.certificate.fingerprint) => ({
    cert: Buffer.from(one.certificate.der).toString("base64"),
    id,
    label: "",
  });
  test.each<[string, object]>([
    ["another person's device", device(bob.auth)],
    ["an expired device", device(alpha.bad("expired", "alice@alpha.test"))],
    ["a device that is not for peers", device(alpha.bad("code-signing-only", "alice@alpha.test"))],
    ["a device under another key's name", device(alicesOther.auth, bob.auth.certificate.fingerprint)],
    ["a device that is no certificate", { cert: "AAAA", id: bob.auth.certificate.fingerprint, label: "" }],
    ["an encryption certificate as a device", device(alice.encryption)],
  ])("%s is dropped", async (_name, bad) => {
    const jws = await signed({ devices: [...body.devices, bad] });
    const { devices } = await verifyIdentity(jws, alice.identity, o);
    expect(devices.map((one) => one.fingerprint)).toEqual([alice.auth.certificate.fingerprint]);
  });

  test.each<[string, string]>([
    ["another person's encryption certificate", Buffer.from(bob.encryption.certificate.der).toString("base64")],
    ["an AUTH certificate", Buffer.from(alice.auth.certificate.der).toString("base64")],
    ["nonsense", "AAAA"],
  ])("%s among the encryption certificates is dropped", async (_name, bad) => {
    const { encryption } = await verifyIdentity(
      await signed({ encryption: [bad, ...body.encryption] }),
      alice.identity,
      o,
    );
    expect(encryption.map((one) => one.sha256)).toEqual([alice.encryption.certificate.sha256]);
  });
});

describe("a device's addresses", () => {
  const at = { host: "2001:db8::5", port: 4605, kind: "direct", priority: 10 } as const;
  const jws = (by = alice.auth, id = uuid, issued = now) => makeAddresses(id, [at], 7, by, issued);
  const payload = async () => JSON.parse(payloadOf(await jws())) as Record<string, Canonical>;
  const made = async (change: object, by = alice.auth) =>
    sign("sixid-addresses", { ...(await payload()), ...change }, by, "kid");

  test("verify when the device signed them", async () => {
    expect((await verifyAddresses(await jws(), record, now)).body.addresses).toEqual([
      { ...at, alpn: ["sip/2", "smtp", "ftp"] },
    ]);
  });

  test.each<[string, string, () => Promise<string>]>([
    ["signed by a device that the record does not list", "device listed", () => jws(alicesOther.auth)],
    [
      "of another device, signed by a listed one",
      "device",
      () => made({ device: alicesOther.auth.certificate.fingerprint }),
    ],
    ["of another person's record", "uuid", () => jws(alice.auth, "01975b3e-0000-7000-8000-000000000002")],
    ["from two hours ago", "expired", () => jws(alice.auth, uuid, later(-7_201))],
    ["from six minutes ahead", "issued in the future", () => jws(alice.auth, uuid, later(360))],
    [
      "for longer than two hours",
      "lifetime",
      () => made({ expires: Math.floor(now.getTime() / 1000) + 7_201, issued: Math.floor(now.getTime() / 1000) }),
    ],
    ["with port 0", "schema", () => made({ addresses: [{ ...at, alpn: [], port: 0 }] })],
    ["with 17 addresses", "schema", () => made({ addresses: Array.from({ length: 17 }, () => ({ ...at, alpn: [] })) })],
    ["of an unknown kind", "schema", () => made({ addresses: [{ ...at, alpn: [], kind: "carrier-pigeon" }] })],
    ["over 4 KiB", "size", () => made({ x: "x".repeat(5_000) })],
    [
      "whose header names a listed device, but another key signed",
      "signature",
      async () => {
        const [head] = (await jws()).split(".");
        const [, other, signature] = (await jws(alicesOther.auth)).split(".");
        return [head, other, signature].join(".");
      },
    ],
    ["as a whole record", "header", async () => good],
  ])("%s are refused", async (_name, step, forged) => {
    await expect(verifyAddresses(await forged(), record, now)).rejects.toMatchObject(rejection(step));
  });
});

describe("a request to be admitted", () => {
  const request = (by = alice.auth, from: Identity = alice.identity) =>
    makeRequest({ from, name: "A", to: bob.identity, text: "x".repeat(600), signer: by, now });

  test("names who signed it, and is cut to 500 characters", async () => {
    const verified = await verifyRequest(await request(), bob.identity, o);
    expect(verified.from).toBe("alice@alpha.test");
    expect(verified.body.text).toHaveLength(500);
  });

  test.each<[string, string, () => Promise<string>, Identity?]>([
    ["to somebody else", "addressee", () => request(), alice.identity],
    ["in another's name", "signer path", () => request(bob.auth)],
    [
      "whose signer is said to be another",
      "signer",
      async () => {
        const told = {
          ...(JSON.parse(payloadOf(await request())) as object),
          signer: bob.auth.certificate.fingerprint,
        };
        return sign("sixid-request", told as Canonical, alice.auth, "x5c");
      },
    ],
    ["of a domain whose anchors are not accepted", "signer path", () => request(mallory.auth, mallory.identity)],
    ["that is really a record", "typ", async () => good],
  ])("%s is refused", async (_name, step, forged, to = bob.identity) => {
    await expect(verifyRequest(await forged(), to, o)).rejects.toMatchObject(rejection(step));
  });
});

test("an object that was signed for one purpose does not serve another", async () => {
  for (const typ of ["sixid-request", "sixid-addresses"] as const)
    expect(() => readSigned(good, typ, 65_536)).toThrow(expect.objectContaining({ code: "record-rejected" }));
});
