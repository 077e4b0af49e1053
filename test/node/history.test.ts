import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { type PastApproach, PeerHistory } from "../../src/node/history.ts";
import type { TrustRules } from "../../src/peertls-core/policy.ts";
import { silentLog } from "../../src/pki/log.ts";
import { makeTestDomain } from "../support/pki.ts";
import { recordLog } from "../support/record-log.ts";
import { temporaryFolder } from "../support/tmp.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const alice = alpha.person({ identity: "alice@alpha.test" });
const carol = alpha.person({ identity: "carol@alpha.test" });

function past(change: Partial<PastApproach> = {}): PastApproach {
  return {
    outcome: "admitted",
    at: new Date(),
    direction: "in",
    protocol: "sip",
    address: { host: "::1", port: 4605 },
    claims: ["alice@alpha.test"],
    why: "contact",
    certificates: [alice.auth.certificate, alpha.issuing.certificate],
    ...change,
  };
}

const rules = (change: Partial<TrustRules>): TrustRules => ({
  anchors: [
    {
      name: "alpha",
      certificate: alpha.root.certificate,
      domains: ["alpha.test"],
      organisations: [],
      identitiesFrom: ["rfc822Name"],
    },
  ],
  block: [],
  allow: [],
  rules: [],
  otherwise: "contacts",
  contacts: [alice.identity],
  requestsOnPort: false,
  ...change,
});

test("what was noted is there after a restart, each certificate once, newest first", async () => {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "history.db");
  const first = new PeerHistory(file, silentLog);
  const time = (n: number) => new Date(Date.now() - n * 1_000);
  first.note(past({ at: time(3), why: "contact" }));
  first.note(past({ at: time(2), why: "allow" }));
  first.note(past({ at: time(1), outcome: "denied", why: "not-admitted", certificates: [carol.auth.certificate] }));
  first.close();
  const again = new PeerHistory(file, silentLog);
  expect(again.list().map(({ outcome, why }) => [outcome, why])).toEqual([
    ["denied", "not-admitted"],
    ["admitted", "allow"],
  ]);
  expect(again.list("denied")).toHaveLength(1);
  const [admitted] = again.list("admitted");
  expect(admitted?.certificates.map(({ sha256 }) => sha256)).toEqual([
    alice.auth.certificate.sha256,
    alpha.issuing.certificate.sha256,
  ]);
  again.close();
});

test("it keeps a thousand of each outcome, and seven days", async () => {
  await using folder = await temporaryFolder();
  const history = new PeerHistory(join(folder.path, "history.db"), silentLog);
  const now = Date.now();
  history.note(past({ at: new Date(now - 8 * 86_400_000), protocol: "ftps" }));
  history.flush();
  for (let n = 0; n < 1_500; n += 1) {
    const leaf = { ...carol.auth.certificate, sha256: `leaf ${n}` };
    history.note(past({ outcome: "denied", at: new Date(now + n), certificates: [leaf] }));
    if (n % 500 === 499) history.flush();
  }
  history.note(past({ at: new Date(now) }));
  expect(history.list("denied").length).toBe(1_000);
  expect(history.list("admitted")).toHaveLength(1);
  history.close();
});

test("somebody without a certificate is remembered by his address alone", async () => {
  await using folder = await temporaryFolder();
  const history = new PeerHistory(join(folder.path, "history.db"), silentLog);
  history.note(past({ outcome: "denied", why: "no-certificate", certificates: [], claims: [] }));
  expect(history.list()).toMatchObject([{ address: { host: "::1" }, certificates: [], why: "no-certificate" }]);
  expect(history.tryRules(rules({}), undefined, new Date())).toEqual([]);
  history.close();
});

test("other rules are tried on those who came: only who would fare differently is told, and by what", async () => {
  await using folder = await temporaryFolder();
  const history = new PeerHistory(join(folder.path, "history.db"), silentLog);
  history.note(past());
  const refused = [carol.auth.certificate, alpha.issuing.certificate];
  history.note(past({ outcome: "denied", why: "not-admitted", claims: ["carol@alpha.test"], certificates: refused }));
  history.note(past({ direction: "out", certificates: refused }));
  const differences = (change: Partial<TrustRules>) =>
    history.tryRules(rules(change), undefined, new Date()).map(({ was, would }) => [was.claims[0], would.admit]);
  expect(differences({})).toEqual([]);
  expect(differences({ rules: [{ domain: "alpha.test" }] })).toEqual([["carol@alpha.test", true]]);
  expect(differences({ block: [{ identity: "alice@alpha.test" }] })).toEqual([["alice@alpha.test", false]]);
  expect(differences({ anchors: [] })).toEqual([["alice@alpha.test", false]]);
  const [difference] = history.tryRules(rules({ block: [{ issuer: "alpha" }] }), undefined, new Date());
  expect(difference?.would).toMatchObject({ admit: false, reason: "blocked", entry: "issuer alpha" });
  const listed = { status: "revoked" as const, at: 0, since: new Date(0) };
  const source = { stateOf: () => listed, onChange: () => undefined };
  expect(history.tryRules(rules({}), source, new Date()).map(({ would }) => would)).toEqual([
    { admit: false, reason: "revoked" },
  ]);
  history.close();
});

test("a disk that fails costs history and a warning, and nothing else", async () => {
  await using folder = await temporaryFolder();
  const log = recordLog();
  const history = new PeerHistory(join(folder.path, "history.db"), log);
  history.note(past({ claims: [1n as unknown as string] })); // cannot be written
  history.flush();
  expect(log.lines.map(({ level }) => level)).toEqual(["warn"]);
  history.note(past());
  expect(history.list()).toHaveLength(1);
  history.close();
});

test("a file that is broken is begun anew", async () => {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "history.db");
  await writeFile(file, "no database, but long enough to have a header of one. ".repeat(100));
  const log = recordLog();
  const history = new PeerHistory(file, log);
  history.note(past());
  expect(history.list()).toHaveLength(1);
  history.close();
  expect(log.lines.map(({ level }) => level)).toEqual(["warn"]);
});

test("whoever comes when it is closed already is not written, and ends nothing", async () => {
  await using folder = await temporaryFolder();
  const history = new PeerHistory(join(folder.path, "history.db"), silentLog);
  history.close();
  history.note(past());
  expect(() => history.flush()).not.toThrow();
});

test("of a stranger's many certificates the first are kept, his own before all", async () => {
  await using folder = await temporaryFolder();
  const history = new PeerHistory(join(folder.path, "history.db"), silentLog);
  const many = Array.from({ length: 100 }, () => alpha.issuing.certificate);
  history.note(past({ certificates: [alice.auth.certificate, ...many] }));
  const [{ certificates = [] } = {}] = history.list();
  expect(certificates[0]?.sha256).toBe(alice.auth.certificate.sha256);
  const bytes = certificates.reduce((sum, { der }) => sum + der.length, 0);
  expect(bytes).toBeGreaterThan(30_000);
  expect(bytes).toBeLessThanOrEqual(32_768);
  history.close();
});

test.each<[string, string]>([
  [
    "a certificate of bytes that are none",
    "update approaches set certificates = x'0000000401020304' where why = 'odd'",
  ],
  ["a length that leads behind the end", "update approaches set certificates = x'0000ffff01' where why = 'odd'"],
  ["half a length", "update approaches set certificates = x'0000' where why = 'odd'"],
  ["claims that are no JSON", "update approaches set claims = '[' where why = 'odd'"],
])("%s hides nobody else: the row is told without what it claimed, and the log has it once", async (_, damage) => {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "history.db");
  const log = recordLog();
  const history = new PeerHistory(file, log);
  const time = (n: number) => new Date(Date.now() - n);
  history.note(past({ at: time(3) }));
  for (const [n, protocol] of (["sip", "smtp"] as const).entries())
    history.note(
      past({ at: time(n), outcome: "denied", protocol, why: "odd", certificates: [carol.auth.certificate] }),
    );
  history.flush();
  using other = new DatabaseSync(file);
  other.exec(damage);
  const odd = { why: "odd", address: { host: "::1", port: 4605 }, claims: [], certificates: [] };
  expect(history.list()).toMatchObject([odd, odd, { why: "contact", certificates: { length: 2 } }]);
  expect(log.lines).toMatchObject([{ level: "warn", fields: { unreadable: 2 } }]);
  expect(history.tryRules(rules({ anchors: [] }), undefined, new Date())).toMatchObject([{ was: { why: "contact" } }]);
  history.close();
});
