import { expect, test } from "vitest";
import { parseIdentity } from "../../src/pki/identity.ts";
import { smimeaLabel, zoneText } from "../../src/sixid/zone.ts";
import { makeTestDomain } from "../support/pki.ts";

const alpha = makeTestDomain({ domain: "alpha.test" });
const alice = alpha.person({ identity: "alice@alpha.test", encryptionKey: "ec" });

test("the label of RFC 8162's own example", () => {
  // §3: the local part "hugh" at example.com
  expect(smimeaLabel(parseIdentity("hugh@example.com"))).toBe(
    "c93f1e400f26708f98cb19d936620da35eec8f72e57f9eec01c1afd6",
  );
});

test("tells where the servers are, by whose CA, and to what people are sealed", () => {
  const text = zoneText({
    domain: "alpha.test",
    host: "sixid.alpha.test",
    sixidPort: 4606,
    irpPort: 4604,
    addresses: ["2001:db8::1", "192.0.2.1"],
    root: alpha.root.certificate,
    people: [{ identity: alice.identity, encryption: [alice.encryption.certificate] }],
  });
  const der = Buffer.from(alice.encryption.certificate.der).toString("hex");
  expect(text).toContain("_sixid._tcp IN SRV 10 10 4606 sixid.alpha.test.\n");
  expect(text).toContain("_irp._tcp IN SRV 10 10 4604 sixid.alpha.test.\n");
  expect(text).toContain("sixid.alpha.test. IN AAAA 2001:db8::1\nsixid.alpha.test. IN A 192.0.2.1\n");
  expect(text).toContain(`_4606._tcp.sixid.alpha.test. IN TLSA 2 1 1 ${alpha.root.certificate.fingerprint}\n`);
  expect(text.replace(/\s/g, "")).toContain(`${smimeaLabel(alice.identity)}._smimecertINSMIMEA300(${der})`);
  expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThan(120);
});
