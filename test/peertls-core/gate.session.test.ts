import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import type { Denial } from "../../src/peertls-core/door.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import type { TrustRules } from "../../src/peertls-core/policy.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { silentLog } from "../../src/pki/log.ts";
import { openssl, pemFiles, temporaryFolder } from "../support/openssl.ts";
import { makeCa, makeTestDomain, type TestCredentials } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const gamma = makeTestDomain({ domain: "gamma.test" });
const alice = alpha.person({ identity: "alice@alpha.test" });
const bob = alpha.person({ identity: "bob@alpha.test" });
const folder = temporaryFolder();
const sources = ["rfc822Name", "emailAddress", "uid", "sipUri", "smtpUtf8"] as const;

function rules(change: Partial<TrustRules> = {}): TrustRules {
  const anchor = {
    name: "alpha",
    certificate: alpha.root.certificate,
    domains: ["alpha.test"],
    organisations: [],
    identitiesFrom: sources,
  };
  return {
    anchors: [anchor],
    block: [],
    allow: [],
    rules: [],
    otherwise: "contacts",
    contacts: [alice.identity],
    requestsOnPort: true,
    ...change,
  };
}

interface Running {
  core: PeerTls;
  trust: Trust;
  denials: Denial[];
  received: Buffer[];
  port: number;
}

async function start(credentials: TestCredentials, change: Partial<TrustRules> = {}): Promise<Running> {
  const trust = new Trust(rules(change));
  const denials: Denial[] = [];
  const received: Buffer[] = [];
  const core = await makePeerTls({
    credentials,
    trust,
    clock: () => new Date(),
    random: randomBytes,
    log: silentLog,
    onDenied: (denial) => denials.push(denial),
  });
  core.onPeer("sip", (connection) => {
    connection.stream.on("error", () => undefined);
    connection.stream.on("data", (chunk: Buffer) => received.push(chunk));
    connection.stream.write("welcome");
  });
  const { port } = await core.listen({ host: "::1", port: 0 });
  return { core, trust, denials, received, port };
}

let node: Running;
beforeAll(async () => {
  node = await start(bob.auth);
});
afterAll(async () => {
  await node.core.close();
  folder[Symbol.dispose]();
});

/** openssl as the client, talking at once. */
async function visit(port: number, as: TestCredentials | undefined, extra: readonly string[] = []) {
  const files = as === undefined ? undefined : pemFiles(folder.path, randomBytes(4).toString("hex"), as);
  const shown = files === undefined ? [] : ["-cert", files.certificate, "-key", files.key, "-cert_chain", files.chain];
  const alpn = extra.includes("-alpn") ? [] : ["-alpn", "sip/2"];
  const args = ["s_client", "-connect", `[::1]:${port}`, ...alpn, ...shown, "-msg", "-ign_eof", ...extra];
  const { output } = await openssl(args, {
    input: "hello\n",
    until: /welcome|alert number|closed|errno/,
    timeoutMs: 6_000,
  });
  return {
    alert: Number(/SSL alert number (\d+)/.exec(output)?.[1] ?? "0"),
    tickets: (output.match(/NewSessionTicket/g) ?? []).length,
    welcomed: output.includes("welcome"),
    reused: /^Reused, /m.test(output),
  };
}

describe("a peer that may not come in gets one alert, no ticket and no application byte", () => {
  const cases: [string, () => TestCredentials | undefined, number, string][] = [
    ["unknown CA", () => gamma.person({ identity: "mallory@gamma.test" }).auth, 48, "issuer-unknown"],
    ["expired", () => alpha.bad("expired", "alice@alpha.test"), 45, "expired"],
    ["not yet valid", () => alpha.bad("not-yet-valid", "alice@alpha.test"), 45, "not-yet-valid"],
    ["codeSigning only", () => alpha.bad("code-signing-only", "alice@alpha.test"), 43, "purpose"],
    ["stranger", () => alpha.person({ identity: "carol@alpha.test" }).auth, 49, "not-admitted"],
    ["no certificate", () => undefined, 116, "no-certificate"],
  ];
  test.each(cases)("%s", async (_name, who, alert, reason) => {
    node.denials.length = 0;
    node.received.length = 0;
    const seen = await visit(node.port, who());
    expect(seen).toEqual({ alert, tickets: 0, welcomed: false, reused: false });
    expect(node.denials.map((denial) => denial.reason)).toEqual([reason]);
    expect(Buffer.concat(node.received).length).toBe(0);
  });

  test("block-listed by name, by key and by domain", async () => {
    const entries = [
      { identity: "alice@alpha.test" },
      { fingerprint: `sha256:${alice.auth.certificate.fingerprint}` },
      { domain: "alpha.test" },
    ];
    for (const entry of entries) {
      node.trust.replace(rules({ block: [entry], allow: [{ identity: "alice@alpha.test" }] }));
      expect(await visit(node.port, alice.auth)).toEqual({ alert: 49, tickets: 0, welcomed: false, reused: false });
    }
    node.trust.replace(rules());
  });

  test("a name that the anchor may not vouch for", async () => {
    node.trust.replace(
      rules({ anchors: [{ ...(rules().anchors[0] as TrustRules["anchors"][number]), domains: ["other.test"] }] }),
    );
    expect((await visit(node.port, alice.auth)).alert).toBe(46);
    node.trust.replace(rules());
  });

  test("a protocol that nobody serves is refused with 120", async () => {
    expect((await visit(node.port, alice.auth, ["-alpn", "h2"])).alert).toBe(120);
  });
});

test.each([
  ["AUTH profile", () => alice.auth],
  ["clientAuth only", () => alpha.bad("client-auth-only", "alice@alpha.test")],
  ["emailProtection only", () => alpha.bad("email-protection-only", "alice@alpha.test")],
  ["no extended key usage", () => alpha.bad("no-extended-usage", "alice@alpha.test")],
  ["RSA", () => alpha.bad("rsa", "alice@alpha.test")],
  ["Ed25519", () => alpha.bad("ed25519", "alice@alpha.test")],
])("a contact is admitted with a certificate: %s", async (_name, who) => {
  const seen = await visit(node.port, who());
  expect(seen.alert).toBe(0);
  expect(seen.welcomed).toBe(true);
});

test("a resumed session is judged again: block-listed in between, it gets 49 and no ticket", async () => {
  const session = join(folder.path, "session.pem");
  const first = await visit(node.port, alice.auth, ["-sess_out", session]);
  expect(first.welcomed).toBe(true);
  const again = await visit(node.port, alice.auth, ["-sess_in", session]);
  expect(again).toMatchObject({ reused: true, welcomed: true });
  node.trust.replace(rules({ block: [{ identity: "alice@alpha.test" }] }));
  node.received.length = 0;
  expect(await visit(node.port, alice.auth, ["-sess_in", session])).toEqual({
    alert: 49,
    tickets: 0,
    welcomed: false,
    reused: true,
  });
  expect(Buffer.concat(node.received).length).toBe(0);
  node.trust.replace(rules());
});

test("an open connection is closed as soon as its peer is block-listed", async () => {
  const other = await start(alice.auth);
  const accepted = new Promise<PeerConnection>((resolve) => node.core.onConnected(resolve));
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const route = { kind: "direct" as const, address: { host: "::1", port: node.port } };
  const connection = await other.core.dial(expected, "sip", [route], AbortSignal.timeout(5_000));
  await connection.confirmed;
  expect((await accepted).identity).toBe("alice@alpha.test");
  const closed = once(connection.stream, "close");
  connection.stream.on("error", () => undefined).resume();
  node.trust.replace(rules({ block: [{ identity: "alice@alpha.test" }] }));
  await closed;
  node.trust.replace(rules());
  await other.core.close();
});

test("dialling: a denied dialler learns refused-by-peer by `confirmed`, not success", async () => {
  const stranger = await start(alpha.person({ identity: "carol@alpha.test" }).auth);
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const route = { kind: "direct" as const, address: { host: "::1", port: node.port } };
  const connection = await stranger.core.dial(expected, "sip", [route], AbortSignal.timeout(5_000));
  await expect(connection.confirmed).rejects.toMatchObject({ code: "refused-by-peer", temporary: false });
  await stranger.core.close();
});

test("dialling: a dead route does not hinder the next, and a wrong person at an old address is passed over", async () => {
  const dialler = await start(alice.auth);
  const wrong = await start(alpha.person({ identity: "carol@alpha.test" }).auth);
  const dead = createServer();
  await new Promise<void>((resolve) => dead.listen(0, "::1", resolve));
  const { port: deadPort } = dead.address() as { port: number };
  await new Promise((resolve) => dead.close(resolve));
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const routes = [deadPort, wrong.port, node.port].map((port) => ({
    kind: "direct" as const,
    address: { host: "::1", port },
  }));
  const connection = await dialler.core.dial(expected, "sip", routes, AbortSignal.timeout(10_000));
  expect(connection.address.port).toBe(node.port);
  await connection.confirmed;
  await expect(
    dialler.core.dial(expected, "sip", routes.slice(0, 2), AbortSignal.timeout(10_000)),
  ).rejects.toMatchObject({ code: "identity-mismatch" });
  await dialler.core.close();
  await wrong.core.close();
});

test("addresses of private networks are not dialled: nothing is sent to what a stranger's record names there", async () => {
  const guarded = await makePeerTls({
    credentials: alice.auth,
    trust: new Trust(rules()),
    clock: () => new Date(),
    random: randomBytes,
    log: silentLog,
    mayDial: () => false,
  });
  const before = node.received.length;
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const route = { kind: "direct" as const, address: { host: "::1", port: node.port } };
  const refused = { code: "unreachable", temporary: true, details: { hosts: "::1" } };
  await expect(guarded.dial(expected, "sip", [route], AbortSignal.timeout(5_000))).rejects.toMatchObject(refused);
  await expect(guarded.sendRequest(expected, [route], "x", AbortSignal.timeout(5_000))).rejects.toMatchObject(refused);
  expect(node.received.length).toBe(before);
  await guarded.close();
});

test("what a record shows beside its leaf pushes nobody's issuer out", async () => {
  const dialler = await start(alice.auth);
  const intermediates = Array.from({ length: 1_001 }, () => makeCa("nobody", new Date()).certificate);
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint], intermediates };
  const route = { kind: "direct" as const, address: { host: "::1", port: node.port } };
  for (let n = 0; n < 2; n += 1)
    (await dialler.core.dial(expected, "sip", [route], AbortSignal.timeout(5_000))).destroy();
  const another = alpha.person({ identity: "carol@alpha.test" }).auth.certificate;
  expect(dialler.trust.paths.find(another, [], new Date())).toMatchObject({ ok: true });
  await dialler.core.close();
});

test("dialling openssl s_server with the wrong person: our alert, and our certificate is never sent", async () => {
  const dialler = await start(alice.auth);
  const files = pemFiles(folder.path, "carol", alpha.person({ identity: "carol@alpha.test" }).auth);
  const server = spawn("openssl", [
    "s_server",
    "-accept",
    "[::1]:0",
    "-cert",
    files.certificate,
    "-key",
    files.key,
    "-cert_chain",
    files.chain,
    "-Verify",
    "3",
    "-msg",
    "-naccept",
    "1",
    "-tls1_3",
    "-alpn",
    "sip/2",
  ]);
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
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const route = { kind: "direct" as const, address: { host: "::1", port: await listening.promise } };
  await expect(dialler.core.dial(expected, "sip", [route], AbortSignal.timeout(5_000))).rejects.toMatchObject({
    code: "identity-mismatch",
    details: { reason: "identity-mismatch" },
  });
  await ended;
  expect(output).toMatch(/SSL alert number 42/);
  expect(output).not.toMatch(/<<< TLS 1\.3, Handshake \[length [0-9a-f]+\], Certificate$/m);
  await dialler.core.close();
});
