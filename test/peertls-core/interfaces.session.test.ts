import { randomBytes } from "node:crypto";
import type { NetworkInterfaceInfo } from "node:os";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Interfaces, LocalAddresses, plainAddress, readPassing } from "../../src/peertls-core/interfaces.ts";
import { makePeerTls, type PeerTls } from "../../src/peertls-core/peertls.ts";
import { Trust } from "../../src/peertls-core/trust.ts";
import { silentLog } from "../../src/pki/log.ts";
import { makeTestDomain, type TestPerson } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const [alice, bob] = [alpha.person({ identity: "alice@alpha.test" }), alpha.person({ identity: "bob@alpha.test" })];
let ends: AsyncDisposableStack;
/** What this machine has, as the test says; undefined: it cannot be asked. */
let has: string[] | undefined;
let asked: number;

beforeEach(() => {
  ends = new AsyncDisposableStack();
  asked = 0;
  has = ["127.0.0.1", "::1"];
});
afterEach(() => ends.disposeAsync());

function machine(): Interfaces {
  asked += 1;
  if (has === undefined) throw Object.assign(new Error("EMFILE"), { code: "ERR_SYSTEM_ERROR" });
  return { lo: has.map((address) => ({ address }) as NetworkInterfaceInfo) };
}

function watch(): LocalAddresses {
  const addresses = new LocalAddresses({ interfaces: machine, everyMs: 2 });
  ends.defer(() => addresses.close());
  return addresses;
}

/** What the watch tells, in the order it does. */
function told(addresses: LocalAddresses) {
  const all: string[][] = [];
  addresses.onChange((lost) => all.push([...lost]));
  return all;
}

test.each([
  ["192.0.2.7", "192.0.2.7"],
  ["::ffff:192.0.2.7", "192.0.2.7"],
  ["::FFFF:192.0.2.7", "192.0.2.7"],
  ["FE80::1%eth0", "fe80::1"],
  ["::ffff:c000:207", "::ffff:c000:207"],
  ["2001:db8::ffff:192.0.2.7", "2001:db8::ffff:192.0.2.7"],
])("%s is %s", (host, plain) => expect(plainAddress(host)).toBe(plain));

test("of Linux's table those are read whose flags say that they will not last", () => {
  const table = [
    "20010db8000a00000000000000000010 02 40 00 80 eth0", // permanent
    "20010db8000a0000c0ffee0000000001 02 40 00 01 eth0", // temporary
    "20010db8000b00000000000000000010 02 40 00 a0 eth0", // permanent, deprecated
    "20010db8000c00000000000000000010 0a 40 00 c0   eth0", // tentative
    "20010db8000d00000000000000000010 02 40 00 88 eth0", // failed
    "00000000000000000000000000000001 01 80 10 80       lo",
    "nonsense",
  ].join("\n");
  expect([...readPassing(table)]).toEqual([
    "2001:db8:a:0:c0ff:ee00:0:1",
    "2001:db8:b::10",
    "2001:db8:c::10",
    "2001:db8:d::10",
  ]);
});

test("an address that becomes a passing one is told as a change, and not as lost", async () => {
  let passing = new Set<string>();
  const addresses = new LocalAddresses({ interfaces: machine, passing: () => passing, everyMs: 2 });
  ends.defer(() => addresses.close());
  const changes = told(addresses);
  passing = new Set(["::1"]);
  await expect.poll(() => changes).toEqual([[]]);
  expect(addresses.passing).toEqual(passing);
});

test("what came and what went is told once, also after a time in which nobody could say", async () => {
  const addresses = watch();
  const changes = told(addresses);
  has = ["127.0.0.1", "::1", "192.0.2.1"];
  await expect.poll(() => changes).toEqual([[]]);
  has = undefined;
  const until = asked + 3;
  await expect.poll(() => asked).toBeGreaterThan(until);
  expect(Object.values(addresses.interfaces).flat()).toHaveLength(3);
  has = ["::1", "192.0.2.1", "192.0.2.2"];
  await expect.poll(() => changes).toEqual([[], ["127.0.0.1"]]);
  const later = asked + 3;
  await expect.poll(() => asked).toBeGreaterThan(later);
  expect(changes).toHaveLength(2);
});

async function core(person: TestPerson): Promise<PeerTls> {
  const anchor = {
    ...alpha.anchor,
    domains: ["alpha.test"],
    organisations: [],
    identitiesFrom: ["rfc822Name"] as const,
  };
  const none = { block: [], allow: [], contacts: [], requestsOnPort: false, otherwise: "deny" as const };
  const trust = new Trust({ anchors: [anchor], rules: [{ domain: "alpha.test" }], ...none });
  const clock = () => new Date();
  const made = await makePeerTls({ credentials: person.auth, trust, clock, random: randomBytes, log: silentLog });
  made.onPeer("sip", ({ stream }) => void stream.on("error", () => undefined).resume());
  ends.defer(() => made.close());
  return made;
}

test("an address that is gone ends what runs over it, accepted and dialled, and nothing else", async () => {
  const [his, hers] = [await core(bob), await core(alice)];
  const { port } = await his.listen({ host: "::", port: 0 });
  const expected = { identity: bob.identity, fingerprints: [bob.auth.certificate.fingerprint] };
  const dial = (host: string) =>
    hers.dial(expected, "sip", [{ kind: "direct", address: { host, port } }], AbortSignal.timeout(10_000));
  const [over4, over6] = [await dial("127.0.0.1"), await dial("::1")];
  await expect.poll(() => his.connections).toHaveLength(2);
  const [accepted4, accepted6] = his.connections;
  expect(accepted4?.localAddress.host).toBe("::ffff:127.0.0.1"); // told as such where one port serves both
  const watched = watch();
  his.follow(watched);
  has = ["::1"];
  await expect.poll(() => accepted4?.stream.destroyed).toBe(true);
  expect(accepted6?.stream.destroyed).toBe(false);

  watched.close();
  has = ["127.0.0.1", "::1"];
  hers.follow(watch());
  has = ["127.0.0.1"];
  await expect.poll(() => over6.stream.destroyed).toBe(true);
  await expect.poll(() => over4.stream.destroyed).toBe(true); // its other end had gone
});
