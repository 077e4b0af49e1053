import { afterAll, beforeAll, expect, test } from "vitest";
import { smimeaLabel, zoneText } from "../src/sixid/zone.ts";
import { temporaryFolder } from "../test/support/openssl.ts";
import { makeTestDomain } from "../test/support/pki.ts";
import { type Knot, startKnot } from "./knot.ts";
import { run } from "./pair.ts";

// What `sixtalk domain zone` prints, loaded by Knot DNS and asked for by its kdig.

const folder = temporaryFolder();
const alpha = makeTestDomain({ domain: "alpha.test" });
const alice = alpha.person({ identity: "alice@alpha.test" });
let knot: Knot;

beforeAll(async () => {
  const text = zoneText({
    ...{ domain: "alpha.test", host: "sixid.alpha.test", sixidPort: 4606, irpPort: 4604, addresses: ["2001:db8::1"] },
    root: alpha.root.certificate,
    people: [{ identity: alice.identity, encryption: [alice.encryption.certificate] }],
  });
  knot = await startKnot(folder.path, { "alpha.test": text.split("\n") });
});

afterAll(async () => {
  await knot[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

async function asked(type: string, name: string): Promise<string> {
  const [, port = ""] = /:(\d+)$/.exec(knot.server) ?? [];
  return (await run("kdig", ["@::1", "-p", port, "+tcp", "+short", type, name])).out;
}

test("the servers, the CA and the certificate to seal to are told as they were printed", async () => {
  expect(await asked("SRV", "_sixid._tcp.alpha.test")).toBe("10 10 4606 sixid.alpha.test.\n");
  expect(await asked("SRV", "_irp._tcp.alpha.test")).toBe("10 10 4604 sixid.alpha.test.\n");
  expect(await asked("AAAA", "sixid.alpha.test")).toBe("2001:db8::1\n");
  const tlsa = (await asked("TLSA", "_4606._tcp.sixid.alpha.test")).toLowerCase().replace(/\s/g, "");
  expect(tlsa).toBe(`211${alpha.root.certificate.fingerprint}`);
  const smimea = await asked("SMIMEA", `${smimeaLabel(alice.identity)}._smimecert.alpha.test`);
  const der = Buffer.from(alice.encryption.certificate.der).toString("hex");
  expect(smimea.toLowerCase().replace(/\s/g, "")).toBe(`300${der}`);
});
