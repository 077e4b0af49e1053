import { readFileSync, writeFileSync } from "node:fs";
import type { NetworkInterfaceInfo } from "node:os";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { configSchema } from "../../src/node/config.ts";
import { PeerNode } from "../../src/node/node.ts";
import { silentLog } from "../../src/pki/log.ts";
import { enrolPerson, startDomain } from "../support/people.ts";
import { temporaryFolder } from "../support/tmp.ts";
import { startWire, type Wire } from "../support/wire.ts";

const ends = new AsyncDisposableStack();
const PATIENCE = { timeout: 4_000 };
let node: PeerNode;
/** Between the node and its directory. */
let wire: Wire;
let has = ["192.0.2.1"];

beforeAll(async () => {
  const folder = ends.use(await temporaryFolder());
  const domain = await startDomain(folder.path, "alpha.test");
  ends.defer(() => domain.server.stop());
  wire = ends.use(await startWire(domain.server.ports.sixid));
  const home = await enrolPerson(folder.path, domain, "alice");
  const file = parse(readFileSync(home.config, "utf8")) as { peer: { listen: object; directory: object } };
  file.peer.listen = { host: "::", port: 0 };
  Object.assign(file.peer.directory, { host: "::1", port: wire.port });
  writeFileSync(home.config, stringify(file));
  node = await PeerNode.start({
    ...{ home, config: configSchema.parse(file), log: silentLog, clock: () => new Date(), cut: () => undefined },
    interfaces: () => ({ eth0: has.map((address) => ({ address, scopeid: 0 }) as NetworkInterfaceInfo) }),
  });
  ends.defer(() => node.stop());
});
afterAll(() => ends.disposeAsync());

/** What the directory tells others. */
async function told(): Promise<string[]> {
  const record = await node.directory.lookup(node.identity, { fresh: true }, AbortSignal.timeout(5_000));
  return record.devices.flatMap(({ addresses }) => addresses.map(({ host }) => host));
}

test("another address is announced as soon as this machine has it", async () => {
  await expect.poll(told, PATIENCE).toEqual(["192.0.2.1"]);
  has = ["192.0.2.1", "2001:db8::1"];
  await expect.poll(told, PATIENCE).toEqual(["2001:db8::1", "192.0.2.1"]);
});

test("also when the connections to the directory died with the address before", async () => {
  await told();
  const before = wire.count;
  wire.cut();
  has = ["2001:db8::2"];
  await expect.poll(() => node.announcer.announced.map(({ host }) => host), PATIENCE).toEqual(["2001:db8::2"]);
  expect(wire.count).toBeGreaterThan(before);
  expect(await told()).toEqual(["2001:db8::2"]);
});
