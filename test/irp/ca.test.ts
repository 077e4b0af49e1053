import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import { openCa, openCaOrLocked } from "../../src/irp/ca-keys.ts";
import {
  installIssuing,
  requestIssuing,
  signIssuing,
  succeedHere,
  successionIsDue,
} from "../../src/irp/ca-succession.ts";
import { parseCertificate } from "../../src/pki/certificate.ts";
import { parseRevocationList } from "../../src/pki/crl.ts";
import { validatePath } from "../../src/pki/path.ts";
import { pemToDer } from "../../src/pki/pem.ts";
import { makeTestCa, type TestCa, wanted } from "../support/ca.ts";
import { makeEcKey, rsaKeyOf } from "../support/pki.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const later = (ca: TestCa, ms: number) => void (ca.now = new Date(ca.now.getTime() + ms));
const policy = expect.objectContaining({ details: expect.objectContaining({ code: "policy" }) });
const keyInUse = expect.objectContaining({ details: { code: "key-in-use" } });

describe("who gets a certificate", () => {
  test("the same request within 24 h gets the same certificate, afterwards another", () => {
    using it = makeTestCa();
    const request = wanted("alice");
    const first = it.ca.issueNow(request);
    later(it, DAY - 1);
    expect(it.ca.issueNow(request)).toMatchObject({ repeated: true, registered: { serial: first.registered.serial } });
    later(it, 1);
    const second = it.ca.issueNow(request);
    expect(second.repeated).toBe(false);
    expect(second.registered.serial).not.toBe(first.registered.serial);
  });

  test("lives: AUTH 30 days, ENCRYPTION 825, and never past the issuer", () => {
    using it = makeTestCa();
    const days = (from: ReturnType<typeof it.ca.issueNow>) =>
      Math.round((from.registered.certificate.validity.notAfter.getTime() - it.now.getTime()) / DAY);
    expect(days(it.ca.issueNow(wanted("alice")))).toBe(30);
    expect(days(it.ca.issueNow(wanted("alice", "encryption")))).toBe(825);
    it.now = new Date(it.keys.issuing.certificate.validity.notAfter.getTime() - 10 * DAY);
    const last = it.ca.issueNow(wanted("alice")).registered.certificate.validity.notAfter;
    expect(last).toEqual(it.keys.issuing.certificate.validity.notAfter);
    later(it, 11 * DAY);
    expect(() => it.ca.issueNow(wanted("alice"))).toThrow(policy);
  });

  test("a key is nobody else's, of no other kind, and once revoked nobody's at all", () => {
    using it = makeTestCa();
    const key = makeEcKey();
    const { registered } = it.ca.issueNow(wanted("alice", "auth", key));
    expect(() => it.ca.issueNow(wanted("bob", "auth", key))).toThrow(keyInUse);
    expect(() => it.ca.issueNow(wanted("alice", "encryption", key))).toThrow(keyInUse);
    it.ca.revoke(registered.serial, "superseded");
    expect(() => it.ca.issueNow(wanted("alice", "auth", key))).toThrow(keyInUse);
  });

  test("sixteen devices; renewing one of them is no further device; a revoked one makes room", () => {
    using it = makeTestCa();
    const keys = Array.from({ length: 16 }, () => makeEcKey());
    const serials = keys.map((key) => it.ca.issueNow(wanted("alice", "auth", key)).registered.serial);
    expect(() => it.ca.issueNow(wanted("alice"))).toThrow(policy);
    it.ca.issueNow({ ...wanted("alice", "auth", keys[0]), csrHash: "another" });
    it.ca.revoke(serials[1] ?? "", "cessationOfOperation");
    it.ca.issueNow(wanted("alice"));
    it.ca.issueNow(wanted("bob"));
  });

  test("twenty certificates a day, whatever became of them", () => {
    using it = makeTestCa();
    for (let n = 0; n < 20; n += 1) it.ca.revoke(it.ca.issueNow(wanted("alice")).registered.serial);
    expect(() => it.ca.issueNow(wanted("alice"))).toThrow(policy);
    later(it, DAY);
    it.ca.issueNow(wanted("alice"));
  });

  test.each([
    ["RSA for AUTH", () => wanted("alice", "auth", rsaKeyOf("ca"))],
    ["a name of another domain's", () => wanted("alice@beta.test")],
  ])("%s never leaves the CA unseen: refused, or outside its name constraints", (name, made) => {
    using it = makeTestCa();
    if (name.startsWith("RSA")) return void expect(() => it.ca.issueNow(made())).toThrow("this kind of key");
    const { certificate } = it.ca.issueNow(made()).registered; // the service core never asks for it; nobody would believe it
    const anchors = [{ name: "alpha.test", certificate: it.keys.root }];
    const path = { leaf: certificate, candidates: [it.keys.issuing.certificate], anchors, time: it.now };
    expect(validatePath({ ...path, purpose: "peer" })).toMatchObject({ ok: false, reason: "name-constraints" });
  });

  test("a clock that says an earlier time than the last certificate issues nothing", () => {
    using it = makeTestCa();
    later(it, DAY);
    it.ca.issueNow(wanted("alice"));
    later(it, -299_000);
    it.ca.issueNow(wanted("bob"));
    later(it, -2 * HOUR);
    expect(() => it.ca.issueNow(wanted("carol"))).toThrow(policy);
    expect(it.ca.fault).toContain("clock");
  });

  test("renewals spread over 1/12 of the life around its 2/3", () => {
    using it = makeTestCa();
    const life = 30 * DAY + 300_000;
    const at = Array.from({ length: 200 }, (_, n) => {
      const { certificate, renewAfter } = it.ca.issueNow(wanted(`p${n}`)).registered;
      return (renewAfter.getTime() - certificate.validity.notBefore.getTime()) / life;
    });
    for (const part of at) expect(Math.abs(part - 2 / 3)).toBeLessThanOrEqual(1 / 24 + 1e-6);
    expect(Math.max(...at) - Math.min(...at)).toBeGreaterThan(0.9 / 12);
  });

  test("after an incident every good certificate is due now", () => {
    using it = makeTestCa();
    const request = wanted("alice");
    const { serial } = it.ca.issueNow(request).registered;
    expect(it.ca.register.renewAll(it.now, "operator")).toBe(1);
    expect(it.ca.register.find(serial)?.renewAfter).toEqual(it.now);
    // Also by the very same request, as a key without randomness in its signatures makes it: once.
    const renewed = it.ca.issueNow(request);
    expect([renewed.repeated, renewed.registered.serial === serial]).toEqual([false, false]);
    expect(it.ca.issueNow(request)).toMatchObject({
      repeated: true,
      registered: { serial: renewed.registered.serial },
    });
  });
});

describe("the audit", () => {
  test.each<[string, string]>([
    ["an entry is changed", "update audit set entry = replace(entry, 'alice', 'mallory') where seq = 2"],
    ["an entry is changed, and its hash with it", "update audit set entry = entry || ' ', hash = 'x' where seq = 2"],
    ["an entry is missing", "delete from audit where seq = 2"],
    ["the end is cut off", "delete from audit where seq >= 3"],
    ["a certificate is missing", "delete from certificates where identity = 'alice@alpha.test'"],
    [
      "a certificate is added",
      "insert into certificates select 'ff', kind, identity, fingerprint, label, csr, issued_at, not_after, revoked_at, der, issuer, reason, chain, renew_at from certificates limit 1",
    ],
    ["a revocation is undone", "update certificates set revoked_at = null where revoked_at is not null"],
    ["a revocation is added", "update certificates set revoked_at = 1 where revoked_at is null"],
    [
      "a certificate becomes another's",
      "update certificates set identity = 'mallory@alpha.test' where identity = 'alice@alpha.test'",
    ],
  ])("no longer holds when %s", (_name, sql) => {
    using it = makeTestCa();
    it.ca.issueNow(wanted("bob"));
    it.ca.issueNow(wanted("alice"));
    it.ca.revoke(it.ca.issueNow(wanted("carol")).registered.serial);
    expect(it.ca.register.audit()).toMatchObject({ holds: true, entries: 4 });
    const other = new DatabaseSync(it.register);
    other.exec(sql);
    other.close();
    expect(it.ca.register.audit().holds).toBe(false);
  });

  test("a register of the first version is taken over, with its audit", () => {
    using it = makeTestCa();
    const { serial } = it.ca.issueNow(wanted("alice")).registered;
    it.ca.close();
    const old = new DatabaseSync(it.register);
    old.exec(`drop index by_issuer_revoked; drop index by_issued; drop table crls; drop table pending;
      alter table certificates drop column issuer; alter table certificates drop column reason;
      alter table certificates drop column chain; alter table certificates drop column renew_at; pragma user_version = 1`);
    old.close();
    it.reopen();
    expect(it.ca.auditHolds()).toBe(true);
    it.ca.revoke(serial, "keyCompromise");
    const list = parseRevocationList(it.ca.crl()?.der ?? new Uint8Array());
    expect(list.find(Buffer.from(serial, "hex"), it.ca.issuing.subject)?.reason).toBe("keyCompromise");
  });
});

describe("the list", () => {
  test("has a revoked certificate at once, a rising number, and is signed again every hour", () => {
    using it = makeTestCa();
    const { serial } = it.ca.issueNow(wanted("alice")).registered;
    const first = it.ca.crl();
    expect(first?.number).toBe(1);
    later(it, HOUR - 1_000);
    expect(it.ca.crl()?.number).toBe(1);
    it.ca.revoke(serial, "keyCompromise");
    const second = it.ca.crl();
    const list = parseRevocationList(second?.der ?? new Uint8Array());
    expect(list).toMatchObject({ number: 2n, size: 1 });
    expect(list.signedBy(it.ca.issuing)).toBe(true);
    expect((list.nextUpdate?.getTime() ?? 0) - list.thisUpdate.getTime()).toBe(24 * HOUR);
    later(it, HOUR);
    it.ca.signLists();
    expect(it.ca.crl()?.number).toBe(3);
    it.reopen();
    expect(it.ca.crl()?.number).toBe(3); // kept: no number is used twice
  });

  test("what another process revokes is in it at once", () => {
    using it = makeTestCa();
    const { serial } = it.ca.issueNow(wanted("alice")).registered;
    it.ca.crl();
    const running = it.ca;
    const other = makeOther(it);
    other.revoke(serial, "superseded");
    other.close();
    expect(parseRevocationList(running.crl()?.der ?? new Uint8Array()).size).toBe(1);
  });

  test("a certificate that has ended leaves it a day later, not before", () => {
    using it = makeTestCa();
    const { serial, certificate } = it.ca.issueNow(wanted("alice")).registered;
    it.ca.revoke(serial);
    const size = () => parseRevocationList(it.ca.crl()?.der ?? new Uint8Array()).size;
    it.now = new Date(certificate.validity.notAfter.getTime() + 23 * HOUR);
    expect(size()).toBe(1);
    later(it, 3 * HOUR);
    expect(size()).toBe(0);
  });

  test("where it cannot be signed the old one serves until its end, then there is none", () => {
    using it = makeTestCa();
    const old = it.ca.crl();
    const blocker = new DatabaseSync(it.register);
    blocker.exec("create trigger no_lists before insert on crls begin select raise(abort, 'disk full'); end");
    blocker.close();
    later(it, 2 * HOUR);
    expect(it.ca.crl()?.number).toBe(old?.number);
    expect(() => it.ca.signLists()).toThrow("the register cannot be read or written");
    later(it, 23 * HOUR);
    expect(() => it.ca.crl()).toThrow("the register cannot be read or written");
  });

  test("a revocation that cannot be written is none, in register, list and audit", () => {
    using it = makeTestCa();
    const { serial } = it.ca.issueNow(wanted("alice")).registered;
    const blocker = new DatabaseSync(it.register);
    blocker.exec("create trigger no_lists before insert on crls begin select raise(abort, 'disk full'); end");
    blocker.close();
    expect(() => it.ca.revoke(serial)).toThrow(expect.objectContaining({ code: "store-failed", temporary: true }));
    expect(it.ca.register.find(serial)?.revoked).toBeUndefined();
    expect(it.ca.auditHolds()).toBe(true);
  });
});

describe("keys and succession", () => {
  const options = (it: TestCa) => ({ directory: it.directory, domain: "alpha.test", now: it.now, random: randomBytes });

  test("both CA keys are encrypted, and a wrong passphrase locks the CA: it serves, and issues nothing", () => {
    using it = makeTestCa();
    for (const name of ["root.key", "issuing.key"])
      expect(readFileSync(join(it.directory, name), "utf8")).toContain("BEGIN ENCRYPTED PRIVATE KEY");
    const { serial } = it.ca.issueNow(wanted("alice")).registered;
    writeFileSync(join(it.directory, "passphrase"), "wrong\n");
    expect(() => openCa(options(it))).toThrow("the keys of the CA cannot be opened");
    const keys = openCaOrLocked(options(it));
    const ca = it.reopen({ keys });
    expect(() => ca.issueNow(wanted("bob"))).toThrow(policy);
    expect(ca.fault).toContain("the issuing key cannot be used");
    expect(ca.register.find(serial)?.identity).toBe("alice@alpha.test");
    expect(ca.crl()).toBeUndefined();
  });

  test("a passphrase may lie elsewhere", () => {
    using it = makeTestCa();
    const passphraseFile = join(it.folder, "secret");
    writeFileSync(passphraseFile, readFileSync(join(it.directory, "passphrase")));
    writeFileSync(join(it.directory, "passphrase"), "wrong\n");
    expect(openCa({ ...options(it), passphraseFile }).issuing.certificate.sha256).toBe(it.ca.issuing.sha256);
  });

  test("a root that is kept offline signs the next issuing CA from its request alone; both are published and sign lists", () => {
    using it = makeTestCa();
    const before = it.ca.issueNow(wanted("alice")).registered;
    const old = it.ca.issuing;
    const csr = requestIssuing(options(it));
    expect(requestIssuing(options(it))).toBe(csr);
    const root = { rootFile: join(it.directory, "root.pem"), rootKeyFile: join(it.directory, "root.key") };
    const passphraseFile = join(it.directory, "passphrase");
    const pem = signIssuing({ ...root, passphraseFile, domain: "alpha.test", csr, now: it.now, random: randomBytes });
    installIssuing(options(it), pem);
    installIssuing(options(it), pem); // again: nothing happens
    const keys = openCa(options(it));
    expect(keys.issuing.certificate.sha256).toBe(parseCertificate(pemToDer(pem)[0] ?? new Uint8Array()).sha256);
    expect(keys.former.map(({ certificate }) => certificate.sha256)).toEqual([old.sha256]);
    it.ca.succeed(keys);
    const after = it.ca.issueNow(wanted("bob")).registered;
    it.ca.revoke(before.serial);
    const sizes = [keys.issuing.certificate, old].map(
      ({ fingerprint }) => parseRevocationList(it.ca.crl(fingerprint)?.der ?? new Uint8Array()).size,
    );
    expect(sizes).toEqual([0, 1]);
    const anchors = [{ name: "alpha.test", certificate: keys.root }];
    for (const { certificate } of [before, after]) {
      const o = { leaf: certificate, candidates: it.ca.chain, anchors, time: it.now, purpose: "peer" as const };
      expect(validatePath(o)).toMatchObject({ ok: true });
    }
    // The server's own certificate is still the former CA's: what it sends has to fit it.
    expect(keys.server.chain[0]?.sha256).toBe(old.sha256);
  });

  test("what another root signed, or for another key, is not installed", () => {
    using it = makeTestCa();
    using other = makeTestCa();
    const sign = (from: TestCa, csr: string) =>
      signIssuing({
        ...{ rootFile: join(from.directory, "root.pem"), rootKeyFile: join(from.directory, "root.key") },
        ...{ passphraseFile: join(from.directory, "passphrase"), domain: "alpha.test", csr, now: it.now },
        random: randomBytes,
      });
    const csr = requestIssuing(options(it));
    expect(() => installIssuing(options(it), sign(other, csr))).toThrow("has not made this an issuing CA");
    expect(() => installIssuing(options(it), sign(it, requestIssuing(options(other))))).toThrow("not for the key");
    const leaf = it.ca.issueNow(wanted("alice")).registered.certificate;
    const pem = `-----BEGIN CERTIFICATE-----\n${Buffer.from(leaf.der).toString("base64")}\n-----END CERTIFICATE-----\n`;
    expect(() => installIssuing(options(it), pem)).toThrow("has not made this an issuing CA");
    expect(openCa(options(it)).issuing.certificate.sha256).toBe(it.ca.issuing.sha256);
  });

  test("with the root's key at hand the successor is made at half life", () => {
    using it = makeTestCa();
    expect(successionIsDue(options(it))).toBe(false);
    later(it, 3 * 365 * DAY);
    expect(successionIsDue(options(it))).toBe(true);
    expect(succeedHere(options(it))).toBe(true);
    expect(successionIsDue(options(it))).toBe(false);
    expect(openCa(options(it)).former).toHaveLength(1);
    later(it, 3 * 365 * DAY);
    expect(openCa(options(it)).former).toHaveLength(0); // it has ended
  });

  test("cut off anywhere, an installation goes on when the CA is opened", () => {
    using it = makeTestCa();
    const csr = requestIssuing(options(it));
    const files = new Map(readdirSync(it.directory).map((name) => [name, readFileSync(join(it.directory, name))]));
    const root = { rootFile: join(it.directory, "root.pem"), rootKeyFile: join(it.directory, "root.key") };
    const passphraseFile = join(it.directory, "passphrase");
    const pem = signIssuing({ ...root, passphraseFile, domain: "alpha.test", csr, now: it.now, random: randomBytes });
    installIssuing(options(it), pem);
    const done = new Map(readdirSync(it.directory).map((name) => [name, readFileSync(join(it.directory, name))]));
    // As after a crash between its writes: decided, with the new key in place and the old certificate beside it.
    for (const [name, bytes] of files) writeFileSync(join(it.directory, name), bytes);
    writeFileSync(join(it.directory, "next.pem"), pem);
    for (const name of ["issuing.key", "former-1.key", "former-1.pem"])
      writeFileSync(join(it.directory, name), done.get(name) ?? "");
    const keys = openCa(options(it));
    expect(keys.issuing.certificate.sha256).toBe(parseCertificate(pemToDer(pem)[0] ?? new Uint8Array()).sha256);
    expect(keys.former.map(({ certificate }) => certificate.sha256)).toEqual([it.ca.issuing.sha256]);
  });
});

function makeOther(it: TestCa) {
  const running = it.ca;
  it.ca = undefined as unknown as typeof running;
  const other = it.reopen();
  it.ca = running;
  return other;
}
