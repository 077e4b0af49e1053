import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer as createHttpServer, type Server as HttpServer } from "node:http";
import { join } from "node:path";
import { connect, createServer, type TLSSocket } from "node:tls";
import { Registry } from "prom-client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { alertNumber } from "../../src/peertls-core/peer-failure.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import type { PolicyAnchor, TrustRules } from "../../src/peertls-core/policy.ts";
import { Revocations } from "../../src/peertls-core/revocation.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import type { DenialReason } from "../../src/peertls-core/verdict.ts";
import type { Certificate } from "../../src/pki/certificate.ts";
import { issueRevocationList } from "../../src/pki/crl-issue.ts";
import { type Identity, parseIdentity } from "../../src/pki/identity.ts";
import { issueOcspResponse } from "../../src/pki/ocsp-issue.ts";
import { parseOcspRequest } from "../../src/pki/ocsp-request.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { SuiteError } from "../../src/pki/suite-error.ts";
import { openssl, pemFiles } from "../support/openssl.ts";
import type { TestCredentials } from "../support/pki.ts";
import { recordLog } from "../support/record-log.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { alpha, credentials } from "./credentials.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const bob = alpha.person({ identity: "bob@alpha.test" });
const PEER = parseIdentity("alice@alpha.test");

/** Lists and answers of alpha's CA: who is revoked is told by both. */
let revoked: Certificate | undefined;
let authority: HttpServer;
let authorityUrl: string;

beforeAll(async () => {
  authority = createHttpServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on("data", (piece: Buffer) => pieces.push(piece));
    request.on("end", () => response.end(request.method === "POST" ? answer(Buffer.concat(pieces)) : list()));
  });
  await new Promise<void>((resolve) => authority.listen(0, "127.0.0.1", resolve));
  authorityUrl = `http://127.0.0.1:${(authority.address() as { port: number }).port}/`;
});

afterAll(async () => {
  authority.closeAllConnections();
  await new Promise((resolve) => authority.close(resolve));
});

let number = 0;
function list(): Buffer {
  number += 1;
  const now = Date.now();
  return issueRevocationList({
    issuer: alpha.issuing,
    number,
    thisUpdate: new Date(now - HOUR + number),
    nextUpdate: new Date(now + HOUR),
    entries: revoked === undefined ? [] : [{ serial: revoked.serial, since: new Date(now - HOUR) }],
  });
}

function answer(question: Buffer): Buffer {
  const { ids, nonce } = parseOcspRequest(question);
  const now = new Date();
  return issueOcspResponse({
    signer: alpha.issuing,
    producedAt: now,
    answers: ids.map((id) => ({
      id,
      status:
        revoked !== undefined && Buffer.compare(id.serial, revoked.serial) === 0
          ? { status: "revoked" as const, reason: "keyCompromise" as const, since: now }
          : { status: "good" as const },
      thisUpdate: now,
      nextUpdate: new Date(now.getTime() + HOUR),
    })),
    ...(nonce === undefined ? {} : { nonce }),
  });
}

/** A node and what can be changed about it while it runs. */
interface World {
  core: PeerTls;
  port: number;
  log: ReturnType<typeof recordLog>;
  registry: Registry;
  received: Buffer[];
  revocations: Revocations;
  rules(change: Partial<TrustRules>): void;
  /** Milliseconds by which the node's clock is off. */
  offset: number;
  close(): Promise<void>;
}

function anchorOf(certificate: Certificate): PolicyAnchor {
  return {
    name: "alpha",
    certificate,
    domains: ["alpha.test", "beta.test"],
    organisations: [],
    identitiesFrom: ["rfc822Name"],
  };
}

async function makeWorld(): Promise<World> {
  const folder = await temporaryFolder();
  const log = recordLog();
  const registry = new Registry();
  const base: TrustRules = {
    anchors: [anchorOf(alpha.root.certificate)],
    block: [],
    allow: [],
    rules: [{ issuer: "alpha" }],
    otherwise: "deny",
    contacts: [],
    requestsOnPort: false,
  };
  const trust = new Trust(base);
  const received: Buffer[] = [];
  const revocations = await Revocations.open({
    directory: folder.path,
    ofAnchor: () => ({ graceHours: 24, lists: [] }),
    privateTargets: true,
    clock: () => new Date(),
    chance: () => 0.5,
    random: randomBytes,
    log,
  });
  const world: World = {
    core: await makePeerTls({
      credentials: bob.auth,
      trust,
      revocations,
      registry,
      clock: () => new Date(Date.now() + world.offset),
      random: randomBytes,
      log,
    }),
    port: 0,
    log,
    registry,
    received,
    revocations,
    rules: (change) => trust.replace({ ...base, ...change }),
    offset: 0,
    async close() {
      await world.core.close();
      await revocations.close();
      await folder[Symbol.asyncDispose]();
    },
  };
  world.core.onPeer("sip", (connection) => {
    connection.stream.on("error", () => undefined);
    connection.stream.on("data", (chunk: Buffer) => received.push(chunk));
    connection.stream.write("welcome");
  });
  world.port = (await world.core.listen({ host: "::1", port: 0 })).port;
  return world;
}

interface Case {
  reason: DenialReason;
  alert: number;
  who: () => TestCredentials;
  /** Makes him one who may not come in. */
  spoil: (world: World, who: TestCredentials) => void | Promise<void>;
  /** Before: rules under which he may, for the session that is resumed later. Undefined: he never may. */
  before?: (who: TestCredentials) => Partial<TrustRules>;
  /** Where a resumed session, which shows no chain, is refused in another way: he is told to come with a full one. */
  resumed?: { reason: DenialReason; alert: number };
  /** Only of the one direction. */
  only?: "accepted" | "dialled";
  /** Whom we dial, if not the person himself. */
  expected?: Identity;
}

const asHeIs = () => ({});
/** What is wrong with the certificate itself is not looked at while that very certificate is the anchor. */
const pinned = ({ certificate }: TestCredentials) => ({ anchors: [anchorOf(certificate)] });
/** The root's rules again; a good peer shows the issuing CA, which a resumed session does not. */
async function underTheRoot(world: World): Promise<void> {
  world.rules({});
  await nodeClient(world.port, good());
  world.received.length = 0;
}
const block = (entry: TrustRules["block"][number]) => (world: World) => world.rules({ block: [entry] });

async function revoke(world: World, who: TestCredentials): Promise<void> {
  revoked = undefined;
  const path = [who.certificate, ...who.chain, alpha.root.certificate];
  world.revocations.stateOf(path, anchorOf(alpha.root.certificate), new Date()); // learns the URL
  revoked = who.certificate;
  await world.revocations.refresh();
}

const good = () => alpha.person({ identity: PEER }).auth;

/** The issuer below the issuing CA is in nobody's pool. */
const CHAINLESS = { reason: "issuer-unknown", alert: 48 } as const;

const cases: [string, Case][] = [
  [
    "unknown issuer",
    { reason: "issuer-unknown", alert: 48, who: good, before: asHeIs, spoil: (world) => world.rules({ anchors: [] }) },
  ],
  [
    "expired",
    { reason: "expired", alert: 45, who: good, before: asHeIs, spoil: (world) => void (world.offset = 40 * DAY) },
  ],
  [
    "not yet valid",
    { reason: "not-yet-valid", alert: 45, who: good, before: asHeIs, spoil: (world) => void (world.offset = -2 * DAY) },
  ],
  [
    "revoked by CRL",
    { reason: "revoked", alert: 44, who: () => credentials("crl", authorityUrl), before: asHeIs, spoil: revoke },
  ],
  [
    "revoked by OCSP",
    { reason: "revoked", alert: 44, who: () => credentials("ocsp", authorityUrl), before: asHeIs, spoil: revoke },
  ],
  [
    "blocked by identity",
    { reason: "blocked", alert: 49, who: good, before: asHeIs, spoil: block({ identity: PEER }) },
  ],
  [
    "blocked by key",
    {
      reason: "blocked",
      alert: 49,
      who: good,
      before: asHeIs,
      spoil: (world, { certificate }) => block({ fingerprint: certificate.fingerprint })(world),
    },
  ],
  [
    "blocked by the issuer's key",
    {
      reason: "blocked",
      alert: 49,
      who: good,
      before: asHeIs,
      spoil: block({ fingerprint: alpha.issuing.certificate.fingerprint }),
    },
  ],
  ["blocked by issuer", { reason: "blocked", alert: 49, who: good, before: asHeIs, spoil: block({ issuer: "alpha" }) }],
  [
    "blocked by domain",
    { reason: "blocked", alert: 49, who: good, before: asHeIs, spoil: block({ domain: "alpha.test" }) },
  ],
  [
    "not admitted by any rule",
    {
      reason: "not-admitted",
      alert: 49,
      who: good,
      before: asHeIs,
      only: "accepted",
      spoil: (world) => world.rules({ rules: [] }),
    },
  ],
  ["wrong purpose", { reason: "purpose", alert: 43, who: () => credentials("purpose"), spoil: () => undefined }],
  [
    "wrong person",
    {
      reason: "identity-mismatch",
      alert: 42,
      who: good,
      before: asHeIs,
      only: "dialled",
      expected: parseIdentity("carol@alpha.test"),
      spoil: () => undefined,
    },
  ],
  [
    "broken signature",
    { reason: "path-invalid", alert: 42, who: () => credentials("signature"), before: pinned, spoil: underTheRoot },
  ],
  [
    "too long path",
    {
      reason: "path-invalid",
      alert: 42,
      who: () => credentials("path-length"),
      before: pinned,
      resumed: CHAINLESS,
      spoil: underTheRoot,
    },
  ],
  [
    "name-constraint violation",
    {
      reason: "path-invalid",
      alert: 42,
      who: () => credentials("name-constraints"),
      before: pinned,
      expected: parseIdentity("alice@beta.test"),
      spoil: underTheRoot,
    },
  ],
  [
    "CA bit missing",
    {
      reason: "path-invalid",
      alert: 42,
      who: () => credentials("not-a-ca"),
      before: pinned,
      resumed: CHAINLESS,
      spoil: underTheRoot,
    },
  ],
];

interface Seen {
  alert: number;
  tickets: number;
  bytes: number;
  reused: boolean;
}

/** Node as the client, talking at once; refused ones end by the alert, admitted ones at the welcome. */
function nodeClient(port: number, as: TestCredentials, session?: Buffer): Promise<Seen & { session?: Buffer }> {
  return new Promise((resolve) => {
    const seen: Seen & { session?: Buffer } = { alert: 0, tickets: 0, bytes: 0, reused: false };
    const socket = connect({
      host: "::1",
      port,
      ALPNProtocols: ["sip/2"],
      rejectUnauthorized: false,
      ...pair(as),
      ...(session === undefined ? {} : { session }),
    });
    const enough = () => {
      if (seen.bytes > 0 && seen.tickets > 0) socket.end(); // in either order
    };
    socket.on("session", (ticket: Buffer) => {
      seen.tickets += 1;
      seen.session = ticket;
      enough();
    });
    socket.on("secureConnect", () => {
      seen.reused = socket.isSessionReused();
      socket.write("hello");
    });
    socket.on("data", (chunk: Buffer) => {
      seen.bytes += chunk.length;
      enough();
    });
    socket.on("error", (error) => {
      seen.alert = alertNumber(error) ?? -1;
    });
    socket.on("close", () => resolve(seen));
  });
}

async function opensslClient(folder: string, port: number, as: TestCredentials, session?: "out" | "in"): Promise<Seen> {
  const files = pemFiles(folder, "client", as);
  const file = join(folder, "session.pem");
  const kept = session === "out" ? ["-sess_out", file] : session === "in" ? ["-sess_in", file] : [];
  const shown = ["-cert", files.certificate, "-key", files.key, "-cert_chain", files.chain];
  const args = ["s_client", "-connect", `[::1]:${port}`, "-alpn", "sip/2", ...shown, "-msg", "-ign_eof", ...kept];
  const how = { input: "hello\n", until: /welcome|alert number|errno|closed/, timeoutMs: 6_000 };
  const { output } = await openssl(args, how);
  return {
    alert: Number(/SSL alert number (\d+)/.exec(output)?.[1] ?? "0"),
    tickets: (output.match(/NewSessionTicket/g) ?? []).length,
    bytes: output.includes("welcome") ? 7 : 0,
    reused: /^Reused, /m.test(output),
  };
}

function pair({ certificate, chain, privateKey }: TestCredentials) {
  return {
    cert: [certificate, ...chain].map((one) => derToPem(one.der, "CERTIFICATE")).join(""),
    key: privateKey.export({ type: "pkcs8", format: "pem" }),
  };
}

/** What the log and the numbers say of the last handshake. */
async function told(
  world: World,
  role: "server" | "client",
): Promise<{ reason: unknown; counted: number; resumed: number }> {
  const line = world.log.lines.findLast(({ message }) => message === "peer denied");
  const reason = line?.fields["reason"];
  const metrics = await world.registry.metrics();
  const counter = new RegExp(
    `^peertls_handshakes_total\\{role="${role}",protocol="\\w+",result="denied",reason="${String(reason)}"\\} (\\d+)$`,
    "m",
  );
  const resumed = new RegExp(`^peertls_handshake_seconds_count\\{role="${role}",resumed="true"\\} (\\d+)$`, "m");
  return {
    reason,
    counted: Number(counter.exec(metrics)?.[1] ?? 0),
    resumed: Number(resumed.exec(metrics)?.[1] ?? 0),
  };
}

const REFUSED = { tickets: 0, bytes: 0 };
const accepted = cases.filter(([, { only }]) => only !== "dialled");
const dialled = cases.filter(([, { only }]) => only !== "accepted");

describe("accepted", () => {
  test.each(accepted)(
    "%s: alert, no ticket, no byte, the reason in log and numbers; full and resumed",
    async (_name, one) => {
      await using folder = await temporaryFolder();
      const full = await makeWorld();
      const who = one.who();
      await one.spoil(full, who);
      expect(await nodeClient(full.port, who)).toMatchObject({ ...REFUSED, alert: one.alert });
      expect(await opensslClient(folder.path, full.port, who)).toMatchObject({ ...REFUSED, alert: one.alert });
      expect(await told(full, "server")).toMatchObject({ reason: one.reason, counted: 2 });
      expect(full.received).toEqual([]);
      await full.close();

      if (one.before === undefined) return;
      const resumed = await makeWorld();
      resumed.rules(one.before(who));
      revoked = undefined;
      const first = await nodeClient(resumed.port, who);
      expect(first).toMatchObject({ alert: 0, bytes: 7 });
      expect(await opensslClient(folder.path, resumed.port, who, "out")).toMatchObject({ alert: 0, bytes: 7 });
      await one.spoil(resumed, who);
      resumed.received.length = 0;
      const { alert, reason } = one.resumed ?? one;
      expect(await nodeClient(resumed.port, who, first.session)).toMatchObject({
        ...REFUSED,
        alert,
        reused: true,
      });
      const again = await opensslClient(folder.path, resumed.port, who, "in");
      expect(again).toMatchObject({ ...REFUSED, alert });
      expect(await told(resumed, "server")).toMatchObject({ reason, counted: 2, resumed: 2 });
      expect(resumed.received).toEqual([]);
      await resumed.close();
    },
  );

  test("no certificate: alert 116 of TLS itself, no ticket, no byte", async () => {
    const world = await makeWorld();
    const socket = connect({ host: "::1", port: world.port, ALPNProtocols: ["sip/2"], rejectUnauthorized: false });
    let tickets = 0;
    socket.on("session", () => {
      tickets += 1;
    });
    socket.write("hello");
    const [error] = (await once(socket, "error")) as [Error];
    expect(alertNumber(error)).toBe(116);
    expect(tickets).toBe(0);
    expect(world.received).toEqual([]);
    expect(await told(world, "server")).toMatchObject({ reason: "no-certificate", counted: 1, resumed: 0 });
    await world.close();
  });
});

interface Called {
  port: number;
  alerts: number[];
  bytes: number;
  secured: number;
  close(): Promise<void>;
}

/** Node as the server that we dial. */
async function nodeServer(as: TestCredentials): Promise<Called> {
  const called: Called = { port: 0, alerts: [], bytes: 0, secured: 0, close: () => Promise.resolve() };
  const options = { ...pair(as), requestCert: true, rejectUnauthorized: false, ALPNProtocols: ["sip/2"] };
  const open = new Set<TLSSocket>();
  const server = createServer(options, (socket) => {
    called.secured += 1;
    open.add(socket);
    socket.on("data", (chunk: Buffer) => {
      called.bytes += chunk.length;
    });
    socket.on("error", () => undefined);
    socket.write("welcome");
  });
  const alerted = (error: Error) => called.alerts.push(alertNumber(error) ?? -1);
  server.on("tlsClientError", alerted);
  await new Promise<void>((resolve) => server.listen(0, "::1", resolve));
  called.port = (server.address() as { port: number }).port;
  called.close = async () => {
    for (const socket of open) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  };
  return called;
}

/** openssl as the server that we dial: the alert that it got, and whether it was shown a certificate. */
async function opensslServer(
  folder: string,
  as: TestCredentials,
  call: (port: number) => Promise<string>,
): Promise<{ alert: number; shown: boolean }> {
  const files = pemFiles(folder, "server", as);
  const own = ["-cert", files.certificate, "-key", files.key, "-cert_chain", files.chain, "-alpn", "sip/2"];
  const how = ["-accept", "[::1]:0", "-Verify", "3", "-msg", "-tls1_3", "-naccept", "1"];
  const server = spawn("openssl", ["s_server", ...own, ...how]);
  let output = "";
  const listening = Promise.withResolvers<number>();
  const take = (chunk: Buffer) => {
    output += chunk.toString("latin1");
    const port = /ACCEPT \[::1\]:(\d+)/.exec(output)?.[1];
    if (port !== undefined) listening.resolve(Number(port));
  };
  server.stdout.on("data", take);
  server.stderr.on("data", take);
  const ended = once(server, "close");
  expect(CODES).toContain(await call(await listening.promise));
  await ended;
  return {
    alert: Number(/SSL alert number (\d+)/.exec(output)?.[1]),
    shown: /<<< TLS 1\.3, Handshake \[length [0-9a-f]+\], Certificate$/m.test(output),
  };
}

/** The code of the failure. */
async function refusal(world: World, port: number, who: TestCredentials, expected: Identity): Promise<string> {
  try {
    (await dial(world, port, who, expected)).destroy();
    return "admitted";
  } catch (error) {
    return error instanceof SuiteError ? error.code : String(error);
  }
}

function dial(world: World, port: number, who: TestCredentials, expected: Identity) {
  const whom = { identity: expected, fingerprints: [who.certificate.fingerprint] };
  const route = { kind: "direct" as const, address: { host: "::1", port } };
  return world.core.dial(whom, "sip", [route], AbortSignal.timeout(10_000));
}

/** What whoever dialled is told. */
const CODES = ["certificate-invalid", "identity-mismatch", "refused-by-policy"];

describe("dialled", () => {
  test.each(dialled)(
    "%s: alert, our certificate not shown, no byte, the reason in log and numbers; full and resumed",
    async (_name, one) => {
      await using folder = await temporaryFolder();
      const who = one.who();
      const whom = one.expected ?? PEER;
      const full = await makeWorld();
      await one.spoil(full, who);
      const called = await nodeServer(who);
      expect(CODES).toContain(await refusal(full, called.port, who, whom));
      await expect.poll(() => called.alerts).toEqual([one.alert]);
      expect(called).toMatchObject({ bytes: 0, secured: 0 });
      expect(await told(full, "client")).toMatchObject({ reason: one.reason, counted: 1 });

      const { alert, shown } = await opensslServer(folder.path, who, (port) => refusal(full, port, who, whom));
      expect({ alert, shown }).toEqual({ alert: one.alert, shown: false });
      await full.close();
      await called.close();

      if (one.before === undefined) return;
      const resumed = await makeWorld();
      resumed.rules(one.before(who));
      revoked = undefined;
      const again = await nodeServer(who);
      const owner = one.reason === "identity-mismatch" ? PEER : whom;
      const first = await dial(resumed, again.port, who, owner);
      await once(first.stream, "data");
      first.destroy();
      await one.spoil(resumed, who);
      const { alert: resumedAlert, reason } = one.resumed ?? one;
      expect(CODES).toContain(await refusal(resumed, again.port, who, whom));
      await expect.poll(() => again.alerts).toEqual([resumedAlert]);
      expect(again).toMatchObject({ bytes: 0, secured: 1 });
      expect(await told(resumed, "client")).toMatchObject({ reason, counted: 1, resumed: 1 });
      await resumed.close();
      await again.close();
    },
  );
});
