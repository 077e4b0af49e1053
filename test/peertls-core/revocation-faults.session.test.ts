import { createPublicKey, randomBytes } from "node:crypto";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { readList } from "../../src/peertls-core/read-list.ts";
import { Revocations } from "../../src/peertls-core/revocation.ts";
import { type Certificate, parseCertificate } from "../../src/pki/certificate.ts";
import { issueRevocationList, type RevocationListTemplate } from "../../src/pki/crl-issue.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { issueCertificate } from "../../src/pki/issue.ts";
import { silentLog } from "../../src/pki/log.ts";
import { issueOcspResponse } from "../../src/pki/ocsp-issue.ts";
import { parseOcspRequest } from "../../src/pki/ocsp-request.ts";
import { authTemplate, makeCa, makeEcKey, makeTestDomain } from "../support/pki.ts";
import { temporaryFolder } from "../support/tmp.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const alpha = makeTestDomain({ domain: "alpha.test" });
let server: Server;
let base: string;
/** Undefined: 404. */
let answer: ((question: Buffer) => Buffer | undefined) | undefined;
/** Until then nobody is answered. */
let held: Promise<void> | undefined;
let asked: string[] = [];
let offset = 0;
const clock = () => new Date(Date.now() + offset);

beforeAll(async () => {
  server = createServer((request, response) => {
    asked.push(request.url ?? "");
    void buffer(request).then(async (question) => {
      await held;
      const bytes = answer?.(question);
      if (bytes === undefined) response.writeHead(404).end();
      else response.end(bytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  base = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
});

afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

beforeEach(() => {
  answer = undefined;
  held = undefined;
  asked = [];
  offset = 0;
});

function person(named: { crlUrl?: string; ocspUrl?: string }, by = alpha): Certificate {
  const key = makeEcKey();
  const spki = createPublicKey(key).export({ type: "spki", format: "der" });
  const template = authTemplate(parseIdentity(`carol@${by.domain}`), new Date(), by.issuing, key);
  return parseCertificate(issueCertificate({ ...template, spki, ...named }, by.issuing.privateKey));
}

let number = 0;
function list(revoked: readonly Certificate[], change: Partial<RevocationListTemplate> = {}): Buffer {
  number += 1;
  return issueRevocationList({
    issuer: alpha.issuing,
    number,
    thisUpdate: new Date(),
    nextUpdate: new Date(Date.now() + 9_000 * HOUR),
    entries: revoked.map(({ serial }) => ({ serial, since: new Date() })),
    ...change,
  });
}

async function open(directory: string): Promise<Revocations & AsyncDisposable> {
  const made = await Revocations.open({
    directory,
    ofAnchor: () => ({ graceHours: 24, lists: [] }),
    privateTargets: true,
    clock,
    chance: () => 0.5,
    random: randomBytes,
    log: silentLog,
  });
  return Object.assign(made, { [Symbol.asyncDispose]: () => made.close() });
}

const state = (of: Revocations, who: Certificate) =>
  of.stateOf([who, alpha.issuing.certificate], alpha.anchor, clock()).status;

async function settled(of: Revocations, who: Certificate): Promise<string> {
  state(of, who);
  await of.refresh();
  return state(of, who);
}

const revokedAnswer = (question: Buffer) => {
  const [id] = parseOcspRequest(question).ids;
  if (id === undefined) throw new Error("a request without a question");
  const status = { status: "revoked", reason: "keyCompromise", since: new Date() } as const;
  const answers = [{ id, status, thisUpdate: new Date(), nextUpdate: new Date(Date.now() + HOUR) }];
  return issueOcspResponse({ signer: alpha.issuing, answers, producedAt: new Date(), certificates: [] });
};

test.each(["list", "answer"])("a new %s counts although the disk takes nothing, and is written later", async (kind) => {
  await using folder = await temporaryFolder();
  const directory = join(folder.path, "kept");
  const carol = person(kind === "list" ? { crlUrl: `${base}/crl` } : { ocspUrl: base });
  const crl = list([carol]);
  {
    await using known = await open(directory);
    await rm(directory, { recursive: true });
    answer = kind === "list" ? () => crl : revokedAnswer;
    expect(await settled(known, carol)).toBe("revoked");
    await mkdir(directory);
    await known.refresh();
  }
  answer = undefined;
  await using again = await open(directory);
  expect(state(again, carol)).toBe("revoked");
});

test("lists of ever other kinds that end soon do not fill the disk", async () => {
  await using folder = await temporaryFolder();
  await using known = await open(folder.path);
  const carol = person({ crlUrl: `${base}/crl` });
  for (let kind = 0; kind < 30; kind += 1) {
    const crl = list([], { nextUpdate: clock(), scope: { urls: [`http://kind.test/${kind}`] } });
    answer = () => crl;
    await settled(known, carol);
  }
  expect(known.sources).toHaveLength(8);
  await expect.poll(async () => (await readdir(folder.path)).length).toBe(16);
});

test("places that made room while they waited for their turn are never asked", async () => {
  await using folder = await temporaryFolder();
  await using known = await open(folder.path);
  const { promise, resolve: goOn } = Promise.withResolvers<void>();
  held = promise;
  state(known, person({ crlUrl: `${base}/first` }));
  await expect.poll(() => asked).toEqual(["/first"]);
  for (let n = 0; n < 130; n += 1) {
    state(known, person({ crlUrl: `${base}/${n}` }));
    await new Promise((done) => setImmediate(done));
  }
  goOn();
  await known.refresh();
  expect(known.sources).toHaveLength(100);
  expect(new Set(asked).size).toBe(101);
});

test("of silent responders only some are asked at once, and another anchor's is not kept waiting by them", async () => {
  await using folder = await temporaryFolder();
  await using known = await open(folder.path);
  const { promise, resolve: goOn } = Promise.withResolvers<void>();
  held = promise;
  for (let n = 0; n < 60; n += 1) state(known, person({ ocspUrl: `${base}/${n}` }));
  await expect.poll(() => asked).toHaveLength(16);
  const gamma = makeTestDomain({ domain: "gamma.test" });
  known.stateOf([person({ ocspUrl: `${base}/gamma` }, gamma), gamma.issuing.certificate], gamma.anchor, clock());
  await expect.poll(() => asked).toHaveLength(17);
  expect(asked.at(-1)).toBe("/gamma");
  goOn();
  await known.refresh();
  expect(new Set(asked).size).toBe(61);
});

test("a list that stays the same and in use outlives a restart after any time, and one that is not in use goes", async () => {
  await using folder = await temporaryFolder();
  const carol = person({ crlUrl: `${base}/crl` });
  const crl = list([carol]);
  {
    answer = () => crl;
    await using known = await open(folder.path);
    expect(await settled(known, carol)).toBe("revoked");
    offset = 25 * DAY;
    expect(await settled(known, carol)).toBe("revoked");
  }
  answer = undefined;
  offset = 40 * DAY;
  {
    await using known = await open(folder.path);
    await known.refresh();
    expect(state(known, carol)).toBe("revoked");
  }
  offset = 100 * DAY; // it was off
  await using known = await open(folder.path);
  await known.refresh();
  expect(known.sources).toHaveLength(1);
  offset = 102 * DAY;
  await known.refresh();
  expect(known.sources).toEqual([]);
  expect(await readdir(folder.path)).toEqual([]);
});

test("a large list that no issuer signed is refused before it comes to the thread that everybody waits for", async () => {
  const entries = Array.from({ length: 15_000 }, () => ({
    serial: Buffer.concat([Buffer.of(1), randomBytes(15)]),
    since: new Date(),
  }));
  const bytes = list([], { entries, issuer: { certificate: alpha.issuing.certificate, privateKey: makeEcKey() } });
  expect(bytes.length).toBeGreaterThan(256 * 1024);
  await expect(readList(bytes, [alpha.issuing.certificate, alpha.root.certificate])).rejects.toMatchObject({
    details: { what: "signature" },
  });
});

test.each(["ldap://ca.alpha.test/o=alpha?certificateRevocationList", "ftp://ca.alpha.test/crl"])(
  "where the list that a certificate names cannot be had (%s) its responder is asked",
  async (crlUrl) => {
    await using folder = await temporaryFolder();
    await using known = await open(folder.path);
    answer = revokedAnswer;
    expect(await settled(known, person({ crlUrl, ocspUrl: base }))).toBe("revoked");
  },
);

test("a list of another CA that bears the same name does not take the place of the list", async () => {
  await using folder = await temporaryFolder();
  const carol = person({ crlUrl: `${base}/crl` });
  const { subjectDer } = alpha.issuing.certificate;
  const double = makeCa("the same", new Date(), { issuer: alpha.root, differences: { subject: subjectDer } });
  const mallory = person({ crlUrl: `${base}/crl` }, { ...alpha, issuing: double });
  const [crl, other] = [list([carol]), list([], { issuer: double })];
  {
    await using known = await open(folder.path);
    answer = () => crl;
    expect(await settled(known, carol)).toBe("revoked");
    known.stateOf([mallory, double.certificate, alpha.root.certificate], alpha.anchor, clock());
    answer = () => other;
    expect(await settled(known, carol)).toBe("revoked");
    expect(known.sources.map(({ entries }) => entries)).toEqual([1, 0]);
  }
  answer = undefined;
  await using again = await open(folder.path);
  expect(state(again, carol)).toBe("revoked");
});

test("a clock that was far behind at the start, and is set then, takes no list away", async () => {
  await using folder = await temporaryFolder();
  const carol = person({ crlUrl: `${base}/crl` });
  answer = () => list([carol]);
  {
    await using known = await open(folder.path);
    await settled(known, carol);
  }
  answer = undefined;
  offset = -2_000 * DAY;
  await using known = await open(folder.path);
  offset = 0;
  await known.refresh();
  expect(state(known, carol)).toBe("revoked");
});

test("what a run that was cut short left half written is cleared away", async () => {
  await using folder = await temporaryFolder();
  const carol = person({ crlUrl: `${base}/crl` });
  answer = () => list([carol]);
  {
    await using known = await open(folder.path);
    await settled(known, carol);
  }
  const whole = await readdir(folder.path);
  await writeFile(join(folder.path, `${"0".repeat(64)}.bin`), "without a description");
  await writeFile(join(folder.path, `${"1".repeat(64)}.json.new`), "{");
  answer = undefined;
  await using again = await open(folder.path);
  expect(state(again, carol)).toBe("revoked");
  expect((await readdir(folder.path)).sort()).toEqual(whole.sort());
});
