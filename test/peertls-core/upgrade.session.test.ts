import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect as connectTcp, createServer, type Server, type Socket } from "node:net";
import { connect, type TLSSocket } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import { alertNumber } from "../../src/peertls-core/peer-failure.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import type { TrustRules } from "../../src/peertls-core/policy.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { silentLog } from "../../src/pki/log.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { makeTestDomain, type TestCredentials } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const gamma = makeTestDomain({ domain: "gamma.test" });
const alice = alpha.person({ identity: "alice@alpha.test" });
const bob = alpha.person({ identity: "bob@alpha.test" });

const rules: TrustRules = {
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
  contacts: [alice.identity, bob.identity],
  requestsOnPort: false,
};

const makeCore = (credentials: TestCredentials) =>
  makePeerTls({
    credentials,
    trust: new Trust(rules),
    clock: () => new Date(),
    random: randomBytes,
    log: silentLog,
  });

let core: PeerTls;
let server: Server;
/** What became of the last upgrade. */
let outcome: Promise<PeerConnection | { code: string }>;

/** A server as FTP's AUTH TLS has it: one command in clear, the go-ahead, then the gate. */
beforeAll(async () => {
  core = await makeCore(bob.auth);
  server = createServer((raw) => {
    raw.once("data", (command: Buffer) => {
      if (!command.toString().startsWith("AUTH TLS\r\n")) return raw.destroy();
      if (command.length > "AUTH TLS\r\n".length) raw.unshift(command.subarray("AUTH TLS\r\n".length));
      raw.write("234 go ahead\r\n");
      outcome = core.upgrade(raw, "ftps").catch((error: { code: string }) => error);
      return undefined;
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "::1", resolve));
});

afterAll(async () => {
  await core.close();
  await new Promise((resolve) => server.close(resolve));
});

async function asked(pipelined = ""): Promise<Socket> {
  const raw = connectTcp({ host: "::1", port: (server.address() as { port: number }).port });
  raw.on("error", () => undefined);
  await once(raw, "connect");
  raw.write(`AUTH TLS\r\n${pipelined}`);
  await once(raw, "data");
  return raw;
}

function secured(raw: Socket, as: TestCredentials | undefined, alpn: string[] = []): TLSSocket {
  const shown =
    as === undefined
      ? {}
      : {
          cert: [as.certificate, ...as.chain].map((one) => derToPem(one.der, "CERTIFICATE")).join(""),
          key: as.privateKey.export({ type: "pkcs8", format: "pem" }) as string,
        };
  return connect({ socket: raw, rejectUnauthorized: false, ALPNProtocols: alpn, ...shown });
}

test.each([[[]], [["ftp"]]])("an upgraded connection is judged, and admitted, with ALPN %j", async (alpn) => {
  const client = secured(await asked(), alice.auth, alpn);
  client.write("hello");
  const connection = (await outcome) as PeerConnection;
  expect(connection).toMatchObject({ identity: "alice@alpha.test", protocol: "ftps", direction: "in" });
  expect(String((await once(connection.stream, "data"))[0])).toBe("hello");
  connection.stream.end("bye");
  expect(String((await once(client, "data"))[0])).toBe("bye");
  client.destroy();
});

test.each<[string, () => TestCredentials | undefined, number]>([
  ["a stranger", () => alpha.person({ identity: "carol@alpha.test" }).auth, 49],
  ["somebody of an unknown CA", () => gamma.person({ identity: "alice@gamma.test" }).auth, 48],
  ["an expired one", () => alpha.bad("expired", "alice@alpha.test"), 45],
  ["nobody", () => undefined, 116],
])("%s is refused behind an upgrade as everywhere: alert, no ticket, no byte", async (_name, who, alert) => {
  const client = secured(await asked(), who());
  let tickets = 0;
  let bytes = 0;
  client.on("session", () => {
    tickets += 1;
  });
  client.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
  });
  client.write("hello");
  const [error] = (await once(client, "error")) as [Error];
  expect(alertNumber(error)).toBe(alert);
  expect({ tickets, bytes }).toEqual({ tickets: 0, bytes: 0 });
  expect(await outcome).toMatchObject({ code: "handshake-failed" });
  expect(core.connections).toEqual([]);
});

test("another protocol's ALPN name is refused with 120", async () => {
  const client = secured(await asked(), alice.auth, ["smtp"]);
  const [error] = (await once(client, "error")) as [Error];
  expect(alertNumber(error)).toBe(120);
});

test("what is sent in clear behind the command closes the connection, and is not heard", async () => {
  const raw = await asked("USER alice\r\n");
  await once(raw, "close");
  expect(await outcome).toMatchObject({ code: "syntax" });
});

test("who speaks no TLS after the go-ahead is gone", async () => {
  const raw = await asked();
  raw.write("USER alice\r\n");
  raw.resume();
  await once(raw, "close");
  expect(await outcome).toMatchObject({ code: "handshake-failed" });
});

test("over a socket that somebody else connected the one end is admitted by the other, and refused alike", async () => {
  const peer = await makeCore(alice.auth);
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const connection = await peer.enter(expected, "ftps", await asked(), AbortSignal.timeout(5_000));
  connection.stream.write("hello");
  const theirs = (await outcome) as PeerConnection;
  expect(theirs.identity).toBe("alice@alpha.test");
  expect(String((await once(theirs.stream, "data"))[0])).toBe("hello");
  theirs.destroy();

  const other = { ...expected, fingerprints: [alice.auth.certificate.fingerprint] };
  await expect(peer.enter(other, "ftps", await asked(), AbortSignal.timeout(5_000))).rejects.toMatchObject({
    code: "identity-mismatch",
    details: { reason: "key-not-published" },
  });
  expect(await outcome).toMatchObject({ code: "handshake-failed" });
  await peer.close();
});
