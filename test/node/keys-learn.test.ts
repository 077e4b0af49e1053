import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Home, homeAt, makeHome } from "../../src/node/home.ts";
import { KeyFiles } from "../../src/node/keys.ts";
import { type Certificate, parseCertificate } from "../../src/pki/certificate.ts";
import { pemToDer } from "../../src/pki/pem.ts";
import { issueEncryption } from "../../src/pki/profile.ts";
import { pemFiles } from "../support/openssl.ts";
import { makeEcKey, makeTestDomain, spkiOf, type TestCredentials } from "../support/pki.ts";
import { temporaryFolder } from "../support/tmp.ts";

const domain = makeTestDomain({ domain: "alpha.test" });
const alice = domain.person({ identity: "alice@alpha.test", encryptionKey: "ec" });
const hours = 3_600_000;

/** Of the same key or another, issued that much later. */
function issued(later: number, privateKey = alice.encryption.privateKey): Certificate {
  const now = new Date(domain.now.getTime() + later);
  const { identity } = alice;
  const o = { issuer: domain.issuing, now, serial: randomBytes(16), identity, name: "Alice", spki: spkiOf(privateKey) };
  return parseCertificate(issueEncryption(o));
}

function homeWith(folder: string, ...encryption: TestCredentials[]): Home {
  const home = homeAt(join(folder, "alice"), {});
  makeHome(home);
  const write = (name: string, of: TestCredentials) => {
    const { certificate, chain } = pemFiles(home.keys, name, of);
    writeFileSync(certificate, readFileSync(certificate, "utf8") + readFileSync(chain, "utf8"));
    rmSync(chain);
  };
  write("auth", alice.auth);
  for (const [n, of] of encryption.entries()) write(`encryption-${n + 1}`, of);
  writeFileSync(join(home.keys, "enrolment.json"), '{"uuid": "-", "renewAfter": {"auth": 0, "encryption": 0}}');
  return home;
}

const inForce = (files: KeyFiles) => files.load().encryption.map(({ certificate }) => certificate.sha256);

test("published certificates for a key that is here are kept, the newest in force; others and known ones are not", async () => {
  await using folder = await temporaryFolder();
  const home = homeWith(folder.path, alice.encryption);
  const [second, third] = [issued(hours), issued(2 * hours)];
  const files = new KeyFiles(home);
  const published = [third, second, issued(3 * hours, makeEcKey()), alice.encryption.certificate];
  expect(files.learn(published, [])).toBe(2);
  const expected = [third, second, alice.encryption.certificate].map(({ sha256 }) => sha256);
  expect(inForce(files)).toEqual(expected);
  expect(files.learn(published, [])).toBe(0);
  expect(inForce(new KeyFiles(home))).toEqual(expected);
  expect(
    readdirSync(home.keys)
      .filter((name) => name.startsWith("encryption-3"))
      .toSorted(),
  ).toEqual(["encryption-3.key", "encryption-3.pem"]);
  expect(statSync(join(home.keys, "encryption-3.key")).mode & 0o077).toBe(0);
  const chain = (n: number) => pemToDer(readFileSync(join(home.keys, `encryption-${n}.pem`), "utf8"), "CERTIFICATE");
  expect(chain(3).slice(1)).toEqual(chain(1).slice(1));
  expect(chain(3).length).toBe(2);
});

test("one that is older than those that are here is kept, and not put in force", async () => {
  await using folder = await temporaryFolder();
  const newer = { ...alice.encryption, certificate: issued(2 * hours) };
  const files = new KeyFiles(homeWith(folder.path, newer));
  expect(files.learn([issued(hours)], [])).toBe(1);
  expect(inForce(files)[0]).toBe(newer.certificate.sha256);
  // What is renewed next is in force, whatever number it has.
  const next = issued(3 * hours);
  files.storeRenewed("encryption", newer.privateKey, [next], new Date());
  expect(inForce(files)).toHaveLength(3);
  expect(inForce(files)[0]).toBe(next.sha256);
});

test("of a certificate by another key of the CA the chain is kept that was published with it", async () => {
  await using folder = await temporaryFolder();
  const files = new KeyFiles(homeWith(folder.path, alice.encryption));
  const other = makeTestDomain({ domain: "alpha.test" });
  const { identity } = alice;
  const subject = { identity, name: "Alice", spki: spkiOf(alice.encryption.privateKey) };
  const der = issueEncryption({ issuer: other.issuing, now: domain.now, serial: randomBytes(16), ...subject });
  expect(files.learn([parseCertificate(der)], [other.issuing.certificate])).toBe(1);
  const learned = files
    .load()
    .encryption.find(({ certificate }) => certificate.sha256 === parseCertificate(der).sha256);
  expect(learned?.chain.map(({ sha256 }) => sha256)).toEqual([other.issuing.certificate.sha256]);
});

test("a certificate that the CA gives once more is kept once, and is due when it says now", async () => {
  await using folder = await temporaryFolder();
  const files = new KeyFiles(homeWith(folder.path, alice.encryption));
  const due = new Date(domain.now.getTime() + hours);
  files.storeRenewed("encryption", alice.encryption.privateKey, [alice.encryption.certificate], due);
  expect(files.load().encryption.map(({ renewAfter }) => renewAfter)).toEqual([due]);
});
