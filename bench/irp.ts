// The CA beside openssl, as irp.md §6 asks: `node bench/irp.ts [--smoke]`. Certificates and lists by the clock on the wall, since what
// counts there is durable; OCSP by the servers' CPU time.

import { spawnSync } from "node:child_process";
import { createHash, generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CertificateAuthority } from "../src/irp/ca.ts";
import { createCa } from "../src/irp/ca-keys.ts";
import { Registration } from "../src/irp/registration.ts";
import type { Certificate } from "../src/pki/certificate.ts";
import { parseRevocationList } from "../src/pki/crl.ts";
import { makeCsr } from "../src/pki/csr.ts";
import { parseIdentity } from "../src/pki/identity.ts";
import { silentLog } from "../src/pki/log.ts";
import { parseOcspResponse } from "../src/pki/ocsp.ts";
import { makeOcspRequest } from "../src/pki/ocsp-request.ts";
import { derToPem } from "../src/pki/pem.ts";
import { compare, cpuSeconds, ended, pinned, type Sample } from "./support.ts";

const smoke = process.argv.includes("--smoke");
const ROUNDS = smoke ? 1 : 5;
const ISSUED = smoke ? 20 : 200;
const BY_OPENSSL = smoke ? 5 : 40;
const ANSWERS = smoke ? 100 : 5_000;
const ENTRIES = smoke ? 5_000 : 100_000;
const area = "irp";
const clock = () => new Date();
const folder = mkdtempSync(join(tmpdir(), "sixtalk-bench-"));
const at = (name: string) => join(folder, name);
const keys = createCa({ directory: at("ca"), domain: "bench.test", now: clock(), random: randomBytes });
const ca = new CertificateAuthority({ keys, register: at("ca.db"), clock, random: randomBytes });
const versions = `${spawnSync("openssl", ["version"]).stdout.toString().trim()}, Node ${process.version}`;
const issuer = keys.issuing.certificate;

/** Seconds that `work` takes. */
async function timed(work: () => Promise<number> | number): Promise<Sample> {
  const start = performance.now();
  const units = await work();
  return { units, cpuSeconds: (performance.now() - start) / 1_000 };
}

function openssl(...args: string[]): void {
  const { status, stderr } = spawnSync("openssl", args);
  if (status !== 0) throw new Error(`openssl ${args[0]}: ${stderr.toString()}`);
}

/** The whole way of a request: parsed, its key proven, rules, signed, on record and audited, durably. */
async function certificates(): Promise<void> {
  const registration = new Registration({
    ...{ authority: ca, log: silentLog, clock },
    accounts: {
      find: async (identity) => ({ uuid: "u", identity, name: "A Person" }),
      authenticateCode: () => Promise.reject(new Error("not here")),
      authenticatePassword: () => Promise.reject(new Error("not here")),
      redeem: async () => true,
    },
  });
  const newKey = () => generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey;
  let person = 0;
  const signal = new AbortController().signal;
  writeFileSync(
    at("leaf.cnf"),
    "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,emailProtection\nsubjectAltName=email:a@bench.test\n",
  );
  writeFileSync(at("issuing.key"), keys.issuing.privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
  writeFileSync(at("leaf.csr"), derToPem(makeCsr({ privateKey: newKey(), commonName: "x" }), "CERTIFICATE REQUEST"));
  const command = ["x509", "-req", "-in", at("leaf.csr"), "-CA", at("ca/issuing.pem"), "-CAkey", at("issuing.key")];
  const requests = Array.from({ length: (ROUNDS + 1) * ISSUED }, () =>
    makeCsr({ privateKey: newKey(), commonName: "x" }),
  );
  await compare({
    ...{
      area,
      case: "P-256 certificates, CSR to durable register | openssl x509 -req",
      unit: "certificates",
      per: "second",
    },
    ...{ rounds: ROUNDS, target: 10, versions },
    ours: () =>
      timed(async () => {
        for (const csr of requests.splice(0, ISSUED)) {
          const identity = parseIdentity(`p${(person += 1)}@bench.test`);
          const account = { uuid: "u", identity, name: "A Person" };
          await registration.enrol({ account, by: { method: "password" } }, "auth", csr, undefined, signal);
        }
        return ISSUED;
      }),
    rival: () =>
      timed(() => {
        for (let n = 0; n < BY_OPENSSL; n += 1)
          openssl(
            ...command,
            "-set_serial",
            String(n + 1),
            "-days",
            "30",
            "-extfile",
            at("leaf.cnf"),
            "-out",
            at("leaf.pem"),
          );
        return BY_OPENSSL;
      }),
  });
}

/** One request a connection: openssl's responder knows no other. */
function post(port: number, body: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    const parts: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => parts.push(chunk));
    socket.on("error", reject);
    socket.setTimeout(5_000, () => socket.destroy(new Error(`no answer; ${Buffer.concat(parts).length} octets`)));
    socket.on("close", () => resolve(Buffer.concat(parts)));
    const type = "Content-Type: application/ocsp-request\r\nConnection: close\r\n";
    socket.write(`POST /ocsp HTTP/1.0\r\nHost: x\r\n${type}Content-Length: ${body.length}\r\n\r\n`);
    socket.write(body);
  });
}

/** Requests one after another over one connection, as programs ask that check many certificates. */
async function kept(port: number, requests: readonly Buffer[]): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: 4 });
  let next = 0;
  const ask = (body: Buffer) =>
    new Promise<void>((resolve, reject) => {
      const headers = { "content-type": "application/ocsp-request", "content-length": body.length };
      const outgoing = request(
        { agent, port, host: "127.0.0.1", path: "/ocsp", method: "POST", headers },
        (response) => {
          response.on("end", resolve);
          response.resume();
        },
      );
      outgoing.on("error", reject);
      outgoing.end(body);
    });
  const lane = async () => {
    for (let n = next++; n < ANSWERS; n = next++) await ask(requests[n % requests.length] as Buffer);
  };
  await Promise.all(Array.from({ length: 4 }, lane));
  agent.destroy();
  return ANSWERS;
}

async function answers(port: number, requests: readonly Buffer[]): Promise<number> {
  let next = 0;
  const lane = async () => {
    for (let n = next++; n < ANSWERS; n = next++) {
      const reply = await post(port, requests[n % requests.length] as Buffer);
      const body = reply.subarray(reply.indexOf("\r\n\r\n") + 4);
      if (n % 100 === 0 && parseOcspResponse(body).basic?.answers[0]?.status.status !== "good")
        throw new Error("the answer is not good");
    }
  };
  await Promise.all(Array.from({ length: 4 }, lane));
  return ANSWERS;
}

async function ocsp(): Promise<void> {
  const known = ca.register.list({ limit: 200 });
  const date = (time: Date) =>
    `${time
      .toISOString()
      .replace(/[-:T]|\.\d+/g, "")
      .slice(2, 14)}Z`;
  const line = (serial: string, end: Date) => `V\t${date(end)}\t\t${serial.toUpperCase()}\tunknown\t/CN=${serial}\n`;
  writeFileSync(
    at("index.txt"),
    known.map(({ serial, certificate }) => line(serial, certificate.validity.notAfter)).join(""),
  );
  const port = await freePort();
  const pem = at("ca/issuing.pem");
  const responder = [
    "ocsp",
    "-index",
    at("index.txt"),
    "-port",
    String(port),
    "-rsigner",
    pem,
    "-rkey",
    at("issuing.key"),
  ];
  const rival = await pinned(1, "openssl", [...responder, "-CA", pem, "-nmin", "60"], {
    ready: true, // "ACCEPT": one that only looks whether it listens would stop it
  });
  const server = new URL("./irp-server.ts", import.meta.url).pathname;
  const ours = await pinned(1, process.execPath, [server, folder], { ready: true });
  const certificateOf = (n: number) => (known[n % known.length] as { certificate: Certificate }).certificate;
  const plain = known.map((_, n) => makeOcspRequest({ certificate: certificateOf(n), issuer }));
  const nonces = Array.from({ length: 500 }, (_, n) =>
    makeOcspRequest({ certificate: certificateOf(n), issuer, nonce: randomBytes(32) }),
  );
  try {
    for (const [what, requests, ask] of [
      ["OCSP answers, as most ask: without nonce", plain, answers],
      ["OCSP answers, each signed anew: with nonce", nonces, answers],
      ["OCSP answers without nonce, ours over kept connections, which it does not know", plain, kept],
    ] as const) {
      const sample = async (pid: number, of: number): Promise<Sample> => {
        const before = cpuSeconds(pid);
        const units = await (pid === ours.pid ? ask : answers)(of, requests);
        return { units, cpuSeconds: cpuSeconds(pid) - before };
      };
      await compare({
        ...{ area, case: `${what} | openssl ocsp -port`, unit: "answers", rounds: ROUNDS, target: 2, versions },
        ours: () => sample(ours.pid, Number(ours.line)),
        rival: () => sample(rival.pid, port),
      });
    }
  } finally {
    await ended(ours.child);
    await ended(rival.child);
  }
}

async function lists(): Promise<void> {
  const { database } = ca.register;
  const [{ serial } = { serial: "" }] = ca.register.list({ limit: 1 });
  const now = Date.now();
  const serials = Array.from({ length: ENTRIES }, (_, n) =>
    createHash("sha256").update(`${n}`).digest("hex").slice(0, 32).replace(/^./, "4"),
  );
  database.transaction(() => {
    for (const one of serials)
      database.run(
        `insert into certificates (serial, kind, identity, fingerprint, label, csr, issued_at, not_after, revoked_at, der, issuer, reason)
         select ?, kind, identity, fingerprint, label, csr, issued_at, not_after, ?, der, issuer, 'keyCompromise' from certificates where serial = ?`,
        ...[one, now, serial],
      );
  });
  mkdirSync(at("ca-index"));
  const end = "301231235959Z";
  const since = "261101000000Z,keyCompromise";
  writeFileSync(
    at("ca-index/index.txt"),
    serials.map((one) => `R\t${end}\t${since}\t${one.toUpperCase()}\tunknown\t/CN=x\n`).join(""),
  );
  writeFileSync(at("ca-index/crlnumber"), "01\n");
  writeFileSync(
    at("ca.cnf"),
    `[ca]\ndefault_ca=d\n[d]\ndatabase=${at("ca-index/index.txt")}\ncrlnumber=${at("ca-index/crlnumber")}\ndefault_md=sha256\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n`,
  );
  const gencrl = [
    "ca",
    "-config",
    at("ca.cnf"),
    "-gencrl",
    "-crldays",
    "1",
    "-cert",
    at("ca/issuing.pem"),
    "-keyfile",
    at("issuing.key"),
  ];
  await compare({
    ...{
      area,
      case: `revocation lists of ${ENTRIES} entries, register to durable list | openssl ca -gencrl`,
      unit: "lists",
    },
    ...{ per: "second", rounds: ROUNDS, target: 1, versions },
    ours: () =>
      timed(() => {
        database.run("update crls set this_update = 0"); // so that it is due
        ca.signLists();
        return 1;
      }),
    rival: () =>
      timed(() => {
        openssl(...gencrl, "-out", at("list.pem"));
        return 1;
      }),
  });
  if (parseRevocationList(ca.crl()?.der ?? new Uint8Array()).size !== ENTRIES) throw new Error("entries are missing");
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

try {
  await certificates();
  await ocsp();
  await lists();
} finally {
  ca.close();
  rmSync(folder, { recursive: true, force: true });
}
