import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { connect as connectTcp, createServer, type Server, type Socket } from "node:net";
import { connect, TLSSocket } from "node:tls";
import { type Certificate, parseCertificate } from "../pki/certificate.ts";
import { parseIdentity } from "../pki/identity.ts";
import { type Log, silentLog } from "../pki/log.ts";
import { issueAuth, issueIssuingCa, issueRoot } from "../pki/profile.ts";
import { asSuiteError } from "../pki/suite-error.ts";
import { type Credentials, peerSecureContext } from "./credentials.ts";
import type { Door } from "./door.ts";
import { Gate } from "./gate.ts";
import { DEFAULT_LIMITS } from "./limits.ts";
import { alertNumber } from "./peer-failure.ts";
import type { TrustRules } from "./policy.ts";
import { Trust } from "./trust.ts";

export type SelfTestName =
  | "server-denies"
  | "server-denies-resumed"
  | "client-denies"
  | "intermediates-visible"
  | "untrusted-gets-nothing";

export interface SelfTest {
  /** `plain`: the alert records do not work on this Node; a refusal is a bare close. */
  denial: "alert" | "plain";
  /** Whether a peer port may be opened. */
  mayListen: boolean;
  failed: readonly SelfTestName[];
}

const DOMAIN = "selftest.invalid";
const HOST = "127.0.0.1";
const TIMEOUT_MS = 5_000;

/**
 * Proves the gate on this very machine and Node, with throw-away keys on loopback, before any port opens: that a refusal
 * is a TLS alert with nothing before or behind it, and that nobody untrusted is served.
 */
export async function selfTest(log: Log): Promise<SelfTest> {
  const people = makePeople();
  const failed: SelfTestName[] = [];
  const check = async (name: SelfTestName, run: () => Promise<boolean>) => {
    const passed = await run().catch((error: unknown) => {
      log.error({ test: name, error: asSuiteError(error) }, "self-test of the gate threw");
      return false;
    });
    if (!passed) failed.push(name);
  };
  await check("server-denies", () => serverDenies(people));
  await check("server-denies-resumed", () => serverDeniesResumed(people));
  await check("client-denies", () => clientDenies(people));
  await check("intermediates-visible", () => intermediatesVisible(people));
  await check("untrusted-gets-nothing", () => untrustedGetsNothing(people));
  const mayListen = !failed.includes("intermediates-visible") && !failed.includes("untrusted-gets-nothing");
  const denial = failed.some((name) => name.endsWith("denies") || name === "server-denies-resumed") ? "plain" : "alert";
  if (failed.length > 0) log.error({ failed }, "the gate's self-test failed");
  return { denial, mayListen, failed };
}

interface People {
  root: Certificate;
  alice: Credentials;
  bob: Credentials;
  /** Of another root. */
  stranger: Credentials;
}

function makePeople(): People {
  const now = new Date();
  const key = () => generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
  const spki = (privateKey: KeyObject) => createPublicKey(privateKey).export({ type: "spki", format: "der" });
  const serial = () => randomBytes(16);
  const domain = () => {
    const rootKey = key();
    const root = parseCertificate(issueRoot({ domain: DOMAIN, privateKey: rootKey, now, serial: serial() }));
    const caKey = key();
    const issuer = { certificate: root, privateKey: rootKey };
    const ca = parseCertificate(issueIssuingCa({ domain: DOMAIN, issuer, spki: spki(caKey), now, serial: serial() }));
    const person = (name: string): Credentials => {
      const privateKey = key();
      const identity = parseIdentity(`${name}@${DOMAIN}`);
      const der = issueAuth({
        issuer: { certificate: ca, privateKey: caKey },
        spki: spki(privateKey),
        identity,
        name,
        now,
        serial: serial(),
      });
      return { privateKey, certificate: parseCertificate(der), chain: [ca] };
    };
    return { root, person };
  };
  const own = domain();
  return { root: own.root, alice: own.person("alice"), bob: own.person("bob"), stranger: domain().person("mallory") };
}

function rulesFor(people: People, admitted: boolean): TrustRules {
  const anchor = {
    name: "self-test",
    certificate: people.root,
    domains: [DOMAIN],
    organisations: [],
    identitiesFrom: ["rfc822Name"] as const,
  };
  const rules = admitted ? [{ issuer: "self-test" }] : [];
  return { anchors: [anchor], block: [], allow: [], rules, otherwise: "deny", contacts: [], requestsOnPort: false };
}

function gateFor(credentials: Credentials, rules: TrustRules): { gate: Gate; trust: Trust } {
  const trust = new Trust(rules);
  return {
    gate: new Gate({
      credentials,
      trust,
      limits: DEFAULT_LIMITS,
      clock: () => new Date(),
      random: randomBytes,
      log: silentLog,
    }),
    trust,
  };
}

const DOOR: Door = {
  choose: (offered) =>
    offered.includes("sip/2") ? { alpn: "sip/2", purpose: { kind: "protocol", protocol: "sip" } } : undefined,
  admitted: (connection) => connection.stream.write("admitted"),
};

interface Seen {
  alert: number | undefined;
  tickets: Buffer[];
  bytes: number;
  resumed: boolean;
}

/** What an ordinary TLS client sees that talks at once. */
async function visit(at: number, as: Credentials, session?: Buffer): Promise<Seen> {
  const raw = await tcp(at);
  return new Promise((resolve) => {
    const seen: Seen = { alert: undefined, tickets: [], bytes: 0, resumed: false };
    const socket = connect({
      socket: raw,
      secureContext: peerSecureContext(as),
      rejectUnauthorized: false,
      ALPNProtocols: ["sip/2"],
      host: "self-test",
      ...(session === undefined ? {} : { session }),
    });
    const timer = setTimeout(() => socket.destroy(), TIMEOUT_MS);
    socket.on("secureConnect", () => {
      seen.resumed = socket.isSessionReused();
      socket.write("early");
    });
    socket.on("session", (ticket: Buffer) => seen.tickets.push(ticket));
    socket.on("data", (chunk: Buffer) => {
      seen.bytes += chunk.length;
      socket.destroy(); // tickets came before
    });
    socket.on("error", (error) => {
      seen.alert ??= alertNumber(error);
    });
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(seen);
    });
  });
}

async function serverDenies(people: People): Promise<boolean> {
  const { gate } = gateFor(people.bob, rulesFor(people, false));
  return withServer(
    (raw) => gate.accept(raw, DOOR),
    async (port) => {
      const seen = await visit(port, people.alice);
      return seen.alert === 49 && seen.tickets.length === 0 && seen.bytes === 0;
    },
  );
}

async function serverDeniesResumed(people: People): Promise<boolean> {
  const { gate, trust } = gateFor(people.bob, rulesFor(people, true));
  return withServer(
    (raw) => gate.accept(raw, DOOR),
    async (port) => {
      const first = await visit(port, people.alice);
      const ticket = first.tickets.at(-1);
      if (ticket === undefined || first.bytes === 0) return false;
      trust.replace(rulesFor(people, false));
      const second = await visit(port, people.alice, ticket);
      return second.alert === 49 && second.tickets.length === 0 && second.bytes === 0;
    },
  );
}

/** The server's side of a dial to somebody who is not whom we expect: our alert, and never our certificate. */
async function clientDenies(people: People): Promise<boolean> {
  const { gate } = gateFor(people.alice, rulesFor(people, true));
  const { promise, resolve } = Promise.withResolvers<boolean>();
  return withServer(
    (raw) => {
      const context = peerSecureContext(people.stranger);
      const socket = new TLSSocket(raw, {
        isServer: true,
        secureContext: context,
        requestCert: true,
        rejectUnauthorized: false,
        ALPNProtocols: ["sip/2"],
      });
      socket.on("error", (error) =>
        resolve(alertNumber(error) === 48 && socket.getPeerX509Certificate() === undefined),
      );
      socket.on("close", () => resolve(false));
    },
    async (port) => {
      const expected = { identity: parseIdentity(`bob@${DOMAIN}`), fingerprints: [people.bob.certificate.fingerprint] };
      const options = { expected, alpn: "sip/2", purpose: { kind: "protocol", protocol: "sip" } as const };
      const refused = await gate.connect(await tcp(port), options, AbortSignal.timeout(TIMEOUT_MS)).then(
        () => false,
        () => true,
      );
      return refused && (await promise);
    },
  );
}

/** Node 24.21 loses the intermediates that a client sends (nodejs/node#65579): then nobody could be judged. */
async function intermediatesVisible(people: People): Promise<boolean> {
  const { gate } = gateFor(people.bob, rulesFor(people, true));
  return withServer(
    (raw) => gate.accept(raw, DOOR),
    async (port) => (await visit(port, people.alice)).bytes > 0,
  );
}

async function untrustedGetsNothing(people: People): Promise<boolean> {
  const { gate } = gateFor(people.bob, rulesFor(people, true));
  return withServer(
    (raw) => gate.accept(raw, DOOR),
    async (port) => {
      const seen = await visit(port, people.stranger);
      return seen.bytes === 0 && seen.tickets.length === 0;
    },
  );
}

async function withServer<T>(accept: (raw: Socket) => void, run: (port: number) => Promise<T>): Promise<T> {
  const open = new Set<Socket>();
  const server: Server = createServer((raw) => {
    open.add(raw);
    raw.once("close", () => open.delete(raw));
    accept(raw);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, HOST, resolve);
  });
  try {
    return await run((server.address() as { port: number }).port);
  } finally {
    for (const raw of open) raw.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

function tcp(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const raw = connectTcp({ host: HOST, port });
    raw.once("error", reject);
    raw.once("connect", () => {
      raw.off("error", reject);
      resolve(raw);
    });
  });
}
