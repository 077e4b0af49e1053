// CMS beside raw node:crypto, the openssl command and pkijs, as smime.md §6 asks: `npm run bench -- smime [--smoke]`. Files lie
// in memory (/dev/shm), the clock is wall time: whoever has a thread to spare may use it.

import { execFileSync, spawnSync } from "node:child_process";
import {
  createCipheriv,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  webcrypto,
} from "node:crypto";
import {
  closeSync,
  createReadStream,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { type FileHandle, open as openFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { ObjectIdentifier, OctetString, UTCTime } from "asn1js";
import * as pkijs from "pkijs";
import { type Certificate, parseCertificate, peerCertificate } from "../src/pki/certificate.ts";
import { parseIdentity } from "../src/pki/identity.ts";
import { derToPem } from "../src/pki/pem.ts";
import { issueAuth, issueEncryption, issueIssuingCa, issueRoot } from "../src/pki/profile.ts";
import { Keyring } from "../src/smime/keyring.ts";
import { read } from "../src/smime/read.ts";
import { seal } from "../src/smime/seal.ts";
import { encryptFile, type FileRange, sealFile } from "../src/smime/seal-file.ts";
import { Threads } from "../src/smime/threads.ts";
import { ceiling, compare, residentKilobytes, type Sample } from "./support.ts";

const smoke = process.argv.includes("--smoke");
const ROUNDS = smoke ? 1 : 5;
const MEGABYTES = smoke ? 64 : 1_024;
const LARGE = smoke ? 128 : 4_096;
const OPERATIONS = smoke ? 50 : 500;
const area = "smime";
const folder = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "sixtalk-bench-"));
const path = (name: string) => join(folder, name);
const now = new Date(Math.floor(Date.now() / 1000) * 1000);
const serial = () => randomBytes(16);
const spkiOf = (key: KeyObject) => createPublicKey(key).export({ type: "spki", format: "der" });
const newEc = () => generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;

const rootKey = newEc();
const root = parseCertificate(issueRoot({ domain: "bench.test", privateKey: rootKey, now, serial: serial() }));
const caKey = newEc();
const ca = parseCertificate(
  issueIssuingCa({
    domain: "bench.test",
    issuer: { certificate: root, privateKey: rootKey },
    spki: spkiOf(caKey),
    now,
    serial: serial(),
  }),
);

function person(name: string) {
  const issuer = { certificate: ca, privateKey: caKey };
  const common = { issuer, identity: parseIdentity(`${name}@bench.test`), name, now };
  const authKey = newEc();
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 3072 });
  return {
    auth: {
      certificate: parseCertificate(issueAuth({ ...common, spki: spkiOf(authKey), serial: serial() })),
      chain: [ca],
      privateKey: authKey,
    },
    encryption: {
      certificate: parseCertificate(issueEncryption({ ...common, spki: spkiOf(privateKey), serial: serial() })),
      privateKey,
    },
  };
}

const [alice, bob] = [person("alice"), person("bob")] as const;
const recipients = [alice, bob].map(({ encryption }) => peerCertificate(encryption.certificate));
const chunk = { highWaterMark: 262_144 };

async function timed(work: () => Promise<number>): Promise<Sample> {
  const began = performance.now();
  const units = await work();
  return { units, cpuSeconds: (performance.now() - began) / 1000 };
}

const input = () => createReadStream(path("input"), chunk);
const megabytes = (work: () => Promise<unknown>) => timed(() => work().then(() => MEGABYTES));

/** The least that encrypting a file takes: read, cipher, write, each while the next is under way. */
async function raw(): Promise<void> {
  const cipher = createCipheriv("aes-256-gcm", randomBytes(32), randomBytes(12));
  const file = await openFile(path("raw"), "w");
  let writing: Promise<unknown> = Promise.resolve();
  for await (const piece of input() as AsyncIterable<Buffer>) {
    const encrypted = cipher.update(piece);
    await writing;
    writing = file.write(encrypted);
  }
  await writing;
  cipher.final();
  await file.close();
}

const threads = new Threads();

/** Sealed into a file that is empty, and given its name, as the program does it. */
async function madeBy(work: (source: FileRange, target: FileHandle) => Promise<unknown>, name: string): Promise<void> {
  rmSync(path(name), { force: true });
  await using file = await openFile(path("input"), "r");
  const part = path(`${name}.part`);
  await using target = await openFile(part, "wx", 0o600);
  const { size } = await file.stat();
  await work({ file, offset: 0, size }, target);
  await target.datasync();
  renameSync(part, path(name));
}

const sealing = { now, recipients: recipients.slice(1), profile: "peer", threads } as const;
const encryptOurs = () => madeBy((source, target) => encryptFile(source, target, sealing), "ours.p7m");
const sealOurs = () =>
  madeBy((source, target) => sealFile(source, target, { ...sealing, signer: alice.auth, mime: true }), "sealed.p7m");

async function openOurs(name: string): Promise<void> {
  const keys = new Keyring([bob.encryption]);
  const options = { keys, candidates: [], directory: folder, maxBytes: 2 ** 40 };
  await using found = await read(createReadStream(path(name), chunk), options);
  if (found.protection === "none") throw new Error("not opened");
}

async function openssl(...args: string[]): Promise<void> {
  const { status, stderr } = spawnSync("openssl", ["cms", ...args], { encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
}

const opensslEncrypt = () =>
  openssl(
    ...["-encrypt", "-binary", "-stream", "-aes-256-gcm", "-in", path("input"), "-outform", "DER"],
    ...["-out", path("openssl.p7m"), path("bob.pem")],
  );
const opensslDecrypt = (name: string) =>
  openssl(
    ...["-decrypt", "-binary", "-inform", "DER", "-in", path(name), "-out", path("decrypted")],
    ...["-recip", path("bob.pem"), "-inkey", path("bob.key")],
  );

const small = randomBytes(10_240);

async function sealSmall(): Promise<number> {
  for (let n = 0; n < OPERATIONS; n += 1) {
    const source = (async function* () {
      yield small;
    })();
    const sealed = seal(source, {
      ...{ signer: alice.auth, now, recipients, profile: "foreign", shape: "opaque", head: { fields: [] } },
    });
    for await (const _piece of sealed);
  }
  return OPERATIONS;
}

/** The same by pkijs: SignedData with signed attributes in EnvelopedData, AES-256-CBC, OAEP (it has no RSA v1.5). */
async function pkijsSmall(): Promise<(count: number) => Promise<number>> {
  pkijs.setEngine("node", new pkijs.CryptoEngine({ name: "node", crypto: webcrypto as Crypto }) as never);
  const certificate = (one: Certificate) => pkijs.Certificate.fromBER(new Uint8Array(one.der));
  const signer = certificate(alice.auth.certificate);
  const pkcs8 = alice.auth.privateKey.export({ type: "pkcs8", format: "der" });
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  const key = await webcrypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]);
  const to = [alice, bob].map(({ encryption }) => certificate(encryption.certificate));

  return async (count) => {
    for (let n = 0; n < count; n += 1) {
      const digest = await webcrypto.subtle.digest("SHA-256", small);
      const attribute = (type: string, value: unknown) => new pkijs.Attribute({ type, values: [value] });
      const signed = new pkijs.SignedData({
        version: 1,
        encapContentInfo: new pkijs.EncapsulatedContentInfo({
          eContentType: pkijs.ContentInfo.DATA,
          eContent: new OctetString({ valueHex: new Uint8Array(small).buffer }),
        }),
        signerInfos: [
          new pkijs.SignerInfo({
            version: 1,
            sid: new pkijs.IssuerAndSerialNumber({ issuer: signer.issuer, serialNumber: signer.serialNumber }),
            signedAttrs: new pkijs.SignedAndUnsignedAttributes({
              type: 0,
              attributes: [
                attribute("1.2.840.113549.1.9.3", new ObjectIdentifier({ value: pkijs.ContentInfo.DATA })),
                attribute("1.2.840.113549.1.9.5", new UTCTime({ valueDate: now })),
                attribute("1.2.840.113549.1.9.4", new OctetString({ valueHex: digest })),
              ],
            }),
          }),
        ],
        certificates: [signer, certificate(ca)],
      });
      await signed.sign(key as CryptoKey, 0, "SHA-256");
      const info = new pkijs.ContentInfo({
        contentType: pkijs.ContentInfo.SIGNED_DATA,
        content: signed.toSchema(true),
      });
      const enveloped = new pkijs.EnvelopedData();
      for (const one of to) enveloped.addRecipientByCertificate(one, { oaepHashAlgorithm: "SHA-256" });
      await enveloped.encrypt({ name: "AES-CBC", length: 256 } as never, info.toSchema().toBER());
      const outer = new pkijs.ContentInfo({
        contentType: pkijs.ContentInfo.ENVELOPED_DATA,
        content: enveloped.toSchema(),
      });
      outer.toSchema().toBER();
    }
    return count;
  };
}

function inputFile(megabytes: number): void {
  const file = openSync(path("input"), "w");
  const block = randomBytes(1_048_576);
  for (let n = 0; n < megabytes; n += 1) writeSync(file, block);
  closeSync(file);
}

/** A file of 4 GiB, signed, sealed and opened in a process that has done nothing else: what it takes of memory, and for how long nothing else gets its turn. */
async function large(): Promise<void> {
  inputFile(8);
  await sealOurs(); // now the threads are there, and idle
  const idle = residentKilobytes(process.pid);
  inputFile(LARGE);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  let most = 0;
  const sampling = setInterval(() => {
    most = Math.max(most, residentKilobytes(process.pid));
  }, 50);
  delay.enable();
  await sealOurs();
  await openOurs("sealed.p7m");
  delay.disable();
  clearInterval(sampling);
  const what = `while ${LARGE} MiB are signed, sealed and opened`;
  ceiling({ area, case: `resident beyond idle ${what}`, unit: "MiB", ours: (most - idle) / 1024, target: 80 });
  ceiling({ area, case: `event-loop delay, p99, ${what}`, unit: "ms", ours: delay.percentile(99) / 1e6, target: 20 });
  inputFile(MEGABYTES);
}

try {
  inputFile(MEGABYTES);
  writeFileSync(path("bob.pem"), derToPem(bob.encryption.certificate.der, "CERTIFICATE"));
  writeFileSync(path("bob.key"), bob.encryption.privateKey.export({ type: "pkcs8", format: "pem" }));
  const version = execFileSync("openssl", ["version"], { encoding: "utf8" }).trim();
  const versions = `node ${process.version} (OpenSSL ${process.versions.openssl}); ${version}`;
  const how = { area, unit: "MB", per: "second", rounds: ROUNDS, versions };

  await large();
  await compare({
    ...how,
    case: "encrypt, GCM, beside raw node:crypto",
    target: 0.85,
    ours: () => megabytes(encryptOurs),
    rival: () => megabytes(raw),
  });
  await compare({
    ...how,
    case: "encrypt, GCM, beside openssl cms -stream",
    target: 1.5,
    ours: () => megabytes(encryptOurs),
    rival: () => megabytes(opensslEncrypt),
  });
  await compare({
    ...how,
    case: "sign and encrypt in one pass, beside raw node:crypto's encrypting",
    target: 0.6,
    ours: () => megabytes(sealOurs),
    rival: () => megabytes(raw),
  });
  for (const name of ["ours.p7m", "openssl.p7m"])
    await compare({
      ...how,
      case: `decrypt ${name}, beside openssl cms`,
      target: 5,
      ours: () => megabytes(() => openOurs(name)),
      rival: () => megabytes(() => opensslDecrypt(name)),
    });
  const rival = await pkijsSmall();
  const pkijsVersion = (
    JSON.parse(readFileSync(new URL("../node_modules/pkijs/package.json", import.meta.url), "utf8")) as {
      version: string;
    }
  ).version;
  await compare({
    ...{ area, unit: "operations", per: "second", rounds: ROUNDS, versions: `${versions}; pkijs ${pkijsVersion}` },
    case: "10 KB, signed and encrypted to two, beside pkijs",
    target: 4,
    ours: () => timed(sealSmall),
    rival: () => timed(() => rival(OPERATIONS)),
  });
} finally {
  await threads[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
}
