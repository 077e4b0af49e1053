import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as connectTcp, createServer } from "node:net";
import { connect } from "node:tls";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import type { Denial } from "../../src/peertls-core/door.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { openssl, pemFiles, temporaryFolder } from "../support/openssl.ts";
import { makeTestDomain, type TestCredentials } from "../support/pki.ts";
import { recordLog } from "../support/record-log.ts";
import { failureOf } from "../support/smime.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const [alice, bob] = [alpha.person({ identity: "alice@alpha.test" }), alpha.person({ identity: "bob@alpha.test" })];
const stranger = alpha.person({ identity: "carol@alpha.test" });
const mallory = makeTestDomain({ domain: "gamma.test" }).person({ identity: "mallory@gamma.test" });
const folder = temporaryFolder();
const log = recordLog();
const denials: Denial[] = [];
let core: PeerTls;
let ports: { sip: number; smtp: number };

async function makeCore(): Promise<PeerTls> {
  const anchor = {
    ...alpha.anchor,
    domains: ["alpha.test"],
    organisations: [],
    identitiesFrom: ["rfc822Name"] as const,
  };
  const trust = new Trust({
    ...{ anchors: [anchor], block: [], allow: [], rules: [], otherwise: "contacts", requestsOnPort: true },
    contacts: [alice.identity],
  });
  const made = await makePeerTls({
    ...{ credentials: bob.auth, trust, clock: () => new Date(), random: randomBytes, log },
    limits: { pendingPerPrefix: 4, acceptBurst: 1_000 },
    requestSink: () => Promise.resolve("kept"),
    onDenied: (denial) => denials.push(denial),
  });
  const accept = (connection: PeerConnection) => {
    connection.stream.on("error", () => undefined);
    connection.stream.write(`welcome to ${connection.protocol}, ${connection.identity}\n`);
  };
  for (const protocol of ["sip", "smtp", "ftps"] as const) made.onPeer(protocol, accept);
  return made;
}

beforeAll(async () => {
  core = await makeCore();
  const open = async (protocol: "sip" | "smtp") => (await core.listenClassic({ host: "::1", port: 0 }, protocol)).port;
  ports = { sip: await open("sip"), smtp: await open("smtp") };
});
beforeEach(() => void denials.splice(0));
afterAll(async () => {
  await core.close();
  folder[Symbol.dispose]();
});

/** openssl as the client. */
async function visit(port: number, as: TestCredentials | undefined, ...extra: string[]) {
  const files = as === undefined ? undefined : pemFiles(folder.path, randomBytes(4).toString("hex"), as);
  const shown = files === undefined ? [] : ["-cert", files.certificate, "-key", files.key, "-cert_chain", files.chain];
  const args = ["s_client", "-connect", `[::1]:${port}`, ...shown, "-msg", "-ign_eof", ...extra];
  const { output } = await openssl(args, {
    input: "hello\n",
    until: /welcome|alert number|closed|errno/,
    timeoutMs: 6_000,
  });
  return /SSL alert number \d+/.exec(output)?.[0] ?? /welcome.*/.exec(output)?.[0];
}

test.each<[string, "sip" | "smtp", string[], string]>([
  ["without ALPN", "sip", [], "welcome to sip, alice@alpha.test"],
  ["without ALPN", "smtp", [], "welcome to smtp, alice@alpha.test"],
  ["with sip/2", "sip", ["-alpn", "sip/2"], "welcome to sip, alice@alpha.test"],
  ["with its name among others", "smtp", ["-alpn", "h2,smtp"], "welcome to smtp, alice@alpha.test"],
  ["with smtp", "sip", ["-alpn", "smtp"], "SSL alert number 120"],
  ["with sip/2", "smtp", ["-alpn", "sip/2"], "SSL alert number 120"],
  ["with ftp-data", "sip", ["-alpn", "ftp-data"], "SSL alert number 120"],
  ["with a request to be admitted", "sip", ["-alpn", "peertls-request/1"], "SSL alert number 120"],
  ["with TLS 1.2", "sip", ["-tls1_2"], "SSL alert number 70"],
])("a contact %s at the port of %s", async (_how, protocol, extra, seen) => {
  expect(await visit(ports[protocol], alice.auth, ...extra)).toBe(seen);
  expect(denials).toEqual([]);
});

test.each<[string, () => TestCredentials | undefined, string, Denial["reason"] | undefined]>([
  ["a person who is no contact", () => stranger.auth, "SSL alert number 49", "not-admitted"],
  ["somebody of an unknown CA", () => mallory.auth, "SSL alert number 48", "issuer-unknown"],
  ["nobody", () => undefined, "SSL alert number 116", undefined],
])("%s is refused there as anywhere", async (_who, who, seen, reason) => {
  expect(await visit(ports.smtp, who())).toBe(seen);
  if (reason !== undefined) expect(denials).toMatchObject([{ reason, protocol: "smtp" }]);
});

test("a client of Node's talks there both ways", async () => {
  const { privateKey, certificate, chain } = alice.auth;
  const socket = connect({
    ...{ host: "::1", port: ports.sip, rejectUnauthorized: false },
    key: privateKey.export({ type: "pkcs8", format: "pem" }),
    cert: [certificate, ...chain].map(({ der }) => derToPem(der, "CERTIFICATE")).join(""),
  });
  const [said] = (await once(socket, "data")) as [Buffer];
  expect(said.toString()).toBe("welcome to sip, alice@alpha.test\n");
  expect(core.connections.at(-1)).toMatchObject({ protocol: "sip", direction: "in", identity: "alice@alpha.test" });
  socket.destroy();
});

test.runIf(process.platform === "linux")(
  "the kernel asks after 90 s of silence whether who came is still there",
  async () => {
    const socket = connectTcp({ host: "::1", port: ports.sip });
    await once(socket, "connect");
    const end = (port: number | undefined) => new RegExp(`:${(port ?? 0).toString(16).padStart(4, "0")}$`, "i");
    const [ours, theirs] = [end(ports.sip), end(socket.localPort)];
    /** The timer of the accepted end, `02` if it is that of keepalive, and its seconds. */
    const timer = () => {
      const rows = readFileSync("/proc/net/tcp6", "utf8")
        .split("\n")
        .map((line) => line.trim().split(/\s+/));
      const row = rows.find(([, local = "", remote = ""]) => ours.test(local) && theirs.test(remote));
      const [kind, hundredths = ""] = row?.[5]?.split(":") ?? [];
      return [kind, Math.ceil(Number.parseInt(hundredths, 16) / 1_000) * 10];
    };
    await expect.poll(timer).toEqual(["02", 90]);
    socket.destroy();
  },
);

test("the peer port goes on to refuse who names no protocol, and is not what a classic port is", async () => {
  expect(core.address).toBeUndefined();
  const { port } = await core.listen({ host: "::1", port: 0 });
  expect(core.address?.port).toBe(port);
  expect(await visit(port, alice.auth)).toBe("SSL alert number 120");
  expect(await visit(port, alice.auth, "-alpn", "smtp")).toBe("welcome to smtp, alice@alpha.test");
});

test("the limits hold there: of many who say nothing, one address keeps some only", async () => {
  const sockets = Array.from({ length: 6 }, () => connectTcp({ host: "::1", port: ports.smtp }));
  const reset = sockets.map((socket) => new Promise<void>((done) => socket.once("error", () => done())));
  const two = Promise.withResolvers<void>();
  let count = 0;
  for (const one of reset) void one.then(() => (++count === 2 ? two.resolve() : undefined));
  await two.promise;
  expect(sockets.filter(({ destroyed }) => !destroyed)).toHaveLength(4);
  for (const socket of sockets) socket.destroy();
});

test("what is open is told, and closed with the rest", async () => {
  const other = await makeCore();
  const { port } = await other.listenClassic({ host: "::1", port: 0 }, "sip");
  expect(log.lines).toContainEqual({
    level: "info",
    fields: { address: { host: "::1", port }, protocol: "sip" },
    message: "classic port open",
  });
  await other.close();
  const again = createServer().listen(port, "::1");
  await once(again, "listening");
  again.close();
});

test("a port that is taken is told as such", async () => {
  const failure = await failureOf(core.listenClassic({ host: "::1", port: ports.sip }, "smtp"));
  expect(failure).toMatchObject({ code: "config-invalid", details: { why: "another program uses this port" } });
});
