import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
} from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { promisify } from "node:util";
import { gunzip, gzip } from "node:zlib";
import { parse, parseDocument, stringify } from "yaml";
import { z } from "zod";
import { syncDirectory, writeDurably } from "../irp/key-file.ts";
import { fingerprintOf, parseCertificate } from "../pki/certificate.ts";
import * as der from "../pki/der.ts";
import { type Identity, parseIdentity } from "../pki/identity.ts";
import { pemToDer } from "../pki/pem.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { type Pkcs12, readPkcs12 } from "../smime/pkcs12-read.ts";
import { writePkcs12 } from "../smime/pkcs12-write.ts";
import { loadConfig } from "./config.ts";
import { type Home, homeAt, makeHome } from "./home.ts";
import { KeyFiles } from "./keys.ts";
import { chainOf, pkcs12KeysOf } from "./own-pkcs12.ts";
import { State } from "./state.ts";
import { readCertificates } from "./trust-rules.ts";

// A backup is one PKCS#12 file: the keys and certificates in it are read by any program that reads such files, should there be no
// SixTalk any more. All else that makes a node the same person again lies in it as a secret bag, so that one passphrase and one MAC
// protect the whole: who the contacts are is nobody's business either, and two files would get separated.

/** Type of the secret bag: an identifier of nobody else (2.25: a UUID, ITU-T X.667). */
const HOME_FILES = "2.25.325316233627124017154061145225069888751";
const MAX_BACKUP_BYTES = 64 * 1_048_576;
const MAX_FILES_BYTES = 256 * 1_048_576;

/** What the secret bag has, as JSON, compressed: names relative to the home, contents in base64. */
const FILES = z.object({ format: z.literal(1), files: z.record(z.string(), z.base64()) });
/** The domain's part of the configuration, where the home was a domain's server, too. */
const DOMAIN_PART = "domain.yaml";
const NAME =
  /^(?:sixtalk\.yaml|domain\.yaml|state\.db|keys\/(?:enrolment\.json|local-ca\.key|auth\.pem|encryption-\d{1,9}\.pem)|anchors\/[\w@+-][\w@+.-]{0,200})$/;

export interface Backup {
  file: Buffer;
  identity: Identity;
  /** Private keys, and certificates of theirs, in it. */
  keys: number;
  certificates: number;
  /** The domain that this home is the server of, too. Of its directory and CA nothing is in the backup. */
  domain?: string;
}

/**
 * All that makes a node the same person again: keys with their whole history, settings, contacts, trust, app passwords. Not what
 * came and what waits. The node may run meanwhile.
 * @throws SuiteError config-invalid when this is no person's home; as `writePkcs12`
 */
export async function makeBackup(
  o: {
    home: Home;
    passphrase: string;
    random: (length: number) => Buffer;
  },
  signal?: AbortSignal,
): Promise<Backup> {
  const { home } = o;
  const { peer, domain } = loadConfig(home.config);
  if (peer === undefined)
    throw new SuiteError("config-invalid", "this home is no person's", {
      fault: "local",
      details: { home: home.directory },
    });
  const identity = parseIdentity(peer.identity);
  const own = new KeyFiles(home).load(identity);
  const keys = pkcs12KeysOf(identity, own);
  const files = filesOf(home);
  const json = JSON.stringify({ format: 1, files });
  const packed = await promisify(gzip)(json);
  const file = await writePkcs12(
    {
      keys,
      chain: chainOf(own, readCertificates(peer.directory.anchor)),
      secrets: [{ type: HOME_FILES, value: der.octetString(packed) }],
      passphrase: o.passphrase,
      protection: "modern",
      random: o.random,
    },
    signal,
  );
  if (file.length > MAX_BACKUP_BYTES) throw new SuiteError("limit-exceeded", "too large a backup", { fault: "local" });
  const certificates = keys.reduce((sum, key) => sum + key.certificates.length, 0);
  return { file, identity, keys: keys.length, certificates, ...(domain === undefined ? {} : { domain: domain.name }) };
}

/**
 * Makes a home of a backup. The home appears whole and at once, or not at all. Its certificates are renewed at the first start: later ones
 * than the backup has may be known to others.
 * @param passphrases to be tried in turn
 * @throws SuiteError conflict if there is something in the home; store-failed; cancelled; auth-failed, syntax, unsupported as `readPkcs12`
 */
export async function restoreBackup(
  o: {
    home: Home;
    file: Uint8Array;
    passphrases: readonly string[];
  },
  signal?: AbortSignal,
): Promise<Restored> {
  const { home } = o;
  refuseUsed(home);
  const backup = await readWith(o.passphrases, o.file, signal);
  const files = await filesIn(backup);
  if (signal?.aborted === true) throw new SuiteError("cancelled", "nothing was restored", { fault: "local" });
  try {
    return placed(files, backup, home);
  } catch (cause) {
    if (cause instanceof SuiteError) throw cause;
    throw new SuiteError("store-failed", "the home cannot be made there", {
      fault: "local",
      cause,
      details: { home: home.directory },
    });
  }
}

export interface Restored {
  identity: Identity;
  keys: number;
  /** The domain that the home was the server of, too: its directory and CA have to be put back by hand, its settings stand in `domain.yaml`. */
  domain?: string;
}

/** Beside the home first, then in its place by one rename. */
function placed(files: ReadonlyMap<string, Buffer>, backup: Pkcs12, home: Home): Restored {
  const target = existsSync(home.directory) ? realpathSync(home.directory) : home.directory;
  const parent = dirname(target);
  mkdirSync(parent, { recursive: true });
  for (const stray of readdirSync(parent)) // of a restore that was killed; there are keys in it
    if (stray.startsWith(`${basename(target)}.restoring-`)) rmSync(join(parent, stray), { recursive: true });
  const made = homeAt(mkdtempSync(`${target}.restoring-`), {});
  try {
    makeHome(made);
    for (const [name, content] of files) writeDurably(join(made.directory, name), content);
    const keys = writeKeys(made, backup);
    const identity = checked(made);
    const part = files.get(DOMAIN_PART);
    const domain = part === undefined ? undefined : loadDomainPart(part);
    refuseUsed(home);
    renameSync(made.directory, target); // which replaces nothing but an empty folder
    syncDirectory(target);
    return { identity, keys, ...(domain === undefined ? {} : { domain }) };
  } catch (error) {
    rmSync(made.directory, { recursive: true, force: true });
    throw error;
  }
}

function loadDomainPart(part: Buffer): string {
  const result = z.object({ domain: z.object({ name: z.string() }) }).safeParse(parse(part.toString()));
  if (!result.success) throw new SuiteError("syntax", "not a backup that this version reads", { fault: "local" });
  return result.data.domain.name;
}

function refuseUsed({ directory }: Home): void {
  if (existsSync(directory) && readdirSync(directory).length > 0)
    throw new SuiteError("conflict", "this home is in use; restore into another with --home", {
      fault: "local",
      details: { home: directory },
    });
}

async function readWith(
  passphrases: readonly string[],
  file: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<Pkcs12> {
  for (const passphrase of passphrases.slice(0, -1)) {
    try {
      return await readPkcs12(file, passphrase, MAX_BACKUP_BYTES, signal);
    } catch (error) {
      if (!(error instanceof SuiteError) || error.code !== "auth-failed") throw error;
    }
  }
  return readPkcs12(file, passphrases.at(-1) ?? "", MAX_BACKUP_BYTES, signal);
}

async function filesIn({ secrets }: Pkcs12): Promise<Map<string, Buffer>> {
  const secret = secrets.find(({ type }) => type === HOME_FILES);
  if (secret === undefined)
    throw new SuiteError("syntax", "there are keys in this file, but it is no backup of a home", { fault: "local" });
  try {
    const packed = der.readOctetString(der.readDer(secret.value));
    const json = await promisify(gunzip)(packed, { maxOutputLength: MAX_FILES_BYTES });
    const { files } = FILES.parse(JSON.parse(json.toString()));
    const stranger = Object.keys(files).find((name) => !NAME.test(name));
    if (stranger !== undefined) throw new Error(`not a file of a backup: ${stranger}`);
    return new Map(Object.entries(files).map(([name, content]) => [name, Buffer.from(content, "base64")]));
  } catch (cause) {
    throw new SuiteError("syntax", "not a backup that this version reads", { fault: "local", cause });
  }
}

/** To each certificate file its key; one without is left out, as a renewal that was not finished. @returns how many keys */
function writeKeys(home: Home, { keys }: Pkcs12): number {
  const byFingerprint = new Map(keys.map(({ privateKey }) => [fingerprintOf(privateKey), privateKey]));
  for (const name of readdirSync(home.keys).filter((one) => one.endsWith(".pem"))) {
    const [leaf] = pemToDer(readFileSync(join(home.keys, name), "utf8"), "CERTIFICATE");
    const key = byFingerprint.get(parseCertificate(leaf ?? new Uint8Array()).fingerprint);
    if (key === undefined) rmSync(join(home.keys, name));
    else
      writeDurably(
        join(home.keys, name.replace(/pem$/, "key")),
        key.export({ type: "pkcs8", format: "pem" }) as string,
      );
  }
  return byFingerprint.size;
}

/** Whether a node would start from it. @throws SuiteError config-invalid, store-failed */
function checked(home: Home): Identity {
  const { peer } = loadConfig(home.config);
  const identity = parseIdentity(peer?.identity ?? "");
  const files = new KeyFiles(home);
  const { uuid } = files.load(identity);
  files.storeEnrolment({ uuid, renewAfter: { auth: new Date(0), encryption: new Date(0) } });
  new State(home.state).close();
  return identity;
}

function filesOf(home: Home): Record<string, string> {
  const { config, domain, anchors } = portableConfig(home);
  const files: [string, Uint8Array][] = [
    ...anchors,
    ...(domain === undefined ? [] : [[DOMAIN_PART, Buffer.from(domain)] as [string, Uint8Array]]),
    ["sixtalk.yaml", Buffer.from(config)],
    ["state.db", stateOf(home)],
  ];
  for (const name of readdirSync(home.keys)) files.push([`keys/${name}`, readFileSync(join(home.keys, name))]);
  for (const name of readdirSync(home.anchors)) files.push([`anchors/${name}`, readFileSync(join(home.anchors, name))]);
  return Object.fromEntries(
    files.filter(([name]) => NAME.test(name)).map(([name, content]) => [name, Buffer.from(content).toString("base64")]),
  );
}

/**
 * The configuration with every file that it names in `anchors/`, and without the domain's part, which stands by itself: a home that
 * has the part and not the CA would make another CA, which nobody knows.
 */
function portableConfig(home: Home): { config: string; domain?: string; anchors: [string, Uint8Array][] } {
  const document = parseDocument(readFileSync(home.config, "utf8"));
  const { peer, trust } = loadConfig(home.config);
  const anchors: [string, Uint8Array][] = [];
  const take = (path: (string | number)[], file: string) => {
    const inHome = relative(home.directory, file);
    const name = NAME.test(inHome) ? inHome : `anchors/restored-${anchors.length + 1}.pem`;
    if (name !== inHome) anchors.push([name, readFileSync(file)]);
    document.setIn(path, name);
  };
  if (peer !== undefined) take(["peer", "directory", "anchor"], peer.directory.anchor);
  for (const [at, { file }] of trust.anchors.entries()) take(["trust", "anchors", at, "file"], file);
  const { domain } = document.toJS() as { domain?: unknown };
  document.delete("domain");
  return {
    config: document.toString(),
    ...(domain === undefined ? {} : { domain: stringify({ domain }) }),
    anchors,
  };
}

/** A copy of the state as of now, whoever writes to it. */
function stateOf(home: Home): Uint8Array {
  const copy = join(mkdtempSync(join(home.directory, "backup-")), "state.db");
  try {
    const state = new State(home.state); // which makes it, if the node never ran
    state.close();
    const database = new DatabaseSync(home.state);
    try {
      database.exec("pragma busy_timeout = 5000");
      database.prepare("vacuum into ?").run(copy);
    } finally {
      database.close();
    }
    return readFileSync(copy);
  } finally {
    rmSync(dirname(copy), { recursive: true, force: true });
  }
}
