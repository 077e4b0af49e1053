import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { type Actor, Stage } from "../src/cli/demo-stage.ts";
import { freePort } from "../src/node/free-port.ts";
import { parseCertificate } from "../src/pki/certificate.ts";
import { derToPem } from "../src/pki/pem.ts";
import { issueDomainServer } from "../src/pki/profile.ts";
import { makeEcKey, makeTestDomain, spkiOf } from "../test/support/pki.ts";
import { type Knot, startKnot } from "./knot.ts";
import { eventOf } from "./pair.ts";

// Two domains whose configurations name nobody else, and two people whose configurations name their domain alone. Each is found by its SRV records, and proves itself by a certificate of a
// CA that stands for those of the web.

const web = makeTestDomain({ domain: "web.test" });
const extra = process.env["NODE_EXTRA_CA_CERTS"];
let stage: Stage;
let knot: Knot;
let [alpha, beta, alice, bob]: Actor[] = [];
const actor = (one: Actor | undefined) => one as Actor;

beforeAll(async () => {
  stage = await Stage.build();
  const ca = join(stage.folder, "web.pem");
  writeFileSync(ca, derToPem(web.root.certificate.der, "CERTIFICATE"));
  process.env["NODE_EXTRA_CA_CERTS"] = ca; // for the processes that the stage starts
  const ports = [await freePort("::1", 0), await freePort("::1", 0)] as const;
  const irpPorts = [await freePort("::1", 0), await freePort("::1", 0)] as const;
  const dead = await freePort("::1", 0);
  knot = await startKnot(stage.folder, {
    // The first server is down, the second is one that the DNS knows no address of.
    "alpha.test": [
      `_sixid._tcp SRV 1 0 ${dead} sixid`,
      `_sixid._tcp SRV 2 0 ${ports[0]} lost`,
      `_sixid._tcp SRV 3 0 ${ports[0]} sixid`,
      `_irp._tcp SRV 1 0 ${dead} sixid`,
      `_irp._tcp SRV 2 0 ${irpPorts[0]} sixid`,
      "sixid AAAA ::1",
    ],
    "beta.test": [
      `_sixid._tcp SRV 10 5 ${ports[1]} sixid`,
      `_irp._tcp SRV 10 5 ${irpPorts[1]} sixid`,
      "sixid AAAA ::1",
    ],
    "none.test": ["_sixid._tcp SRV 0 0 0 .", "@ AAAA ::1"],
  });
  [alpha, beta] = await stage.domains(["alpha.test", "beta.test"], {
    sixidPorts: ports,
    irpPorts,
    change: (name, config) => {
      Object.assign(config["domain"] ?? {}, {
        domains: [],
        federation: { allowNonGlobal: true, serverCertificate: webCertificate(name) },
      });
      config["dns"] = { servers: [knot.server] };
    },
  });
  const byDns = { invite: ["--reach", "dns"], init: ["--dns", knot.server] };
  alice = await stage.person(actor(alpha), "alice", "Alice Example", byDns);
  bob = await stage.person(actor(beta), "bob", "Bob Example", byDns);
});

afterAll(async () => {
  await stage.strike();
  await knot[Symbol.asyncDispose]();
  if (extra === undefined) delete process.env["NODE_EXTRA_CA_CERTS"];
  else process.env["NODE_EXTRA_CA_CERTS"] = extra;
});

function webCertificate(domain: string): { certificate: string; key: string } {
  const key = makeEcKey();
  const der = issueDomainServer({
    ...{ issuer: web.root, now: web.now, serial: randomBytes(16), spki: spkiOf(key), domain },
  });
  const files = { certificate: join(stage.folder, `${domain}.web.pem`), key: join(stage.folder, `${domain}.web.key`) };
  writeFileSync(files.certificate, derToPem(parseCertificate(der).der, "CERTIFICATE"));
  writeFileSync(files.key, key.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
  return files;
}

test("Alice finds Bob of another domain, past a dead server, and her message reaches him", async () => {
  const began = performance.now();
  const cold = await stage.ask<{ identity: string }>(actor(alice), "lookup", { identity: "bob@beta.test" });
  const found = performance.now();
  await stage.ask(actor(alice), "lookup", { identity: "bob@beta.test" });
  const warm = performance.now();
  expect(cold.identity).toBe("bob@beta.test");
  process.stdout.write(
    `look-up across domains: cold ${(found - began).toFixed(0)} ms, warm ${(warm - found).toFixed(1)} ms\n`,
  );
  await stage.ask(actor(alice), "contacts.add", { identity: "bob@beta.test", name: "Bob" });
  await stage.ask(actor(bob), "contacts.add", { identity: "alice@alpha.test", name: "Alice" });
  await stage.ask(actor(alice), "send", { to: "bob@beta.test", text: "Hello across", waitSeconds: 20 });
  const { from } = await eventOf(stage, actor(bob), "item.received", ({ title }) => title === "Hello across");
  expect(from).toBe("alice@alpha.test");
});

test("what Alice's node knows of servers is her domain's name and its CA", () => {
  const config = parse(readFileSync(actor(alice).home.config, "utf8")) as { peer: { directory: object } };
  expect(config.peer.directory).toEqual({ anchor: "anchors/alpha.test.pem" });
});

test("a domain that says it has no directory, and one that does not exist, have nobody", async () => {
  for (const domain of ["none.test", "nowhere.beta.test"])
    await expect(stage.ask(actor(alice), "lookup", { identity: `bob@${domain}` })).rejects.toMatchObject({
      code: "unknown-recipient",
    });
});
