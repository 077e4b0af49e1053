import { writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import * as pkijs from "pkijs";
import { beforeAll, describe, expect, test } from "vitest";
import { type Certificate, parseCertificate } from "../../src/pki/certificate.ts";
import { encodeDnsName, encodeRfc822Name, encodeSipUri } from "../../src/pki/general-name.ts";
import { parseIdentity } from "../../src/pki/identity.ts";
import { type CertificateTemplate, type Issuer, issueCertificate, keyIdentifier } from "../../src/pki/issue.ts";
import { encodeName, type RdnTemplate } from "../../src/pki/name.ts";
import { attributeType, extendedKeyUsage } from "../../src/pki/oid.ts";
import { validatePath } from "../../src/pki/path.ts";
import { derToPem } from "../../src/pki/pem.ts";
import type { Purpose } from "../../src/pki/usage.ts";
import { openssl, temporaryFolder } from "../support/openssl.ts";
import { makeCa, makeEcKey, spkiOf } from "../support/pki.ts";

// 60 CAs in a tree below one root and 1,000 leaves below any of them, each with or without something wrong: judged by us,
// by `openssl verify` and by pkijs.
const now = new Date("2026-06-01T12:00:00Z");
const dayMs = 86_400_000;
const at = (days: number) => new Date(now.getTime() + days * dayMs);
const past = { notBefore: at(-2), notAfter: at(-1) };
const future = { notBefore: at(1), notAfter: at(2) };
const { serverAuth, clientAuth, codeSigning, any } = extendedKeyUsage;

type Flaw = "none" | "expired" | "future" | "forged";
interface CaPlan {
  parent: number;
  flaw: Flaw | "no-ca" | "no-sign";
  pathLength: number | undefined;
  permitted: "mail" | "dns" | undefined;
  usage: readonly string[];
}
interface LeafPlan {
  parent: number;
  flaw: Flaw;
  domain: string;
  sip: string | undefined;
  uid: string | undefined;
  usage: readonly string[];
  keyUsage: "digitalSignature" | "keyEncipherment";
}

const usually = <T>(weight: number, first: T, ...others: T[]) =>
  fc.oneof({ weight, arbitrary: fc.constant(first) }, ...others.map((one) => fc.constant(one)));
const caPlans: fc.Arbitrary<CaPlan> = fc.record({
  parent: fc.nat(),
  flaw: usually<CaPlan["flaw"]>(40, "none", "expired", "future", "forged", "no-ca", "no-sign"),
  pathLength: usually<number | undefined>(6, undefined, 0, 1),
  permitted: usually<CaPlan["permitted"]>(6, undefined, "mail", "dns"),
  usage: usually<readonly string[]>(12, [], [serverAuth], [codeSigning], [clientAuth, serverAuth]),
});
const leafPlans: fc.Arbitrary<LeafPlan> = fc.record({
  parent: fc.nat(),
  flaw: usually<Flaw>(12, "none", "expired", "future", "forged"),
  domain: usually(5, "a.test", "b.test", "sub.a.test"),
  sip: usually<string | undefined>(8, undefined, "a.test", "b.test"),
  uid: usually<string | undefined>(8, undefined, "a.test", "b.test"),
  usage: usually<readonly string[]>(4, [serverAuth], [], [clientAuth], [any], [codeSigning]),
  keyUsage: usually<LeafPlan["keyUsage"]>(8, "digitalSignature", "keyEncipherment"),
});

const seed = 5280;
const root = makeCa("Root", now);
const stranger = makeEcKey();

function makeCas(): Issuer[] {
  const cas = [root];
  for (const [n, plan] of fc.sample(caPlans, { numRuns: 60, seed }).entries()) {
    // Mostly flat: below every flaw there shall be something that is else good.
    const parent = cas[plan.parent % Math.min(cas.length, 6)] ?? root;
    const { certificate } = parent;
    const differences: Partial<CertificateTemplate> = {
      validity:
        plan.flaw === "expired" ? past : plan.flaw === "future" ? future : { notBefore: at(-1), notAfter: at(1) },
      keyUsage: plan.flaw === "no-sign" ? ["cRLSign"] : ["keyCertSign", "cRLSign"],
      extendedKeyUsage: plan.usage,
      ca: plan.pathLength === undefined ? {} : { pathLength: plan.pathLength },
      ...(plan.permitted === "mail" ? { permitted: [encodeRfc822Name("a.test")] } : {}),
      ...(plan.permitted === "dns" ? { permitted: [encodeDnsName("a.test")] } : {}),
    };
    const issuer = { certificate, privateKey: plan.flaw === "forged" ? stranger : parent.privateKey };
    const made = makeCa(`CA ${n}`, now, { issuer, differences });
    cas.push(plan.flaw === "no-ca" ? { ...made, certificate: withoutCa(made, issuer, differences) } : made);
  }
  return cas;
}

function withoutCa(made: Issuer, issuer: Issuer, differences: Partial<CertificateTemplate>): Certificate {
  const { ca: _, ...rest } = {
    serial: made.certificate.serial,
    issuer: issuer.certificate.subjectDer,
    subject: made.certificate.subjectDer,
    validity: made.certificate.validity,
    spki: made.certificate.spki,
    keyUsage: ["keyCertSign"] as const,
    extendedKeyUsage: [],
    subjectAltNames: [],
    authorityKeyId: keyIdentifier(issuer.certificate.spki),
    ...differences,
  };
  return parseCertificate(issueCertificate(rest, issuer.privateKey));
}

function makeLeaf(plan: LeafPlan, n: number, cas: readonly Issuer[]): Certificate {
  const parent = cas[plan.parent % cas.length] ?? root;
  // A common name with a blank: OpenSSL binds one that looks like a host by dNSName constraints.
  const subject: RdnTemplate[] = [[attributeType.commonName, `Leaf ${n}`]];
  if (plan.uid !== undefined) subject.push([attributeType.userId, `user@${plan.uid}`]);
  const names = [encodeDnsName(`www.${plan.domain}`), encodeRfc822Name(`user@${plan.domain}`)];
  if (plan.sip !== undefined) names.push(encodeSipUri(parseIdentity(`user@${plan.sip}`)));
  const template: CertificateTemplate = {
    serial: Buffer.from([1, n >> 8, n & 0xff, 1, 1, 1, 1, 1]),
    issuer: parent.certificate.subjectDer,
    subject: encodeName(subject),
    validity: plan.flaw === "expired" ? past : plan.flaw === "future" ? future : { notBefore: at(-1), notAfter: at(1) },
    spki: spkiOf(stranger),
    keyUsage: [plan.keyUsage],
    extendedKeyUsage: plan.usage,
    subjectAltNames: names,
    authorityKeyId: keyIdentifier(parent.certificate.spki),
  };
  return parseCertificate(issueCertificate(template, plan.flaw === "forged" ? stranger : parent.privateKey));
}

/** Where we decide otherwise on purpose. Undefined: no difference is expected. */
function explanation(plan: LeafPlan, purpose: Purpose, path: readonly CaPlan[], accepted: boolean): string | undefined {
  if (accepted) {
    const milder = purpose === "server" && plan.usage.includes(any);
    return milder ? "OpenSSL takes anyExtendedKeyUsage for no server's" : undefined;
  }
  const mail = path.some((one) => one.permitted === "mail");
  if (mail && plan.uid === "b.test") return "we bind UID by rfc822Name constraints; RFC 5280 does not know it";
  if (mail && plan.sip === "b.test") return "we bind the user of a sip: URI, as a mail address";
  if (purpose === "server" && plan.keyUsage !== "digitalSignature")
    return "TLS 1.3 always signs; OpenSSL allows the key exchange of RSA";
  return undefined;
}

describe("1,000 made chains", () => {
  const cas = makeCas();
  const plans = fc.sample(leafPlans, { numRuns: 1_000, seed: seed + 1 });
  const leaves = plans.map((plan, n) => makeLeaf(plan, n, cas));
  const candidates = cas.slice(1).map((one) => one.certificate);
  const caOf = new Map(fc.sample(caPlans, { numRuns: 60, seed }).map((plan, n) => [n + 1, plan]));

  /** The CAs above a leaf by their places in `cas`, the root left out. */
  function indexesAbove(plan: LeafPlan): number[] {
    const found: number[] = [];
    for (let n = plan.parent % cas.length; n > 0; n = (caOf.get(n)?.parent ?? 0) % Math.min(n, 6)) found.push(n);
    return found;
  }
  const pathOf = (plan: LeafPlan) => indexesAbove(plan).flatMap((n) => caOf.get(n) ?? []);

  const ours = (leaf: Certificate, purpose: Purpose): string => {
    const anchors = [{ name: "root", certificate: root.certificate }];
    const result = validatePath({ leaf, candidates, anchors, time: now, purpose });
    return result.ok ? "OK" : result.reason;
  };

  const theirs = new Map<Purpose, ReadonlySet<number>>();
  beforeAll(async () => {
    using folder = temporaryFolder();
    const file = (name: string, ...certificates: Certificate[]) => {
      const path = join(folder.path, name);
      writeFileSync(path, certificates.map((one) => derToPem(one.der, "CERTIFICATE")).join(""));
      return path;
    };
    const files = leaves.map((leaf, n) => file(`${n}.pem`, leaf));
    const trust = ["-CAfile", file("root.pem", root.certificate), "-untrusted", file("cas.pem", ...candidates)];
    const time = ["-attime", String(now.getTime() / 1000)];
    for (const [purpose, name] of [
      ["any", "any"],
      ["server", "sslserver"],
    ] as const) {
      const args = ["verify", ...time, ...trust, "-purpose", name, ...files];
      const { output, stdout } = await openssl(args, { timeoutMs: 60_000 });
      expect(output).toContain("verification failed");
      const good = new Set([...stdout.matchAll(/(\d+)\.pem: OK/g)].map(([, n]) => Number(n)));
      theirs.set(purpose, good);
    }
  }, 120_000);

  test.each<[Purpose, number]>([
    ["any", 6],
    ["server", 7],
  ])("for purpose %s: openssl and we agree, but where it is explained", (purpose, kinds) => {
    const good = theirs.get(purpose) ?? new Set();
    const reasons = new Map<string, number>();
    const explained = new Map<string, number>();
    const unexplained: string[] = [];
    for (const [n, leaf] of leaves.entries()) {
      const [plan, mine, their] = [plans[n], ours(leaf, purpose), good.has(n) ? "OK" : "failed"];
      if (plan === undefined) continue;
      reasons.set(mine, (reasons.get(mine) ?? 0) + 1);
      if ((mine === "OK") === (their === "OK")) continue;
      const why = explanation(plan, purpose, pathOf(plan), mine === "OK");
      if (why === undefined)
        unexplained.push(`${n}: we ${mine}, openssl ${their} ${JSON.stringify([plan, ...pathOf(plan)])}`);
      else explained.set(why, (explained.get(why) ?? 0) + 1);
    }
    expect(unexplained).toEqual([]);
    expect(reasons.get("OK")).toBeGreaterThan(100);
    expect(reasons.size).toBeGreaterThan(kinds);
    expect(explained.size).toBeGreaterThan(0);
  });

  test("pkijs accepts all that we accept, and refuses all that we refuse but path lengths and our own rules", async () => {
    const read = ({ der }: Certificate) => pkijs.Certificate.fromBER(Uint8Array.from(der));
    const [trusted, issuers] = [read(root.certificate), cas.map((one) => read(one.certificate))];
    const unexplained: string[] = [];
    let agreed = 0;
    for (const [n, leaf] of leaves.entries()) {
      const plan = plans[n];
      if (plan === undefined) continue;
      const above = indexesAbove(plan).flatMap((index) => issuers[index] ?? []);
      const certs = [...above, read(leaf)]; // the last one is judged
      const engine = new pkijs.CertificateChainValidationEngine({ trustedCerts: [trusted], certs, checkDate: now });
      const [{ result, resultMessage }, mine] = [await engine.verify(), ours(leaf, "any")];
      if (result === (mine === "OK")) agreed += 1;
      // pkijs 4.0.0 lets every path pass that is longer than one of its CAs allows.
      else if (mine !== "path-length" && explanation(plan, "any", pathOf(plan), mine === "OK") === undefined)
        unexplained.push(`${n}: we ${mine}, pkijs ${result} ${resultMessage}`);
    }
    expect(unexplained).toEqual([]);
    expect(agreed).toBeGreaterThan(700);
  }, 120_000);
});
