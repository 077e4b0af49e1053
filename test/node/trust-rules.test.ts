import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { ownAddresses } from "../../src/node/addresses.ts";
import { configSchema, type PeerConfig } from "../../src/node/config.ts";
import { domainAnchor, readCertificates, readFileAnchors } from "../../src/node/trust-rules.ts";
import { compilePolicy } from "../../src/peertls-core/policy.ts";
import { trustSchema } from "../../src/peertls-core/policy-schema.ts";
import { derToPem } from "../../src/pki/pem.ts";
import { approach } from "../peertls-core/approach.ts";
import { temporaryFolder } from "../support/openssl.ts";
import { makeTestDomain } from "../support/pki.ts";

const folder = temporaryFolder();
afterAll(() => folder[Symbol.dispose]());
const alpha = makeTestDomain({ domain: "alpha.test" });
const file = (name: string, text: string) => {
  const path = join(folder.path, name);
  writeFileSync(path, text);
  return path;
};
const pem = derToPem(alpha.root.certificate.der, "CERTIFICATE");

test("an anchor that the directory tells vouches for its one domain alone", () => {
  const anchors = [domainAnchor("alpha.test", alpha.root.certificate)];
  const judge = (identity: string) =>
    compilePolicy({
      anchors,
      block: [],
      allow: [],
      rules: [{ issuer: "sixid:alpha.test" }],
      otherwise: "deny",
      contacts: [],
      requestsOnPort: false,
    }).judge(approach({ identities: [identity], anchor: "sixid:alpha.test" }));
  expect(judge("a@alpha.test")).toMatchObject({ admit: true });
  for (const identity of ["a@beta.test", "a@x.alpha.test", "a@xalpha.test"])
    expect(judge(identity)).toMatchObject({ reason: "name-out-of-scope" });
});

test("certificates of a file: all of them, or the file is named in the error", () => {
  expect(readCertificates(file("two.pem", `text before\n${pem}${pem}`))).toHaveLength(2);
  const bad = [
    join(folder.path, "missing.pem"),
    file("empty.pem", ""),
    file("text.pem", "hello"),
    file("key.pem", pem.replaceAll("CERTIFICATE", "PRIVATE KEY")),
    file("broken.pem", pem.replace("MII", "AAA")),
  ];
  for (const path of bad)
    expect(() => readCertificates(path)).toThrow(
      expect.objectContaining({ code: "config-invalid", details: expect.objectContaining({ file: path }) }),
    );
});

test("each certificate of an anchor's file is an anchor of that name and scope", () => {
  const config = trustSchema.parse({
    anchors: [{ name: "x", file: file("both.pem", pem + pem), domains: ["x.test"], organisations: ["X"] }],
  });
  expect(readFileAnchors(config)).toMatchObject([
    { name: "x", domains: ["x.test"], organisations: ["X"] },
    { name: "x", domains: ["x.test"], organisations: ["X"] },
  ]);
});

const peer = (o: { announce?: object; listen?: string } = {}): PeerConfig =>
  configSchema.parse({
    peer: {
      identity: "a@b.test",
      name: "A",
      directory: { host: "::1", anchor: "x" },
      announce: o.announce ?? {},
      ...(o.listen === undefined ? {} : { listen: { host: o.listen } }),
    },
  }).peer as PeerConfig;
const one = (address: string, scopeid?: number) => ({
  address,
  internal: address === "::1" || address === "127.0.0.1",
  ...(scopeid === undefined ? {} : { scopeid }),
});
const machine = {
  lo: [one("127.0.0.1"), one("::1", 0)],
  eth0: [one("192.168.1.2"), one("8.8.4.4"), one("2a00::1", 0), one("fe80::1", 2)],
  down: undefined,
} as never;

test.each<[string, Parameters<typeof peer>[0], string[]]>([
  ["this machine's global ones, IPv6 first", {}, ["2a00::1", "8.8.4.4"]],
  [
    "private ones too where that is said, never link-local ones",
    { announce: { allowNonGlobal: true } },
    ["2a00::1", "8.8.4.4", "192.168.1.2"],
  ],
  [
    "those that the configuration names, instead",
    { announce: { addresses: ["9.9.9.9", "2a00::9", "9.9.9.9"] } },
    ["2a00::9", "9.9.9.9"],
  ],
  ["a private one that is named only where that is said", { announce: { addresses: ["192.168.1.2"] } }, []],
  ["the one that is listened on, alone", { listen: "8.8.4.4" }, ["8.8.4.4"]],
  [
    "a loopback one that is listened on, where that is said",
    { listen: "::1", announce: { allowNonGlobal: true } },
    ["::1"],
  ],
])("announced are %s", (_name, o, hosts) => {
  const addresses = ownAddresses(peer(o), 4605, machine);
  expect(addresses.map(({ host }) => host)).toEqual(hosts);
  expect(addresses.map(({ port, kind, priority }) => [port, kind, priority])).toEqual(
    hosts.map((_host, index) => [4605, "direct", (index + 1) * 10]),
  );
});

test("loopback ones only where there are no others; none that is temporary, deprecated or not known to be unique", () => {
  const hosts = (interfaces: object, passing: string[] = []) =>
    ownAddresses(peer({ announce: { allowNonGlobal: true } }), 1, interfaces as never, new Set(passing)).map(
      ({ host }) => host,
    );
  const lo = [one("::1", 0)];
  expect(hosts({ lo })).toEqual(["::1"]);
  expect(hosts({ lo, eth0: [one("2a00::1", 0), one("2a00::2", 0)] }, ["2a00::2"])).toEqual(["2a00::1"]);
  expect(hosts({ lo, eth0: [one("2a00::2", 0)] }, ["2a00::2"])).toEqual(["::1"]);
});

test("sixteen addresses at most", () => {
  const many = { eth0: Array.from({ length: 40 }, (_one, index) => one(`2a00::${index + 1}`, 0)) } as never;
  expect(ownAddresses(peer(), 1, many)).toHaveLength(16);
});
