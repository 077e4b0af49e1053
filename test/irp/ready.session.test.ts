import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import type { DirectoryCaller, EnrolDirectory, KeyBackups } from "../../src/irp/directory.ts";
import type { Request } from "../../src/irp/messages.ts";
import { parseRevocationList } from "../../src/pki/crl.ts";
import { makeCsr } from "../../src/pki/csr.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { startEnrolment } from "../support/enrolment.ts";
import { makeEcKey, makeTestDomain } from "../support/pki.ts";

const JWS = "eyJh.eyJi.c2ln";

/** A directory of nothing but what was put, which sees all of its domain but the hidden. */
class MemoryDirectory implements Required<EnrolDirectory> {
  readonly calls: unknown[] = [];
  readonly objects = new Map<string, string>();
  async user(_caller: DirectoryCaller, key: string) {
    if (key.startsWith("hidden@"))
      throw new SuiteError("unknown-recipient", "unknown or not visible", { fault: "peer" });
    return { id: key, identity: this.objects.get(key) ?? JWS, aliases: ["a@b.test", "+4989123"] };
  }
  async users(_caller: DirectoryCaller, { after, q }: { after?: string; q?: string }) {
    const all = ["alice", "bob", "carol"].filter((one) => one > (after ?? "") && one.includes(q ?? ""));
    return { users: all.slice(0, 2).map((id) => ({ id, name: id.toUpperCase(), aliases: [] })), more: all.length > 2 };
  }
  async putUser(caller: DirectoryCaller, put: object) {
    this.calls.push({ caller: caller.identity, put });
    return { seq: 7 };
  }
  async addresses() {
    return { addresses: [JWS], presence: [JWS, JWS] };
  }
  async putAddresses(caller: DirectoryCaller, jws: string) {
    this.calls.push({ fingerprint: caller.fingerprint, jws });
    return { seq: 1_796_083_200_123, reannounceAfter: 3_300 };
  }
  async putPresence() {
    return { seq: 9 };
  }
  async putCertificate(caller: DirectoryCaller, certificates: readonly unknown[]) {
    this.calls.push({ caller: caller.identity, certificates: certificates.length });
  }
}

class MemoryBackups implements KeyBackups {
  readonly #kept: Buffer[] = [];
  async versions() {
    return this.#kept.map((_, n) => n + 1);
  }
  async put(_caller: DirectoryCaller, bytes: Buffer) {
    return this.#kept.push(bytes);
  }
  async get(caller: DirectoryCaller, version: number, recovery: string | undefined) {
    if (caller.by === "upa" && recovery !== "SHEET") throw new SuiteError("forbidden", "no", { fault: "peer" });
    const found = this.#kept[version - 1];
    if (found === undefined) throw new SuiteError("not-found", "no such version", { fault: "peer" });
    return found;
  }
}

const code = (wanted: string) => expect.objectContaining({ details: expect.objectContaining({ code: wanted }) });
const csr = (key = makeEcKey()) => makeCsr({ privateKey: key, commonName: "x" });

test("own certificates are listed by kind and status, fetched by hash and kind, and their status told", async () => {
  await using o = await startEnrolment();
  const me = await o.enrolled();
  await me.session.enrol("encryption", csr());
  const renewed = await me.session.renew("auth", "new", csr());
  if (!("certificates" in renewed)) throw new Error("it waits");
  await me.session.revoke(me.serial, "superseded").catch((error: unknown) => expect(error).toBeUndefined());
  // The session's own certificate is revoked: nothing more in it.
  await expect(me.session.certificates({})).rejects.toMatchObject({ code: "forbidden" });
  const [certificate, ...chain] = renewed.certificates;
  if (certificate === undefined) throw new Error("none");
  expect(o.revoked.map(({ serial }) => serial)).toEqual([me.serial]);

  const other = await o.enrolled();
  await expect(other.session.revoke(Buffer.from(certificate.serial).toString("hex"), "unspecified")).rejects.toEqual(
    code("not-found"),
  );
  await expect(other.session.certificates({ user: me.identity })).rejects.toEqual(code("not-found"));
  const key = makeEcKey();
  const again = await o.enrolled();
  const mine = await again.session.enrol("encryption", csr(key));
  const all = await again.session.certificates({});
  expect(all.map(({ kind, status }) => `${kind} ${status}`)).toEqual(["encryption good", "auth good"]);
  expect(await again.session.certificates({ kind: "auth" })).toHaveLength(1);
  expect(await again.session.certificates({ status: "revoked" })).toEqual([]);
  const sha256 = "certificates" in mine ? (mine.certificates[0]?.sha256 ?? "") : "";
  expect((await again.session.certificate({ sha256 })).certificates[0]?.sha256).toBe(sha256);
  expect((await again.session.certificate({ kind: "encryption" })).certificates).toHaveLength(2);
  await expect(again.session.certificate({ sha256: "0".repeat(64) })).rejects.toEqual(code("not-found"));

  const issuer = o.keys.issuing.certificate.fingerprint;
  const state = async (serial: string, by: string = issuer) =>
    again.session.ask({ type: "status", issuer: by, serial }, "status");
  expect(await state(me.serial)).toMatchObject({ state: "revoked", reason: "superseded", at: expect.any(Number) });
  expect(await state(again.serial)).toEqual({ type: "status", state: "good" });
  expect((await state("ab")).state).toBe("unknown");
  expect((await state(again.serial, o.keys.root.fingerprint)).state).toBe("unknown");
  expect(chain).toHaveLength(1);
});

test("a lost device is shut out by its owner's password, at once, in list and session", async () => {
  await using o = await startEnrolment();
  const lost = await o.enrolled("alice");
  const account = await o.real.find(parseIdentity("alice@alpha.test"));
  await o.real.setPassword(account?.uuid ?? "", "correct horse battery");
  const owner = await o.connect();
  await owner.authenticate("alice", { password: "correct horse battery" });
  await owner.revoke(lost.serial, "keyCompromise");
  const { der } = await owner.ask({ type: "crl" }, "crl");
  expect(parseRevocationList(der).find(lost.credentials.certificate.serial, o.ca.issuing.subject)?.reason).toBe(
    "keyCompromise",
  );
  await expect(lost.session.renew("auth", "new", csr())).rejects.toMatchObject({ code: "forbidden" });
  const thief = await o.connect(lost.credentials);
  await expect(thief.authenticateByCertificate()).rejects.toMatchObject({ code: "auth-failed" });
  // The same device key is not certified again, not even for its owner.
  await expect(owner.enrol("auth", csr(lost.credentials.privateKey))).rejects.toEqual(code("key-in-use"));
  await expect(owner.revoke(lost.serial, "unspecified")).resolves.toBeUndefined(); // again: nothing happens
});

test("an administrator takes back anybody's certificate, by certificate alone", async () => {
  await using o = await startEnrolment({ administrators: ["root@alpha.test"] });
  const admin = await o.enrolled("root");
  const first = await o.enrolled();
  const second = await o.enrolled();
  await expect(first.session.revoke(second.serial, "unspecified")).rejects.toEqual(code("not-found"));
  await admin.session.revoke(first.serial, "cessationOfOperation");
  expect(o.ca.register.find(first.serial)?.revoked?.reason).toBe("cessationOfOperation");
  expect(await admin.session.certificates({ user: first.identity })).toMatchObject([{ status: "revoked" }]);
  const account = await o.real.find(admin.identity);
  await o.real.setPassword(account?.uuid ?? "", "a long enough password");
  const byPassword = await o.connect();
  expect(
    await byPassword.ask(
      { type: "auth", method: "upa", user: "root", secret: { password: "a long enough password" } },
      "ok",
    ),
  ).toMatchObject({ roles: "" });
  await expect(byPassword.revoke(second.serial, "unspecified")).rejects.toEqual(code("not-found"));
});

test("people, addresses, backups and other CAs' certificates are handed on, with who asks", async () => {
  const directory = new MemoryDirectory();
  await using o = await startEnrolment({ directory, backups: new MemoryBackups() });
  const me = await o.enrolled("alice");
  const { session } = me;
  expect(await session.ask({ type: "getUser", key: "bob@alpha.test" }, "user")).toEqual({
    ...{ type: "user", id: "bob@alpha.test", identity: JWS, aliases: ["a@b.test", "+4989123"] },
  });
  await expect(session.ask({ type: "getUser", key: "hidden@alpha.test" }, "user")).rejects.toEqual(code("not-found"));
  await expect(session.certificates({ user: "hidden" })).rejects.toEqual(code("not-found"));
  expect(await session.certificates({ user: "bob" })).toEqual([]);
  expect(await session.ask({ type: "users", q: "a" }, "users")).toMatchObject({
    more: false,
    users: [{ id: "alice", name: "ALICE" }, { id: "carol" }],
  });
  expect(await session.ask({ type: "users" }, "users")).toMatchObject({ more: true });
  expect(await session.ask({ type: "putUser", name: "Alice", aliases: ["x"], identity: JWS }, "ok")).toMatchObject({
    seq: 7,
  });
  expect(await session.ask({ type: "getAddr", key: "bob@alpha.test" }, "addr")).toEqual({
    type: "addr",
    addresses: [JWS],
    presence: [JWS, JWS],
  });
  expect(await session.ask({ type: "putAddr", jws: JWS }, "ok")).toEqual({
    ...{ type: "ok", seq: 1_796_083_200_123, reannounceAfter: 3_300, observed: "::1" },
  });
  expect(await session.ask({ type: "presence", jws: JWS }, "ok")).toMatchObject({ seq: 9 });
  const fingerprint = me.credentials.certificate.fingerprint;
  expect(directory.calls).toEqual([
    { caller: "alice@alpha.test", put: { name: "Alice", aliases: ["x"], identity: JWS } },
    { fingerprint, jws: JWS },
  ]);

  const p12 = Buffer.alloc(180_000, "p12");
  expect(await session.ask({ type: "putP12", bytes: p12 }, "ok")).toMatchObject({ version: 1 });
  expect(await session.ask({ type: "p12s" }, "p12s")).toEqual({ type: "p12s", versions: [1] });
  const kept = await session.ask({ type: "getP12", version: 1 }, "p12");
  expect(createHash("sha256").update(kept.bytes).digest("hex")).toBe(createHash("sha256").update(p12).digest("hex"));
  await expect(session.ask({ type: "getP12", version: 2 }, "p12")).rejects.toEqual(code("not-found"));

  const other = makeTestDomain({ domain: "alpha.test" }).person({ identity: "alice@alpha.test", encryptionKey: "ec" });
  const put = (certificate: typeof other.auth, key = certificate.privateKey): Request => ({
    type: "putCert",
    certificates: [certificate.certificate, ...certificate.chain].map(({ der }) => Buffer.from(der)),
    csr: csr(key),
  });
  expect(await session.ask(put(other.encryption), "ok")).toEqual({ type: "ok" });
  expect(directory.calls.at(-1)).toEqual({ caller: "alice@alpha.test", certificates: 2 });
  await expect(session.ask(put(other.encryption, makeEcKey()), "ok")).rejects.toEqual(code("bad-csr"));
  const stranger = makeTestDomain({ domain: "alpha.test" }).person({ identity: "bob@alpha.test" });
  await expect(session.ask(put(stranger.auth), "ok")).rejects.toEqual(code("forbidden"));
});

test("by password nobody speaks for a device; by code nobody asks for anything but his first certificate", async () => {
  await using o = await startEnrolment({ directory: new MemoryDirectory(), backups: new MemoryBackups() });
  const { identity, code: invitation, password } = await o.withPassword();
  const session = await o.connect();
  await session.authenticate(identity, { password });
  for (const type of ["putAddr", "presence"] as const)
    await expect(session.ask({ type, jws: JWS }, "ok")).rejects.toEqual(code("forbidden"));
  await session.ask({ type: "putP12", bytes: Buffer.from("x") }, "ok");
  await expect(session.ask({ type: "getP12", version: 1 }, "p12")).rejects.toEqual(code("forbidden"));
  await session.ask({ type: "getP12", version: 1, recovery: "SHEET" }, "p12");
  const byCode = await o.connect();
  await byCode.authenticate(identity, { code: invitation });
  const requests: Request[] = [
    ...[{ type: "certs" } as const, { type: "p12s" } as const, { type: "users" } as const],
    ...[{ type: "getUser", key: "x" } as const, { type: "putUser", aliases: [], identity: JWS } as const],
    { type: "revoke", serial: "ab", reason: "unspecified" },
  ];
  for (const request of requests)
    await expect(byCode.ask(request, "ok"), request.type).rejects.toEqual(code("forbidden"));
});

test("what a server does not offer is refused by its rules, and the session goes on", async () => {
  await using o = await startEnrolment();
  const { session } = await o.enrolled();
  const requests: Request[] = [
    ...[{ type: "p12s" } as const, { type: "users" } as const, { type: "getAddr", key: "x" } as const],
    ...[{ type: "putAddr", jws: JWS } as const, { type: "presence", jws: JWS } as const],
  ];
  for (const request of requests)
    await expect(session.ask(request, "ok"), request.type).rejects.toEqual(code("policy"));
  expect(await session.certificates({})).toHaveLength(1);
});

test("with approval of first devices a new device waits, a refused one stays out, a renewal passes", async () => {
  await using o = await startEnrolment({ approval: "first" });
  const { identity, code: invitation } = await o.invited();
  const privateKey = makeEcKey();
  const session = await o.connect();
  await session.authenticate(identity, { code: invitation });
  const request = csr(privateKey);
  const answer = await session.enrol("auth", request);
  if (!("ref" in answer)) throw new Error("it does not wait");
  expect(answer.retrySeconds).toBe(1);
  expect(await session.enrol("auth", request)).toMatchObject({ ref: answer.ref }); // the same: it waits once
  expect(await session.pending(answer.ref)).toMatchObject({ ref: answer.ref });
  expect(o.approvals.waiting()).toMatchObject([{ identity, kind: "auth" }]);

  const other = await o.invited();
  const stranger = await o.connect();
  await stranger.authenticate(other.identity, { code: other.code });
  await expect(stranger.pending(answer.ref)).rejects.toEqual(code("not-found"));

  o.approvals.decide(answer.ref, "approved", "operator", o.clock());
  const made = await session.pending(answer.ref);
  if (!("certificates" in made)) throw new Error("it still waits");
  const [certificate, ...chain] = made.certificates;
  if (certificate === undefined) throw new Error("none");
  const own = await o.connect({ privateKey, certificate, chain });
  await own.authenticateByCertificate();
  expect(await own.renew("auth", "same", csr(privateKey))).toHaveProperty("certificates");
  expect(await own.enrol("encryption", csr())).toHaveProperty("certificates");

  const refused = await stranger.enrol("auth", csr());
  if (!("ref" in refused)) throw new Error("it does not wait");
  o.approvals.decide(refused.ref, "refused", "operator", o.clock());
  await expect(stranger.pending(refused.ref)).rejects.toEqual(code("policy"));
  expect(() => o.approvals.decide(refused.ref, "approved", "operator", o.clock())).toThrow("nothing of that name");
  expect(o.ca.auditHolds()).toBe(true);
});

test("a list that no frame has room for is told to be got by HTTP", async () => {
  await using o = await startEnrolment();
  const me = await o.enrolled();
  const { database } = o.ca.register;
  database.transaction(() => {
    for (let n = 0; n < 7_000; n += 1)
      database.run(
        `insert into certificates select ?, kind, identity, fingerprint, label, csr, issued_at, not_after, ?, der, issuer, null, chain, null
         from certificates where serial = ?`,
        ...[(0x4000000000000000000000n + BigInt(n)).toString(16), 1, me.serial],
      );
  });
  o.it.now = new Date(o.it.now.getTime() + 3_600_000);
  await expect(me.session.ask({ type: "crl" }, "crl")).rejects.toEqual(code("too-large"));
});

test("who is blocked after he authenticated gets nothing more", async () => {
  await using o = await startEnrolment();
  const me = await o.enrolled();
  o.accounts.find = async () => undefined;
  await expect(me.session.certificates({})).rejects.toEqual(code("forbidden"));
  await expect(me.session.renew("auth", "new", csr())).rejects.toEqual(code("forbidden"));
});
