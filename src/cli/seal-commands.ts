import { createPrivateKey } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Command } from "commander";
import { loadConfig } from "../node/config.ts";
import type { Home } from "../node/home.ts";
import { KeyFiles, sealSigner } from "../node/keys.ts";
import { readCertificates } from "../node/trust-rules.ts";
import { type Certificate, type PeerCertificate, parseCertificate, peerCertificate } from "../pki/certificate.ts";
import { type TrustAnchor, validatePath } from "../pki/path.ts";
import { pemToDer } from "../pki/pem.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { envelopedData } from "../smime/envelope-write.ts";
import { Keyring, type OwnKey } from "../smime/keyring.ts";
import { PartFile } from "../smime/part-file.ts";
import { algorithmsOf, type Profile } from "../smime/profile.ts";
import { type Layer, type Read, read } from "../smime/read.ts";
import { checkRecipient } from "../smime/recipient-write.ts";
import { type SealFileOptions, sealFile } from "../smime/seal-file.ts";
import { untilAborted } from "../smime/sealed-input.ts";
import type { VerifiedSignature } from "../smime/signed-verify.ts";
import { opaqueSignedData, type Signer } from "../smime/signed-write.ts";
import { Threads } from "../smime/threads.ts";
import { print, withJson } from "./asking.ts";
import { ask } from "./client.ts";
import { bytesOf, opened, shown } from "./given-file.ts";
import { homeOf } from "./home.ts";
import { interruptible } from "./interruptible.ts";

const ASK_MS = 30_000;

interface KeyOptions {
  cert?: string;
  key?: string;
}

/** S/MIME on files, for whoever needs no node for it: what these write openssl's `cms` reads, and the other way round. */
export function sealCommands(): Command[] {
  return [sealCommand(), openCommand(), verifyCommand()];
}

function sealCommand(): Command {
  const command = withKey(
    new Command("seal")
      .description("sign a file and encrypt it for people: CMS, DER; nobody else opens it, nobody changes it unnoticed")
      .argument("<file>", "what is sealed")
      .requiredOption("--to <who...>", "user@domain, whom the running node looks up, or a PEM file with a certificate")
      .option("--gcm", "AES-GCM with OAEP also for those of whom nothing is known; older programs read CBC alone")
      .option("--pss", "sign by RSA-PSS (if the signer's key is RSA), which older programs cannot verify")
      .option("--out <file>", "where to (default: the file's name and .p7m)"),
    "who signs (default: the owner of this home)",
  );
  return withJson(command, "seal report.pdf --to bob@beta.test --to carol.pem").action(
    async (
      file: string,
      o: KeyOptions & { to: string[]; gcm?: boolean; pss?: boolean; out?: string },
      self: Command,
    ) => {
      const home = homeOf(self);
      const signer: Signer = { ...signerOf(home, o), ...(o.pss === true ? { rsaSignature: "pss" } : {}) };
      const people = await Promise.all(o.to.map((who) => recipientOf(home, who)));
      const now = new Date();
      for (const { certificate } of people) checkRecipient(certificate, now);
      const isNode = o.gcm === true || people.every(({ gcm }) => gcm);
      const profile: Profile = isNode ? "peer" : "foreign";
      const certificates = people.map(({ certificate }) => certificate);
      const out = resolve(o.out ?? `${file}.p7m`);
      const how = { signer, now, recipients: certificates, profile, mime: false };
      await interruptible((signal) => sealTo(out, file, how, signal));
      const cipher = algorithmsOf(profile).content.name;
      print(
        self,
        { out, cipher, to: certificates.map(nameOf) },
        (result: { out: string; cipher: string; to: string[] }) =>
          `${result.out}: ${result.cipher}, for ${result.to.join(", ")}`,
      );
    },
  );
}

function openCommand(): Command {
  const command = withKey(
    new Command("open")
      .description("decrypt an S/MIME object or mail with one's own keys, former ones too, and verify who signed it")
      .argument("<file>", "CMS in DER or PEM, or a mail")
      .option("--anchor <pem...>", "CAs to be trusted (default: those in this home)")
      .option("--unsigned", "take also what nobody signed, or somebody who is not trusted: anybody may have written it")
      .requiredOption("--out <file>", "where the content goes once all of it is verified; must not exist"),
    "whose it is (default: the owner of this home)",
  );
  return withJson(command, "open report.pdf.p7m --out report.pdf").action(
    async (file: string, o: KeyOptions & VerifyOptions & { unsigned?: boolean; out: string }, self: Command) => {
      const home = homeOf(self);
      const out = resolve(o.out);
      if (existsSync(out)) throw taken(out);
      const keys = new Keyring(ownKeys(home, o));
      // Beside the name that it is to get: a name cannot be moved to another file system.
      await withRead(file, { keys, beside: out }, async (found) => {
        const opened = { ...judged(found, anchorsOf(home, o)), out };
        if (opened.problem !== undefined && o.unsigned !== true) throw refused(opened.problem, opened.signers);
        if (found.content === undefined)
          throw new SuiteError("seal-malformed", "there is nothing inside", { fault: "peer" });
        await found.moveTo(out);
        print(self, opened, showVerdict);
      });
    },
  );
}

function verifyCommand(): Command {
  const command = new Command("verify")
    .description("tell who signed an S/MIME object or mail, and whether that holds; exit status 1 if it does not")
    .argument("<file>", "CMS in DER or PEM, or a mail")
    .option("--content <file>", "what was signed, if it is not inside")
    .option("--anchor <pem...>", "CAs to be trusted (default: those in this home)");
  return withJson(command, "verify contract.p7s --content contract.pdf").action(
    async (file: string, o: VerifyOptions & { content?: string }, self: Command) => {
      const home = homeOf(self);
      const keys = new Keyring(existsSync(join(home.keys, "enrolment.json")) ? ownKeys(home, {}) : []);
      const detached = o.content === undefined ? {} : { detached: () => bytesOf(o.content as string) };
      await withRead(file, { keys, beside: resolve(file), ...detached }, async (found) => {
        const verdict = judged(found, anchorsOf(home, o));
        if (verdict.problem !== undefined) throw refused(verdict.problem, verdict.signers);
        print(self, verdict, showVerdict);
      });
    },
  );
}

interface VerifyOptions {
  anchor?: string[];
}

function withKey(command: Command, whose: string): Command {
  return command
    .option("--cert <pem>", `${whose}: certificate, its chain behind it`)
    .option("--key <pem>", "its private key, PKCS#8");
}

interface Verdict {
  protection: Read["protection"];
  /** Of the signatures that hold, who they are by. */
  signers: { name: string; certificate: string; signedAt?: string; trusted: boolean; why?: string }[];
  cipher?: string;
  /** Absent: signed by somebody whom an anchor vouches for. */
  problem?: string;
}

function showVerdict({ protection, signers, cipher, problem, out }: Verdict & { out?: string }): string {
  const lines = signers.map(
    ({ name, certificate, signedAt, trusted, why }) =>
      `signed by ${name}${signedAt === undefined ? "" : ` at ${signedAt}`}, certificate ${certificate}: ${trusted ? "trusted" : `not trusted (${why})`}`,
  );
  const how = cipher === undefined ? protection : `${protection} (${cipher})`;
  return [...(out === undefined ? [] : [`${out}: ${how}`]), ...lines, ...(problem === undefined ? [] : [problem])].join(
    "\n",
  );
}

/** @param o.beside what is read waits in a folder beside this; nothing of it stays */
async function withRead(
  file: string,
  { beside, ...o }: { keys: Keyring; beside: string; detached?: () => AsyncIterable<Uint8Array> },
  use: (found: Read) => Promise<void>,
): Promise<void> {
  const folder = dirname(beside);
  const directory = await mkdtemp(join(folder, ".sixtalk-")).catch((cause: unknown) => {
    const message = "nothing can be written to the folder where the content would wait for being verified";
    throw new SuiteError("store-failed", message, { fault: "local", cause, details: { folder } });
  });
  try {
    const options = { ...o, directory, candidates: [], maxBytes: Number.MAX_SAFE_INTEGER };
    await interruptible(async (signal) => {
      await using found = await shown("reading", file, ({ content }) => read(content, options, signal));
      await use(found);
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function judged({ layers, protection }: Read, anchors: readonly TrustAnchor[]): Verdict {
  // Whoever signs around a ciphertext does not stand for what is in it.
  const innermost = layers.slice(layers.findLastIndex(({ kind }) => kind === "encrypted") + 1);
  const signed = innermost.filter((layer): layer is Layer & { kind: "signed" } => layer.kind === "signed");
  const signers = signed.flatMap(({ signatures, certificates }) =>
    signatures.map((one) => signerOfSignature(one, certificates, anchors)),
  );
  const cipher = layers.flatMap((layer) => (layer.kind === "encrypted" ? [layer.cipher] : []))[0];
  const holds = signed.every(({ signatures, signers: count }) => signatures.length === count);
  const problem =
    signed.length === 0
      ? "nobody signed it"
      : !holds
        ? "a signature does not hold, or its certificate is not there"
        : signers.some(({ trusted }) => !trusted)
          ? "who signed it is not trusted"
          : undefined;
  return {
    protection,
    signers,
    ...(cipher === undefined ? {} : { cipher }),
    ...(problem === undefined ? {} : { problem }),
  };
}

function signerOfSignature(
  { certificate, signingTime }: VerifiedSignature,
  candidates: readonly Certificate[],
  anchors: readonly TrustAnchor[],
): Verdict["signers"][number] {
  const path = validatePath({ leaf: certificate, candidates, anchors, time: new Date(), purpose: "sign" });
  const { notBefore, notAfter } = certificate.validity;
  const inTime = signingTime === undefined || (signingTime >= notBefore && signingTime <= notAfter);
  const why = !path.ok ? path.reason : !inTime ? "signed outside the certificate's validity" : undefined;
  return {
    name: nameOf(peerCertificate(certificate)),
    certificate: certificate.sha256,
    ...(signingTime === undefined ? {} : { signedAt: signingTime.toISOString() }),
    trusted: why === undefined,
    ...(why === undefined ? {} : { why }),
  };
}

function nameOf({ identities, commonName, sha256 }: PeerCertificate): string {
  return identities[0]?.identity ?? commonName ?? sha256;
}

async function recipientOf(home: Home, who: string): Promise<{ certificate: PeerCertificate; gcm: boolean }> {
  if (!who.includes("@") || existsSync(who)) {
    const [leaf] = readCertificates(who);
    return { certificate: peerCertificate(leaf as Certificate), gcm: false };
  }
  const found = await ask<{ certificate?: string; opens: string[] }>(
    home.control,
    "lookup",
    { identity: who },
    AbortSignal.timeout(ASK_MS),
  );
  if (found.certificate === undefined)
    throw new SuiteError("recipient-unusable", "the person has no certificate to seal to", {
      fault: "peer",
      details: { identity: who },
    });
  const [der = new Uint8Array()] = pemToDer(found.certificate, "CERTIFICATE");
  return { certificate: peerCertificate(parseCertificate(der)), gcm: found.opens.includes("gcm") };
}

function signerOf(home: Home, { cert, key }: KeyOptions): Signer {
  if (cert === undefined && key === undefined) {
    const keys = new KeyFiles(home).load();
    const { peer } = loadConfig(home.config);
    return peer === undefined ? keys.auth : sealSigner(keys, peer);
  }
  const { certificate, privateKey, chain } = keyFrom(cert, key);
  return { certificate, privateKey, chain };
}

function ownKeys(home: Home, { cert, key }: KeyOptions): readonly OwnKey[] {
  if (cert !== undefined || key !== undefined) return [keyFrom(cert, key)];
  const { auth, encryption } = new KeyFiles(home).load();
  return [...encryption, auth];
}

function keyFrom(cert: string | undefined, key: string | undefined): OwnKey & { chain: readonly Certificate[] } {
  if (cert === undefined || key === undefined)
    throw new SuiteError("syntax", "--cert and --key belong together", { fault: "local" });
  const [certificate, ...chain] = readCertificates(cert);
  try {
    return { certificate: certificate as Certificate, chain, privateKey: createPrivateKey(readFileSync(key)) };
  } catch (cause) {
    throw new SuiteError("config-invalid", "the private key cannot be read", {
      fault: "local",
      cause,
      details: { key },
    });
  }
}

function anchorsOf(home: Home, { anchor }: VerifyOptions): TrustAnchor[] {
  const inHome = () =>
    existsSync(home.anchors)
      ? readdirSync(home.anchors)
          .filter((name) => name.endsWith(".pem"))
          .map((name) => join(home.anchors, name))
      : [];
  return (anchor ?? inHome()).flatMap((file) =>
    readCertificates(file).map((certificate) => ({ name: file, certificate })),
  );
}

/** Seals a file, or what comes out of a pipe: whole and durable, or not there. */
async function sealTo(
  out: string,
  path: string,
  how: Omit<SealFileOptions, "threads" | "progress">,
  signal: AbortSignal,
): Promise<void> {
  if (existsSync(out)) throw taken(out);
  await using part = new PartFile(dirname(out), { hashed: false });
  await shown("sealing", path, async ({ content, isFile, progress }) => {
    if (!isFile) {
      const signed = opaqueSignedData(untilAborted(content, signal), how.signer, how.now);
      for await (const piece of envelopedData(signed, how.recipients, algorithmsOf(how.profile)))
        await part.write(piece);
      await part.finish();
      return;
    }
    await using file = await opened(path);
    const { size } = await file.stat();
    await part.fill(async (target) => {
      await using threads = new Threads();
      const all = { file, offset: 0, size };
      await sealFile(all, target, { ...how, threads, progress: (bytes) => progress.at(bytes) }, signal);
    });
  });
  await part.moveTo(out);
}

function taken(out: string): SuiteError {
  return new SuiteError("conflict", "there is a file of that name already", { fault: "local", details: { out } });
}

function refused(problem: string, signers: Verdict["signers"]): SuiteError {
  const by = signers.map(({ name, why }) => (why === undefined ? name : `${name}: ${why}`)).join("; ");
  return new SuiteError("seal-untrusted", problem, { fault: "peer", ...(by === "" ? {} : { details: { by } }) });
}
