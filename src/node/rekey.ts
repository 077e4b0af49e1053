import { IrpClient } from "../irp/client.ts";
import type { Credentials } from "../peertls-core/credentials.ts";
import type { Certificate } from "../pki/certificate.ts";
import { identityDomain, parseIdentity } from "../pki/identity.ts";
import type { Log } from "../pki/log.ts";
import { SuiteError } from "../pki/suite-error.ts";
import { anchorsOf } from "./anchors-of.ts";
import type { PeerConfig } from "./config.ts";
import { approved } from "./enrol.ts";
import type { Home } from "./home.ts";
import { KeyFiles, type OwnKeys } from "./keys.ts";
import { deviceLabel, ownRecord } from "./own-record.ts";
import { ownServers } from "./own-servers.ts";
import { publishRecord } from "./publish-record.ts";
import { readCertificates } from "./trust-rules.ts";

export interface RekeyOptions {
  home: Home;
  config: PeerConfig;
  /** Whom to ask where the servers are, if the configuration does not say it; absent: this machine's. */
  dnsServers?: readonly string[];
  clock: () => Date;
  log: Log;
  /** Drops the old key at once. Whoever has not looked since the record listed both is told of a change that nobody vouches for. */
  now?: boolean;
}

export interface Rekeyed {
  certificate: Certificate;
  /** Whether the old key still stands in the record, to be dropped by the next call. */
  bothListed: boolean;
}

/**
 * Another key for this device, with continuity (irp.md §2.6). The first call has the CA certify it for who comes with the old
 * one, and publishes a record, signed by the old key, that lists both: so whoever has pinned the old one follows. The second call
 * publishes one that the new key alone signs and stands in, and revokes the old certificate as superseded. Each step is durable
 * and repeatable: cut off anywhere, the same call goes on. The node must not run meanwhile.
 * @throws SuiteError of the enrolment server, the directory, or the connection
 */
export async function rekey(o: RekeyOptions, signal: AbortSignal): Promise<Rekeyed> {
  const files = new KeyFiles(o.home);
  const identity = parseIdentity(o.config.identity);
  const before = files.load(identity);
  if (files.replacedAuth === undefined) {
    await takeNext(o, files, before, "instead", signal);
    if (o.now !== true) return { certificate: files.load(identity).auth.certificate, bothListed: true };
  }
  const keys = files.load(identity);
  await dropReplaced(o, files, keys, signal);
  o.log.info({ fingerprint: keys.auth.certificate.fingerprint }, "this device has another key");
  return { certificate: keys.auth.certificate, bothListed: false };
}

/**
 * Makes a home that was restored from a backup another device beside the one that the backup is of (irp.md §2.6): it gets an AUTH
 * key of its own, certified for who comes with the old one and vouched for by it; the encryption keys are the person's, not the
 * device's, and stay. Cut off anywhere, the same call goes on. Neither node need be stopped but this home's.
 * @throws SuiteError conflict when this home is a device of its own; as `rekey`
 */
export async function addDevice(o: RekeyOptions, signal: AbortSignal): Promise<Certificate> {
  const files = new KeyFiles(o.home);
  const identity = parseIdentity(o.config.identity);
  const before = files.load(identity);
  if (before.auth.renewAfter.getTime() !== 0 || files.replacedAuth !== undefined)
    throw new SuiteError("conflict", "this home is a device of its own already; another comes out of a backup", {
      fault: "local",
    });
  await takeNext(o, files, before, "beside", signal);
  return files.load(identity).auth.certificate;
}

async function takeNext(
  o: RekeyOptions,
  files: KeyFiles,
  before: OwnKeys,
  place: "instead" | "beside",
  signal: AbortSignal,
): Promise<void> {
  const { csr, certificates: there } = files.nextAuth(parseIdentity(o.config.identity));
  let certificates = there;
  if (certificates.length === 0) {
    const client = await connect(o, before.auth, signal);
    try {
      ({ certificates } = await approved(await client.renew("auth", "new", csr), client, signal));
    } finally {
      client.close();
    }
    files.storeNextAuth(certificates);
  }
  const [certificate] = certificates;
  if (certificate === undefined) throw new SuiteError("syntax", "the server sent no certificate", { fault: "service" });
  const listed = place === "beside" ? [certificate] : [before.auth.certificate, certificate];
  await publish(o, before, listed, [], signal);
  files.switchAuth(twoThirdsOf(certificate), place);
}

async function dropReplaced(o: RekeyOptions, files: KeyFiles, keys: OwnKeys, signal: AbortSignal): Promise<void> {
  const old = files.replacedAuth;
  await publish(o, keys, [keys.auth.certificate], old === undefined ? [] : [old.fingerprint], signal);
  if (old === undefined) return;
  const client = await connect(o, keys.auth, signal);
  try {
    await client.revoke(Buffer.from(old.serial).toString("hex"), "superseded");
  } catch (error) {
    // Another CA issued it, which has to be told by its own way: here its key is blocked.
    if (!(error instanceof SuiteError) || error.details["code"] !== "upstream") throw error;
  } finally {
    client.close();
  }
  files.forgetReplaced();
}

function twoThirdsOf({ validity: { notBefore, notAfter } }: Certificate): Date {
  return new Date(notBefore.getTime() + ((notAfter.getTime() - notBefore.getTime()) * 2) / 3);
}

async function connect(
  { config, dnsServers = [], clock }: RekeyOptions,
  credentials: Credentials,
  signal: AbortSignal,
): Promise<IrpClient> {
  const domain = identityDomain(parseIdentity(config.identity));
  const anchors = anchorsOf(domain, readCertificates(config.directory.anchor));
  const at = {
    address: await ownServers(config, dnsServers, clock).irp(),
    domain,
    trust: { anchors },
    credentials,
    clock,
  };
  const client = await IrpClient.connect(at, signal);
  try {
    await client.authenticateByCertificate();
    return client;
  } catch (error) {
    client.close();
    throw error;
  }
}

/** The own record with these devices of ours beside the others, signed by the AUTH key of `keys`. */
async function publish(
  o: RekeyOptions,
  keys: OwnKeys,
  devices: readonly Certificate[],
  without: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const { home, config, clock, log } = o;
  const label = deviceLabel();
  const own = ownRecord(parseIdentity(config.identity), config.name, label, keys, clock());
  const ours = { ...own, devices: devices.map((certificate) => ({ certificate, label })) };
  const servers = ownServers(config, o.dnsServers ?? [], clock);
  const roots = readCertificates(config.directory.anchor);
  await publishRecord({ ...{ home, servers, roots, keys, own: ours, without }, clock, log }, signal);
}
