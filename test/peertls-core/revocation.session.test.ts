import { createPublicKey, randomBytes } from "node:crypto";
import { readdir } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import { makePeerTls } from "../../src/peertls-core/peertls.ts";
import type { RevocationMode, TrustRules } from "../../src/peertls-core/policy.ts";
import { Revocations } from "../../src/peertls-core/revocation.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { type Certificate, parseCertificate } from "../../src/pki/certificate.ts";
import { issueRevocationList, type RevocationListTemplate } from "../../src/pki/crl-issue.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { type Issuer, issueCertificate } from "../../src/pki/issue.ts";
import { silentLog } from "../../src/pki/log.ts";
import type { OcspAnswer } from "../../src/pki/ocsp.ts";
import { issueOcspResponse } from "../../src/pki/ocsp-issue.ts";
import { makeOcspRequest, parseOcspRequest } from "../../src/pki/ocsp-request.ts";
import { extendedKeyUsage } from "../../src/pki/oid.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { issueAuth } from "../../src/pki/profile.ts";
import { openssl, pemFiles, temporaryFolder as pemFolder } from "../support/openssl.ts";
import { authTemplate, makeEcKey, makeTestDomain, type TestCredentials } from "../support/pki.ts";
import { recordLog } from "../support/record-log.ts";
import { temporaryFolder } from "../support/tmp.ts";

const HOUR = 3_600_000;
const alpha = makeTestDomain({ domain: "alpha.test" });
const gamma = makeTestDomain({ domain: "gamma.test" });
const bob = alpha.person({ identity: "bob@alpha.test" });
const pems = pemFolder();
let server: Server;
let url: string;
/** What the server answers; undefined: 404. */
let served: Buffer | undefined;
/** Instead of `served`; asked with the serial number that a question is about, undefined for a list. */
let respond: ((serial: Uint8Array | undefined) => Buffer) | undefined;
let asked = 0;

beforeAll(async () => {
  server = createServer((request, response) => {
    asked += 1;
    void buffer(request).then((question) => {
      const [id] = question.length === 0 ? [] : parseOcspRequest(question).ids;
      const bytes = respond === undefined ? served : respond(id?.serial);
      if (bytes === undefined) response.writeHead(404).end();
      else response.end(bytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as { port: number }).port}/alpha.crl`;
});

afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  pems[Symbol.dispose]();
});

beforeEach(() => {
  served = undefined;
  respond = undefined;
  asked = 0;
});

/** Somebody whose certificate names the list, or the responder. */
function person(name: string, by = alpha, told: "crlUrl" | "ocspUrl" = "crlUrl"): TestCredentials {
  const privateKey = makeEcKey();
  const der = issueAuth({
    issuer: by.issuing,
    spki: createPublicKey(privateKey).export({ type: "spki", format: "der" }),
    identity: parseIdentity(`${name}@${by.domain}`),
    name,
    now: new Date(),
    serial: randomBytes(16),
    [told]: url,
  });
  return { privateKey, certificate: parseCertificate(der), chain: [by.issuing.certificate] };
}

let number = 0;
function list(revoked: readonly Certificate[], o: { from?: number; until?: number; by?: typeof alpha } = {}): Buffer {
  const { from = -HOUR, until = HOUR, by = alpha } = o;
  number += 1;
  return issueRevocationList({
    issuer: by.issuing,
    number,
    thisUpdate: new Date(Date.now() + from),
    nextUpdate: new Date(Date.now() + until),
    entries: revoked.map(({ serial }) => ({ serial, since: new Date(Date.now() - HOUR), reason: "keyCompromise" })),
  });
}

/** Another kind of list, empty, new, and good for years. */
function special(change: Partial<RevocationListTemplate>, issuer: Issuer = alpha.issuing): Buffer {
  number += 1;
  const times = { thisUpdate: new Date(), nextUpdate: new Date(Date.now() + 10_000 * HOUR) };
  return issueRevocationList({ issuer, number, entries: [], ...times, ...change });
}

/** Somebody with the CA's name and another key. */
function forger(): Issuer {
  return { certificate: alpha.issuing.certificate, privateKey: makeEcKey() };
}

async function revocations(
  directory: string,
  log = silentLog,
  clock = () => new Date(),
  lists: readonly string[] = [],
): Promise<Revocations & AsyncDisposable> {
  const made = await Revocations.open({
    directory,
    ofAnchor: () => ({ graceHours: 24, lists }),
    privateTargets: true,
    clock,
    chance: () => 0.5,
    random: randomBytes,
    log,
  });
  return Object.assign(made, { [Symbol.asyncDispose]: () => made.close() });
}

const pathOf = ({ certificate, chain }: TestCredentials) => [certificate, ...chain, alpha.root.certificate];
const state = (of: Revocations, who: TestCredentials) => of.stateOf(pathOf(who), alpha.anchor, new Date()).status;

/** The state once the list was asked for and taken or refused. */
async function settled(of: Revocations, who: TestCredentials): Promise<string> {
  state(of, who);
  await of.refresh();
  return state(of, who);
}

describe("what is known of revocation", () => {
  test("nothing before the list came, then what it says; the issuing CA, which names no list, stays unchecked", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path);
    const [alice, carol] = [person("alice"), person("carol")];
    served = list([carol.certificate]);
    expect(state(known, alice)).toBe("unchecked");
    await known.refresh();
    expect(known.stateOf([alice.certificate, alpha.issuing.certificate], alpha.anchor, new Date())).toEqual({
      status: "good",
    });
    expect(known.stateOf(pathOf(carol), alpha.anchor, new Date())).toMatchObject({ status: "revoked", at: 0 });
    expect(state(known, alice)).toBe("unchecked"); // the worst of the path
  });

  test("it outlives a restart, also when the server is gone", async () => {
    await using folder = await temporaryFolder();
    const carol = person("carol");
    served = list([carol.certificate]);
    {
      await using first = await revocations(folder.path);
      expect(await settled(first, carol)).toBe("revoked");
    }
    served = undefined;
    await using second = await revocations(folder.path);
    expect(state(second, carol)).toBe("revoked");
    expect(await settled(second, carol)).toBe("revoked");
  });

  test("past its nextUpdate it serves through the grace, then nobody knows; a revoked one stays revoked", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path);
    const [alice, carol] = [person("alice"), person("carol")];
    served = list([carol.certificate]);
    await settled(known, alice);
    const at = (who: TestCredentials, hours: number) =>
      known.stateOf([who.certificate, alpha.issuing.certificate], alpha.anchor, new Date(Date.now() + hours * HOUR))
        .status;
    expect([at(alice, 0), at(alice, 24), at(alice, 26)]).toEqual(["good", "good", "unknown"]);
    expect(at(carol, 26)).toBe("revoked");
  });

  const refused: [string, () => Buffer | undefined][] = [
    ["signed by another CA of the same name", () => list([], { by: makeTestDomain({ domain: "alpha.test" }) })],
    ["by another domain's CA", () => list([], { by: gamma })],
    ["older than the one before", () => list([], { from: -10 * HOUR })],
    ["broken", () => Buffer.from("<html>not found</html>")],
    ["cut off", () => list([]).subarray(0, -10)],
    ["empty", () => Buffer.alloc(0)],
    ["too large", () => Buffer.alloc(65 * 1024 * 1024)],
    ["gone", () => undefined],
  ];
  test.each(refused)("a list that is %s changes nothing, and is warned of once", async (_name, bad) => {
    await using folder = await temporaryFolder();
    const log = recordLog();
    await using known = await revocations(folder.path, log);
    const carol = person("carol");
    served = list([carol.certificate]);
    expect(await settled(known, carol)).toBe("revoked");
    served = bad();
    await known.refresh();
    await known.refresh();
    expect(state(known, carol)).toBe("revoked");
    expect(log.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
    expect(known.sources[0]).toMatchObject({ failures: 2, entries: 1 });
    served = list([]);
    await known.refresh();
    expect(known.sources[0]).toMatchObject({ failures: 0, entries: 0 });
  });

  const besides: [string, () => Buffer][] = [
    ["a delta of the same CA", () => special({ delta: 1 })],
    ["the same CA's list of CAs alone", () => special({ scope: { only: "ca" } })],
    ["an indirect list that anybody signed", () => special({ scope: { indirect: true } }, forger())],
    ["the root's own list", () => special({}, alpha.root)],
  ];
  test.each(besides)(
    "%s, in the place of the list, un-revokes nobody, now or after a restart",
    async (_name, other) => {
      await using folder = await temporaryFolder();
      const carol = person("carol");
      {
        await using known = await revocations(folder.path);
        served = list([carol.certificate]);
        expect(await settled(known, carol)).toBe("revoked");
        served = other();
        expect(await settled(known, carol)).toBe("revoked");
        served = list([carol.certificate]);
        await known.refresh();
        expect(known.sources.map(({ failures }) => failures)).not.toContain(1);
      }
      served = undefined;
      await using again = await revocations(folder.path);
      expect(state(again, carol)).toBe("revoked");
    },
  );

  test("a list that another domain's certificate pointed to first is asked for again by the first of its own", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path);
    const [carol, mallory] = [person("carol"), person("mallory", gamma)];
    served = list([carol.certificate]);
    known.stateOf([mallory.certificate, ...mallory.chain, gamma.root.certificate], gamma.anchor, new Date());
    await known.refresh();
    expect(known.sources[0]).toMatchObject({ entries: 0 });
    const came = new Promise<void>((resolve) => known.onChange(resolve));
    state(known, carol);
    await came;
    expect(state(known, carol)).toBe("revoked");
  });

  test("PEM is taken, too", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path);
    const carol = person("carol");
    served = Buffer.from(derToPem(list([carol.certificate]), "X509 CRL"));
    expect(await settled(known, carol)).toBe("revoked");
  });

  test("a large list is read beside the event loop, is judged by, and outlives a restart", async () => {
    await using folder = await temporaryFolder();
    const [alice, carol] = [person("alice"), person("carol")];
    const others = Array.from({ length: 50_000 }, () => ({
      serial: Buffer.concat([Buffer.of(1), randomBytes(15)]),
      since: new Date(),
    }));
    const own = { serial: carol.certificate.serial, since: new Date() };
    {
      await using known = await revocations(folder.path);
      served = special({ entries: [...others, own] });
      expect(served.length).toBeGreaterThan(1_500_000);
      expect(await settled(known, carol)).toBe("revoked");
      expect(known.sources[0]).toMatchObject({ entries: 50_001, failures: 0 });
      served = special({ entries: others }, forger());
      expect(await settled(known, carol)).toBe("revoked");
      expect(known.sources[0]).toMatchObject({ entries: 50_001, failures: 1 });
      served = Buffer.concat([served.subarray(0, -10), Buffer.alloc(10, 0xff)]).subarray(0, -1);
      expect(await settled(known, carol)).toBe("revoked");
    }
    served = undefined;
    await using again = await revocations(folder.path);
    expect(state(again, carol)).toBe("revoked");
    expect(again.stateOf([alice.certificate, alpha.issuing.certificate], alpha.anchor, new Date()).status).toBe("good");
  });

  test("a large list may come as PEM, too", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path);
    const carol = person("carol");
    const others = Array.from({ length: 10_000 }, () => ({
      serial: Buffer.concat([Buffer.of(1), randomBytes(15)]),
      since: new Date(),
    }));
    const own = { serial: carol.certificate.serial, since: new Date() };
    served = Buffer.from(derToPem(special({ entries: [...others, own] }), "X509 CRL"));
    expect(served.length).toBeGreaterThan(256 * 1024);
    expect(await settled(known, carol)).toBe("revoked");
  });

  test("a list that was not needed for thirty days is asked for no more, and not kept", async () => {
    await using folder = await temporaryFolder();
    let offset = 0;
    await using known = await revocations(folder.path, silentLog, () => new Date(Date.now() + offset));
    const carol = person("carol");
    served = list([carol.certificate], { until: 9_000 * HOUR });
    expect(await settled(known, carol)).toBe("revoked");
    offset = 29 * 24 * HOUR;
    asked = 0;
    await known.refresh();
    expect(asked).toBe(1);
    offset = 31 * 24 * HOUR;
    await known.refresh();
    expect(asked).toBe(1);
    expect(known.sources).toEqual([]);
    expect(await readdir(folder.path)).toEqual([]);
  });

  test("certificates that name no list are looked up in those that the owner configured", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path, silentLog, () => new Date(), [url]);
    served = list([bob.auth.certificate]);
    expect(await settled(known, bob.auth)).toBe("revoked");
  });

  test("the places that a CA's certificates name take nobody else's room", async () => {
    await using folder = await temporaryFolder();
    const carol = person("carol");
    served = list([carol.certificate]);
    await using known = await revocations(folder.path);
    expect(await settled(known, carol)).toBe("revoked");
    const place = url;
    for (let n = 0; n < 120; n += 1) {
      url = `${place}?${n}`;
      const mallory = person(`mallory${n}`, gamma);
      known.stateOf([mallory.certificate, ...mallory.chain, gamma.root.certificate], gamma.anchor, new Date());
    }
    url = place;
    expect(known.sources).toHaveLength(101);
    expect(state(known, carol)).toBe("revoked");
  });

  test("a list on a private network is not asked for unless that is configured", async () => {
    await using folder = await temporaryFolder();
    const strict = await Revocations.open({
      directory: folder.path,
      ofAnchor: () => ({ graceHours: 24, lists: [] }),
      privateTargets: false,
      clock: () => new Date(),
      chance: () => 0.5,
      random: randomBytes,
      log: silentLog,
    });
    expect(await settled(strict, person("alice"))).toBe("unchecked");
    expect(asked).toBe(0);
    await strict.close();
  });
});

describe("what a responder says of a certificate that names no list", () => {
  function answer(who: TestCredentials, status: OcspAnswer["status"], from: number, signer = alpha.issuing): Buffer {
    const question = makeOcspRequest({ certificate: who.certificate, issuer: alpha.issuing.certificate });
    const [id] = parseOcspRequest(question).ids;
    if (id === undefined) throw new Error("a request without a question");
    const times = { thisUpdate: new Date(Date.now() + from), nextUpdate: new Date(Date.now() + HOUR) };
    const answers = [{ id, status, ...times }];
    const certificates = signer === alpha.issuing ? [] : [signer.certificate];
    return issueOcspResponse({ signer, answers, producedAt: new Date(), certificates });
  }

  /** Whom alpha's CA lets answer for it. */
  function delegate(o: { days?: number; crlUrl?: string }): Issuer {
    const privateKey = makeEcKey();
    const template = {
      ...authTemplate(parseIdentity("ocsp@alpha.test"), new Date(), alpha.issuing, privateKey),
      validity: { notBefore: new Date(Date.now() - HOUR), notAfter: new Date(Date.now() + (o.days ?? 30) * 24 * HOUR) },
      extendedKeyUsage: [extendedKeyUsage.ocspSigning],
      ...(o.crlUrl === undefined ? {} : { crlUrl: o.crlUrl }),
    };
    return { privateKey, certificate: parseCertificate(issueCertificate(template, alpha.issuing.privateKey)) };
  }

  test("an answer of yesterday, played again, un-revokes nobody", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path);
    const carol = person("carol", alpha, "ocspUrl");
    served = answer(carol, { status: "revoked", reason: "keyCompromise", since: new Date() }, -HOUR);
    expect(await settled(known, carol)).toBe("revoked");
    served = answer(carol, { status: "good" }, -24 * HOUR);
    expect(await settled(known, carol)).toBe("revoked");
    served = answer(carol, { status: "good" }, 0);
    expect(await settled(known, carol)).toBe("unchecked"); // as the worst of the path, the issuing CA
  });

  test("a responder that does not know the certificate: nobody knows, and it is asked again soon", async () => {
    await using folder = await temporaryFolder();
    const log = recordLog();
    await using known = await revocations(folder.path, log);
    const carol = person("carol", alpha, "ocspUrl");
    served = answer(carol, { status: "unknown" }, 0);
    expect(await settled(known, carol)).toBe("unknown");
    expect(log.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
    served = answer(carol, { status: "good" }, 0);
    expect(await settled(known, carol)).toBe("unchecked"); // as the worst of the path, the issuing CA
  });

  test("what a delegate said counts on when its certificate has ended, also after a restart", async () => {
    await using folder = await temporaryFolder();
    let offset = 0;
    const clock = () => new Date(Date.now() + offset);
    const carol = person("carol", alpha, "ocspUrl");
    served = answer(carol, { status: "revoked", reason: "keyCompromise", since: new Date() }, 0, delegate({ days: 2 }));
    {
      await using known = await revocations(folder.path, silentLog, clock);
      expect(await settled(known, carol)).toBe("revoked");
    }
    offset = 72 * HOUR;
    served = undefined;
    await using again = await revocations(folder.path, silentLog, clock);
    expect(again.stateOf(pathOf(carol), alpha.anchor, clock()).status).toBe("revoked");
  });

  test("a delegate that the issuer has revoked says nothing any more; what it said of a revoked one stays", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path);
    const [alice, carol] = [person("alice", alpha, "ocspUrl"), person("carol", alpha, "ocspUrl")];
    const path = ({ certificate }: TestCredentials) => [certificate, alpha.issuing.certificate];
    const of = (who: TestCredentials) => known.stateOf(path(who), alpha.anchor, new Date()).status;
    const signer = delegate({ crlUrl: `${url}/of-delegates` });
    of(alice);
    of(carol);
    const revoked = { status: "revoked", reason: "keyCompromise", since: new Date() } as const;
    const say = (serial: Uint8Array) =>
      Buffer.compare(serial, alice.certificate.serial) === 0
        ? answer(alice, { status: "good" }, 0, signer)
        : answer(carol, revoked, 0, signer);
    respond = (serial) => (serial === undefined ? list([]) : say(serial));
    await known.refresh();
    expect([of(alice), of(carol)]).toEqual(["good", "revoked"]); // asks for the delegate's list
    await known.refresh();
    expect([of(alice), of(carol)]).toEqual(["good", "revoked"]);
    respond = (serial) => (serial === undefined ? list([signer.certificate]) : say(serial));
    await known.refresh();
    expect([of(alice), of(carol)]).toEqual(["unknown", "revoked"]);
  });

  test("of a certificate that has ended nothing is asked, and nothing kept", async () => {
    await using folder = await temporaryFolder();
    let offset = 0;
    await using known = await revocations(folder.path, silentLog, () => new Date(Date.now() + offset));
    const carol = person("carol", alpha, "ocspUrl");
    served = answer(carol, { status: "good" }, 0);
    await settled(known, carol);
    expect(await readdir(folder.path)).toHaveLength(2);
    offset = 31 * 24 * HOUR;
    asked = 0;
    await known.refresh();
    await known.refresh();
    expect(asked).toBe(0);
    expect(await readdir(folder.path)).toEqual([]);
  });
});

function rules(mode: RevocationMode): TrustRules {
  const anchor = {
    name: "alpha.test",
    certificate: alpha.root.certificate,
    domains: ["alpha.test"],
    organisations: [],
    identitiesFrom: ["rfc822Name"] as const,
    revocation: { mode, graceHours: 24 },
  };
  const everybody = { rules: [{ domain: "alpha.test" }], otherwise: "deny" as const };
  return { anchors: [anchor], block: [], allow: [], contacts: [], requestsOnPort: false, ...everybody };
}

async function node(known: Revocations, mode: RevocationMode) {
  const core = await makePeerTls({
    credentials: bob.auth,
    trust: new Trust(rules(mode)),
    revocations: known,
    clock: () => new Date(),
    random: randomBytes,
    log: silentLog,
  });
  const admitted: PeerConnection[] = [];
  core.onPeer("sip", (connection) => {
    admitted.push(connection);
    connection.stream.on("error", () => undefined);
    connection.stream.write("welcome");
  });
  const { port } = await core.listen({ host: "::1", port: 0 });
  return { core, admitted, port };
}

async function visit(port: number, as: TestCredentials) {
  const files = pemFiles(pems.path, randomBytes(4).toString("hex"), as);
  const shown = ["-cert", files.certificate, "-key", files.key, "-cert_chain", files.chain];
  const args = ["s_client", "-connect", `[::1]:${port}`, "-alpn", "sip/2", ...shown, "-msg", "-ign_eof"];
  const how = { input: "hello\n", until: /welcome|alert number|errno/, timeoutMs: 6_000 };
  const { output } = await openssl(args, how);
  return {
    alert: Number(/SSL alert number (\d+)/.exec(output)?.[1] ?? "0"),
    tickets: (output.match(/NewSessionTicket/g) ?? []).length,
    welcomed: output.includes("welcome"),
  };
}

describe("at the gate", () => {
  test("who is on the list gets alert 44 and nothing else; who is not comes in", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path);
    const [alice, carol] = [person("alice"), person("carol")];
    served = list([carol.certificate]);
    await settled(known, carol);
    const { core, port } = await node(known, "default");
    expect(await visit(port, carol)).toEqual({ alert: 44, tickets: 0, welcomed: false });
    expect(core.denials.at(-1)).toMatchObject({ reason: "revoked", alert: 44 });
    expect(await visit(port, alice)).toMatchObject({ alert: 0, welcomed: true });
    await core.close();
  });

  test("hard: who cannot be checked stays out, with alert 46; default and soft let him in", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path);
    const alice = person("alice");
    for (const [mode, alert] of [
      ["hard", 46],
      ["default", 0],
      ["soft", 0],
    ] as const) {
      const { core, port } = await node(known, mode);
      expect([mode, (await visit(port, alice)).alert]).toEqual([mode, alert]);
      await core.close();
    }
  });

  test("a connection is closed when its peer turns up on a new list", async () => {
    await using folder = await temporaryFolder();
    await using known = await revocations(folder.path);
    const carol = person("carol");
    served = list([]);
    await settled(known, carol);
    const { core, admitted, port } = await node(known, "default");
    const peer = await makePeerTls({
      credentials: carol,
      trust: new Trust(rules("default")),
      clock: () => new Date(),
      random: randomBytes,
      log: silentLog,
    });
    const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
    const route = { kind: "direct" as const, address: { host: "::1", port } };
    const connection = await peer.dial(expected, "sip", [route], AbortSignal.timeout(5_000));
    await connection.confirmed;
    const closed = new Promise<void>((resolve) => connection.stream.once("close", () => resolve()));
    connection.stream.on("error", () => undefined);
    connection.stream.resume();
    expect(admitted).toHaveLength(1);
    served = list([carol.certificate]);
    await known.refresh();
    await closed;
    expect(core.connections).toEqual([]);
    await peer.close();
    await core.close();
  });
});
