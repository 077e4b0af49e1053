// Certificates and revocation lists beside pkijs and openssl, as pki.md §6 asks: `node bench/pki.ts [--smoke]`. All figures are
// CPU time of the whole process, so that WebCrypto's threads count for pkijs.

import { spawnSync } from "node:child_process";
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import * as pkijs from "pkijs";
import { type Certificate, parseCertificate } from "../src/pki/certificate.ts";
import { parseRevocationList } from "../src/pki/crl.ts";
import { issueRevocationList } from "../src/pki/crl-issue.ts";
import { parseIdentity } from "../src/pki/identity.ts";
import type { Issuer } from "../src/pki/issue.ts";
import { type PathQuestion, validatePath } from "../src/pki/path.ts";
import { derToPem } from "../src/pki/pem.ts";
import { issueAuth, issueIssuingCa, issueRoot } from "../src/pki/profile.ts";
import { SignatureCache } from "../src/pki/signature-cache.ts";
import { ceiling, compare, median, type Sample } from "./support.ts";

const smoke = process.argv.includes("--smoke");
const ROUNDS = smoke ? 1 : 5;
const PATHS = smoke ? 100 : 1_000;
const ENTRIES = smoke ? 20_000 : 200_000;
const area = "pki";
const now = new Date(Math.floor(Date.now() / 1000) * 1000);
const later = new Date(now.getTime() + 86_400_000);
const serial = () => randomBytes(16);
const newKey = () => generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
const spkiOf = (key: KeyObject) => createPublicKey(key).export({ type: "spki", format: "der" });

const rootKey = newKey();
const root: Issuer = {
  certificate: parseCertificate(issueRoot({ domain: "bench.test", privateKey: rootKey, now, serial: serial() })),
  privateKey: rootKey,
};
const caKey = newKey();
const ca: Issuer = {
  certificate: parseCertificate(
    issueIssuingCa({ domain: "bench.test", issuer: root, spki: spkiOf(caKey), now, serial: serial() }),
  ),
  privateKey: caKey,
};
const leafSpki = spkiOf(newKey());
const leaves = Array.from({ length: PATHS }, (_, n) => {
  const identity = parseIdentity(`peer${n}@bench.test`);
  return issueAuth({ issuer: ca, spki: leafSpki, identity, name: `Peer ${n}`, now, serial: serial() });
});

/** CPU seconds of this process that `work` takes; `units` is what it returns. */
async function sample(work: () => number | Promise<number>): Promise<Sample> {
  const before = process.cpuUsage();
  const units = await work();
  const { user, system } = process.cpuUsage(before);
  return { units, cpuSeconds: (user + system) / 1e6 };
}

const question = (leaf: Certificate, issuing: Certificate, anchor: Certificate): PathQuestion => ({
  leaf,
  candidates: [issuing],
  anchors: [{ name: "root", certificate: anchor }],
  time: now,
  purpose: "peer",
});

function judge(o: PathQuestion): number {
  const result = validatePath(o);
  if (!result.ok) throw new Error(`the path is not good: ${result.reason}`);
  return 1;
}

function ours(): number {
  let good = 0;
  for (const leaf of leaves)
    good += judge(
      question(parseCertificate(leaf), parseCertificate(ca.certificate.der), parseCertificate(root.certificate.der)),
    );
  return good;
}

async function theirs(): Promise<number> {
  let good = 0;
  for (const leaf of leaves) {
    const [trusted, issuing, end] = [root.certificate.der, ca.certificate.der, leaf].map((der) =>
      pkijs.Certificate.fromBER(Uint8Array.from(der)),
    );
    if (trusted === undefined || issuing === undefined || end === undefined) throw new Error("three were given");
    // The leaf comes last: https://pkijs.org takes it as the one to be judged.
    const engine = new pkijs.CertificateChainValidationEngine({
      trustedCerts: [trusted],
      certs: [issuing, end],
      checkDate: now,
    });
    const { result, resultMessage } = await engine.verify();
    if (!result) throw new Error(`pkijs: ${resultMessage}`);
    good += 1;
  }
  return good;
}

async function paths(): Promise<void> {
  await compare({
    ...{ area, case: "cold path of 3 P-256 certificates", unit: "paths", rounds: ROUNDS, target: 6 },
    versions: `pkijs 4.0.0, Node ${process.version}`,
    ours: () => sample(ours),
    rival: () => sample(theirs),
  });
  const warm: number[] = [];
  const cache = new SignatureCache();
  for (let round = 0; round <= ROUNDS; round += 1) {
    const { units, cpuSeconds } = await sample(() => {
      let good = 0;
      for (const leaf of leaves)
        good += judge({ ...question(parseCertificate(leaf), ca.certificate, root.certificate), cache });
      return good;
    });
    if (round > 0) warm.push((cpuSeconds / units) * 1e3);
  }
  ceiling({
    area,
    case: "leaf under a known issuer, parsed and judged",
    unit: "ms CPU",
    ours: median(warm),
    target: 0.2,
  });
}

async function lists(folder: string): Promise<void> {
  const entries = Array.from({ length: ENTRIES }, (_, n) => ({
    serial: Buffer.concat([Buffer.of(0x40), randomBytes(15)]),
    since: now,
    ...(n % 2 === 0 ? { reason: "superseded" as const } : {}),
  }));
  const der = issueRevocationList({ issuer: ca, entries, number: 1, thisUpdate: now, nextUpdate: later });
  const [crl, pem] = [join(folder, "a.crl"), join(folder, "ca.pem")];
  writeFileSync(crl, der);
  writeFileSync(pem, derToPem(ca.certificate.der, "CERTIFICATE"));
  await compare({
    ...{
      area,
      case: `revocation list of ${ENTRIES} entries scanned and verified`,
      unit: "lists",
      rounds: ROUNDS,
      target: 1,
    },
    versions: spawnSync("openssl", ["version"], { encoding: "utf8" }).stdout.trim(),
    ours: () =>
      sample(() => {
        const list = parseRevocationList(readFileSync(crl));
        if (!list.signedBy(ca.certificate) || list.size !== ENTRIES) throw new Error("not read");
        return 1;
      }),
    rival: async () => {
      const script = `openssl crl -inform DER -in ${crl} -CAfile ${pem} -noout && times`;
      const { stdout, stderr } = spawnSync("bash", ["-c", script], { encoding: "utf8" });
      if (!stderr.includes("verify OK")) throw new Error(`openssl: ${stderr}`);
      // The second line is the children's.
      const [, user = 0, system = 0] =
        /^(\d+\.\d+) (\d+\.\d+)$/.exec(seconds(stdout.trim().split("\n")[1] ?? "")) ?? [];
      return { units: 1, cpuSeconds: Number(user) + Number(system) };
    },
  });
  memoryAndLookUp(
    der,
    entries.map((one) => one.serial),
  );
}

/** "0m0.120s 0m0.016s" → "0.12 0.016". */
function seconds(line: string): string {
  return line.replace(/(\d+)m(\d+\.\d+)s/g, (_, minutes, rest) => (Number(minutes) * 60 + Number(rest)).toFixed(3));
}

function memoryAndLookUp(der: Uint8Array, serials: readonly Uint8Array[]): void {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const used = () => {
    collect();
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const before = used();
  const list = parseRevocationList(der);
  const beside = (used() - before) / ENTRIES;
  ceiling({ area, case: "revocation list: memory beside its DER", unit: "octets an entry", ours: beside, target: 8 });
  const strangers = serials.map((one) => Buffer.from(one).reverse());
  for (const [name, some, there] of [
    ["a serial that is listed", serials, true],
    ["one that is not", strangers, false],
  ] as const) {
    const times: number[] = [];
    for (let round = 0; round <= ROUNDS; round += 1) {
      const start = process.cpuUsage();
      let found = 0;
      for (const one of some) if (list.find(one, ca.certificate.subject) !== undefined) found += 1;
      const { user, system } = process.cpuUsage(start);
      if (found !== (there ? some.length : 0)) throw new Error("wrongly found");
      if (round > 0) times.push((user + system) / some.length);
    }
    ceiling({ area, case: `look-up of ${name}`, unit: "µs CPU", ours: median(times), target: 5 });
  }
}

const folder = mkdtempSync(join(tmpdir(), "sixtalk-bench-"));
try {
  await paths();
  await lists(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
