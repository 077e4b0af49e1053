import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { PeerConnection } from "../../src/peertls-core/connection.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import type { TrustRules } from "../../src/peertls-core/policy.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { silentLog } from "../../src/pki/log.ts";
import { makeTestDomain, type TestPerson } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const [alice, bob, carol] = ["alice", "bob", "carol"].map((name) =>
  alpha.person({ identity: `${name}@alpha.test` }),
) as [TestPerson, TestPerson, TestPerson];
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
  rules: [{ domain: "alpha.test" }],
  otherwise: "deny",
  contacts: [],
  requestsOnPort: false,
};
const dropped: string[] = [];
const cores: PeerTls[] = [];

async function core(of: TestPerson): Promise<PeerTls> {
  const made = await makePeerTls({
    credentials: of.auth,
    trust: new Trust(rules),
    limits: { connectionsPerKey: 2, pendingPerPrefix: 3, handshakeSeconds: 1 },
    clock: () => new Date(),
    random: randomBytes,
    log: silentLog,
    onDropped: (reason) => dropped.push(reason),
  });
  made.onPeer("sip", (connection) => {
    connection.stream.on("error", () => undefined);
    connection.stream.write("welcome");
  });
  cores.push(made);
  return made;
}

let node: PeerTls;
let port: number;
beforeAll(async () => {
  node = await core(bob);
  ({ port } = await node.listen({ host: "::1", port: 0 }));
});
afterAll(async () => {
  for (const one of cores) await one.close();
});

async function dial(from: PeerTls): Promise<PeerConnection> {
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const route = { kind: "direct" as const, address: { host: "::1", port } };
  const connection = await from.dial(expected, "sip", [route], AbortSignal.timeout(5_000));
  connection.stream.on("error", () => undefined);
  await connection.confirmed;
  return connection;
}

test("a key may have so many connections; one more is told to come later, others are not hindered, and who goes makes room", async () => {
  const [hers, another] = [await core(alice), await core(carol)];
  const first = await dial(hers);
  await dial(hers);
  const refusal = await dial(hers).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: "handshake-failed", temporary: true, details: { alert: 80 } });
  expect(node.denials.at(-1)).toMatchObject({ reason: "busy", alert: 80 });
  await dial(another);
  expect(node.connections).toHaveLength(3);
  const gone = once(node.connections[0]?.stream ?? first.stream, "close");
  first.destroy();
  await gone;
  await dial(hers);
});

test("a prefix may have so many handshakes under way; who never ends one is gone in a second", async () => {
  dropped.length = 0;
  const silent = Array.from({ length: 5 }, () => connect({ host: "::1", port }));
  for (const socket of silent) socket.on("error", () => undefined);
  await Promise.all(silent.map((socket) => new Promise((resolve) => socket.once("close", resolve))));
  expect(dropped.toSorted()).toEqual([
    "handshake-timeout",
    "handshake-timeout",
    "handshake-timeout",
    "pending-prefix",
    "pending-prefix",
  ]);
});
